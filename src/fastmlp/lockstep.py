"""Runs both executors in lock step: each op starts from the same state, and its results are compared before the next.

Enabled by ``FASTMLP_CHECK=1``. Tests verify the kernels in this way, and users can tell a wrong kernel from a badly
chosen learning rate.
"""
# Arithmetic on arrays of any dtype is Any to mypy.
# mypy: disable-error-code="no-any-return"

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .opcodes import WRITES
from .plan import Op, Plan
from .reference import ReferenceExecutor, weight_gradient


class LockStepError(AssertionError):
    """The engine and the reference disagree; the message names op, buffer and index."""


def tolerance(op: Op, dtype: np.dtype[Any], rows: int) -> float:
    """Largest allowed relative difference between two correct results.

    Sums of n products in different order differ by about sqrt(n) rounding errors, and vector functions by a few; the
    factor allows for cancellation.
    """
    terms = {"linear": op.n_in, "linear_back": op.n_out, "linear_grad": rows, "linear_update": rows}.get(op.opcode, 16)
    return float(np.finfo(dtype).eps) * (16 + 8 * terms**0.5)


def scale_of(op: Op, name: str, expected: NDArray[Any], before: dict[str, NDArray[Any]], rows: int) -> NDArray[Any]:
    """Magnitude that differences are relative to: the sum of the absolute terms, where the sum itself may cancel."""
    absolute = np.abs(expected)
    if op.opcode == "linear" and op.x is not None and op.w is not None:
        return np.maximum(absolute, np.abs(op.x[:rows]) @ np.abs(op.w[:-1]) + np.abs(op.w[-1]))
    if op.opcode == "linear_back" and op.dy is not None and op.w is not None:
        return np.maximum(absolute, np.abs(op.dy[:rows]) @ np.abs(op.w[:-1]).T)
    if op.opcode in ("linear_grad", "linear_update") and op.x is not None and op.dy is not None:
        return absolute + weight_gradient(np.abs(op.x[:rows]), np.abs(op.dy[:rows]), op.bias) + np.abs(before[name])
    return np.maximum(absolute, np.abs(before[name])) if op.split == "params" else np.maximum(absolute, 1)


