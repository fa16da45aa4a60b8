"""Loss and metrics of a network on rows that are not trained on: the Evaluator, and how rows are held out."""

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

ROWS = 2048  # of a batch, whatever the number of threads: the mean loss has the same bits for any
KEPT_BYTES = 1 << 20  # a larger plan takes less time to build than to run


def batch_weights(weight: NDArray[np.float64] | None, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of the sample weights of each batch, or its number of rows."""
    if weight is None:
        return (offsets[1:] - offsets[:-1]).astype(np.float64)
    return np.add.reduceat(weight, offsets[:-1])


def batches(rows: int, batch: int) -> NDArray[np.int64]:
    """Where batches begin, and the last one ends.

    >>> batches(7, 3)
    array([0, 3, 6, 7])
    """
    return np.minimum(np.arange(-(-rows // batch) + 1, dtype=np.int64) * batch, rows)


class Evaluator:
    """Loss and metrics of a network on the same data, again and again, without building the plan anew.

    Small plans are the network's, which keeps them for the next evaluator of as many rows once this one is at its end.

    Raises
    ------
    ValueError
        If a metric does not suit the network or the targets.
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
        """Let go of the data, and leave a small plan to the network."""
        self.executor.release()
        if self.key[0] * sum(self.net.sizes) * self.net.dtype.itemsize > KEPT_BYTES:
            return
        self.net.idle_evaluations.put(self.key, self.executor)

    def __call__(self) -> dict[str, float]:
        """``loss`` and the metrics, with the weights as they are now."""
        found = {"loss": float((self._run() * self.share).sum() / self.all)}
        for metric in self.metrics:
            found[metric.name] = metric(self.net, self.y, self.out, self.weight)
        return found

    def _run(self) -> NDArray[np.float64]:
        """The loss of each batch; the outputs are then in `out`."""
        if not self.bound:  # not before the network has learned how to standardise them
            self.executor.bind(self.executor.plan.gathers[1], self.net.plan_targets(self.y))
            self.bound = True
        losses = np.empty(len(self.offsets) - 1)
        for begin, end in self.pace.slices(0, len(losses)):
            offsets = self.offsets[begin : end + 1]
            losses[begin:end] = self.executor.run(None, offsets, weight=self.weight, n_threads=self.n_threads)
        return losses


def held_out(y: NDArray[Any], fraction: float, stratify: bool, seed: int) -> NDArray[np.int64]:
    """Numbers of the rows to hold out, in rising order: a random ``fraction`` of all, at least one.

    Parameters
    ----------
    y : array
    fraction : float
        In (0, 1).
    stratify : bool
        Whether every class of `y` gives its share, to within one row: rows are sorted by class, those of a class in
        random order, and taken at even distances.
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
