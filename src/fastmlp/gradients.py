"""Gradients of loss and outputs with respect to parameters and inputs, and a numerical check of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, class_weights
from .network import Network
from .plans import evaluation_plan, gradient_plan, output_gradient_plan
from .runtime import executor
from .tape import PREDICTION_ROWS
from .threads import get_num_threads

Gradient = list[tuple[NDArray[Any], NDArray[Any]]]
DIFFERENCE = 1e-6  # of central differences in float64: truncation and rounding errors are then both near 1e-11


class Gradients(Network):
    """The part of `MLP` that computes gradients."""

    def loss_and_gradients(
        self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> tuple[float, Gradient]:
        """Loss and its gradients with respect to all parameters, by backpropagation.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As in `fit`; all rows form one batch. Targets are standardised if the network does so, and the loss includes
            its class weights, if any.

        Returns
        -------
        loss : float
            Weighted mean over rows and outputs.
        gradients : list of (dW, db)
            With respect to each layer's weights (n_in, n_out) and biases (n_out,).

        Examples
        --------
        >>> import fastmlp, numpy as np
        >>> net = fastmlp.MLP([1, 1], loss="mse", weights=[([[3.0]], [0.0])], dtype="float64")
        >>> net.loss_and_gradients([[2.0]], [5.0])     # (3 * 2 - 5)^2, 2 (6 - 5) * 2, 2 (6 - 5)
        (1.0, [(array([[4.]]), array([2.]))])
        """
        X, y = self.check_data(X, y)
        weight = self.row_weights(y, sample_weight)
        gradients = self.layout.matrices(self.layout.zeros())
        plan, _ = gradient_plan(self, len(X), y.ndim == 1, gradients)
        plan.bind(X, self.plan_targets(y))
        loss = executor(plan, self.backend).run(None, np.array([0, len(X)]), weight=weight, n_threads=get_num_threads())
        return float(loss[0]), [(g[:-1], g[-1]) for g in gradients]

    def input_gradients(self, X: ArrayLike, output: int | Sequence[int] | None = None) -> NDArray[Any]:
        """Gradient of one output with respect to the inputs, row by row.

        The output is that of `predict_proba`, or of `predict` in regression; the inputs are those of the caller. So the
        output activation (softmax with all its terms) and the standardisation of inputs and targets are included.

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
        output : int, or one int for each row, optional
            Number of the output, from 0. By default the only one; with softmax, the most probable class of each row.

        Returns
        -------
        array, shape (rows, n_in)

        Raises
        ------
        TypeError, ValueError
            For bad input, or if there are several outputs without softmax and none is given.

        Examples
        --------
        >>> import fastmlp
        >>> net = fastmlp.MLP([2, 1], loss="mse", weights=[([[3.0], [-1.0]], [0.0])])
        >>> net.input_gradients([[1.0, 1.0]])
        array([[ 3., -1.]], dtype=float32)
        """
        X = checks.inputs(X, self.sizes[0], self.dtype)
        chosen = self._chosen(output, len(X))
        n_threads = get_num_threads()
        capacity = min(len(X), PREDICTION_ROWS * n_threads)
        plan, tape, backward = output_gradient_plan(self, capacity, n_threads)
        plan.ops[0].data = X
        runner = executor(plan, self.backend)
        found = np.empty((len(X), self.sizes[0]), self.dtype)
        for begin in range(0, len(X), capacity):
            rows = np.arange(min(capacity, len(X) - begin))
            at, part = np.array([begin, begin + len(rows)]), slice(begin, begin + len(rows))
            runner.run(None, at, last_op=backward, n_threads=n_threads)
            out = tape.outputs[-1][: len(rows)]
            column = out.argmax(axis=1) if chosen is None else chosen[part]
            tape.deltas[-1][:] = 0
            tape.deltas[-1][rows, column] = self.target_scaling.std[column] if self.target_scaling else 1.0
            runner.run(None, at, first_op=backward, n_threads=n_threads)
            found[part] = tape.deltas[0][: len(rows)]
            if self.scaling:
                found[part] *= self.scaling.slope(X[part])
        return found

    def _chosen(self, output: Any, rows: int) -> NDArray[np.int64] | None:
        n = self.sizes[-1]
        if output is None:
            if n > 1 and self.functions[-1].name != "softmax":
                raise ValueError(f"output must be given, as a number 0..{n - 1}: the network has {n} outputs")
            return None
        if not checks.iterable(output):
            return np.full(rows, checks.whole("output", output, 0, n - 1))
        return checks.labels(output, rows, n, "output").astype(np.int64)

    def check_gradients(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        parameters: int = 1000,
        seed: int = 0,
    ) -> float:
        """Compare backpropagation with central differences, on a float64 copy of the network.

        For each parameter w: (loss(w + h) - loss(w - h)) / 2 h, with h = 1e-6 max(1, |w|).

        Parameters
        ----------
        X, y, sample_weight : array-like
            As in `fit`; a few rows suffice.
        parameters : int
            In [1, inf): number of weights and biases to check, drawn at random if there are more.
        seed : int
            Seed of the draw.

        Returns
        -------
        float
            The greatest relative error: the difference divided by the greater absolute value of the two, but at least
            by a thousandth of the greatest gradient in the layer. Correct gradients give less than 1e-5, unless the
            loss has a kink here (relu at 0, mae at an exact fit).

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.xor()
        >>> fastmlp.MLP([2, 4, 1], "tanh", "binary_cross_entropy").check_gradients(X, y) < 1e-5
        True
        """
        parameters, seed = checks.whole("parameters", parameters), checks.whole("seed", seed, 0)
        net = self.twin("float64")
        loss = net._loss_of(X, y, sample_weight)
        _, pairs = net.loss_and_gradients(X, y, sample_weight)
        flat = net.layout.zeros()
        floor = np.zeros_like(flat)
        for g, least, (dw, db) in zip(net.layout.matrices(flat), net.layout.matrices(floor), pairs, strict=True):
            g[:-1], g[-1] = dw, db
            least[:] = 1e-3 * np.abs(g).max()
        places = net.layout.places(net.bias)
        if len(places) > parameters:
            places = np.random.default_rng(seed).choice(places, parameters, replace=False)
        differences = np.array([central_difference(loss, net.parameters, i) for i in places])
        scale = np.maximum(np.maximum(np.abs(flat[places]), np.abs(differences)), floor[places])
        error = np.abs(flat[places] - differences)
        return float(np.divide(error, scale, out=np.zeros_like(error), where=error > 0).max())

    def loss_surface(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        directions: Any = None,
        steps: int = 21,
        radius: float = 1.0,
        seed: int = 0,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The loss on a plane through the weights, L(w + a d1 + b d2), for plots. The network is not changed.

        By default d1 and d2 are random and filter-normalised: for each unit, the direction has the norm of its incoming
        weights, and biases are fixed, so that surfaces of different networks are comparable. Li, Xu, Taylor, Studer and
        Goldstein, "Visualizing the loss landscape of neural nets", NeurIPS 2018.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As in `fit`.
        directions : two lists of (W, b), optional
            d1 and d2, each shaped like the weights (b may be None); used without normalisation.
        steps : int
            In [2, 10000]: number of points along each direction; if odd, the middle one is the network itself.
        radius : float
            In (0, inf): a and b go from -radius to radius.
        seed : int
            Seed of the random directions.

        Returns
        -------
        at : float64 array, shape (steps,)
            The values of a, and of b.
        losses : float64 array, shape (steps, steps)
            ``losses[i, j]`` is the loss at a = at[i], b = at[j]; may be infinite far from the network.

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.xor()
        >>> net = fastmlp.MLP([2, 4, 1], "tanh", "binary_cross_entropy")
        >>> at, losses = net.loss_surface(X, y, steps=5)
        >>> bool(abs(losses[2, 2] - net.evaluate(X, y)["loss"]) < 1e-6)
        True
        """
        steps, radius = checks.whole("steps", steps, 2, 10_000), checks.number("radius", radius, "(0, inf)")
        rng = np.random.default_rng(checks.whole("seed", seed, 0))
        if directions is None:
            first, second = self._random_direction(rng), self._random_direction(rng)
        else:
            both = checks.same_length("directions", directions, 2, "the two directions")
            first, second = (self._direction(pairs, f"directions[{i}]") for i, pairs in enumerate(both))
        net = self.twin(self.dtype)
        loss, centre = net._loss_of(X, y, sample_weight), net.parameters.astype(np.float64)
        at = radius * np.linspace(-1, 1, steps)
        losses = np.empty((steps, steps))
        for i, j in np.ndindex(steps, steps):
            with np.errstate(over="ignore", invalid="ignore"):
                net.parameters[:] = centre + at[i] * first + at[j] * second
            losses[i, j] = loss()
        return at, losses

    def _random_direction(self, rng: np.random.Generator) -> NDArray[np.float64]:
        flat = np.zeros(self.layout.size)
        for d, w in zip(self.layout.matrices(flat), self.weights, strict=True):
            random = rng.standard_normal(w.shape)
            d[:-1] = random * (np.linalg.norm(w.astype(np.float64), axis=0) / np.linalg.norm(random, axis=0))
        return flat

    def _direction(self, pairs: Any, what: str) -> NDArray[np.float64]:
        flat = np.zeros(self.layout.size)
        for d, (w, b) in zip(self.layout.matrices(flat), self._check_pairs(pairs, what), strict=True):
            d[:-1], d[-1] = w, b
        return flat

    def row_weights(self, y: NDArray[Any], sample_weight: ArrayLike | None) -> NDArray[np.float64] | None:
        """The weight of each row in the training loss: its sample weight times that of its class."""
        weight = checks.sample_weight(sample_weight, len(y))
        return class_weights.weighted(self, class_weights.chosen(self), y, weight)

    def _loss_of(self: Self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None) -> Any:
        """A function that computes the loss of these rows with the current parameters."""
        X, y = self.check_data(X, y)
        weight = self.row_weights(y, sample_weight)
        n_threads = get_num_threads()
        plan = evaluation_plan(self, len(X), y.ndim == 1, n_threads)
        plan.bind(X, self.plan_targets(y))
        plan.ops[-1].data = np.empty((len(X), self.sizes[-1]), self.dtype)
        runner = executor(plan, self.backend)
        return lambda: float(runner.run(None, np.array([0, len(X)]), weight=weight, n_threads=n_threads)[0])


def central_difference(f: Any, x: NDArray[np.float64], i: int) -> float:
    """The derivative of f() with respect to x[i], which is changed and restored."""
    old, h = float(x[i]), DIFFERENCE * max(1.0, abs(float(x[i])))
    x[i] = old + h
    above, right = f(), float(x[i])
    x[i] = old - h
    below, left = f(), float(x[i])
    x[i] = old
    return float((above - below) / (right - left))