class LockStepExecutor:
    """Runs a plan on the engine and on the reference, op by op from the same state; keeps the engine's results.

    Raises
    ------
    LockStepError
        At the first op whose results differ by more than rounding.
    """

    def __init__(self, plan: Plan, engine: Any) -> None:
        self.plan, self.engine, self.reference = plan, engine, ReferenceExecutor(plan)

    def bind(self, i: int, data: NDArray[Any]) -> None:
        """Bind `data` to gather or scatter op number `i`, to be read or written."""
        self.engine.bind(i, data)

    def release(self) -> None:
        """Release the bound arrays; others must be bound before the next run."""
        self.engine.release()

    def run(
        self,
        order: NDArray[np.int64] | None,
        offsets: NDArray[np.int64],
        lr: NDArray[np.float64] | None = None,
        *,
        weight: NDArray[np.float64] | None = None,
        first_number: int = 0,
        first_op: int = 0,
        last_op: int | None = None,
        n_threads: int = 1,
    ) -> NDArray[np.float64]:
        """Run steps, comparing after each op; see :meth:`fastmlp.reference.ReferenceExecutor.run`."""
        losses = np.zeros(len(offsets) - 1)
        for s in range(len(losses)):
            one: dict[str, Any] = {"weight": weight, "first_number": first_number + s, "n_threads": n_threads}
            rates = None if lr is None else np.ascontiguousarray(lr[s : s + 1])
            step = np.ascontiguousarray(offsets[s : s + 2])
            for i in range(first_op, len(self.plan.ops) if last_op is None else last_op):
                loss = self._check(i, s, order, step, rates, one)
                losses[s] = loss if self.plan.ops[i].opcode == "loss" else losses[s]
        return losses

    def _check(self, i: int, s: int, order: Any, step: Any, rates: Any, one: dict[str, Any]) -> float:
        op, rows = self.plan.ops[i], int(step[1] - step[0])
        written = dict(self.plan.buffers(i, WRITES))
        before = {name: array.copy() for name, array in written.items()}
        loss = float(self.reference.run(order, step, rates, first_op=i, last_op=i + 1, **one)[0])
        expected = {name: array.copy() for name, array in written.items()}
        spread: dict[str, Any] = {}
        if op.opcode == "linear_update" and op.kind != "sgd":
            spread = self._spread(op, rows, before, expected, lambda runner: runner.run(order, step, rates, **one))
        for name, array in written.items():
            array[...] = before[name]
        if op.opcode == "loss":  # in one thread: a run of this op alone lacks the barrier before the sum over rows
            one = {**one, "n_threads": 1}
        engine_loss = float(self.engine.run(order, step, rates, first_op=i, last_op=i + 1, **one)[0])
        for name, array in written.items():
            self._compare(i, s, name, array, expected[name], before, rows, spread.get(name, 0.0))
        bound = 1e-3 if self.plan.dtype == np.float32 else 1e-9
        if op.opcode == "loss" and np.isfinite(loss) and abs(engine_loss - loss) > bound * max(1, abs(loss)):
            raise LockStepError(
                f"step {s}, op {i} ({op.opcode} {op.kind}): the engine's mean loss is {engine_loss}, not {loss}"
            )
        return engine_loss

    def _spread(self, op: Op, rows: int, before: Any, expected: Any, run: Callable[[Any], Any]) -> dict[str, Any]:
        """How much rounding of the gradient may change what a fused update writes.

        A rule that divides by the magnitude of gradients amplifies the rounding of one whose terms nearly cancel.
        """
        assert op.x is not None and op.dy is not None
        x, dy = op.x[:rows], op.dy[:rows]
        spread = dict.fromkeys(expected, 0.0)
        with np.errstate(all="ignore"):
            gradient = weight_gradient(x, dy, op.bias)
            error = tolerance(op, self.plan.dtype, rows) * weight_gradient(np.abs(x), np.abs(dy), op.bias)
            for g in (gradient - error, gradient + error):
                for name, array in before.items():
                    getattr(op, name)[...] = array
                update = replace(op, opcode="update", x=None, dy=None, g=g)
                run(ReferenceExecutor(Plan("update", self.plan.dtype, self.plan.capacity, [update])))
                for name in spread:
                    moved = np.abs(getattr(op, name) - expected[name])
                    spread[name] = np.fmax(spread[name], moved)  # ignores NaN, where a gradient overflows
        return spread

    def _compare(self, i: int, s: int, name: str, got: Any, expected: Any, before: Any, rows: int, spread: Any) -> None:
        op = self.plan.ops[i]
        if op.split == "rows" and name != "data":
            got, expected = got[:rows], expected[:rows]
            before = {name: before[name][:rows]}
        with np.errstate(all="ignore"):
            scale = 1.0 if got.ndim == 1 or name == "data" else scale_of(op, name, expected, before, rows)
            bound = tolerance(op, self.plan.dtype, rows) * np.maximum(scale, np.abs(expected)) + spread
            close = np.abs(got - expected) <= bound
        both_odd = ~np.isfinite(got) & ~np.isfinite(expected)
        wrong = ~(close | both_odd) & np.isfinite(bound)  # if terms overflow, any sum is accepted
        if wrong.any():
            index = tuple(int(k) for k in np.argwhere(wrong)[0])
            raise LockStepError(
                f"step {s}, op {i} ({op.opcode} {op.kind}), buffer {name}{list(index)}: the engine "
                f"({self.engine.target}) has {got[index]!r}, the reference {expected[index]!r}; "
                f"{int(wrong.sum())} of {wrong.size} elements differ"
            )
