"""Evaluator: loss and metrics of a network on rows that are not trained on. Also the selection of these rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .data import Data
from .metrics import Metric, choose
from .pace import Pace
from .plans import evaluation_plan
from .runtime import executor
from .threads import get_num_threads

if TYPE_CHECKING:
    from .mlp import MLP

ROWS = 2048  # of a batch, independent of the number of threads, so that the mean loss has the same bits for any
KEPT_BYTES = 1 << 20  # larger plans are not kept: they take less time to build than to run


def batch_weights(weight: NDArray[np.float64] | None, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of sample weights in each batch, or its number of rows if there are none."""
    if weight is None:
        return (offsets[1:] - offsets[:-1]).astype(np.float64)
    return np.add.reduceat(weight, offsets[:-1])


def batches(rows: int, batch: int) -> NDArray[np.int64]:
    """Offsets of batches: the first row of each, followed by the number of rows.

    >>> batches(7, 3)
    array([0, 3, 6, 7])
    """
    return np.minimum(np.arange(-(-rows // batch) + 1, dtype=np.int64) * batch, rows)


class Evaluator:
    """Loss and metrics of a network on fixed data, computed repeatedly with one plan.

    `end` returns a small plan to the network, which keeps it for the next evaluator with the same number of rows.

    Raises
    ------
    ValueError
        If a metric does not apply to the network or the targets.
    """

    def __init__(
        self,
        net: MLP,
        data: Data,
        metrics: Iterable[Any] | None = None,
    ) -> None:
        X, y = data.X, data.y
        self.net, self.y, self.weight = net, y, data.weight
        self.metrics: list[Metric] = choose(metrics, net)
        for metric in self.metrics:
            metric.check(net, y)
        self.n_threads = get_num_threads()
        rows = min(len(X), ROWS)
        self.out = np.empty((len(X), net.sizes[-1]), net.dtype)
        self.key = rows, data.labels, self.n_threads
        kept = net.idle_evaluations.pop(self.key, None)
        self.executor = kept or executor(evaluation_plan(net, *self.key), net.backend)
        plan = self.executor.plan
        self.executor.bind(plan.gathers[0], X)
        self.executor.bind(len(plan.ops) - 1, self.out)
        self.bound = False
        self.offsets = batches(len(X), rows)
        self.share = batch_weights(self.weight, self.offsets)
        self.all = self.share.sum()
        self.pace = Pace(plan.work)

    def end(self) -> None:
        """Drop the references to the data, and return a small plan to the network."""
        self.executor.release()
        if self.key[0] * sum(self.net.sizes) * self.net.dtype.itemsize > KEPT_BYTES:
            return
        self.net.idle_evaluations.put(self.key, self.executor)

    def __call__(self) -> dict[str, float]:
        """Compute ``loss`` and the metrics with the current weights."""
        found = {"loss": float((self._run() * self.share).sum() / self.all)}
        for metric in self.metrics:
            found[metric.name] = metric(self.net, self.y, self.out, self.weight)
        return found

    def _run(self) -> NDArray[np.float64]:
        """Return the loss of each batch, and write the outputs to `out`."""
        if not self.bound:  # only now is the standardisation of targets certain to be learned
            self.executor.bind(self.executor.plan.gathers[1], self.net.plan_targets(self.y))
            self.bound = True
        losses = np.empty(len(self.offsets) - 1)
        for begin, end in self.pace.slices(0, len(losses)):
            offsets = self.offsets[begin : end + 1]
            losses[begin:end] = self.executor.run(None, offsets, weight=self.weight, n_threads=self.n_threads)
        return losses


def held_out(y: NDArray[Any], fraction: float, stratify: bool, seed: int) -> NDArray[np.int64]:
    """Sorted numbers of the rows to hold out: a random ``fraction`` of all, at least one.

    Parameters
    ----------
    y : array
    fraction : float
        In (0, 1).
    stratify : bool
        Whether to take the same fraction of each class of `y`, to within one row: rows are sorted by class, in random
        order within a class, and taken at even distances.
    seed : int
        The same seed holds out the same rows.

    Raises
    ------
    ValueError
        If there are fewer than two rows.

    Examples
    --------
    >>> rows = held_out(np.array([0] * 90 + [1] * 10), 0.2, True, seed=0)
    >>> len(rows), int((rows >= 90).sum())
    (20, 2)
    """
    if len(y) < 2:
        raise ValueError(f"validation_fraction needs at least 2 rows to divide, got {len(y)}")
    rng = np.random.default_rng([seed, 2])
    rows = rng.permutation(len(y))
    if stratify:
        rows = rows[np.argsort(y.reshape(-1)[rows], kind="stable")]
    count = min(max(1, round(fraction * len(y))), len(y) - 1)
    return np.sort(rows[((np.arange(count) + rng.random()) * len(y) / count).astype(np.int64)])
