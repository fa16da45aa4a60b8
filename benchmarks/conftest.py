"""Shared by the pytest-benchmark suites: the tests' shapes and one-op plans, and conversion of results to GFLOP/s.

    python -m pytest benchmarks/bench_kernels.py --benchmark-columns=min,median --benchmark-sort=name

Results go to extra_info and to the summary at the end: GFLOP/s, and percent of the best FMA peak measured next to it
or earlier in the session. `--benchmark-json=file` keeps them; compare only what ran on the same machine.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "tests")]

import roofline  # noqa: E402

import fastmlp  # noqa: E402

RESULTS = []
PEAKS = {}  # the best so far, by (dtype, threads), with which the best round is compared


@pytest.fixture(params=fastmlp.targets() or ["none"])
def target(request, monkeypatch):
    """Every target that this CPU supports."""
    if request.param == "none":
        pytest.skip("the compiled engine is not built")
    monkeypatch.setenv("FASTMLP_TARGET", request.param)
    return request.param


@pytest.fixture
def rng():
    return np.random.default_rng(20260101)


@pytest.fixture
def timed(benchmark, request):
    """timed(function, flops of one repeat, ...): benchmarks `repeats` of it per round, and records the best rate."""

    def run(function, flops, dtype="float32", threads=1, rounds=15, repeats=1):
        peaks = [PEAKS.get((dtype, threads), 0.0), roofline.peak(dtype, threads)]
        benchmark.pedantic(function, rounds=rounds, iterations=1, warmup_rounds=2)
        top = PEAKS[dtype, threads] = max(*peaks, roofline.peak(dtype, threads))
        if benchmark.stats is None:  # --benchmark-disable
            return
        seconds = benchmark.stats.stats.min / repeats
        info = {"us": seconds * 1e6, "gflops": flops / seconds * 1e-9, "peak": top}
        info["percent_of_peak"] = 100 * info["gflops"] / top
        benchmark.extra_info.update(info)
        RESULTS.append((request.node.name, info))

    return run


def pytest_terminal_summary(terminalreporter):
    if not RESULTS:
        return
    terminalreporter.write_sep("=", "rates (best round; best peak of the session)")
    width = max(len(name) for name, _ in RESULTS)
    for name, info in RESULTS:
        rate = f"{info['gflops']:>8.2f} GFLOP/s {info['percent_of_peak']:>6.1f}% of peak"
        terminalreporter.write_line(f"{name:<{width}} {info['us']:>12.2f} us {rate}")
