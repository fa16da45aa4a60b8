"""Prediction: outputs, probabilities, labels, and the activations of every layer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .network import Network
from .plans import forward_plan, prediction_plan, shared_row_plan
from .runtime import Executor, executor, has_short_way, row_predictor
from .tape import FEW_ROWS, NEAR, PREDICTION_ROWS
from .threads import get_num_threads

ROW_PARAMETERS = 1 << 20  # a row takes so long in a larger network that the GIL should be released
QUICK_WORK = 32 << 20  # rows times parameters, above which the overhead of the full path is relatively small
QUICK_ROWS = 256  # maximum rows per step on the fast path
UNINTERRUPTED_FLOPS = 4e9  # per call, ~50 ms, during which Ctrl-C is not handled


class Prediction(Network):
    """The part of `MLP` that predicts.

    Plans are reused; if another thread is using one, a new one is built.
    """

    def _outputs(self, X: ArrayLike) -> NDArray[Any]:
        """Outputs of the last layer, ``(rows, n_out)``."""
        if self._row_predictor is not None and (out := self._row_predictor(X)) is not None:
            # Inlined: a call of `restored` takes a tenth of the time of a row in a tiny network.
            return self.restored(out) if self.standardize_targets else out
        return self.restored(self._checked_outputs(X))

    def _quick_outputs(self, X: ArrayLike) -> NDArray[Any] | None:
        """Outputs of a few rows in a finite array that can be read in place; None for anything else."""
        out = self._row_predictor(X) if self._row_predictor is not None else None
        return None if out is None else self.restored(out)

    def _checked_outputs(self, X: ArrayLike) -> NDArray[Any]:
        """Outputs of rows that are checked for finite values while being read, so that they are read only once."""
        given, X = X, checks.shaped(X, self.sizes[0])
        if X is not given and self._row_predictor is not None and (quick := self._row_predictor(X)) is not None:
            return quick  # X was a list, for example, and is now an array
        out = np.empty((len(X), self.sizes[-1]), self.dtype)
        n_threads = get_num_threads()
        few, many = FEW_ROWS * n_threads, PREDICTION_ROWS * n_threads  # workers split the weights, or the rows
        rows = 1 if len(X) == 1 else few if len(X) <= few else many
        predictor, lock = self._predictor(rows, n_threads)
        if not lock.acquire(blocking=False):  # another thread is using these buffers
            predictor, lock = self._new_predictor(rows, n_threads)
            lock.acquire()
        try:
            predictor.bind(0, X)
            predictor.bind(len(predictor.plan.ops) - 1, out)
            steps = -(-len(X) // rows)  # of about equal length, each split over the workers
            offsets = np.arange(steps + 1, dtype=np.int64) * len(X) // steps
            part = max(1, int(UNINTERRUPTED_FLOPS // predictor.plan.work))
            for s in range(0, steps, part):
                predictor.run(None, offsets[s : s + part + 1], n_threads=n_threads)
            nonfinite = predictor.plan.found_nonfinite()
        finally:
            predictor.release()
            lock.release()
        if nonfinite:
            checks.finite("X", X, self.dtype)
        return out

    def _predictor(self, rows: int, n_threads: int) -> tuple[Executor, threading.Lock]:
        self._renew_after_fork()
        key = (rows, n_threads)
        again = key in self._predictors
        if not again:
            self._predictors[key] = self._new_predictor(rows, n_threads)
        quick = self._row_predictor is None and self.n_parameters <= QUICK_WORK
        if again and quick and has_short_way(self._predictors[key][0]):  # creating it takes longer than one prediction
            self._row_predictor = self._new_row_predictor()
        return self._predictors[key]

    def _new_row_predictor(self) -> Callable[[object], NDArray[Any] | None]:
        """Create a row predictor with its own buffers, because it takes no lock, and others run without the GIL.

        It runs single rows of a large network as it runs a few rows, without the GIL.
        """
        most, n = QUICK_WORK // self.n_parameters, get_num_threads()
        if self.parameters.nbytes > NEAR:  # workers split the weights, if rows are few
            most = min(most, FEW_ROWS * n)
        few = min(QUICK_ROWS, most)
        some = executor(prediction_plan(self, few, n), self.backend)
        if self.n_parameters > ROW_PARAMETERS:
            return row_predictor(None, None, some, most)
        return row_predictor(executor(prediction_plan(self, 1), self.backend), shared_row_plan(self), some, most)

    def _new_predictor(self, rows: int, n_threads: int) -> tuple[Executor, threading.Lock]:
        return executor(prediction_plan(self, rows, n_threads), self.backend), threading.Lock()

    def predict_proba(self, X: ArrayLike) -> NDArray[Any]:
        """Probabilities, shape (rows, n_out): of each class (softmax output) or of each label (sigmoid output).

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
            Any real numeric type, any strides; finite.

        Raises
        ------
        TypeError, ValueError
            If X is not such an array, or if this network's outputs are not probabilities.

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> net = fastmlp.MLP([3, 3], weights=[(np.eye(3), np.zeros(3))])
        >>> net.predict_proba([[2.0, 1.0, 0.1]]).round(2)
        array([[0.66, 0.24, 0.1 ]], dtype=float32)
        """
        if not self._gives_probabilities:
            output = self.functions[-1].name
            raise ValueError(f"predict_proba needs a softmax or sigmoid output; this one is {output!r}: use predict")
        return self._outputs(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (classification) or values (regression).

        Parameters
        ----------
        X : array-like, shape (rows, n_in)

        Returns
        -------
        array
            Cross-entropy: the most probable class of each row, int64 (rows,). Binary cross-entropy: 1 for each label
            with a probability above 0.5, else 0, int64. Other losses: the outputs, in the units of the targets. With a
            single output the shape is (rows,), else (rows, n_out).

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> net = fastmlp.MLP([3, 3], weights=[(np.eye(3), np.zeros(3))])
        >>> net.predict([[2.0, 1.0, 0.1], [0.0, 0.5, 0.6]])
        array([0, 2])
        """
        return self.loss.decide(self._outputs(X))

    def activations(self, X: ArrayLike) -> list[NDArray[Any]]:
        """Activations of every layer, from the inputs (standardised, as the first layer reads them) to the outputs.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)

        Returns
        -------
        list of array
            One ``(rows, size)`` for each of `sizes`; the last has the outputs, as `predict_proba` returns them.

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> [a.shape for a in fastmlp.MLP([784, 16, 10]).activations(np.zeros((5, 784)))]
        [(5, 784), (5, 16), (5, 10)]
        """
        X = checks.inputs(X, self.sizes[0], self.dtype)
        plan, tape = forward_plan(self, len(X), get_num_threads())
        plan.ops[0].data = X
        executor(plan, self.backend).run(None, np.array([0, len(X)]), n_threads=get_num_threads())
        *hidden, last = tape.inputs[0], *tape.outputs
        return [np.ascontiguousarray(a) for a in (*hidden, self.restored(last))]
