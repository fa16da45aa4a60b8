"""Network: the architecture and the parameters of a multilayer perceptron, and the checks of its data.

All parameters are in one flat vector that the kernels update in place: `weights` and `biases` are views of it, and
assigned values are copied into it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from math import inf
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import activations as named
from . import checks, forks, initializers, losses, scaling
from .keywords import explained
from .layout import Layout
from .plan_cache import PlanCache
from .runtime import Executor, check_backend
from .views import Views

Pairs = Sequence[tuple[ArrayLike, ArrayLike | None]]

# Attributes that plans depend on; they cannot be changed after construction.
FIXED = frozenset(
    (
        *("sizes", "dtype", "loss", "functions", "bias", "seed", "backend", "standardize", "standardize_targets"),
        *("layout", "matrices", "scaling", "target_scaling"),
    )
)
# These and further attributes of the class; all others are the user's.
OWN = FIXED | {
    *("_parameters", "_predictors", "_row_predictor", "idle_evaluations", "_gives_probabilities"),
    *("shuffle_rng", "training", "_forks", "_users", "_made"),
}
INSTEAD = "{0} cannot be assigned as a whole: use net.set_weights([(W, b), ...]), net.{0}[i] = ... or net.{0}[:] = ..."


class Network:
    """Base class of the parts of `MLP`, which describes the parameters."""

    _made = False  # whether construction is complete
    _users: frozenset[str] = frozenset()  # names of attributes set by the user

    @explained("MLP()")
    def __init__(
        self,
        sizes: Iterable[int],
        activation: str | named.Activation | Sequence[str | named.Activation] = "relu",
        loss: str | losses.Loss = "cross_entropy",
        *,
        output: str | named.Activation | None = None,
        bias: bool = True,
        seed: int | None = 0,
        dtype: DTypeLike = "float32",
        initializer: Any = None,
        weights: Pairs | None = None,
        standardize: str | None = None,
        standardize_targets: bool = False,
        backend: str | None = None,
    ) -> None:
        self.sizes = checks.sizes(sizes)
        self.dtype = checks.real_dtype(dtype)
        self.loss = losses.get(loss)
        self.functions = (*self._hidden(activation), self._output(output))
        for function in (self.loss, *self.functions):
            checks.fits(function, self.dtype)
        self.bias = checks.flag("bias", bias)
        if seed is not None:
            seed = checks.whole("seed", seed, 0, 2**63 - 1)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        if backend is not None:
            check_backend(backend)
        self.backend = backend
        self.standardize = checks.one_of("standardize", standardize, None, *scaling.METHODS)
        self.standardize_targets = self._check_targets_flag(standardize_targets)
        self.layout = Layout(self.sizes, self.dtype)  # raises ValueError if they do not fit into memory
        self.loss_aux()
        self._begin(weights, initializer)
        self.shuffle_rng = np.random.default_rng([self.seed, 1])
        self._made = True

    def _begin(self, weights: Pairs | None, initializer: Any) -> None:
        """Allocate the parameters and initialise them with the given values or random ones."""
        pairs = None if weights is None else self._check_pairs(weights)
        chosen = [a.default_initializer if initializer is None else initializer for a in self.functions]
        initial = [initializers.get(choice) for choice in chosen]
        self._allocate()
        if pairs is not None:
            self._set_pairs(pairs)
            return
        rng = np.random.default_rng([self.seed, 0])
        for init, matrix in zip(initial, self.matrices, strict=True):
            initializers.fill(init, rng, matrix[:-1])

    def __setattr__(self, name: str, value: Any) -> None:
        # Without __dict__: once it exists, reading attributes makes the prediction of a row a tenth slower.
        if name in FIXED:  # while a subclass may set attributes of its own
            if self._made and getattr(self, name) is not value:
                raise AttributeError(f"{name} is fixed at construction: create a new MLP (got {checks.shown(value)})")
        elif not (name in OWN or name in self._users or isinstance(getattr(type(self), name, None), property)):
            object.__setattr__(self, "_users", self._users | {name})
        object.__setattr__(self, name, value)

    def _allocate(self) -> None:
        self._parameters = self.layout.zeros()
        self.matrices = self.layout.matrices(self._parameters)
        method, n_in, n_out = self.standardize, self.sizes[0], self.sizes[-1]
        self.scaling = scaling.InputScaling(method, n_in, self.dtype) if method else None
        self.target_scaling = scaling.TargetScaling(n_out, self.dtype) if self.standardize_targets else None
        self.training, self._forks = threading.Lock(), forks.count  # the lock is held during training
        self._predictors: dict[tuple[int, int], tuple[Executor, threading.Lock]] = {}
        self._row_predictor: Callable[[object], NDArray[Any] | None] | None = None
        self.idle_evaluations: PlanCache[Executor] = PlanCache()  # small plans that no Evaluator is using
        # Stored, because every prediction of a row needs it.
        self._gives_probabilities = self.functions[-1].name in ("softmax", "sigmoid")

    def _shapes(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    def _hidden(self, value: Any) -> tuple[named.Activation, ...]:
        n = len(self.sizes) - 2
        if checks.sequence(value):
            items = checks.same_length("activation", value, n, "one for each hidden layer")
            found = tuple(named.get(a) for a in items)
        else:
            found = (named.get(value),) * n
        for act in found:
            if act.for_outputs:
                raise ValueError(f"activation must not be {act.name!r} in a hidden layer: it is an output activation")
        return found

    def _output(self, value: Any) -> named.Activation:
        own = self.loss.default_output
        if own == "exp" and (value is None or value == "exp"):
            return named.Exp()
        try:
            act = named.get(own if value is None else value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"output: {error}") from None
        if self.loss.fused_output and act.name != self.loss.fused_output:
            raise ValueError(f"output must be {own!r} for loss {self.loss.name!r}, got {act.name!r}")
        return act

    def _check_targets_flag(self, value: Any) -> bool:
        if checks.flag("standardize_targets", value) and not self._has_free_targets():
            raise ValueError(
                "standardize_targets must be False unless the loss is 'mse', 'mae', 'huber' or 'quantile' and the"
                f" output 'identity', got loss {self.loss.name!r} and output {self.functions[-1].name!r}"
            )
        return bool(value)

    def _has_free_targets(self) -> bool:
        """Whether the targets may be any numbers, in any units."""
        return not (self.loss.is_classifier or self.loss.fused_output) and self.functions[-1].name == "identity"

    def may_scale_targets(self) -> bool:
        """Whether ``standardize_targets`` is off but would be allowed."""
        return not self.standardize_targets and self._has_free_targets()

    def _renew_after_fork(self) -> None:
        """Drop locks and predictors that threads of the parent process may have been using."""
        if self._forks != forks.count:
            self.training, self._forks = threading.Lock(), forks.count
            self._predictors, self._row_predictor = {}, None

    def exclusively(self) -> threading.Lock:
        """The lock to hold during training; RuntimeError if this is being trained, by another thread or a callback.

        Use it in a `with` statement: with Python code in between, Ctrl-C could leave it locked.
        """
        self._renew_after_fork()
        if self.training.locked():
            raise RuntimeError("this network is being trained already, by another thread or from inside a callback")
        return self.training

    # ---- used by the tape --------------------------------------------------------------------------------------------

    def fuses_output(self) -> bool:
        """Whether the output activation is part of the loss."""
        return self.loss.fused_output == self.functions[-1].name

    def loss_aux(self) -> NDArray[Any] | None:
        """The loss's parameter of each output, if it has one, in the layout that the kernels read."""
        aux = self.loss.aux(self.sizes[-1])
        if aux is None:
            return None
        row = Layout([0, self.sizes[-1]], self.dtype)
        matrix = row.matrices(row.zeros())[0]
        matrix[0] = aux
        return matrix

    def title(self) -> str:
        """Name of the network in a plan's listing."""
        return f"MLP({' -> '.join(map(str, self.sizes))})"

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def parameters(self) -> NDArray[Any]:
        """All weights and biases, with padding, as one flat vector, whose memory never changes.

        Assigned values are copied into it, except for the padding: ``saved = net.parameters.copy()`` and, later,
        ``net.parameters = saved``. TypeError or ValueError unless they are a finite vector of the same length.
        """
        return self._parameters

    @parameters.setter
    def parameters(self, value: NDArray[Any]) -> None:
        if value is self._parameters:  # as after net.parameters *= 2
            return
        flat = self.apart(self.checked_parameters("parameters", value, self._parameters.shape))
        given = self.layout.matrices(flat)
        if not self.bias and any(matrix[-1].any() for matrix in given):
            raise ValueError("parameters must be zero where biases are: the network has bias=False")
        for matrix, numbers in zip(self.matrices, given, strict=True):
            matrix[:] = numbers

    @property
    def weights(self) -> Views:
        """Weights of each layer: live views ``(n_in, n_out)``. Values assigned to an item are copied into its view.

        Their rows are padded, so most of them are not contiguous: code that ignores strides, such as safetensors, needs
        ``np.ascontiguousarray(w)``.
        """
        return Views(self, "weights", [m[:-1] for m in self.matrices])

    @weights.setter
    def weights(self, value: Any) -> None:
        raise AttributeError(INSTEAD.format("weights"))

    @property
    def biases(self) -> Views:
        """Biases of each layer: live views ``(n_out,)``. Values assigned to an item are copied into its view."""
        return Views(self, "biases", [m[-1] for m in self.matrices])

    @biases.setter
    def biases(self, value: Any) -> None:
        raise AttributeError(INSTEAD.format("biases"))

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases; the flat vector `parameters` is longer because of padding."""
        return sum((n_in + self.bias) * n_out for n_in, n_out in self._shapes())

    def set_weights(self, pairs: Pairs) -> None:
        """Replace all weights and biases by copies of the given ``(W, b)`` pairs.

        Raises
        ------
        ValueError
            If a shape is not the layer's, or a value is not finite; then nothing has changed.

        Examples
        --------
        >>> import fastmlp
        >>> net = fastmlp.MLP([2, 1], loss="mse")
        >>> net.set_weights([([[2.0], [3.0]], [1.0])])
        >>> net.predict([[10.0, 100.0]])
        array([321.], dtype=float32)
        """
        self._set_pairs([(self.apart(w), self.apart(b)) for w, b in self._check_pairs(pairs)])

    def apart(self, array: NDArray[Any]) -> NDArray[Any]:
        """The array, or a copy if it may share memory with the parameters, since writing these would change it."""
        return array.copy() if np.may_share_memory(array, self.parameters) else array

    def _check_pairs(self, pairs: Pairs, what: str = "weights") -> list[tuple[NDArray[Any], NDArray[Any]]]:
        items = checks.same_length(what, pairs, len(self.sizes) - 1, "one (W, b) pair for each layer")
        found = []
        for i, (pair, shape) in enumerate(zip(items, self._shapes(), strict=True)):
            w, b = checks.same_length(f"{what}[{i}]", pair, 2, "W and b")
            w = self.checked_parameters(f"{what}[{i}][0]", w, shape)
            b = self.checked_parameters(f"{what}[{i}][1]", np.zeros(shape[1]) if b is None else b, shape[1:])
            if not self.bias and b.any():
                raise ValueError(f"{what}[{i}][1] must be None or zero: the network has bias=False")
            found.append((w, b))
        return found

    def checked_parameters(self, name: str, value: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """`value` as an array, of this shape and finite in the network's dtype; TypeError or ValueError otherwise."""
        array = checks.numeric(name, value)
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        checks.finite(name, array, self.dtype)
        return array

    def _set_pairs(self, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        for matrix, (w, b) in zip(self.matrices, pairs, strict=True):
            matrix[:-1] = w
            matrix[-1] = b

    # ---- data --------------------------------------------------------------------------------------------------------

    def check_data(self, X: ArrayLike, y: ArrayLike, prefix: str = "") -> tuple[NDArray[Any], NDArray[Any]]:
        """X and y as checked arrays, not standardised; y is 1-D if it holds class numbers, else 2-D."""
        name_x, name_y = f"{prefix}X", f"{prefix}y"
        X = checks.inputs(X, self.sizes[0], self.dtype, name_x)
        y = checks.numeric(name_y, y)
        if (len(y) if y.ndim else 1) != len(X):
            raise ValueError(f"{name_y} must have as many rows as {name_x}, {len(X)}, got shape {y.shape}")
        if self.loss.is_multiclass and y.ndim == 1:
            return X, checks.labels(y, len(X), self.sizes[-1], name_y)
        y = checks.dense_targets(y, len(X), self.sizes[-1], self.dtype, name_y, self._hint(y))
        if self.loss.target_range != (-inf, inf):
            checks.within(y, *self.loss.target_range, f"for loss {self.loss.name!r}", name_y)
        return X, y

    def _hint(self, y: NDArray[Any]) -> str:
        """A suggestion for an error message, if y is a single column and the network has several outputs."""
        n = self.sizes[-1]
        if n == 1 or (y.ndim != 1 and y.shape[1:] != (1,)):
            return ""
        name = "y" if y.ndim == 1 else "y.ravel()"
        if self.loss.is_multiclass:
            return f"; for class numbers use {name}"
        if self.loss.name == "quantile":
            return f"; for several quantiles of one target use np.tile({'y[:, None]' if y.ndim == 1 else 'y'}, {n})"
        may_be_classes = self.loss.name != "poisson" and y.dtype.kind in "iu" and 0 <= y.min() <= y.max() < n
        return f"; for class numbers use np.eye({n})[{name}]" if may_be_classes else ""

    def learn_scaling(self, X: ArrayLike, y: ArrayLike | None = None) -> None:
        """Learn the standardisation from these rows, if the network uses it and has not learned it yet.

        The first `fit` does this with its training rows. Before training in single steps or on an iterable of batches,
        call it with a sample of the data.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
        y : array-like, shape (rows,) or (rows, n_out), optional
            Needed for ``standardize_targets``.

        Raises
        ------
        TypeError, ValueError
            For bad input, or a column that cannot be standardised; then nothing has changed.

        Warns
        -----
        UserWarning
            If all columns are constant, as with a single row: the network will then read all inputs as 0.

        Examples
        --------
        >>> import fastmlp
        >>> net = fastmlp.MLP([1, 1], loss="mse", standardize="mean")
        >>> net.learn_scaling([[1.0], [3.0]])
        >>> net.activations([[5.0]])[0]
        array([[3.]], dtype=float32)
        """
        if self.standardize_targets and y is None:
            raise ValueError("learn_scaling needs y: the network has standardize_targets=True")
        if y is None:
            self.learn_from(checks.inputs(X, self.sizes[0], self.dtype), None)
        else:
            self.learn_from(*self.check_data(X, y))

    def learn_from(self, X: NDArray[Any], y: NDArray[Any] | None, rows: NDArray[np.int64] | None = None) -> None:
        """`learn_scaling` from checked data, or from the given rows of it."""
        target = scaling.TargetScaling(self.sizes[-1], self.dtype)
        if y is not None and self.target_scaling and not self.target_scaling.learned:
            target.learn(y if rows is None else y[rows])
        if self.scaling and not self.scaling.learned:
            self.scaling.learn(X, rows)
        if self.target_scaling and target.learned:
            self.target_scaling.set(*target.numbers())

    def needs_scaling(self) -> bool:
        """Whether the network uses a standardisation that it has not learned yet."""
        inputs, targets = self.scaling, self.target_scaling
        return (inputs is not None and not inputs.learned) or (targets is not None and not targets.learned)

    def plan_targets(self, y: NDArray[Any]) -> NDArray[Any]:
        """Checked targets as the loss reads them: standardised if the network does so."""
        return self.target_scaling.apply(y) if self.target_scaling else y

    def restored(self, out: NDArray[Any]) -> NDArray[Any]:
        """Convert outputs to the units of the targets."""
        return self.target_scaling.undo(out) if self.target_scaling else out

    # ---- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sizes": self.sizes,
            "activation": self.functions[:-1],
            "output": self.functions[-1],
            "loss": self.loss,
            "bias": self.bias,
            "seed": self.seed,
            "dtype": self.dtype.name,
            "backend": self.backend,
            "standardize": self.standardize,
            "standardize_targets": self.standardize_targets,
            "weights": [(w.copy(), b.copy()) for w, b in zip(self.weights, self.biases, strict=True)],
            "learned": [s and s.learned and list(s.numbers()) for s in (self.scaling, self.target_scaling)],
            "shuffle": self.shuffle_rng.bit_generator.state,
            "attributes": {name: getattr(self, name) for name in sorted(self._users) if hasattr(self, name)},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        shuffle, learned = state.pop("shuffle"), state.pop("learned")
        for name, value in state.pop("attributes", {}).items():
            setattr(self, name, value)
        Network.__init__(self, **state)  # not a subclass's, which may take other arguments
        for scaler, numbers in zip((self.scaling, self.target_scaling), learned, strict=True):
            if scaler and numbers:
                scaler.set(*numbers)
        self.shuffle_rng.bit_generator.state = shuffle

    def twin(self, dtype: DTypeLike, **changes: Any) -> Self:
        """A copy of this network with another dtype, and with `changes` of keywords of `MLP`."""
        copy = type(self).__new__(type(self))
        copy.__setstate__({**self.__getstate__(), "dtype": np.dtype(dtype).name, **changes})
        return copy
