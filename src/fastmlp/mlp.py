"""MLP: the network itself. Its architecture, its parameters, and what can be asked of it without training.

All parameters live in one flat vector that the kernels update in place: what `weights` and `biases` show are views of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import checks, initializers, losses, metrics
from . import activations as named
from .layout import Layout
from .plan import Plan
from .runtime import Executor, check_backend, executor, get_num_threads
from .tape import PREDICTION_ROWS, evaluation_plan, forward_plan, gradient_plan, prediction_plan

if TYPE_CHECKING:
    from .trainer import History

Pairs = Sequence[tuple[ArrayLike, ArrayLike | None]]


class MLP:
    """A multilayer perceptron: layers of ``y = act(x W + b)``, a loss, and the weights.

    Parameters
    ----------
    sizes : list of int
        Units of each layer, inputs and outputs included: ``[784, 16, 10]``.
    activation : str, Activation, or a list with one for each hidden layer
        Names: identity, sigmoid, tanh, relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, hard_tanh.
    loss : str or Loss
        ``"cross_entropy"`` (softmax output), ``"binary_cross_entropy"`` (sigmoid output, one or many labels), ``"mse"``,
        ``"mae"``, ``"huber"``, ``"quantile"`` (identity output), ``"poisson"`` (the outputs are logarithms of rates).
    output : str or Activation, optional
        Output activation where it is not the loss's own: ``output="sigmoid", loss="mse"`` is the textbook's network.
    bias : bool
        Whether layers add a bias.
    seed : int or None
        Starts the initial weights and the shuffling; None draws one from the system.
    dtype : "float32" or "float64"
    initializer : str or Initializer, optional
        Distribution of the initial weights; by default He's for relu, Glorot's for the rest. Biases start at 0.
    weights : list of (W, b), optional
        The initial weights themselves, one pair a layer: ``W`` of shape (n_in, n_out), ``b`` of shape (n_out,) or None.
    backend : "engine" or "reference", optional
        Who runs it: the compiled kernels or NumPy.

    Raises
    ------
    TypeError, ValueError
        For an argument that is not one of these; the message names it, its value and what is allowed.

    Examples
    --------
    >>> import fastmlp, numpy as np
    >>> net = fastmlp.MLP([2, 4, 1], activation="tanh", loss="binary_cross_entropy", seed=0)
    >>> net
    MLP([2, 4, 1], activation='tanh', loss='binary_cross_entropy', output='sigmoid', dtype='float32')
    >>> net.weights[0].shape, net.biases[0].shape, net.n_parameters
    ((2, 4), (4,), 17)
    >>> net.predict_proba(np.zeros((3, 2))).shape
    (3, 1)
    """

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
        backend: str | None = None,
    ) -> None:
        self.sizes = checks.sizes(sizes)
        self.dtype = checks.real_dtype(dtype)
        self.loss = losses.get(loss)
        self.loss.check()
        self.functions = (*self._hidden(activation), self._output(output))
        if not isinstance(bias, (bool, np.bool_)):
            raise TypeError(f"bias must be True or False, got {bias!r}")
        self.bias = bool(bias)
        if seed is not None:
            seed = checks.whole("seed", seed, 0, 2**63 - 1)
        self.seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        if backend is not None:
            check_backend(backend)
        self.backend = backend
        self.loss_aux()
        self.layout = Layout(self.sizes, self.dtype)
        pairs = None if weights is None else self._check_pairs(weights)
        initial = [initializers.get(initializer or a.default_initializer) for a in self.functions]
        self._allocate()
        if pairs is None:
            rng = np.random.default_rng([self.seed, 0])
            for (n_in, n_out), init, matrix in zip(self._shapes(), initial, self.matrices, strict=True):
                matrix[:-1] = init(rng, n_in, n_out)
        else:
            self._set_pairs(pairs)
        self.shuffle_rng = np.random.default_rng([self.seed, 1])

    def _allocate(self) -> None:
        self.parameters = self.layout.zeros()
        self.matrices = self.layout.matrices(self.parameters)
        self.training = threading.Lock()
        self._predictors: dict[tuple[int, int], tuple[Executor, threading.Lock]] = {}

    def _shapes(self) -> list[tuple[int, int]]:
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    def _hidden(self, value: Any) -> tuple[named.Activation, ...]:
        n = len(self.sizes) - 2
        if isinstance(value, (list, tuple)):
            checks.same_length("activation", value, n, "one for each hidden layer")
            found = tuple(named.get(a) for a in value)
        else:
            found = (named.get(value),) * n
        for act in found:
            act.check()
            if act.name == "softmax":
                raise ValueError("activation must not be 'softmax' in a hidden layer: it is an output activation")
        return found

    def _output(self, value: Any) -> named.Activation:
        own = self.loss.default_output
        if value is None or (value == own == "exp"):
            return named.get("identity" if own == "exp" else own)
        act = named.get(value)
        act.check()
        if self.loss.fused_output and act.name != self.loss.fused_output:
            raise ValueError(f"output must be {own!r} for loss {self.loss.name!r}, got {act.name!r}")
        return act

    # ---- what the tape asks ------------------------------------------------------------------------------------------

    def fuses_output(self) -> bool:
        """Whether the output activation is part of the loss."""
        return self.loss.fused_output in (self.functions[-1].name, "exp")

    def loss_aux(self) -> NDArray[Any] | None:
        """The loss's numbers for each output, where it has any, as the kernels read them."""
        aux = self.loss.aux(self.sizes[-1])
        if aux is None:
            return None
        row = Layout([0, self.sizes[-1]], self.dtype)
        matrix = row.matrices(row.zeros())[0]
        matrix[0] = aux
        return matrix

    def input_scaling(self) -> dict[str, Any]:
        """What gather does to the inputs."""
        return {}

    def title(self) -> str:
        """Name of the network in a plan's listing."""
        return f"MLP({' -> '.join(map(str, self.sizes))})"

    # ---- parameters --------------------------------------------------------------------------------------------------

    @property
    def weights(self) -> list[NDArray[Any]]:
        """Weights of each layer: live views ``(n_in, n_out)``."""
        return [m[:-1] for m in self.matrices]

    @property
    def biases(self) -> list[NDArray[Any]]:
        """Biases of each layer: live views ``(n_out,)``."""
        return [m[-1] for m in self.matrices]

    @property
    def n_parameters(self) -> int:
        """How many weights and biases there are; `parameters`, the flat vector, is longer by its padding."""
        return sum((n_in + self.bias) * n_out for n_in, n_out in self._shapes())

    def set_weights(self, pairs: Pairs) -> None:
        """Replace all weights and biases by copies of the given ``(W, b)`` pairs.

        Raises
        ------
        ValueError
            If a shape is not the layer's, or a value is not finite; then nothing has changed.
        """
        self._set_pairs(self._check_pairs(pairs))

    def _check_pairs(self, pairs: Pairs) -> list[tuple[NDArray[Any], NDArray[Any]]]:
        checks.same_length("weights", pairs, len(self.sizes) - 1, "one (W, b) pair for each layer")
        found = []
        for i, (pair, shape) in enumerate(zip(pairs, self._shapes(), strict=True)):
            checks.same_length(f"weights[{i}]", pair, 2, "W and b")
            w = checks.numeric(f"weights[{i}][0]", pair[0])
            b = np.zeros(shape[1]) if pair[1] is None else checks.numeric(f"weights[{i}][1]", pair[1])
            for name, array, expected in ((f"weights[{i}][0]", w, shape), (f"weights[{i}][1]", b, shape[1:])):
                if array.shape != expected:
                    raise ValueError(f"{name} must have shape {expected}, got {array.shape}")
                checks.finite(name, array, self.dtype)
            if not self.bias and b.any():
                raise ValueError(f"weights[{i}][1] must be None or zero: the network has bias=False")
            found.append((w, b))
        return found

    def _set_pairs(self, pairs: list[tuple[NDArray[Any], NDArray[Any]]]) -> None:
        for matrix, (w, b) in zip(self.matrices, pairs, strict=True):
            matrix[:-1] = w
            matrix[-1] = b

    # ---- data --------------------------------------------------------------------------------------------------------

    def check_data(self, X: ArrayLike, y: ArrayLike, prefix: str = "") -> tuple[NDArray[Any], NDArray[Any], bool]:
        """X and y as the plan reads them, and whether y holds class numbers; raises for bad input."""
        name_x, name_y = f"{prefix}X", f"{prefix}y"
        X = checks.inputs(X, self.sizes[0], self.dtype, name_x)
        y = checks.numeric(name_y, y)
        if len(np.atleast_1d(y)) != len(X):
            raise ValueError(f"{name_y} must have as many rows as {name_x}, {len(X)}, got shape {y.shape}")
        if self.loss.name == "cross_entropy" and y.ndim == 1:
            return X, checks.labels(y, len(X), self.sizes[-1], name_y), True
        y = checks.dense_targets(y, len(X), self.sizes[-1], self.dtype, name_y)
        if self.loss.is_classifier:
            checks.probabilities(y, name_y)
        elif self.loss.name == "poisson" and y.min() < 0:
            raise ValueError(f"{name_y} must not be negative for loss 'poisson', got {y.min()}")
        return X, y, False

    # ---- prediction --------------------------------------------------------------------------------------------------

    def _outputs(self, X: ArrayLike) -> NDArray[Any]:
        """Outputs of the last layer, ``(rows, n_out)``."""
        X = checks.inputs(X, self.sizes[0], self.dtype)
        out = np.empty((len(X), self.sizes[-1]), self.dtype)
        n_threads = get_num_threads()
        rows = 1 if len(X) == 1 else PREDICTION_ROWS * n_threads
        predictor, lock = self._predictor(rows, n_threads)
        if not lock.acquire(blocking=False):  # another thread predicts with these buffers: take new ones
            predictor, lock = self._new_predictor(rows, n_threads)
            lock.acquire()
        try:
            predictor.bind(0, X)
            predictor.bind(len(predictor.plan.ops) - 1, out)
            offsets = np.minimum(np.arange(-(-len(X) // rows) + 1, dtype=np.int64) * rows, len(X))
            predictor.run(None, offsets, n_threads=n_threads)
        finally:
            lock.release()
        return np.exp(out, out=out) if self.loss.default_output == "exp" else out

    def _predictor(self, rows: int, n_threads: int) -> tuple[Executor, threading.Lock]:
        key = (rows, n_threads)
        if key not in self._predictors:
            self._predictors[key] = self._new_predictor(rows, n_threads)
        return self._predictors[key]

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
            If X is not such an array, or if the outputs of this network are not probabilities.

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> net = fastmlp.MLP([3, 3], weights=[(np.eye(3), np.zeros(3))])
        >>> net.predict_proba([[2.0, 1.0, 0.1]]).round(2)
        array([[0.66, 0.24, 0.1 ]], dtype=float32)
        """
        if self.functions[-1].name not in ("softmax", "sigmoid"):
            raise ValueError(
                f"predict_proba needs a softmax or sigmoid output; this network's is {self.functions[-1].name!r}: use predict"
            )
        return self._outputs(X)

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Labels (classification) or values (regression).

        Parameters
        ----------
        X : array-like, shape (rows, n_in)

        Returns
        -------
        array
            Cross-entropy: the most probable class of each row, int64 (rows,). Binary cross-entropy: whether each label is
            more probable than not, int64. Other losses: the outputs. With a single output the shape is (rows,), else
            (rows, n_out).
        """
        out = self._outputs(X)
        if self.loss.name == "cross_entropy":
            return out.argmax(axis=1)
        if self.loss.is_classifier:
            out = (out > 0.5).astype(np.int64)
        return out[:, 0] if out.shape[1] == 1 else out

    def evaluate(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> dict[str, float]:
        """Loss, and accuracy (classification) or R2 (regression), on given data.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
        y : array-like
            As in `fit`.
        sample_weight : array-like, shape (rows,), optional

        Returns
        -------
        dict
            ``"loss"``, and ``"accuracy"`` or ``"r2"``.
        """
        X, y, labels = self.check_data(X, y)
        return Evaluator(self, X, y, labels, checks.sample_weight(sample_weight, len(X)))()

    def activations(self, X: ArrayLike) -> list[NDArray[Any]]:
        """What every layer gives, from the inputs (as the network reads them) to the outputs.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)

        Returns
        -------
        list of array
            One ``(rows, size)`` for each of `sizes`; the last is what `predict_proba` gives.

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
        outputs = [tape.inputs[0], *tape.outputs]
        if self.loss.default_output == "exp":
            np.exp(outputs[-1], out=outputs[-1])
        return [np.ascontiguousarray(a) for a in outputs]

    # ---- gradients ---------------------------------------------------------------------------------------------------

    def loss_and_gradients(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, list[tuple[NDArray[Any], NDArray[Any]]]]:
        """The three stages of backpropagation: forward pass, backward pass, collection of the gradients.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As in `fit`; all rows are one batch.

        Returns
        -------
        loss : float
            Mean over rows and outputs, weighted.
        gradients : list of (dW, db)
            Of the loss by each layer's weights (n_in, n_out) and biases (n_out,).

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> net = fastmlp.MLP([1, 1], loss="mse", weights=[([[3.0]], [0.0])], dtype="float64")
        >>> net.loss_and_gradients([[2.0]], [5.0])     # (3 * 2 - 5)^2, 2 (6 - 5) * 2, 2 (6 - 5)
        (1.0, [(array([[4.]]), array([2.]))])
        """
        X, y, labels = self.check_data(X, y)
        weight = checks.sample_weight(sample_weight, len(X))
        gradients = self.layout.matrices(self.layout.zeros())
        plan, _ = gradient_plan(self, len(X), labels, gradients)
        plan.ops[plan.gathers[0]].data, plan.ops[plan.gathers[1]].data = X, y
        loss = executor(plan, self.backend).run(None, np.array([0, len(X)]), weight=weight, n_threads=get_num_threads())
        return float(loss[0]), [(g[:-1], g[-1]) for g in gradients]

    def plan(self, batch_size: int = 32, optimizer: Any = "sgd") -> Plan:
        """The plan of one training step; print it to see backpropagation, op by op."""
        from .trainer import Trainer

        return Trainer(self, optimizer).plan_for(checks.whole("batch_size", batch_size), self.loss.name == "cross_entropy")

    # ---- training ----------------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, *, optimizer: Any = "sgd", **settings: Any) -> History:
        """Train on X, y; going on from the current weights. Sugar for ``Trainer(net, optimizer).fit(X, y, ...)``.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
            Any real numeric type and any strides; read in place, never copied as a whole.
        y : array-like
            Class numbers 0..n_out-1 of shape (rows,), or targets of shape (rows, n_out).
        optimizer : str or Optimizer
            Such as ``fastmlp.SGD(0.1, momentum=0.9)``.
        **settings
            epochs, batch_size, validation, sample_weight, shuffle, callbacks: see :meth:`fastmlp.Trainer.fit`.

        Returns
        -------
        History

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.xor()
        >>> net = fastmlp.MLP([2, 4, 1], activation="tanh", loss="binary_cross_entropy", seed=0)
        >>> history = net.fit(X, y, epochs=500, batch_size=None, optimizer=fastmlp.SGD(1.0))
        >>> net.predict(X).tolist()
        [0, 1, 1, 0]
        """
        from .trainer import Trainer

        return Trainer(self, optimizer).fit(X, y, **settings)

    # ---- copies ------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        return {
            "sizes": self.sizes,
            "activation": self.functions[:-1],
            "output": None if self.loss.default_output == "exp" else self.functions[-1],
            "loss": self.loss,
            "bias": self.bias,
            "seed": self.seed,
            "dtype": self.dtype.name,
            "backend": self.backend,
            "weights": [(w.copy(), b.copy()) for w, b in zip(self.weights, self.biases, strict=True)],
            "shuffle": self.shuffle_rng.bit_generator.state,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        shuffle = state.pop("shuffle")
        self.__init__(**state)  # type: ignore[misc]
        self.shuffle_rng.bit_generator.state = shuffle

    def __repr__(self) -> str:
        names = [a.name for a in self.functions[:-1]]
        one = names[0] if len(set(names)) == 1 else names
        shown = f", activation={one!r}" if names else ""
        output = "exp" if self.loss.default_output == "exp" else self.functions[-1].name
        return f"MLP({list(self.sizes)}{shown}, loss={self.loss.name!r}, output={output!r}, dtype={self.dtype.name!r})"


class Evaluator:
    """Loss and score of a network on the same data, again and again, without building the plan anew."""

    def __init__(self, net: MLP, X: NDArray[Any], y: NDArray[Any], labels: bool, weight: NDArray[np.float64] | None) -> None:
        self.net, self.y, self.weight, self.n = net, y, weight, len(X)
        self.n_threads = get_num_threads()
        rows = min(len(X), PREDICTION_ROWS * self.n_threads)
        self.out = np.empty((len(X), net.sizes[-1]), net.dtype)
        plan = evaluation_plan(net, rows, labels, self.n_threads)
        for i, data in zip(plan.gathers, (X, y), strict=True):
            plan.ops[i].data = data
        plan.ops[-1].data = self.out
        self.executor = executor(plan, net.backend)
        self.offsets = np.minimum(np.arange(-(-len(X) // rows) + 1, dtype=np.int64) * rows, len(X))

    def __call__(self) -> dict[str, float]:
        """``loss``, and ``accuracy`` or ``r2``, with the weights as they are now."""
        batch_losses = self.executor.run(None, self.offsets, weight=self.weight, n_threads=self.n_threads)
        share = metrics.batch_weights(self.weight, self.offsets)
        loss = float(batch_losses @ share / share.sum())
        name, score = metrics.default_metric(self.net, self.y, self.out, self.weight)
        return {"loss": loss, name: score}
