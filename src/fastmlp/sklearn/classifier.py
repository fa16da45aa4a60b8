"""MLPClassifier: scikit-learn's classifier of this name, on fastmlp's kernels."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, type_of_target, unique_labels

from .. import checks, losses
from .base import BaseMLP
from .parameters import CONSTRAINTS


class MLPClassifier(ClassifierMixin, BaseMLP):
    """A multilayer perceptron for classification with cross-entropy, trained by gradient descent or L-BFGS.

    A drop-in replacement for ``sklearn.neural_network.MLPClassifier``; parameters after ``max_fun`` are fastmlp's own.

    Parameters
    ----------
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
    class_weight : dict, "balanced" or None, default=None
        Weight of each class (1 if omitted), multiplied into the sample weights; "balanced":
        ``n_samples / (n_classes * count)``. With several labels, a list of dicts. Not used in validation.
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
    scoring : str, callable(estimator, X, y) or None, default=None
        scikit-learn's scorer for early stopping; None: accuracy.
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
    classes_ : array, or list of arrays
        Class labels.
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
    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> clf = MLPClassifier(learning_rate_init=0.01, random_state=0, standardize=True).fit(X, y)
    >>> clf.score(X, y) > 0.95
    True
    """

    __module__ = "fastmlp.sklearn"
    _is_classifier = True
    loss = "log_loss"  # scikit-learn's name of the loss; not a parameter
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **CONSTRAINTS,
        "class_weight": [dict, list, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
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
        class_weight: Any = None,
        dropout: Any = 0.0,
        weight_decay: float | None = None,
        clip_norm: float | None = None,
        standardize: bool | str = False,
        scoring: Any = None,
        callbacks: Any = None,
        progress: bool = False,
        n_threads: int | None = None,
    ) -> None:
        self._take(locals())

    # ---- fitting -----------------------------------------------------------------------------------------------------

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> MLPClassifier:
        """Train on X and y.

        Parameters
        ----------
        X : array-like or CSR/CSC matrix, shape (n_samples, n_features)
            float32 is computed in float32, anything else in float64. Dense X is read in place. Sparse X is densified
            batch by batch, unless it has more than 1024 columns that are not standardised, which scipy multiplies.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            Class labels, numbers or strings; or a multi-label indicator matrix.
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
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> MLPClassifier:
        """Train one epoch on X and y, continuing from the current weights and optimizer state.

        The rows of the first call determine the scaling of inputs (`standardize`).

        Parameters
        ----------
        X : array-like or CSR/CSC matrix, shape (n_samples, n_features)
            float32 is computed in float32, anything else in float64. Dense X is read in place. Sparse X is densified
            batch by batch, unless it has more than 1024 columns that are not standardised, which scipy multiplies.
        y : array-like, shape (n_samples,) or (n_samples, n_outputs)
            As in `fit`.
        sample_weight : array-like, shape (n_samples,), optional
            Not negative, not all zero.
        classes : array-like, optional
            All classes that can occur in any call; required in the first call.

        Returns
        -------
        self
        """
        if _check_partial_fit_first_call(self, classes):
            self._label_binarizer = LabelBinarizer()
            self._label_binarizer.fit(y if type_of_target(y).startswith("multilabel") else classes)
        return self._fit(X, y, sample_weight, incremental=True)  # type: ignore[no-any-return]

    def _validate_input(self, X: Any, y: Any, incremental: bool, reset: bool) -> tuple[Any, Any]:
        X, y = self._validated(X, y, reset)
        if not hasattr(self, "classes_") or not (self.warm_start or incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y
        classes = unique_labels(y)
        if self.warm_start and not incremental and set(classes) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {classes}"
            )
        if len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _encode(self, y: Any) -> NDArray[Any]:
        """Class numbers; for two classes or several labels, columns of 0 and 1."""
        kind, classes = self._label_binarizer.y_type_, self.classes_
        if kind == "multiclass":
            return np.asarray(np.searchsorted(classes, y), dtype=np.int64)
        if kind == "binary":
            return np.asarray(y == classes[-1] if len(classes) > 1 else np.zeros(len(y)), dtype=np.uint8)[:, None]
        return np.ascontiguousarray(self._label_binarizer.transform(y), dtype=np.uint8)

    def _count_outputs(self, targets: NDArray[Any]) -> int:
        return len(self.classes_) if targets.ndim == 1 else int(targets.shape[1])

    def _choose_loss(self) -> losses.Loss:
        kind = self._label_binarizer.y_type_
        return losses.CrossEntropy() if kind == "multiclass" else losses.BinaryCrossEntropy()

    def _with_class_weight(self, y: Any, weight: Any, incremental: bool) -> Any:
        if self.class_weight is None:
            return weight
        if incremental and isinstance(self.class_weight, str):
            raise ValueError("class_weight='balanced' needs all data at once, which partial_fit lacks: give a dict")
        if isinstance(self.class_weight, list) and (y.ndim == 1 or y.shape[1] == 1):
            what = "class_weight must be a dict, 'balanced' or None where y has one column"
            raise ValueError(f"{what}, got {checks.shown(self.class_weight)}")
        factors = self._class_factors(y)
        if not (np.isfinite(factors).all() and (factors >= 0).all()):
            raise ValueError(f"class_weight must have numbers in [0, inf), got {checks.shown(self.class_weight)}")
        factors = factors if weight is None else factors * weight
        if not factors.any():
            raise ValueError(f"class_weight={self.class_weight!r} gives all rows a weight of zero")
        checks.weighable("class_weight" if weight is None else "class_weight times sample_weight", factors)
        return factors

    def _class_factors(self, y: Any) -> NDArray[np.float64]:
        """The weight of each row's class. A batch need not contain all classes that a dict names."""
        if not isinstance(self.class_weight, dict) or not (y.ndim == 1 or y.shape[1] == 1):
            return np.asarray(compute_sample_weight(self.class_weight, y), dtype=np.float64)
        known = self.classes_.tolist()
        unknown = [name for name in self.class_weight if name not in known]
        if unknown:
            raise ValueError(f"class_weight must be for {checks.shown(known)}, got weights for {checks.shown(unknown)}")
        weights = np.array([self.class_weight.get(name, 1.0) for name in known], dtype=np.float64)
        return np.asarray(weights[np.searchsorted(self.classes_, np.ravel(y))])

    # ---- prediction --------------------------------------------------------------------------------------------------

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each row, or a multi-label indicator matrix.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples,) or (n_samples, n_labels)
        """
        out = self._forward(X)
        kind, classes = self._label_binarizer.y_type_, self._label_binarizer.classes_
        if kind == "multiclass":
            return np.asarray(classes[out.argmax(axis=1)])
        if kind == "binary":
            return np.asarray(classes[(out[:, 0] > 0.5).astype(np.intp) if len(classes) > 1 else [0] * len(out)])
        return self._label_binarizer.inverse_transform(out)  # type: ignore[no-any-return]

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """The probability of each class, in the order of `classes_`; or of each label.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples, n_classes)
        """
        out = self._forward(X)
        return np.asarray(np.hstack((1 - out, out)) if self.n_outputs_ == 1 else out)

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """The logarithm of `predict_proba`.

        Parameters
        ----------
        X : array-like or sparse matrix, shape (n_samples, n_features)

        Returns
        -------
        array, shape (n_samples, n_classes)
        """
        p = self.predict_proba(X)
        np.log(p, out=p)
        return p

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
