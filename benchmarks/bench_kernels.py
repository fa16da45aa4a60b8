"""The matrix kernels one by one, as one-op plans: by shape, target and type; checked against the reference, then timed.

    python -m pytest benchmarks/bench_kernels.py -k "linear_update and 512"
"""

import numpy as np
import pytest
from one_op import guarded, run_checked
from shapes import LAYERS

from fastmlp.plan import Op, Plan, Rule
from fastmlp.runtime import _engine

pytestmark = pytest.mark.skipif(_engine is None, reason="the compiled engine is not built")

BIG = [  # (rows, n_in, n_out): those of the table of networks, then squares and odd sizes
    (32, 784, 16),
    (64, 784, 128),
    (128, 784, 512),
    (128, 512, 512),
    (128, 512, 10),
    (256, 256, 256),
    (200, 300, 300),
    (256, 1024, 4096),
    (256, 300, 500),
    (256, 512, 512),
    (512, 512, 512),
]
SHAPES = [*BIG, *LAYERS]
TURN = 2e-3  # seconds of a round


def op_of(opcode, rng, rows, n_in, n_out, dtype):
    """An op with random buffers; the rates are so small that weights hardly change."""

    def normal(m, n):
        return guarded(m, n, dtype, rng.standard_normal((m, n)))

    fields = {"n_in": n_in, "n_out": n_out, "bias": True}
    if opcode == "linear":
        return Op(opcode, "relu", x=normal(rows, n_in), w=normal(n_in + 1, n_out), y=normal(rows, n_out), **fields)
    if opcode == "linear_back":
        buffers = {"dy": normal(rows, n_out), "w": normal(n_in + 1, n_out), "y": normal(rows, n_in)}
        return Op(opcode, "relu", dx=guarded(rows, n_in, dtype), **buffers, **fields)
    buffers = {"x": normal(rows, n_in), "dy": normal(rows, n_out)}
    if opcode == "linear_grad":
        return Op(opcode, g=normal(n_in + 1, n_out), **buffers, **fields)
    w, s1 = normal(n_in + 1, n_out), normal(n_in + 1, n_out)
    return Op(opcode, "sgd", w=w, s1=s1, rule=Rule(momentum=0.9), **buffers, **fields)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)))
@pytest.mark.parametrize("opcode", ["linear", "linear_back", "linear_grad", "linear_update"])
def test_product(timed, rng, target, opcode, shape, dtype):
    rows, n_in, n_out = shape
    op = op_of(opcode, rng, rows, n_in, n_out, dtype)
    run_checked(op, rows, dtype, target, lr=1e-9)
    plan = Plan("one op", np.dtype(dtype), rows, [op])
    engine, flops = _engine.Engine(plan, target), 2.0 * rows * n_in * n_out
    repeats = int(max(1, TURN / (flops / 50e9 + 1e-7)))
    offsets, lr = np.arange(repeats + 1) * rows, np.full(repeats, 1e-9)
    timed(lambda: engine.run(None, offsets, lr), flops, dtype, repeats=repeats)
