"""BaseMLP: the code that the classifier and the regressor share."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from .. import checks, losses
from .. import optimizers as named_optimizers
from ..memory import check_size
from ..mlp import MLP
from ..scaling import warn_if_all_constant
from ..threads import limited_threads
from . import parameters, pickling
from .epochs import Training
from .lbfgs import Minimisation
from .rows import Rows, column_statistics, is_sparse, outputs
from .sklearn_callbacks import CallbackSupportMixin, Tasks
from .solver import Solver
from .validation import Validation, split

# Types that the kernels read in place; any other is converted to the first of them.
DTYPES = ("float64", "float32", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")

# Attributes with which an unfitted estimator can predict.
BY_HAND = ("coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_")


@contextmanager
def threads(n_threads: int | None) -> Iterator[None]:
    """Use that many threads; by default the usual number, but one in the workers of joblib's threading backend."""
    if n_threads is None and threading.current_thread() is not threading.main_thread():
        n_threads = 1 if get_active_backend()[0].nesting_level else None
    if n_threads is None:
        yield
        return
    with limited_threads(int(n_threads)):
        yield


class BaseMLP(CallbackSupportMixin, BaseEstimator):
    """Fitting and prediction; derived classes define targets and losses.

    Private attributes: ``_net``, the network; ``_solver``, its optimizer with state; ``_lists``, the lists that the fit
    assigned to `coefs_` and `intercepts_`; ``_shown``, the views of the network's weights that these held. ``_spare``:
    a second network holding arrays assigned to `coefs_` or `intercepts_`; the trained network is not overwritten,
    because callers may still hold views of it. Also used when ``activation`` has changed since the fit
    (``_made_with``).
    """

    _is_classifier = False
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = parameters.CONSTRAINTS

    _net: MLP
    _solver: Solver | None
    _shown: tuple[NDArray[Any], ...]
    _lists: tuple[list[NDArray[Any]], list[NDArray[Any]]]
    _spare: MLP | None
    _made_with: Any
    coefs_: list[NDArray[Any]]
    intercepts_: list[NDArray[Any]]
    loss_curve_: list[float]
    validation_scores_: list[float] | None
    best_validation_score_: float | None
    best_loss_: float | None

    def _take(self, given: dict[str, Any]) -> None:
        """Store the arguments of the constructor, given as its ``locals()``."""
        for name, value in given.items():
            if name not in ("self", "__class__"):
                setattr(self, name, value)

    def _validate_params(self) -> None:
        parameters.check_numbers(self)
        super()._validate_params()

    # ---- fitting -----------------------------------------------------------------------------------------------------

    def _fit(
        self, X: Any, y: Any, sample_weight: Any, *, incremental: bool = False, X_val: Any = None, y_val: Any = None
    ) -> Any:
        if "_net" in self.__dict__:
            self._net.exclusively()  # raises if it is being trained, before anything is changed
        sizes = parameters.hidden_sizes(self)
        parameters.check_use(self, X_val, y_val)
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        given = X
        for name, value in {"X": X, "y": y, "sample_weight": sample_weight, "X_val": X_val, "y_val": y_val}.items():
            checks.unmasked(name, value)  # scikit-learn treats masked values as data
        X, y = self._validate_input(X, y, incremental, reset=first or not self.__sklearn_is_fitted__())
        weight = self._check_weight(sample_weight, X)
        targets = self._encode(y)
        self.n_outputs_ = self._count_outputs(targets)
        self._random_state = check_random_state(self.random_state)
        with threads(self.n_threads):
            rows = Rows(X, targets, self._with_class_weight(y, weight, incremental))
            self._prepare([X.shape[1], *sizes, self.n_outputs_], rows, weight, first)
            name, epochs = ("partial_fit", 1) if incremental else ("fit", int(self.max_iter))
            tasks = Tasks.of(self, name, epochs, given, y, weight)
            with self._net.exclusively():
                self._train(rows, y, weight, incremental, X_val, y_val, tasks)
        if not np.isfinite(self._net.parameters).all():
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be"
                " preprocessed."
            )
        if tasks:
            tasks.close()
        return self

    def _train(
        self, rows: Rows, y: Any, weight: Any, incremental: bool, X_val: Any, y_val: Any, tasks: Tasks | None
    ) -> None:
        optimizer = parameters.optimizer(self)
        solver = self._solver if incremental else None
        if solver is None or isinstance(solver.optimizer, named_optimizers.LBFGS):  # which keeps no state
            dropout = parameters.dropout_rates(self, self._net)
            key = int(self._random_state.randint(1 << 31)) if dropout else 0
            solver = self._solver = Solver(self._net, optimizer, dropout, key)
        held = self._given_validation(X_val, y_val)
        if isinstance(optimizer, named_optimizers.LBFGS):
            Minimisation(self, solver, replace(rows, y=self._net.plan_targets(rows.y)), tasks).run()
            return
        if self.early_stopping and held is None:
            rows, held = split(self, rows, y, weight, self._random_state)
        if held is not None and self.validation_scores_ is None:
            self.validation_scores_, self.best_validation_score_ = [], -np.inf
        if not self.early_stopping and self.best_loss_ is None:  # it was set in the previous call
            self.best_loss_ = np.inf
        rows = replace(rows, y=self._net.plan_targets(rows.y))
        Training(self, solver, rows, held, self._random_state, tasks).run(incremental)

    def _given_validation(self, X_val: Any, y_val: Any) -> Validation | None:
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together")
        if X_val is None:
            return None
        X_val, y_val = self._validate_input(X_val, y_val, True, reset=False)
        rows = Rows(X_val, self._encode(y_val))
        return Validation(self, rows.X, rows.y, y_val, None)

    def _check_weight(self, sample_weight: Any, X: Any) -> NDArray[np.float64] | None:
        if sample_weight is None:
            return None
        weight = _check_sample_weight(sample_weight, X, dtype=np.float64)
        if (weight < 0).any():
            raise ValueError("Negative values in data passed to `sample_weight`.")
        if not weight.any():
            raise ValueError("Sample weights must contain at least one non-zero number.")
        checks.weighable("sample_weight", weight)
        return np.ascontiguousarray(weight)

    def _with_class_weight(self, y: Any, weight: Any, incremental: bool) -> Any:
        return weight

    def _validated(self, X: Any, y: Any, reset: bool, **settings: Any) -> tuple[Any, Any]:
        """X and y as scikit-learn validates them; a single column of targets becomes a vector, with a warning."""
        dtypes = [np.dtype(name) for name in DTYPES]
        X, y = validate_data(
            self, X, y, accept_sparse=["csr", "csc"], multi_output=True, dtype=dtypes, reset=reset, **settings
        )
        return X, column_or_1d(y, warn=True) if y.ndim == 2 and y.shape[1] == 1 else y

    # ---- the network -------------------------------------------------------------------------------------------------

    def _prepare(self, sizes: list[int], rows: Rows, weight: NDArray[np.float64] | None, first: bool) -> None:
        """Provide the network to train: a new one, or the existing one with the weights in the attributes."""
        if first or "_net" not in self.__dict__:  # an unfitted estimator may have been given weights to start from
            self._initialize(sizes, rows, weight, None if first else self._assigned())
            return
        net = self._current()
        if list(net.sizes) != sizes:
            raise ValueError(f"the layers had {list(net.sizes)} units in the previous call, now they have {sizes}")
        before, now = repr(net.loss), repr(self._choose_loss())  # a loss may hold arrays, which == does not compare
        if before != now:
            raise ValueError(f"the loss was {before} in the previous call, now it is {now}")
        if net is not self._net:
            self._adopt(net)

    def _adopt(self, net: MLP) -> None:
        """Train this network of assigned arrays from now on; optimizer state is kept if the shape is the same.

        The best score is reset: it belonged to weights that no longer exist, so early stopping cannot restore them.
        The attributes become the estimator's own lists again, so that references to these see the trained weights.
        Other lists, and all assigned arrays, are left unchanged.
        """
        if self._solver is not None and net.sizes == self._net.sizes:
            self._solver.attach(net)
        else:
            self._solver = None
        if self.best_validation_score_ is not None:
            self.best_validation_score_ = -np.inf
        self._net, self._spare, self._made_with = net, None, self.activation
        self._lists[0][:], self._lists[1][:] = net.weights, net.biases
        self._show(*self._lists)

    def _drawn_weights(self, sizes: list[int]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        """scikit-learn's initial weights: Glorot's uniform distribution, from the same draws."""
        hidden = parameters.hidden_activations(self, len(sizes) - 2)
        pairs = []
        for i, (n_in, n_out) in enumerate(pairwise(sizes)):
            name = hidden[min(i, len(hidden) - 1)].name if hidden else self.activation
            bound = np.sqrt((2.0 if name in ("sigmoid", "logistic") else 6.0) / (n_in + n_out))
            w = self._random_state.uniform(-bound, bound, (n_in, n_out))
            pairs.append((w, self._random_state.uniform(-bound, bound, n_out)))
        return pairs

    def _initialize(
        self, sizes: list[int], rows: Rows, weight: NDArray[np.float64] | None, given: list[Any] | None
    ) -> None:
        """Create a new network, with the given weights or drawn ones, and set all counters to 0."""
        weights = sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
        check_size(weights, np.float64, f"hidden_layer_sizes={sizes[1:-1]}")
        dtype = np.float32 if rows.X.dtype == np.float32 else np.float64
        hidden = parameters.hidden_activations(self, len(sizes) - 2)
        pairs = self._drawn_weights(sizes) if given is None else given
        inputs = {False: None, True: "mean"}.get(self.standardize, self.standardize)
        targets, loss = bool(getattr(self, "standardize_targets", False)), self._choose_loss()
        self._net = MLP(
            sizes, hidden, loss, dtype=dtype, weights=pairs, standardize=inputs, standardize_targets=targets
        )
        self._made_with = self.activation
        self._learn_scaling(rows, weight)
        self._solver = self._spare = None
        self.n_iter_ = self.t_ = 0
        self.n_layers_ = len(sizes)
        self.out_activation_ = self._output_name(loss)
        self.loss_curve_ = []
        self._no_improvement_count = 0
        stopping = bool(self.early_stopping)
        self.validation_scores_ = [] if stopping else None
        self.best_validation_score_ = -np.inf if stopping else None
        self.best_loss_ = None if stopping else np.inf
        self._show(list(self._net.weights), list(self._net.biases))

    def _learn_scaling(self, rows: Rows, weight: NDArray[np.float64] | None) -> None:
        """Learn the scaling; mean and deviation are weighted, median and quartiles are not."""
        net = self._net
        if net.scaling and (is_sparse(rows.X) or weight is not None):
            if net.standardize == "mean":
                mean, deviation = column_statistics(rows.X, weight)
                scale = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 1e-12 * np.abs(mean))
                warn_if_all_constant(scale, len(rows))
                net.scaling.set(mean, scale)
            elif is_sparse(rows.X):
                raise ValueError(f"standardize={net.standardize!r} needs dense X")
        if net.target_scaling and weight is not None:
            mean, deviation = column_statistics(rows.y, weight)
            net.target_scaling.set(mean, np.where(deviation > 1e-12 * np.abs(mean), deviation, 1.0))
        if net.needs_scaling():
            net.learn_from(rows.X, rows.y)

    def _output_name(self, loss: losses.Loss) -> str:
        return {"sigmoid": "logistic"}.get(loss.default_output, loss.default_output)

    def _show(self, coefs: list[NDArray[Any]], intercepts: list[NDArray[Any]]) -> None:
        """Set the attributes to these lists of views of the network's weights."""
        self.coefs_, self.intercepts_ = self._lists = coefs, intercepts
        self._shown = (*coefs, *intercepts)

    def _assigned(self) -> list[tuple[Any, Any]]:
        """Weights and biases of each layer, as in the attributes."""
        if len(self.coefs_) != len(self.intercepts_):
            counts = f"{len(self.coefs_)} and {len(self.intercepts_)}"
            raise ValueError(f"coefs_ and intercepts_ must have one array for each layer, got {counts}")
        return list(zip(self.coefs_, self.intercepts_, strict=True))

    def _current(self) -> MLP:
        """The network with the weights in `coefs_` and `intercepts_` and the current `activation`."""
        given, shown = (*self.coefs_, *self.intercepts_), self.__dict__.get("_shown", ())
        same = self.__dict__.get("_made_with") == self.activation
        if same and len(given) == len(shown) and all(a is b for a, b in zip(given, shown, strict=True)):
            return self._net
        pairs, spare = self._assigned(), self.__dict__.get("_spare")
        sizes = self._assigned_sizes(pairs)
        hidden = tuple(parameters.hidden_activations(self, len(sizes) - 2))
        if spare is None or list(spare.sizes) != sizes or spare.functions[:-1] != hidden:
            self._spare = spare = self._put_together(sizes, pairs)
        else:
            spare.set_weights(pairs)
        return spare

    def _assigned_sizes(self, pairs: list[tuple[Any, Any]]) -> list[int]:
        """The layer sizes that these arrays imply: hidden layers may have been pruned since the fit.

        If the arrays do not fit together, the sizes of the fit, so that the error names the wrong array.
        """
        shapes = [np.shape(w) for w, _ in pairs]
        n_in = getattr(self, "n_features_in_", shapes[0][0] if shapes and shapes[0] else 0)
        sizes = [n_in, *(s[-1] if s else 0 for s in shapes[:-1]), self.n_outputs_]
        fit = shapes == list(pairwise(sizes)) and [np.shape(b) for _, b in pairs] == [(n,) for n in sizes[1:]]
        if "_net" in self.__dict__ and not (fit and len(sizes) == self.n_layers_):
            return list(self._net.sizes)
        return sizes

    def _put_together(self, sizes: list[int], pairs: list[tuple[Any, Any]]) -> MLP:
        """Build a network from assigned arrays: like the trained one, or if there is none as the attributes specify."""
        hidden = parameters.hidden_activations(self, len(sizes) - 2)
        if "_net" not in self.__dict__:
            single = all(getattr(a, "dtype", None) == np.float32 for pair in pairs for a in pair)
            return MLP(sizes, hidden, self._known_loss(), dtype="float32" if single else "float64", weights=pairs)
        net = MLP.__new__(MLP)
        net.__setstate__({**self._net.__getstate__(), "sizes": sizes, "activation": hidden, "weights": pairs})
        return net

    def _known_loss(self) -> losses.Loss:
        """The loss whose output activation is `out_activation_`."""
        several = [losses.CrossEntropy(), losses.BinaryCrossEntropy()]
        found = {self._output_name(loss): loss for loss in (several if self._is_classifier else [self._choose_loss()])}
        if self.out_activation_ not in found:
            allowed = " or ".join(map(repr, found))
            raise ValueError(f"out_activation_ must be {allowed}, got {self.out_activation_!r}")
        return found[self.out_activation_]

    def __sklearn_is_fitted__(self) -> bool:
        return "_shown" in self.__dict__ or all(name in self.__dict__ for name in BY_HAND)

    @property
    def _optimizer(self) -> Solver | None:
        """scikit-learn's name of the solver: scripts read ``_optimizer.learning_rate``, which has no public name."""
        return self._solver

    # ---- prediction --------------------------------------------------------------------------------------------------

    def _forward(self, X: Any) -> NDArray[Any]:
        """Outputs for X as given by the caller."""
        if (quick := self._quick_outputs(X)) is not None:
            return quick
        check_is_fitted(self)
        checks.unmasked("X", X)
        X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        net = self._current()
        with threads(self.n_threads):
            return outputs(net, X)

    def _quick_outputs(self, X: Any) -> NDArray[Any] | None:
        """Outputs for a few rows, if X is an array that needs no check by scikit-learn, else None.

        Its checks take a hundred times as long as a row in a small network.
        """
        if type(X) is not np.ndarray or not self.__sklearn_is_fitted__() or "feature_names_in_" in self.__dict__:
            return None
        net = self._current()
        with threads(self.n_threads):
            return net._quick_outputs(X)

    def _check_solver(self) -> bool:
        """Raise AttributeError if the solver does not support partial_fit."""
        if self.solver == "lbfgs" or isinstance(self.solver, named_optimizers.LBFGS):
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    # ---- defined by subclasses ---------------------------------------------------------------------------------------

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        raise NotImplementedError

    def _encode(self, y: Any) -> NDArray[Any]:
        raise NotImplementedError

    def _choose_loss(self) -> losses.Loss:
        raise NotImplementedError

    def _count_outputs(self, targets: NDArray[Any]) -> int:
        return int(targets.shape[1])

    # ---- copying, pickling, tags -------------------------------------------------------------------------------------

    def __copy__(self) -> Any:
        """Shallow copy: unlike pickling, it leaves the attributes unchanged, also during training."""
        copy = type(self).__new__(type(self))
        copy.__dict__.update(self.__dict__)
        copy.__dict__.pop("_spare", None)  # one of the two may train it
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return pickling.packed(super().__getstate__(), self._current() if "_net" in self.__dict__ else None)

    def __setstate__(self, pickled: dict[str, Any]) -> None:
        attributes = pickling.unpacked(self, pickled)
        super().__setstate__(attributes)
        if attributes.get("_net") is not None:
            self._show(list(self._net.weights), list(self._net.biases))
            self._made_with = self.activation

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags
