"""Trainer: trains a network, in single steps or for some epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import replace
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks, class_weights, lbfgs, optimizers
from .data import Data
from .epochs import EpochLoop
from .history import History
from .interrupts import WholeSteps
from .keywords import explained
from .mlp import MLP
from .options import Options
from .stepper import Stepper
from .stopping import EarlyStopping
from .stream import StreamLoop, check_batches
from .validation import listen, prepare


class Trainer(Stepper):
    """Trains a network; keeps the optimizer's state from one call to the next.

    Copies and pickles include the network and the complete training state, and continue bit-identically.

    Parameters
    ----------
    net : MLP
    optimizer : str or Optimizer
        A name (``"sgd"``, ``"adam"``, ``"lbfgs"``, ...) selects default parameters.
    dropout : float or list of float, default 0.0
        In [0, 1): the fraction of each hidden layer's outputs that a step sets to 0, one rate for all or one per hidden
        layer; the others are divided by 1 - rate. The masks depend on the network's seed and differ in every step.
    input_dropout : float, default 0.0
        In [0, 1): the same for the (standardised) inputs.
    max_norm : float, optional
        In (0, inf): after each update the weights into a unit, without the bias, are scaled down to this norm if theirs
        is greater. Srivastava et al., "Dropout", JMLR 15, 2014.
    average : float, optional
        In [0, 1): compute ``a = average a + (1 - average) w`` after every update, from the weights before the first
        one. The network holds these averaged weights whenever `fit` is not training: for validation, for callbacks and
        at the end; `fit` continues from the raw ones. With ``use_average=False`` in `fit` it keeps the raw ones.
    accumulate : int, default 1
        In [1, inf): number of batches per update, which uses the gradient of the mean loss over all their rows: as with
        a single batch of these rows, up to rounding. At the end of an epoch, an incomplete group makes an update, too.
        Schedules and `steps` count updates.
    lr_factors : list of float, optional
        In [0, inf): a factor on the learning rate for each layer, first layer first; 0 freezes a layer.
    class_weight : dict, "balanced" or None
        For cross-entropy over classes or a single label: the weight of each class (1 if missing), multiplied into the
        sample weights; ``"balanced"``: rows / (classes * rows of the class). For training only: validation loss and
        metrics are without class weights, as in Keras (in PyTorch a criterion weights both).
        ``CrossEntropy(class_weight=...)`` does the same.
    total_steps : int, optional
        In [1, inf): T in the formulas of learning-rate schedules: the total number of updates, by `step` and by
        every `fit`. By default a schedule ends with each `fit`, which counts its own updates.

    Attributes
    ----------
    net : MLP
    optimizer : Optimizer
        May be replaced by another of the same kind, for example with another learning rate.
    steps : int
        Updates made so far.
    average : array or None
        The averaged parameters, flat.

    Raises
    ------
    TypeError, ValueError
        For an argument that is out of range or does not fit the network.

    Examples
    --------
    >>> import fastmlp
    >>> X, y = fastmlp.datasets.xor()
    >>> net = fastmlp.MLP([2, 4, 1], activation="tanh", loss="binary_cross_entropy", seed=0)
    >>> trainer = fastmlp.Trainer(net, fastmlp.SGD(1.0, momentum=0.5))
    >>> first = trainer.step(X, y)
    >>> history = trainer.fit(X, y, epochs=300, batch_size=None)
    >>> history.loss[-1] < 0.05 < first
    True
    """

    @explained("Trainer()")
    def __init__(
        self,
        net: MLP,
        optimizer: str | optimizers.Optimizer = "sgd",
        *,
        dropout: float | Sequence[float] = 0.0,
        input_dropout: float = 0.0,
        max_norm: float | None = None,
        average: float | None = None,
        accumulate: int = 1,
        lr_factors: Sequence[float] | None = None,
        class_weight: Mapping[Any, float] | str | None = None,
        total_steps: int | None = None,
    ) -> None:
        if not isinstance(net, MLP):
            raise TypeError(f"net must be an MLP, got {net!r}")
        options = Options(dropout, input_dropout, max_norm, average, accumulate, lr_factors, class_weight)
        options.check(net)
        optimizer = optimizers.get(optimizer)
        if isinstance(optimizer, optimizers.LBFGS):
            lbfgs.check_options(options)
        super().__init__(net, optimizer, options)
        self.total_steps = None if total_steps is None else checks.count("total_steps", total_steps)

    # ---- one step ----------------------------------------------------------------------------------------------------

    def step(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Train on exactly this batch; returns its loss before the update.

        With ``accumulate=k`` every k-th call updates the weights, the others only add to the gradient; `flush` updates
        them at once. With ``average`` the network holds the raw weights after a step; see `show_average`.

        Parameters
        ----------
        X, y, sample_weight : array-like
            As in `fit`.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            For bad input, before anything is changed; also if a schedule depends on the number of steps and
            `total_steps` was not given.
        DivergenceError
            If the loss or a weight is not finite; the parameters are then as before the step.

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.xor()
        >>> trainer = fastmlp.Trainer(fastmlp.MLP([2, 2]), "adam")
        >>> losses = [trainer.step(X, y) for _ in range(100)]
        >>> trainer.steps, losses[-1] < losses[0]
        (100, True)
        """
        self._refuse("step", "fit")
        self._check_stream()
        with self._net.exclusively():
            rate = self.rate_of(self.total_steps)
            loss = self.step_unchecked(X, y, sample_weight, rate)
            if loss is None:
                data = self.training_data(X, y, sample_weight)
                if self._average:
                    self._average.hide()
                loss = self.step_on(data, rate)
            return loss

    # ---- epochs ------------------------------------------------------------------------------------------------------

    @explained("Trainer.fit()")
    def fit(
        self,
        X: ArrayLike | Iterable[Any],
        y: ArrayLike | None = None,
        *,
        epochs: int = 10,
        batch_size: int | None = 32,
        validation: tuple[ArrayLike, ...] | NDArray[np.integer[Any]] | None = None,
        validation_fraction: float | None = None,
        metrics: Sequence[Any] | None = None,
        early_stopping: bool | EarlyStopping = False,
        sample_weight: ArrayLike | None = None,
        shuffle: bool = True,
        use_average: bool = True,
        callbacks: Sequence[Any] = (),
    ) -> History:
        """Train for some epochs, continuing from the current weights and optimizer state.

        Parameters
        ----------
        X : array-like, shape (rows, n_in); or iterable of batches
            An array of float32, float64, bool or integers in native byte order, also a memory-mapped one, is read in
            place and never copied as a whole. Or, without `y`, an iterable of (X, y) or (X, y, sample_weight), iterated
            over once per epoch, with a step for each item: `batch_size` and `shuffle` have no effect then, and only one
            batch at a time is in memory. An iterator lasts for one epoch.
        y : array-like
            Class numbers (rows,), or targets (rows, n_out).
        epochs : int
            With L-BFGS, which also has no use for `batch_size` and `shuffle`: iterations, unless it has `max_iter`.
        batch_size : int or None
            Rows per step: 1 is stochastic, None full-batch gradient descent. The last batch may be shorter.
        validation : (X, y), (X, y, sample_weight) or array of row numbers, optional
            Evaluated after each epoch. Rows named by number are held out of the training.
        validation_fraction : float, optional
            In (0, 1): hold out this fraction of the rows, stratified by class; drawn with the network's seed, so that
            every call holds out the same.
        metrics : list, optional
            Metrics of the validation rows to report beside their loss, as ``val_<name>``: accuracy, balanced_accuracy,
            roc_auc (two classes), r2, mae, rmse, or functions (y, prediction) -> number. By default accuracy or r2.
        early_stopping : bool or EarlyStopping, default False
            Whether to stop once the validation loss has not fallen for 10 epochs, and restore the best weights.
        sample_weight : array-like, shape (rows,), optional
            Each 0 or in [1e-100, 1e100]. The loss of a batch is ``sum(w * loss) / sum(w)``.
        shuffle : bool
            Whether to shuffle the rows in each epoch, with the network's seed.
        use_average : bool, default True
            With ``average``: whether the network holds the averaged weights between epochs and at the end.
        callbacks : list
            Objects with any of ``on_train_begin(state)``, ``on_epoch_end(state)`` (True stops),
            ``on_train_end(state)``: see :mod:`fastmlp.callbacks`.

        Returns
        -------
        History

        Raises
        ------
        TypeError, ValueError
            For bad input, before anything is changed. Batches of an iterable are checked one by one: if one is invalid,
            the network keeps the training on those before it, and no history is returned.
        DivergenceError
            If the loss stops being finite; the parameters of the last finite epoch are kept.
        KeyboardInterrupt
            Within 0.2 s of Ctrl-C, or after the current step if that takes longer. The network is then as after the
            last finished step, or if it is not finite, as after the last finite epoch.

        Examples
        --------
        >>> import fastmlp
        >>> X, y = fastmlp.datasets.spirals(200, seed=0)
        >>> trainer = fastmlp.Trainer(fastmlp.MLP([2, 16, 2], "tanh"), "adam", average=0.99)
        >>> history = trainer.fit(X, y, epochs=3, validation_fraction=0.2)
        >>> history.epochs, trainer.steps, list(history)[:3]
        (3, 15, ['loss', 'learning_rate', 'seconds'])
        """
        epochs = checks.count("epochs", epochs)
        batch_size = None if batch_size is None else checks.whole("batch_size", batch_size)
        shuffle = checks.flag("shuffle", shuffle)
        show, watchers = checks.flag("use_average", use_average), listen(early_stopping, callbacks)
        if y is None:
            given = {"validation_fraction": validation_fraction, "sample_weight": sample_weight}
            return self._fit_batches(X, epochs, given, validation, metrics, watchers, show)
        X, y = self.net.check_data(X, y)  # type: ignore[arg-type]
        data = Data(X, y, checks.sample_weight(sample_weight, len(X)))
        data, evaluator = prepare(self.net, data, validation, validation_fraction, metrics, watchers)
        data = self._weighted(data)
        if isinstance(self.optimizer, optimizers.LBFGS):
            return self._run_loop(lbfgs.LBFGSLoop(self, data, epochs, evaluator, watchers), show)
        return self._run_loop(EpochLoop(self, data, epochs, batch_size, shuffle, evaluator, watchers), show)

    def _run_loop(self, loop: EpochLoop | StreamLoop, show_average: bool) -> History:
        """Train, after learning how to standardise; all arguments have been checked."""
        with self._net.exclusively():
            try:
                self._show, self._fits_in = show_average, get_ident()
                if self._sum:
                    with self.raw_weights():
                        self.flush()
                if not isinstance(loop, StreamLoop):
                    data = loop.data
                    if self.net.needs_scaling():
                        loop.check_rates()
                    self.net.learn_from(data.X, data.y, data.chosen)
                    loop.take(replace(data, y=self.net.plan_targets(data.y)))
                return loop.run()
            finally:
                with WholeSteps():
                    self._fits_in = None
                    self.end_raw()  # in case of Ctrl-C right before or after a block of raw weights
                    self.release()
                    loop.end()

    def _fit_batches(
        self,
        stream: Any,
        epochs: int,
        given: dict[str, Any],
        validation: Any,
        metrics: Any,
        watchers: list[Any],
        show_average: bool,
    ) -> History:
        check_batches(stream, epochs)
        self._refuse("fit on batches", "fit(X, y)")
        for name, value in given.items():
            if value is not None:
                raise ValueError(f"{name} must be None where X is an iterable of batches, got {value!r}")
        if isinstance(validation, np.ndarray):
            got = checks.shown(validation)
            rule = "validation must be (X, y) or (X, y, sample_weight) where X is an iterable of batches"
            raise TypeError(f"{rule}, got {got}")
        self._check_stream()
        if not isinstance(stream, Sized):
            self.rate_of(self.total_steps)  # raises if a schedule depends on the number of steps
        evaluator = prepare(self.net, None, validation, None, metrics, watchers)[1]  # type: ignore[arg-type]
        return self._run_loop(StreamLoop(self, stream, epochs, evaluator, watchers), show_average)

    def _check_stream(self) -> None:
        """ValueError if something requires all rows before the first step."""
        if self._net.needs_scaling():
            raise ValueError("this network has not learned how to standardise: call net.learn_scaling(X, y) first")
        if class_weights.chosen(self._net, self._options.class_weight) == "balanced":
            raise ValueError("class_weight='balanced' needs all data at once, as fit(X, y) has: give a dict of weights")
