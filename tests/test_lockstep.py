"""Whole training steps in lock step: every activation with every loss, every optimizer over twenty steps."""

import re

import numpy as np
import pytest
from one_op import guarded, run_checked

import fastmlp
from fastmlp import LockStepError, activations, losses
from fastmlp.lockstep import LockStepExecutor
from fastmlp.opcodes import WRITES
from fastmlp.plan import Op, Plan, Rule
from fastmlp.runtime import _engine

pytestmark = pytest.mark.usefixtures("target")

ACTIVATIONS = [
    "identity",
    "sigmoid",
    "tanh",
    "relu",
    "leaky_relu",
    "elu",
    "selu",
    "gelu",
    "silu",
    "mish",
    "softplus",
    "hard_tanh",
]
LOSSES = ["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", losses.Quantile([0.1, 0.5, 0.9]), "poisson"]
OPTIMIZERS = {
    "sgd": fastmlp.SGD(0.01, l1=0.01, l2=0.01),
    "momentum": fastmlp.SGD(0.01, momentum=0.9, weight_decay=0.01),
    "nesterov": fastmlp.SGD(0.01, momentum=0.9, nesterov=True, clip_norm=0.5),
    "rmsprop": fastmlp.RMSprop(0.001, momentum=0.9),
    "adagrad": fastmlp.AdaGrad(0.01),
    "adam": fastmlp.Adam(0.001, clip_value=0.1),
    "adamw": fastmlp.AdamW(0.001),
}


@pytest.fixture(autouse=True)
def both_executors(monkeypatch, target):
    monkeypatch.setenv("FASTMLP_CHECK", "1")  # raises LockStepError where they differ
    monkeypatch.setenv("FASTMLP_TARGET", target)


def steps(rng, dtype, activation, loss, optimizer, n):
    """Steps a network took in lock step."""
    X = rng.standard_normal((9 * n, 7))
    y = rng.integers(0, 3, 9 * n) if loss == "cross_entropy" else rng.random((9 * n, 3))
    net = fastmlp.MLP([7, 18, 5, 3], activation, loss, dtype=dtype, seed=1)
    trainer = fastmlp.Trainer(net, optimizer)
    trainer.fit(X, y, epochs=1, batch_size=9)
    assert all(isinstance(runner, LockStepExecutor) for runner in trainer._plans.values())
    return trainer.steps


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("activation", [*ACTIVATIONS, activations.GELU(approximate=True)], ids=str)
def test_every_activation_with_every_loss(rng, dtype, activation, loss):
    assert steps(rng, dtype, activation, loss, "sgd", 2) == 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_twenty_steps_of_every_optimizer(rng, dtype, name):
    assert steps(rng, dtype, "tanh", "cross_entropy", OPTIMIZERS[name], 20) == 20


@pytest.mark.parametrize("kind", ["rmsprop", "adagrad", "adam"])
def test_gradients_that_cancel_are_no_difference(rng, dtype, target, kind):
    # What is left of them is rounding, of the size of eps; the rule divides one by the other.
    rows, n_in, n_out = 500, 3, 30
    rule = Rule(momentum=0.9, eps=0.01 * np.finfo(dtype).eps)
    x, dy = rng.standard_normal((rows, n_in)).astype(dtype), (0.001 * rng.standard_normal((rows, n_out))).astype(dtype)
    x[:, 1:], x[-1] = x[:, :1], 1
    dy[-1] = -(x[:-1, :1] * dy[:-1]).sum(axis=0)
    x, dy = guarded(rows, n_in, dtype, x), guarded(rows, n_out, dtype, dy)
    w, s1, s2 = (guarded(n_in + 1, n_out, dtype) for _ in range(3))
    fields = {"w": w, "s1": s1, "s2": None if kind == "adagrad" else s2, "n_in": n_in, "n_out": n_out, "bias": True}
    run_checked(Op("linear_update", kind, x=x, dy=dy, rule=rule, **fields), rows, dtype, target)
    assert (w != 0).any()


