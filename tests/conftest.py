"""Shared by all tests: the targets of this CPU, engines bound to data, compiled C code, hypothesis profiles."""

import c_code
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from trainer_options import N

import fastmlp
from fastmlp import runtime

COMPILED = runtime._engine.targets(supported=False) if runtime._engine else ()
needs_engine = pytest.mark.skipif(runtime._engine is None, reason="the compiled engine is not built")

# No deadline: machines are slow at times. The profile for searches of hours is chosen by --hypothesis-profile=search.
patient = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("suite", max_examples=120, derandomize=True, **patient)
settings.register_profile("search", max_examples=1_000_000, print_blob=True, **patient)
settings.load_profile("suite")


def engine_on(plan, X, y):
    """The compiled executor of a training plan, on this data."""
    runner = runtime.executor(plan, "engine")
    for i, array in zip(plan.gathers, (X, y), strict=True):
        runner.bind(i, array)
    return runner


@pytest.fixture(autouse=True)
def all_workers():
    """Runs get all the workers that they ask for, however busy the machine is."""
    if runtime._engine:
        runtime._engine.insist_on_workers(True)


@pytest.fixture(autouse=True)
def default_threads():
    """No test leaves its number of threads to the next one."""
    yield
    fastmlp.set_num_threads(None)


def pytest_report_header():
    return [f"fastmlp targets: compiled {COMPILED}, supported {fastmlp.targets()}", fastmlp.show_config()]


@pytest.fixture(params=COMPILED or ["none"])
def target(request):
    """Every compiled target; skipped, with the reason, where this CPU lacks it."""
    if request.param not in fastmlp.targets():
        pytest.skip(f"{request.param}: not supported by this CPU" if COMPILED else "the compiled engine is not built")
    return request.param


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return np.dtype(request.param)


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


@pytest.fixture
def data(rng):
    X = rng.standard_normal((N, 5))
    return X, (X @ rng.standard_normal((5, 3))).argmax(axis=1)


def objects_of_digests(folder, compiler, *flags, more=lambda source: ()):
    """The objects of digest.c and all of csrc, compiled once for all programs that need them."""
    sources = [c_code.TESTS / "digest.c", *sorted(c_code.CSRC.glob("*.c"))]
    flags = [*c_code.engine_flags(), *flags, f"-I{c_code.CSRC}"]
    return c_code.compile_all(folder, sources, *flags, compiler=compiler, more=more)


@pytest.fixture(scope="session")
def host_objects(tmp_path_factory):
    """For this machine. Digests do not depend on the optimisation, and -O0 compiles in a quarter of the time.

    With sanitizers, if there are any. Of the kernels only two targets are instrumented, and only their accesses to
    memory: with all checks they take four times as long to compile.
    """
    compiler = c_code.compiler()
    found = c_code.sanitizers(compiler)
    kernels = dict.fromkeys(("avx2_f32", "generic_f64"), found and (*found, "-fno-sanitize=undefined"))

    def watch(source):
        kind, _, name = source.stem.partition("_")
        return kernels.get(name, ()) if kind == "target" else found

    return objects_of_digests(tmp_path_factory.mktemp("host"), compiler, "-O0", more=watch)


@pytest.fixture(scope="session")
def arm64_objects(tmp_path_factory):
    """For ARM64, optimised as in the engine: test_disassembly.py examines the k-loops of the kernels."""
    return objects_of_digests(tmp_path_factory.mktemp("arm64"), c_code.compiler(c_code.ARM64), "-fPIC", "-DNDEBUG")


def pytest_collection_modifyitems(items):
    """A test on ``backend="engine"`` needs the engine: skipped, with the reason, where it is not built."""
    for item in items:
        if hasattr(item, "callspec") and item.callspec.params.get("backend") == "engine":
            item.add_marker(needs_engine)
