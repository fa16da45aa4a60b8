"""What a training step of the smallest network costs, in instructions: the overhead of a step on any machine.

Callgrind counts them in a process of its own, on the AVX2 target, which it can run. A time would depend on the load of
the machine; this number depends on the compiler and the code only.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

import fastmlp

STEPS = 100
# For one step of 2-4-1 on a batch of 4: 2,078 with GCC 12 (the bound leaves a tenth for other compilers). It is to be
# lowered with every gain, or the gain will be lost again.
MOST_INSTRUCTIONS = 2300

MARKS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void stop(void) { CALLGRIND_DUMP_STATS; CALLGRIND_STOP_INSTRUMENTATION; }
"""

# The first run is not counted: it binds symbols. Of the others one has twice the steps, so that all else cancels.
PROGRAM = f"""
import ctypes, sys
import numpy as np
from fastmlp import MLP, SGD, datasets
from fastmlp.runtime import _engine

marks = ctypes.CDLL(sys.argv[1])
X, y = datasets.xor()
net = MLP([2, 4, 1], "tanh", "binary_cross_entropy", seed=0)
plan = net.plan(batch_size=4, optimizer=SGD(0.5, momentum=0.9))
engine = _engine.Engine(plan, "avx2")
for i, data in zip(plan.gathers, (X, y.reshape(-1, 1).astype(np.float64)), strict=True):
    engine.bind(i, data)
for steps in ({STEPS}, {STEPS}, {2 * STEPS}):
    run = np.tile(np.arange(4), steps), 4 * np.arange(steps + 1), np.full(steps, 0.5)
    marks.start()
    engine.run(*run)
    marks.stop()
print(engine.run(*run)[-1])
"""


@pytest.fixture
def marks(tmp_path):
    """A library that switches the counting on and off."""
    if "avx2" not in fastmlp.targets():
        pytest.skip("the AVX2 target is not here")
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not (compiler and shutil.which("valgrind")):
        pytest.skip("needs valgrind and a C compiler")
    library = tmp_path / "marks.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", library]
    if subprocess.run(command, input=MARKS, text=True, capture_output=True).returncode:
        pytest.skip("valgrind's header valgrind/callgrind.h is not here")
    return library


def test_instructions_of_a_small_step(marks, tmp_path):
    command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={tmp_path / 'counts'}"]
    done = subprocess.run([*command, sys.executable, "-c", PROGRAM, marks], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert 0 < float(done.stdout) < 0.3, "nothing was learnt: these were no training steps"
    counts = [int(re.search(r"^totals: (\d+)", (tmp_path / f"counts.{i}").read_text(), re.M)[1]) for i in (2, 3)]
    instructions = (counts[1] - counts[0]) / STEPS
    assert 100 < instructions <= MOST_INSTRUCTIONS