@pytest.mark.parametrize("kind", ["rmsprop", "adagrad", "adam"])
def test_gradients_that_overflow_and_are_clipped_are_no_difference(dtype, target, kind):
    rows, n_in, n_out = 9, 3, 5
    large = np.sqrt(np.finfo(dtype).max)
    x, dy = (guarded(rows, n, dtype, np.full((rows, n), large)) for n in (n_in, n_out))
    w, s1, s2 = (guarded(n_in + 1, n_out, dtype) for _ in range(3))
    fields = {"w": w, "s1": s1, "s2": None if kind == "adagrad" else s2, "n_in": n_in, "n_out": n_out, "bias": True}
    run_checked(Op("linear_update", kind, x=x, dy=dy, rule=Rule(clip_value=0.1), **fields), rows, dtype, target)
    assert np.isfinite(w).all() and (w != 0).any()


# ---- the comparison itself -------------------------------------------------------------------------------------------


class OneWrong:
    """An engine that adds an error to one number of what an op writes, or to its mean loss."""

    def __init__(self, plan, target, name, index, error):
        self.engine = _engine.Engine(plan, target)
        self.op, self.target, self.name, self.index, self.error = plan.ops[0], target, name, index, error

    def run(self, *given, **named):
        losses = self.engine.run(*given, **named)
        if self.name == "mean loss":
            return losses + self.error
        getattr(self.op, self.name)[self.index] += self.error
        return losses


# Opcode: kind, and which buffers of rows and of parameters it has.
ONE_OP = {
    "gather": ("", "x", ""),
    "linear": ("gelu", "xyz", "w"),
    "activate": ("softmax", "xy", ""),
    "activate_back": ("tanh", ["dy", "y", "dx"], ""),
    "loss": ("squared_error", ["y", "t", "dy"], ""),
    "linear_back": ("tanh", ["dy", "y", "dx"], "w"),
    "dropout": ("", "xy", ""),
    "scatter": ("", "y", ""),
    "linear_grad": ("", ["x", "dy"], "g"),
    "update": ("rmsprop", "", ["w", "g", "s1"]),
    "linear_update": ("adam", ["x", "dy"], ["w", "s1", "s2"]),
    "square_sum": ("", "", "g"),
    "average": ("", "", ["w", "aux"]),
    "max_norm": ("", "", "w"),
}
WRITTEN = {(opcode, name) for opcode, names in WRITES.items() for name in (*names, "mean loss")}
WRITTEN -= {("gather", "t"), ("update", "s2"), *((opcode, "mean loss") for opcode in WRITES if opcode != "loss")}


@pytest.mark.parametrize(("opcode", "name"), sorted(WRITTEN))
def test_one_wrong_number_is_found_in_any_op(rng, dtype, target, opcode, name):
    rows, n, error = 9, 7, 0.01 if dtype == np.float32 else 1e-8
    kind, of_rows, of_parameters = ONE_OP[opcode]
    op = Op(opcode, kind, n, n, bias=True, param=0.5, row_loss=np.zeros(rows), part=np.zeros((1, n + 1)))
    for buffer in of_rows:
        setattr(op, buffer, guarded(rows, n, dtype, rng.random((rows, n))))
    for buffer in of_parameters:
        setattr(op, buffer, guarded(n + 1, n, dtype, rng.random((n + 1, n))))
    op.data = rng.random((rows, n)).astype(dtype)
    plan, step = Plan("one op", dtype, rows, [op]), (None, np.array([0, rows]), np.array([0.1]))
    index = {"part": (0, 2), "row_loss": (3,)}.get(name, (3, 2))
    LockStepExecutor(plan, OneWrong(plan, target, name, index, 0.0)).run(*step)
    where = "mean loss" if name == "mean loss" else f"buffer {name}{list(index)}"
    with pytest.raises(LockStepError, match=rf"op 0 \({opcode} .*{re.escape(where)}"):
        LockStepExecutor(plan, OneWrong(plan, target, name, index, error)).run(*step)
