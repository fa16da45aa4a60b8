"""The benchmarks run, verify what they time, and say what they lack. No time is asserted."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CC", "cc").split()[0]), reason="the peak is measured by compiled C: no C compiler"
)


@pytest.fixture
def tools(monkeypatch):
    """The folder of the benchmarks, importable."""
    monkeypatch.syspath_prepend(str(FOLDER))


def run(script, *arguments):
    return subprocess.run(
        [sys.executable, str(FOLDER / script), *arguments], capture_output=True, text=True, check=False, timeout=300
    )


@needs_compiler
def test_rivals_writes_a_table_of_verified_times(tmp_path):
    table, times = tmp_path / "table.md", tmp_path / "times.json"
    arguments = ["--quick", "--rows=xor", "--rivals=numpy", f"--markdown={table}", f"--json={times}"]
    result = run("rivals.py", *arguments)
    assert result.returncode == 0, result.stderr
    text = table.read_text()
    assert "2-4-1 (tanh), 4" in text
    assert "NumPy by hand |" in text
    assert "FAILED" not in text
    (row,) = json.loads(times.read_text())
    assert all(len(row["seconds"][who]) == 3 for who in ("ours", "by_numpy"))


@needs_compiler
def test_peak_is_a_rate(tools):
    import roofline

    for dtype in ("float32", "float64"):
        assert 0.1 < roofline.peak(dtype, 1, tries=1) < 1e4
    assert roofline.bandwidth(1 << 14, tries=1) > 0


def test_a_wrong_result_is_not_timed(tools):
    from contest import disagreement

    right = {"before": 1.0, "loss": 0.9}
    assert disagreement({"before": 1.0, "loss": 0.90001}, right) is None
    assert "loss" in disagreement({"before": 1.0, "loss": 0.91}, right)
    assert "loss" in disagreement({"before": 1.0, "loss": float("nan")}, right)
    assert "outputs" in disagreement({"outputs": [[0.5, 0.5]]}, {"outputs": [[0.4, 0.6]]})


def test_flops_follow_the_rule(tools):
    import cases

    step, prediction = cases.find("mnist-16,predict-mnist-1")
    assert step.flops == 32 * (4 * 784 * 16 + 6 * 16 * 10)
    assert prediction.flops == 2 * (784 * 128 + 128 * 10)
    with pytest.raises(ValueError, match="no case is called 'nothing'"):
        cases.find("nothing")


def test_import_brings_in_nothing_heavy(tools):
    import import_time

    seconds, heavy = import_time.imported("fastmlp")
    assert seconds > 0
    assert heavy == []


def test_memory_of_a_fit_is_measured():
    pytest.importorskip("resource", reason="needs POSIX")
    result = run("memory.py", "mnist-512")  # a smaller one needs no more than what the system forgets to count at once
    assert result.returncode == 0, result.stderr
    assert float(result.stdout.splitlines()[-1].split()[-1]) > 0, result.stdout
