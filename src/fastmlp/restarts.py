"""Random restarts: trains a network from several initial weights in parallel, and keeps the best result."""

from __future__ import annotations

import copy
import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, metrics
from .data import Data
from .history import DivergenceError, History
from .interrupts import CANCEL
from .keywords import explained
from .mlp import MLP
from .options import RestartSettings
from .stopping import EarlyStopping
from .threads import get_num_threads, limited_threads
from .validation import held_out_rows


@dataclass
class Restarts:
    """Result of :func:`fit_restarts`.

    Attributes
    ----------
    net : MLP
        The best network.
    best : int
        Index of the best candidate in the lists below.
    seeds : list of int
        Argument of `make_net` for each candidate.
    scores : list of float
        NaN for a candidate that diverged.
    histories : list of History
        For a candidate that diverged, the epochs before that.
    """

    net: MLP
    best: int
    seeds: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)


@explained("fit_restarts()", RestartSettings.__annotations__)
def fit_restarts(
    make_net: Callable[[int], MLP],
    X: ArrayLike,
    y: ArrayLike,
    restarts: int = 8,
    *,
    validation: Any = None,
    validation_fraction: float | None = None,
    score: Any = "loss",
    n_jobs: int | None = None,
    seed: int = 0,
    callbacks: Callable[[int], Sequence[Any]] | None = None,
    **settings: Unpack[RestartSettings],
) -> Restarts:
    """Train the same network from several initial weights in parallel, and keep the best.

    Each candidate trains with one worker, in one of `n_jobs` threads: the engine releases the GIL. The result does not
    depend on `n_jobs`. A candidate that diverges cannot be chosen.

    Parameters
    ----------
    make_net : callable(seed) -> MLP
        Called once for each of ``seed, seed + 1, ...``, in this thread; must use it, as in ``MLP(..., seed=seed)``.
    X, y : array-like
        As in `MLP.fit`.
    restarts : int
        Number of candidates.
    validation : tuple or array of row numbers, optional
        As in `MLP.fit`. Candidates are compared on these rows; without any, on the training data.
    validation_fraction : float, optional
        In (0, 1): fraction of the rows to hold out; the same rows for all candidates, drawn with the first one's seed.
    score : str or callable(y, prediction), default "loss"
        Criterion: the smallest loss, or the best metric (see `fastmlp.metrics`). For a function the largest value is
        best, unless its attribute ``greater_is_better`` is False.
    n_jobs : int, optional
        Number of candidates to train at a time, by default :func:`get_num_threads`. With 1, or if no thread can be
        started, they train in the caller's thread.
    seed : int
    callbacks : callable(seed) -> list, optional
        Creates the callbacks of a candidate, which are called in its thread.
    **settings
        Passed to `MLP.fit`: optimizer, epochs, batch_size, early_stopping, ...

    Returns
    -------
    Restarts

    Raises
    ------
    DivergenceError
        If all candidates diverged.
    TypeError, ValueError
        For bad input.

    Examples
    --------
    Three hidden units are few for exclusive or: some starts get stuck, the best does not.

    >>> import fastmlp
    >>> X, y = fastmlp.datasets.xor()
    >>> make = lambda seed: fastmlp.MLP([2, 3, 1], "tanh", "binary_cross_entropy", seed=seed)
    >>> found = fastmlp.fit_restarts(make, X, y, epochs=500, batch_size=None, optimizer=fastmlp.SGD(1.0))
    >>> found.net.predict(X).tolist()
    [0, 1, 1, 0]
    >>> len(found.scores), found.scores[found.best] == min(found.scores)
    (8, True)
    """
    restarts, seed = checks.whole("restarts", restarts), checks.whole("seed", seed, 0, 2**62)
    jobs = min(get_num_threads() if n_jobs is None else checks.whole("n_jobs", n_jobs), restarts)
    metric = None if isinstance(score, str) and score == "loss" else metrics.get(score, "score")
    if callbacks is not None and not callable(callbacks):
        raise TypeError(f"callbacks must be a function seed -> list: each candidate needs its own, got {callbacks!r}")
    if not callable(make_net):
        raise TypeError(f"make_net must be a function seed -> MLP, got {make_net!r}")
    seeds = [seed + i for i in range(restarts)]
    nets = [_made(make_net, s) for s in seeds]
    if len({id(net) for net in nets}) < restarts:
        raise ValueError("make_net must return a new network each time, got the same one twice")
    _check_starts(nets, seeds)
    if validation_fraction is not None:
        if validation is not None:
            raise ValueError(f"validation_fraction must be None where validation is given, got {validation_fraction!r}")
        validation = held_out_rows(nets[0], Data(*nets[0].check_data(X, y)), validation_fraction)
    job = _Job(X, y, validation, metric, {**settings}, callbacks)
    results = _side_by_side(lambda i: job.train(nets[i], seeds[i]), restarts, jobs)
    return _best(nets, seeds, results, metric)


