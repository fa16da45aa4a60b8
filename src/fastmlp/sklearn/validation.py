"""Validation: the score of an estimator on held-out or given rows during training."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import get_scorer
from sklearn.model_selection import train_test_split

from .. import metrics
from .rows import Rows, outputs

TOO_SMALL = "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."


@dataclass
class Validation:
    """Validation rows of an estimator; `given` are the targets as given by the caller, for a scorer."""

    estimator: Any
    X: Any
    y: NDArray[Any]
    given: NDArray[Any]
    weight: NDArray[np.float64] | None

    def score(self) -> float:
        """Accuracy (of all labels jointly, if there are several) or R2, or the score set by ``scoring``. May be NaN."""
        if self.estimator.scoring is not None:
            return self._scorer_score()
        out = outputs(self.estimator._net, self.X)
        if self.y.ndim == 1:
            return metrics.accuracy(self.y, out.argmax(axis=1), self.weight)
        if self.estimator.out_activation_ == "logistic":
            right = ((out > 0.5) == self.y).all(axis=1)
            return float(np.average(right, weights=self.weight))
        with np.errstate(all="ignore"):  # divergence is reported only at the end of training
            return metrics.r2(self.y, out, self.weight) if np.isfinite(out).all() else float("nan")

    def _scorer_score(self) -> float:
        scorer = self.estimator.scoring
        scorer = get_scorer(scorer) if isinstance(scorer, str) else scorer
        weight = {} if self.weight is None else {"sample_weight": self.weight}
        with warnings.catch_warnings():  # the rows have no feature names any more
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            return float(scorer(self.estimator, self.X, self.given, **weight))


def split(estimator: Any, rows: Rows, given: NDArray[Any], weight: Any, random_state: Any) -> tuple[Rows, Validation]:
    """Split off validation rows, the same ones as scikit-learn; binary targets are stratified.

    ``weight`` are the sample weights without class weights, which validation does not use.
    """
    binary = estimator._is_classifier and rows.y.ndim == 2 and rows.y.shape[1] == 1
    train, held = train_test_split(
        np.arange(len(rows)),
        random_state=random_state,
        test_size=estimator.validation_fraction,
        stratify=rows.y.astype(bool) if binary else None,  # as scikit-learn's messages name the classes
    )
    if len(held) < 2:
        raise ValueError(TOO_SMALL)
    for part, what in ((train, "train on"), (held, "validate on")):
        if rows.weight is not None and not rows.weight[part].max() > 0:
            raise ValueError(f"Sample weights must not be all zero on the rows to {what}.")
    held_weight = None if weight is None else weight[held]
    validation = Validation(estimator, rows.X[held], rows.y[held], given[held], held_weight)
    return Rows(rows.X, rows.y, rows.weight, train.astype(np.int64)), validation
