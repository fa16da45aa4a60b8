"""Rows: the data of an estimator as plans read them: dense in place, sparse densified batch by batch.

Wide sparse rows are not densified, unless they are standardised: see :mod:`fastmlp.sklearn.wide_sparse`.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data import Data, bind_data
from ..evaluation import batches
from ..mlp import MLP
from ..runtime import Executor
from . import wide_sparse

Runner = Executor | wide_sparse.WideStep
SLICE_ROWS = 1024  # rows of a sparse matrix densified at once, unless another limit applies


def is_sparse(X: Any) -> bool:
    """Whether X is one of scipy's sparse matrices or arrays; scipy itself is not imported."""
    return hasattr(X, "tocsr")


class Rows(Data):
    """Data whose X may also be a CSR matrix of scipy's."""

    def __post_init__(self) -> None:
        if is_sparse(self.X):
            self.X = self.X.tocsr()

    @property
    def mean_weight(self) -> float:
        """Mean weight of the rows in use."""
        return self.total_weight / len(self)

    def bind(self, runner: Runner) -> None:
        """Bind these rows to a plan, unless they are passed batch by batch."""
        if not (is_sparse(self.X) or isinstance(runner, wide_sparse.WideStep)):
            bind_data(runner, self.X, self.y)

    def run(
        self, runner: Runner, order: NDArray[np.int64] | None, offsets: NDArray[np.int64], **settings: Any
    ) -> NDArray[np.float64]:
        """Run steps on these rows, which the plan is bound to; see :meth:`fastmlp.reference.ReferenceExecutor.run`."""
        settings["n_threads"] = runner.plan.n_threads
        if not (is_sparse(self.X) or isinstance(runner, wide_sparse.WideStep)):
            return runner.run(order, offsets, weight=self.weight, **settings)
        lr, first = settings.pop("lr", None), settings.pop("first_number", 0)
        losses = np.empty(len(offsets) - 1)
        for s, (begin, end) in enumerate(pairwise(offsets)):
            rows = slice(begin, end) if order is None else order[begin:end]
            one = {"weight": None if self.weight is None else self.weight[rows], "first_number": first + s, **settings}
            X, y, rate = self.X[rows], self.y[rows], None if lr is None else lr[s : s + 1]
            if isinstance(runner, wide_sparse.WideStep):
                losses[s : s + 1] = runner.run(X, y, rate, **one)
                continue
            bind_data(runner, X.toarray(), y)
            losses[s : s + 1] = runner.run(None, np.array([0, end - begin]), rate, **one)
        return losses


def outputs(net: MLP, X: Any) -> NDArray[Any]:
    """The outputs of a network for dense or sparse rows."""
    if not is_sparse(X):
        return net._outputs(X)
    X = X.tocsr()
    if wide_sparse.is_wide(net, X):
        return wide_sparse.outputs(net, X)
    slices = batches(X.shape[0], min(SLICE_ROWS, short(X)))
    return np.concatenate([net._outputs(X[begin:end].toarray()) for begin, end in pairwise(slices)])


def short(X: Any) -> int:
    """Number of rows of X that may be densified at once."""
    return max(1, wide_sparse.SLICE_BYTES // (int(X.shape[1]) * 8))


def column_statistics(X: Any, weight: NDArray[np.float64] | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weighted mean and standard deviation of each column of a dense or sparse X, which is read slice by slice."""
    if is_sparse(X):
        from sklearn.utils.sparsefuncs import mean_variance_axis

        weights = None if weight is None else weight.astype(X.dtype)
        mean, variance = mean_variance_axis(X, axis=0, weights=weights)
        return mean.astype(np.float64), np.sqrt(variance.astype(np.float64))
    w = np.ones(len(X)) if weight is None else weight
    parts = [slice(i, i + SLICE_ROWS) for i in range(0, len(X), SLICE_ROWS)]
    # No matrix products: their rounding depends on the machine.
    mean = sum((w[p][:, None] * X[p].astype(np.float64)).sum(axis=0) for p in parts) / w.sum()
    variance = sum((w[p][:, None] * (X[p].astype(np.float64) - mean) ** 2).sum(axis=0) for p in parts) / w.sum()
    return mean, np.sqrt(variance)
