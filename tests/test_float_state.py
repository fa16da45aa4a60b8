"""The floating-point state: results do not depend on the caller's, nor on flags that the engine is built with."""

import ctypes
import os
import platform
import subprocess
import sys

import c_code
import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="sets a register of x86")

STATE = """
#include <xmmintrin.h>
unsigned get(void) { return _mm_getcsr(); }
void set(unsigned state) { _mm_setcsr(state); }
"""
FLUSH = 0x8040  # subnormal results and operands are taken for 0


@pytest.fixture(scope="module")
def register(tmp_path_factory):
    folder = tmp_path_factory.mktemp("register")
    (folder / "state.c").write_text(STATE)
    c_code.run(c_code.compiler(), "-shared", "-fPIC", folder / "state.c", "-o", folder / "state.so")
    return ctypes.CDLL(str(folder / "state.so"))


def trained(threads, register, state):
    """Parameters of a network, some of which decay until they are subnormal, and predictions that are subnormal."""
    fastmlp.set_num_threads(threads)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((256, 64), np.float32), rng.integers(0, 10, 256)
    X[:, ::2] = 0
    net, tiny = MLP([64, 128, 10], seed=0), MLP([1, 1], "identity", "mse", weights=[([[1e-30]], [0.0])])
    net.weights[0][::2] *= 1e-36
    before = register.get()
    register.set(before | state)
    net.fit(X, y, epochs=20, batch_size=64, optimizer=SGD(0.05, weight_decay=2.0))
    predictions = [tiny.predict([[1e-9]]) for _ in range(3)]  # not always by the same way
    left = register.get()
    register.set(before)
    assert left & FLUSH == state, "the caller's state is put back"
    decayed = np.abs(net.weights[0][::2])
    assert ((decayed > 0) & (decayed < np.finfo("float32").tiny)).any()
    return net.parameters.tobytes(), [p.tobytes() for p in predictions]


@x86
@needs_engine
def test_results_do_not_depend_on_the_callers_state(all_workers, register):
    expected = trained(1, register, 0)
    assert [trained(threads, register, FLUSH) for threads in (1, 2, 2)] == [expected] * 3


@x86
def test_flags_of_the_environment_do_not_reach_the_engine(tmp_path):
    source = tmp_path / "main.c"
    source.write_text(
        "#include <math.h>\n#include <stdlib.h>\n#include <xmmintrin.h>\n"
        'int main(void) { return isnan(strtod("nan", 0)) && !(_mm_getcsr() & 0x8040) ? 0 : 1; }\n'
    )
    cc = c_code.compiler()
    for asked in ("-ffast-math", "-Ofast"):
        c_code.run(cc, asked, *c_code.engine_flags(), "-c", source, "-o", tmp_path / "main.o")
        c_code.run(cc, asked, tmp_path / "main.o", *c_code.link_flags(), "-lm", "-o", tmp_path / "main")
        ended = c_code.run(tmp_path / "main", allowed=(0, 1))
        assert ended.returncode == 0, f"{asked} reached the program"


@needs_engine
@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="reads Linux's /proc")
def test_helpers_do_not_block_signals_of_their_own_faults():
    code = """if True:
        import os, signal, numpy as np, fastmlp
        from fastmlp import native
        native._engine.insist_on_workers(True)
        fastmlp.set_num_threads(2)
        fastmlp.MLP([64, 256, 10]).fit(np.ones((512, 64), np.float32), np.zeros(512, int), epochs=3)
        blocked = []
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/status") as file:
                masks = [int(line.split()[1], 16) for line in file if line.startswith("SigBlk")]
            blocked += [mask for mask in masks if mask >> (signal.SIGINT - 1) & 1]
        assert blocked, "no helper is there"
        assert not any(mask >> (signal.SIGSEGV - 1) & 1 for mask in blocked)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