def _made(make_net: Callable[[int], MLP], seed: int) -> MLP:
    net = make_net(seed)
    if not isinstance(net, MLP):
        raise TypeError(f"make_net must return an MLP, got {net!r} for seed {seed}")
    return net


def _check_starts(nets: list[MLP], seeds: list[int]) -> None:
    """Raise ValueError if two candidates would train identically: same initial weights and same shuffling."""
    found: dict[tuple[Any, ...], int] = {}
    for net, seed in zip(nets, seeds, strict=True):
        weights = hashlib.sha256(net.parameters.data).digest()  # instead of the weights, which may be many
        first = found.setdefault((repr(net), weights, str(net.shuffle_rng.bit_generator.state)), seed)
        if first != seed:
            raise ValueError(
                f"make_net must pass its seed on, as in MLP(..., seed=seed): equal networks for {first} and {seed}"
            )


@dataclass
class _Job:
    """Data and settings shared by all candidates."""

    X: ArrayLike
    y: ArrayLike
    validation: Any
    metric: metrics.Metric | None
    settings: dict[str, Any]
    callbacks: Callable[[int], Sequence[Any]] | None

    def train(self, net: MLP, seed: int) -> tuple[float, History, DivergenceError | None]:
        """Train one candidate; return its score, its history, and the error if it diverged."""
        settings = {**self.settings, "validation": self.validation}
        if isinstance(settings.get("early_stopping"), EarlyStopping):
            settings["early_stopping"] = copy.copy(settings["early_stopping"])  # it keeps state of its own training
        if self.callbacks:
            settings["callbacks"] = self.callbacks(seed)
        try:
            history = net.fit(self.X, self.y, **settings)
        except DivergenceError as error:
            return float("nan"), error.history, error
        return self._score(net), history, None

    def _score(self, net: MLP) -> float:
        X, y, weight = self._compared()
        name = "loss" if self.metric is None else self.metric.name
        return net.evaluate(X, y, weight, [] if self.metric is None else [self.metric])[name]

    def _compared(self) -> tuple[Any, Any, Any]:
        """X, y and weights of the rows on which candidates are compared."""
        weight, rows = self.settings.get("sample_weight"), self.validation
        if rows is None:
            return self.X, self.y, weight
        if isinstance(rows, np.ndarray):
            return (
                np.asarray(self.X)[rows],
                np.asarray(self.y)[rows],
                None if weight is None else np.asarray(weight)[rows],
            )
        return (*rows, None) if len(rows) == 2 else tuple(rows)


def _side_by_side(train: Callable[[int], Any], n: int, jobs: int) -> list[Any]:
    """Run all calls, `jobs` at a time, and return their results; an error in one, or Ctrl-C, stops the others."""
    found: list[Any] = [None] * n
    cancel, lock, left = threading.Event(), threading.Lock(), iter(range(n))

    def following() -> int | None:
        with lock:
            return None if cancel.is_set() else next(left, None)

    def work() -> None:
        with limited_threads(1):
            for i in iter(following, None):
                found[i] = train(i)

    def work_for_another() -> None:
        CANCEL.set(cancel)
        work()

    if jobs == 1:
        work()
        return found
    with ThreadPoolExecutor(jobs, thread_name_prefix="fastmlp-restart") as pool:
        try:
            workers = _submitted(pool, work_for_another, jobs)
            if not workers:
                work()
            wait(workers, return_when=FIRST_EXCEPTION)
            failed = next((f for f in workers if f.done() and f.exception()), None)
            for worker in workers if failed is None else [failed]:
                worker.result()
            return found
        finally:
            cancel.set()
            pool.shutdown(wait=False, cancel_futures=True)


def _submitted(pool: ThreadPoolExecutor, work: Callable[[], None], jobs: int) -> list[Future[None]]:
    """Start the work in `jobs` threads, or in as many as can be started."""
    workers: list[Future[None]] = []
    with suppress(RuntimeError):  # no new thread; the pool has queued the work, and an idle thread may still do it
        for _ in range(jobs):
            workers.append(pool.submit(work))
    return workers


def _best(nets: list[MLP], seeds: list[int], results: list[Any], metric: metrics.Metric | None) -> Restarts:
    scores: NDArray[np.float64] = np.array([result[0] for result in results], dtype=np.float64)
    if np.isnan(scores).all():
        diverged = next((result[2] for result in results if result[2] is not None), None)
        if diverged is not None:
            raise diverged
        raise ValueError("score must be a number for at least one candidate, got NaN for all")
    greater = metric is not None and metric.greater_is_better is not False
    best = int(np.nanargmax(scores) if greater else np.nanargmin(scores))
    return Restarts(nets[best], best, seeds, scores.tolist(), [result[1] for result in results])
