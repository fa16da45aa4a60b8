"""MLPRegressor: scikit-learn's regressor of this name, on fastmlp's kernels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from .. import checks, losses
from .base import BaseMLP
from .parameters import CONSTRAINTS, LOSSES, regression_loss


class MLPRegressor(RegressorMixin, BaseMLP):
    """A multilayer perceptron for regression, trained by gradient descent or L-BFGS.

    A drop-in replacement for ``sklearn.neural_network.MLPRegressor``; parameters after ``max_fun`` are fastmlp's own.
    ``loss`` is the first parameter, as in scikit-learn >= 1.7, also if 1.6 is installed.

    Parameters
    ----------
    loss : str or Loss, default="squared_error"
        squared_error (half the squared error), poisson (``predict`` gives rates, y must not be negative);
        absolute_error (also: mae), huber, quantile; or an object such as ``fastmlp.losses.Quantile(0.9)``. With several
        outputs, `loss_` is the mean over them (for poisson the sum); training follows the gradient of the sum, and
        lbfgs minimises the sum.
    hidden_layer_sizes : array-like of shape (n_layers - 2,), default=(100,)
        Units of each hidden layer.
    activation : str, Activation, or a list with one for each hidden layer, default="relu"
        identity, logistic (also: sigmoid), tanh, relu, leaky_relu, elu, selu, gelu, gelu_tanh, silu, mish, softplus,
        hard_tanh.
    solver : str or Optimizer, default="adam"
        sgd, adam, lbfgs; momentum, nesterov, rmsprop, adagrad, adamw; or an object such as
        ``fastmlp.RMSprop(0.01, momentum=0.9)``, which has its own learning rate.
    alpha : float, default=0.0001
        In [0, inf): L2 penalty ``alpha / 2 |w|^2`` divided by the number of samples in the batch, or by the sum of
        their weights; with weights and several batches, by the expected sum.
    batch_size : int or "auto", default="auto"
        Rows per batch; "auto": min(200, n_samples). L-BFGS always uses all rows.
    learning_rate : {"constant", "invscaling", "adaptive"}, Schedule, schedule's name, or function, default="constant"
        The first three as in scikit-learn: they apply to all solvers but adam. A schedule of :mod:`fastmlp.schedules`,
        its name, or a function of the step number, starting at 0, applies to every solver but lbfgs.
    learning_rate_init : float, default=0.001
        In (0, inf).
    power_t : float, default=0.5
        Exponent of "invscaling": the rate after an epoch is ``learning_rate_init / (t_ + 1) ** power_t``.
    max_iter : int, default=200
        Maximum number of epochs; of iterations with lbfgs.
    shuffle : bool, default=True
        Whether to shuffle the rows in each epoch.
    random_state : int, RandomState instance or None, default=None
        Source of initial weights, held-out rows, shuffling and dropout, drawn as in scikit-learn.
    tol : float, default=1e-4
        Smallest change that counts as improvement of the loss or score. lbfgs stops when no element of the gradient
        exceeds it.
    verbose : bool or int, default=False
        Whether to print the loss of each epoch.
    warm_start : bool, default=False
        Whether `fit` continues from the current weights.
    momentum : float, default=0.9
        In [0, 1], for sgd.
    nesterovs_momentum : bool, default=True
    early_stopping : bool, default=False
        Whether to hold out rows, stop when the score on them does not improve, and restore the best weights.
    validation_fraction : float, default=0.1
        In [0, 1): the fraction of rows that early stopping holds out.
    beta_1, beta_2 : float, default=0.9 and 0.999
        In [0, 1), for adam and adamw.
    epsilon : float, default=1e-8
        For adam, adamw, rmsprop and adagrad.
    n_iter_no_change : int or inf, default=10
        Training stops after more than this many consecutive epochs without improvement.
    max_fun : int, default=15000
        Maximum number of evaluations of the loss, for lbfgs.
    dropout : float or list with one for each hidden layer, default=0.0
        In [0, 1): the fraction of a hidden layer's outputs that each step drops.
    weight_decay : float or None, default=None
        In [0, inf): decoupled decay, ``w -= rate * weight_decay * w``. None: 0.01 for adamw, else 0.
    clip_norm : float or None, default=None
        In (0, inf): the maximum norm of the gradient.
    standardize : bool, "mean" or "robust", default=False
        Whether the network standardises its inputs: True and "mean" by mean and standard deviation, "robust" by median
        and quartiles. `coefs_` then act on standardised inputs. Learned by `fit`; with `partial_fit` or `warm_start`,
        only by the first call, which should have at least a few hundred rows.
    standardize_targets : bool, default=False
        Whether the network is trained on targets of mean 0 and standard deviation 1; `loss_` is in these units,
        predictions and scores are not. Not with poisson.
    scoring : str, callable(estimator, X, y) or None, default=None
        scikit-learn's scorer for early stopping; None: R2.
    callbacks : list or None, default=None
        Objects as described in :mod:`fastmlp.callbacks`; ``state.trainer`` is the estimator. For scikit-learn's own
        callbacks use ``set_callbacks`` (scikit-learn >= 1.9).
    progress : bool, default=False
        Whether to show a progress bar (needs tqdm).
    n_threads : int or None, default=None
        Threads for fit and predict; None: FASTMLP_NUM_THREADS, OMP_NUM_THREADS, or all CPUs, but one in a worker of
        joblib's threading backend. Results do not depend on it.

    Attributes
    ----------
    loss_ : float
        Loss of the last epoch, including the penalty, whose mean is computed as if it changed linearly within the
        epoch: far from scikit-learn's where a large alpha shrinks the weights within an epoch.
    best_loss_ : float or None
        Smallest loss; None with early stopping (which L-BFGS ignores).
    loss_curve_ : list of float
        Loss of each epoch (with lbfgs: iteration).
    validation_scores_ : list of float or None
        Score of each epoch on the validation rows.
    best_validation_score_ : float or None
    t_ : int
        Number of samples trained on.
    coefs_, intercepts_ : list of array
        Weights (n_in, n_out) and biases (n_out,) of each layer. Arrays assigned here are used from then on, also with
        fewer hidden units; training starts from a copy of them and then replaces them by its own. If assigned before
        any training, `partial_fit`, or `fit` with `warm_start`, starts from them. An unfitted estimator can predict if
        `n_layers_`, `n_outputs_` and `out_activation_` are set as well. Fitted arrays are views of the network's
        memory, mostly not contiguous: code that ignores strides, such as safetensors, needs
        ``np.ascontiguousarray(coef)``.
    n_features_in_ : int
    feature_names_in_ : array of str
        Only if X has column names that are strings.
    n_iter_ : int
        Number of epochs of the last call.
    n_layers_ : int
        Number of layers, including inputs and outputs.
    n_outputs_ : int
    out_activation_ : str

    Examples
    --------
    >>> from sklearn.datasets import load_diabetes
    >>> X, y = load_diabetes(return_X_y=True)
    >>> scaled = {"standardize": True, "standardize_targets": True}
    >>> MLPRegressor(early_stopping=True, random_state=0, **scaled).fit(X, y).score(X, y) > 0.5
    True
    """

    __module__ = "fastmlp.sklearn"
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "loss": [StrOptions(set(LOSSES)), losses.Loss],
        "standardize_targets": ["boolean"],
    }

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool | int = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        weight_decay: float | None = None,
        clip_norm: float | None = None,
        standardize: bool | str = False,
        standardize_targets: bool = False,
        scoring: Any = None,
        callbacks: Any = None,
        progress: bool = False,
        n_threads: int | None = None,
    ) -> None:
        self._take(locals())

    # ---- fitting -----------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> MLPRegressor:
        """Train on X and y.

        Parameters
        ----------
        X : array-like or CSR/CSC matrix, shape (n_samples, n_features)
            float32 is computed in float32, anything else in float64. Dense X is read in place. Sparse X is densified
            batch by batch, unless it has more than 1024 columns that are not standardised, which scipy multiplies.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like, shape (n_samples,), optional
            Not negative, not all zero.
        X_val, y_val : array-like, optional
            Rows to score after each epoch; with ``early_stopping=True``, they replace the held-out rows.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, X_val=X_val, y_val=y_val)  # type: ignore[no-any-return]

    @available_if(lambda self: self._check_solver())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> MLPRegressor:
        """Train one epoch on X and y, continuing from the current weights and optimizer state.

        The rows of the first call determine the scaling of inputs (`standardize`) and targets (`standardize_targets`).

        Parameters
        ----------
        X : array-like or CSR/CSC matrix, shape (n_samples, n_features)
            float32 is computed in float32, anything else in float64. Dense X is read in place. Sparse X is densified
            batch by batch, unless it has more than 1024 columns that are not standardised, which scipy multiplies.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array-like, shape (n_samples,), optional
            Not negative, not all zero.

        Returns
        -------
        self
        """
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        return self._validated(X, y, reset, y_numeric=True)

    def _encode(self, y: Any) -> NDArray[Any]:
        y = checks.numeric("y", y)
        if regression_loss(self.loss).name == "poisson" and y.min() < 0:
            raise ValueError(f"y must not be negative with loss='poisson', got {y.min()}")
        return np.asarray(y[:, None] if y.ndim == 1 else y)

    def _choose_loss(self) -> losses.Loss:
        loss = regression_loss(self.loss)
        if loss.is_classifier:
            raise ValueError(f"loss must be one for regression, got {self.loss!r}")
        return loss

    # ---- prediction --------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """The value of each row.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples,) or (n_samples, n_outputs)
        """
        out = self._forward(X)
        return np.asarray(out[:, 0] if out.shape[1] == 1 else out)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags
