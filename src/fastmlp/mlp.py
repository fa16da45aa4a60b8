"""MLP: the network, with its methods for training and evaluation.

Architecture and parameters are in `network`, prediction is in `prediction`, derivatives are in `gradients`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Unpack

from numpy.typing import ArrayLike

from . import checks
from .data import Data
from .evaluation import Evaluator
from .gradients import Gradients
from .keywords import explained
from .options import FitSettings, Options
from .plan import Plan
from .prediction import Prediction

if TYPE_CHECKING:
    from .history import History
    from .optimizers import Optimizer


class MLP(Prediction, Gradients):
    """A multilayer perceptron: layers of ``y = act(x W + b)``, a loss, and the weights.

    Parameters
    ----------
    sizes : list of int
        Units of each layer, including inputs and outputs: ``[784, 16, 10]``.
    activation : str, Activation, or a list with one for each hidden layer
        Names: identity, sigmoid, tanh, relu, leaky_relu, elu, selu, gelu, silu, mish, softplus, hard_tanh.
    loss : str or Loss
        ``"cross_entropy"`` (softmax output), ``"binary_cross_entropy"`` (sigmoid output, one or many labels),
        ``"mse"``, ``"mae"``, ``"huber"``, ``"quantile"`` (identity output), ``"poisson"`` (the outputs are logarithms
        of rates).
    output : str or Activation, optional
        Output activation, by default the loss's own; ``output="sigmoid", loss="mse"`` is the textbook network.
    bias : bool
        Whether layers add a bias.
    seed : int or None
        Seed of the initial weights and the shuffling; None draws one from the operating system.
    dtype : "float32" or "float64"
    initializer : str or Initializer, optional
        Distribution of the initial weights; by default it depends on each layer's activation: ``"he_normal"`` for relu,
        leaky_relu, elu, gelu, silu and mish, ``"lecun_normal"`` for selu, ``"glorot_uniform"`` for the others. Biases
        start at 0.
    weights : list of (W, b), optional
        The initial weights, one pair per layer: ``W`` of shape (n_in, n_out), ``b`` of shape (n_out,) or None. They do
        not include the standardisation that another network has learned: see below.
    standardize : "mean", "robust" or None
        How the first `fit` learns to scale the inputs: by mean and standard deviation, or by median and quartiles with
        a smooth clip to (-3, 3); see :class:`fastmlp.scaling.InputScaling`. The scaling is then part of the network.
        Until then inputs are not scaled: a network with given `weights` needs ``net.learn_scaling(X)`` before it
        predicts, or the scaling of the network they came from: ``net.scaling.set(*old.scaling.numbers())``.
    standardize_targets : bool
        Regression: whether the first `fit` learns mean and standard deviation of the targets. The network is trained,
        and its loss measured, in these units; predictions and metrics are in the original ones. With given `weights`:
        ``net.learn_scaling(X, y)``, or ``net.target_scaling.set(*old.target_scaling.numbers())``.
    backend : "engine" or "reference", optional
        What runs the network: the compiled kernels or NumPy.

    Raises
    ------
    TypeError, ValueError
        For an invalid argument; the message names it, its value and what is allowed.

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

    Copying weights together with the input scaling:

    >>> old = fastmlp.MLP([1, 2], standardize="mean")
    >>> old.learn_scaling([[10.0], [30.0]])
    >>> new = fastmlp.MLP([1, 2], standardize="mean", weights=list(zip(old.weights, old.biases)))
    >>> new.needs_scaling()
    True
    >>> new.scaling.set(*old.scaling.numbers())
    >>> bool((new.predict_proba([[20.0], [50.0]]) == old.predict_proba([[20.0], [50.0]])).all())
    True
    """

    @explained("MLP.evaluate()")
    def evaluate(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        metrics: Iterable[Any] | None = None,
    ) -> dict[str, float]:
        """Compute loss and metrics on given data; by default accuracy (classification) or R2 (regression).

        Parameters
        ----------
        X : array-like, shape (rows, n_in)
        y : array-like
            As in `fit`.
        sample_weight : array-like, shape (rows,), optional
        metrics : list, optional
            accuracy, balanced_accuracy, roc_auc (two classes), r2, mae, rmse, or functions (y, prediction) -> number.

        Returns
        -------
        dict
            ``"loss"``, and each metric by its name.

        Examples
        --------
        >>> import fastmlp
        >>> net = fastmlp.MLP([1, 1], loss="mse", weights=[([[2.0]], None)])
        >>> net.evaluate([[1.0], [2.0]], [3.0, 5.0], metrics=["mae"])
        {'loss': 1.0, 'mae': 1.0}
        """
        X, y = self.check_data(X, y)
        evaluator = Evaluator(self, Data(X, y, checks.sample_weight(sample_weight, len(X))), metrics)
        try:
            return evaluator()
        finally:
            evaluator.end()

    # ---- training ----------------------------------------------------------------------------------------------------

    def plan(self, batch_size: int = 32, optimizer: Any = "sgd") -> Plan:
        """Return the plan of one training step; print it to see backpropagation, op by op.

        It does not show numbers: learning rate, momentum, penalties, sample weights. The ops of options that only a
        trainer has, such as dropout, ``max_norm`` and ``average``, are included in the plan that
        ``fastmlp.Trainer(net, ...).plan_for(rows, labels=True)`` returns. For cross-entropy, targets are class numbers.

        Parameters
        ----------
        batch_size : int
            Rows of the step. Unlike in `fit`, None for all rows is not allowed: use ``len(X)``.
        optimizer : str or Optimizer
            Not L-BFGS, which makes no steps.

        Returns
        -------
        Plan

        Examples
        --------
        >>> import fastmlp
        >>> [op.opcode for op in fastmlp.MLP([784, 10]).plan().ops]
        ['gather', 'linear', 'gather', 'loss', 'linear_update']
        """
        from .trainer import Trainer

        if batch_size is None:
            raise TypeError("batch_size must be a whole number, got None: for all rows of some data use len(X)")
        rows = checks.whole("batch_size", batch_size)
        return Trainer(self, optimizer).plan_for(rows, self.loss.is_multiclass)

    @explained("MLP.fit()", FitSettings.__annotations__)
    def fit(
        self, X: Any, y: ArrayLike | None = None, *, optimizer: str | Optimizer = "sgd", **settings: Unpack[FitSettings]
    ) -> History:
        """Train on X, y from the current weights. Shorthand for ``Trainer(net, optimizer, ...).fit(X, y, ...)``.

        Parameters
        ----------
        X : array-like, shape (rows, n_in); or, without y, an iterable of (X, y) batches
            Any real numeric type and any strides. float32, float64, bool and integers of up to 64 bits are read in
            place, never copied as a whole; others (float16, long double, a foreign byte order) are converted first.
        y : array-like
            Class numbers 0..n_out-1 of shape (rows,), or targets of shape (rows, n_out).
        optimizer : str or Optimizer
            Such as ``fastmlp.SGD(0.1, momentum=0.9)``.
        **settings
            dropout, input_dropout, max_norm, average, accumulate, lr_factors, class_weight: see
            :class:`fastmlp.Trainer`. epochs (by default 10), batch_size (32), validation, validation_fraction, metrics,
            early_stopping, sample_weight, shuffle, use_average, callbacks: see :meth:`fastmlp.Trainer.fit`.

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

        rest: dict[str, Any] = {**settings}
        own = {field.name: rest.pop(field.name) for field in fields(Options) if field.name in rest}
        return Trainer(self, optimizer, **own).fit(X, y, **rest)

    def __repr__(self) -> str:
        names = [a.name for a in self.functions[:-1]]
        one = names[0] if len(set(names)) == 1 else names
        shown = f", activation={one!r}" if names else ""
        end = f"loss={self.loss.name!r}, output={self.functions[-1].name!r}, dtype={self.dtype.name!r}"
        return f"MLP({list(self.sizes)}{shown}, {end})"
