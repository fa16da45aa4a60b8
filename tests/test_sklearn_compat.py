"""MLPClassifier and MLPRegressor behave as scikit-learn's do: the same numbers, attributes, warnings and errors."""

import copy
import inspect
import itertools
import pickle
import re
import warnings

import joblib
import numpy as np
import pytest
from conftest import needs_engine

pytest.importorskip("sklearn")

import sklearn.neural_network as theirs
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import (
    load_breast_cancer,
    load_diabetes,
    load_digits,
    load_iris,
    make_multilabel_classification,
    make_regression,
)
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.linear_model import PoissonRegressor
from sklearn.utils.fixes import CSC_CONTAINERS, CSR_CONTAINERS
from threadpoolctl import threadpool_limits

import fastmlp.sklearn as ours
from fastmlp import EarlyStopping

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


@pytest.fixture(scope="module", autouse=True)
def one_blas_thread():
    """Products here are so small that the threads of BLAS, which theirs uses, only wait for each other."""
    with threadpool_limits(1, "blas"):
        yield


CLASSES = ["MLPClassifier", "MLPRegressor"]
DIGITS = load_digits(n_class=3)
X_DIGITS, Y_DIGITS = DIGITS.data[:200] / 16, DIGITS.target[:200]
X_BINARY, Y_BINARY = X_DIGITS[Y_DIGITS < 2], Y_DIGITS[Y_DIGITS < 2]
X_REGRESSION, Y_REGRESSION = (a[:120] for a in load_diabetes(return_X_y=True))
Y_REGRESSION = (Y_REGRESSION - Y_REGRESSION.mean()) / Y_REGRESSION.std()


def data_for(name):
    return (X_DIGITS, Y_DIGITS) if name == "MLPClassifier" else (X_REGRESSION, Y_REGRESSION)


def both(name, X, y, fit=None, **settings):
    """The same estimator of both libraries, fitted on the same data."""
    found = []
    for library in (theirs, ours):
        estimator = getattr(library, name)(**{"random_state": 0, "max_iter": 20, **settings})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found.append(estimator.fit(X, y, **(fit or {})))
    return found


def assert_same(expected, got, rtol=1e-9, penalty=1e-5):
    """Equal weights up to rounding; losses up to the change of the penalty within an epoch."""
    assert got.n_iter_ == expected.n_iter_
    for a, b in zip(expected.coefs_ + expected.intercepts_, got.coefs_ + got.intercepts_, strict=True):
        assert a.dtype == b.dtype
        assert_allclose(b, a, rtol=rtol, atol=rtol)
    assert_allclose(got.loss_curve_, expected.loss_curve_, rtol=penalty)
    assert got.t_ == expected.t_


# ---- the surface -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_constructor_parameters_order_and_defaults_match(name):
    wanted = inspect.signature(getattr(theirs, name)).parameters
    found = inspect.signature(getattr(ours, name)).parameters
    first = list(found.values())[: len(wanted)] if "loss" in wanted or name == "MLPClassifier" else None
    for parameter in wanted.values():
        assert found[parameter.name].default == parameter.default
        assert found[parameter.name].kind == parameter.kind
    if first:
        assert [p.name for p in first] == list(wanted)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}])
def test_fitted_attributes_are_theirs(name, settings):
    X, y = data_for(name)
    expected, got = both(name, X, y, **settings)
    public = {a for a in vars(expected) if a.endswith("_") and not a.startswith("_")}
    assert public <= set(vars(got))
    for attribute in ("n_iter_", "t_", "n_layers_", "n_outputs_", "n_features_in_", "out_activation_"):
        assert getattr(got, attribute) == getattr(expected, attribute), attribute
    for attribute in ("best_loss_", "best_validation_score_", "validation_scores_"):
        if hasattr(expected, attribute):
            assert (getattr(got, attribute) is None) == (getattr(expected, attribute) is None)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("alpha", -1.0),
        ("momentum", 2),
        ("tol", -1),
        ("batch_size", 0),
        ("solver", "nope"),
        ("max_iter", 0),
        ("beta_1", 1),
    ],
)
def test_wrong_parameters_are_refused_with_their_class_of_error(name, parameter, value):
    X, y = data_for(name)
    with pytest.raises(ValueError, match=f"The '{parameter}' parameter of {name} must be"):
        getattr(ours, name)(**{parameter: value}).fit(X, y)


@pytest.mark.parametrize("name", CLASSES)
def test_loss_is_theirs(name):
    assert getattr(ours, name)().loss == getattr(theirs, name)().loss
    assert ("loss" in getattr(ours, name)().get_params()) == (name == "MLPRegressor")


@pytest.mark.parametrize("sizes", [(0,), (-1,), (4, 0)])
def test_hidden_layer_sizes_must_be_positive(sizes):
    with pytest.raises(ValueError, match=re.escape(f"hidden_layer_sizes must be > 0, got {list(sizes)}.")):
        ours.MLPClassifier(hidden_layer_sizes=sizes).fit(X_DIGITS, Y_DIGITS)


# ---- the same numbers ------------------------------------------------------------------------------------------------

SETTINGS = [
    {},
    {"solver": "sgd", "learning_rate_init": 0.1},
    {"solver": "sgd", "nesterovs_momentum": False},
    {"solver": "sgd", "momentum": 0.0},
    {"solver": "sgd", "learning_rate": "invscaling", "learning_rate_init": 0.5},
    {"solver": "sgd", "learning_rate": "adaptive", "learning_rate_init": 0.5, "tol": 0.5, "n_iter_no_change": 2},
    {"alpha": 0.0},
    {"alpha": 3.0},
    {"batch_size": 32},
    {"batch_size": 7, "max_iter": 3},
    {"shuffle": False, "batch_size": 32},
    {"activation": "logistic"},
    {"activation": "tanh", "hidden_layer_sizes": (13, 7)},
    {"activation": "identity"},
    {"hidden_layer_sizes": ()},
    {"beta_1": 0.8, "beta_2": 0.9, "epsilon": 1e-2},
    {"early_stopping": True, "batch_size": 32, "n_iter_no_change": 3},
]


def shown(settings):
    return ",".join(f"{k}={v}" for k, v in settings.items()) or "defaults"


PROBLEMS = {
    "classes": ("MLPClassifier", X_DIGITS, Y_DIGITS),
    "two classes": ("MLPClassifier", X_BINARY, Y_BINARY),
    "labels": ("MLPClassifier", X_DIGITS, np.stack([Y_DIGITS > 0, Y_DIGITS > 1, Y_DIGITS == 1], axis=1).astype(int)),
    "regression": ("MLPRegressor", X_REGRESSION, Y_REGRESSION),
    "outputs": ("MLPRegressor", X_REGRESSION, np.stack([Y_REGRESSION, Y_REGRESSION**2], axis=1)),
}


@pytest.mark.parametrize("settings", SETTINGS, ids=shown)
@pytest.mark.parametrize("problem", PROBLEMS)
def test_weights_and_losses_are_theirs_to_rounding(problem, settings):
    name, X, y = PROBLEMS[problem]
    expected, got = both(name, X, y, **settings)
    assert_same(expected, got, rtol=1e-7, penalty=1e-5 if settings.get("alpha") != 3.0 else 1e-3)
    assert_allclose(got.predict(X), expected.predict(X), rtol=1e-6, atol=1e-9)
    if name == "MLPClassifier":
        assert_allclose(got.predict_proba(X), expected.predict_proba(X), rtol=1e-6, atol=1e-9)
        assert_allclose(got.predict_log_proba(X), expected.predict_log_proba(X), rtol=1e-6, atol=1e-8)
    assert_allclose(got.score(X, y), expected.score(X, y), rtol=1e-6)
    if settings.get("early_stopping"):
        assert_allclose(got.validation_scores_, expected.validation_scores_, rtol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_lbfgs_finds_their_minimum(name):
    X, y = data_for(name)
    expected, got = both(name, X, y, solver="lbfgs", max_iter=300, alpha=1.0, hidden_layer_sizes=8, activation="tanh")
    assert abs(got.loss_ - expected.loss_) < 0.02 * max(expected.loss_, 1.0)
    assert got.score(X, y) > expected.score(X, y) - 0.02


@pytest.mark.parametrize("early_stopping", [False, True])  # lbfgs ignores it
def test_lbfgs_keeps_the_smallest_loss(early_stopping):
    net = ours.MLPClassifier(solver="lbfgs", max_iter=5, early_stopping=early_stopping).fit(X_DIGITS, Y_DIGITS)
    assert net.best_loss_ == min(net.loss_curve_)


def test_first_gradient_is_theirs():
    for activation in ("identity", "logistic", "tanh", "relu"):
        settings = {"solver": "sgd", "momentum": 0.0, "max_iter": 1, "alpha": 1e-5, "activation": activation}
        expected, got = both("MLPClassifier", X_DIGITS, Y_DIGITS, hidden_layer_sizes=10, **settings)
        assert_same(expected, got, rtol=1e-12)


@pytest.mark.parametrize("share", ["one RandomState", "the global one"])
@pytest.mark.parametrize("settings", [{}, {"batch_size": 150}, {"shuffle": False}, {"early_stopping": True}], ids=str)
def test_random_state_is_left_as_theirs(settings, share):
    X, y = load_iris(return_X_y=True)
    losses = []
    for library in (theirs, ours):
        np.random.seed(0)
        random_state = np.random.RandomState(0) if share == "one RandomState" else None
        for _ in range(3):
            net = library.MLPClassifier(max_iter=4, random_state=random_state, **settings).fit(X, y)
            losses.append(net.partial_fit(X, y).loss_ if "early_stopping" not in settings else net.loss_)
    assert_allclose(losses[3:], losses[:3], rtol=1e-6)


def test_poisson_loss_is_theirs():
    if "loss" not in inspect.signature(theirs.MLPRegressor).parameters:
        pytest.skip("this scikit-learn has no loss parameter")
    y = np.random.default_rng(0).poisson(np.exp(Y_REGRESSION / 2))
    expected, got = both("MLPRegressor", X_REGRESSION, y, loss="poisson", batch_size=40)
    assert_same(expected, got, rtol=1e-7)
    assert got.out_activation_ == "exp" and (got.predict(X_REGRESSION) > 0).all()
    weight = np.random.default_rng(1).uniform(0.2, 2.0, len(y))  # with another sum in every batch
    fit, batches = {"sample_weight": weight}, {"batch_size": 40, "alpha": 0.0, "learning_rate_init": 0.05}
    assert_same(*both("MLPRegressor", X_REGRESSION, y, fit, loss="poisson", max_iter=200, **batches), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("ignore:scipy.optimize:DeprecationWarning")  # scikit-learn 1.6 gives scipy old options
def test_poisson_regression_without_hidden_layer_is_a_glm(seed):
    rng = np.random.default_rng(seed)
    X = rng.uniform(size=(200, 3))
    y = rng.poisson(np.exp(X @ [0.5, 1.0, -0.3]))
    glm = PoissonRegressor(alpha=1e-3, tol=1e-8, max_iter=1000).fit(X, y)
    mlp = ours.MLPRegressor(
        "poisson", (), "identity", alpha=1e-3 * len(X), solver="lbfgs", tol=1e-8, max_iter=1000, random_state=seed
    ).fit(X, y)
    assert_allclose(mlp.predict(X), glm.predict(X), rtol=1e-3)


@pytest.mark.parametrize("name", CLASSES)
def test_sample_weights_are_theirs(name):
    X, y = data_for(name)
    if "sample_weight" not in inspect.signature(getattr(theirs, name).fit).parameters:
        pytest.skip("this scikit-learn has no sample weights here")
    weight = np.random.default_rng(0).uniform(0.1, 2, len(X))
    expected, got = both(name, X, y, fit={"sample_weight": weight}, batch_size=len(X))
    assert_same(expected, got)
    expected, got = both(name, X, y, fit={"sample_weight": weight}, batch_size=32, alpha=0.0)
    assert_same(expected, got, rtol=1e-7)


# ---- stopping --------------------------------------------------------------------------------------------------------


def test_training_stops_when_the_loss_no_longer_falls():
    got = ours.MLPClassifier(tol=0.5, max_iter=500, solver="sgd").fit([[3, 2], [1, 6]], [1, 0])
    assert got.n_iter_ < 500
    expected, got = both("MLPClassifier", X_DIGITS, Y_DIGITS, tol=0.05, n_iter_no_change=4, max_iter=500)
    assert got.n_iter_ == expected.n_iter_ < 500
    assert got.best_loss_ == min(got.loss_curve_)


def test_n_iter_no_change_inf_never_stops():
    got = ours.MLPClassifier(tol=0.5, max_iter=50, n_iter_no_change=np.inf).fit([[3, 2], [1, 6]], [1, 0])
    assert got.n_iter_ == 50 and got._no_improvement_count == 49


@pytest.mark.parametrize("name", CLASSES)
def test_early_stopping(name):
    X, y = data_for(name)
    got = getattr(ours, name)(tol=0.2, early_stopping=True, max_iter=1000, random_state=1).fit(X, y)
    assert got.max_iter > got.n_iter_
    assert got.best_loss_ is None
    assert got.best_validation_score_ == max(got.validation_scores_)
    assert len(got.validation_scores_) == got.n_iter_
    got = getattr(ours, name)(early_stopping=False, max_iter=3).fit(X, y)
    assert got.validation_scores_ is None and got.best_validation_score_ is None and got.best_loss_ is not None


def test_early_stopping_restores_the_best_weights():
    _, got = both("MLPRegressor", X_REGRESSION, Y_REGRESSION, early_stopping=True, learning_rate_init=0.1)
    best = int(np.argmax(got.validation_scores_)) + 1
    assert best < got.n_iter_
    expected = ours.MLPRegressor(random_state=0, max_iter=best, learning_rate_init=0.1, early_stopping=True)
    expected.fit(X_REGRESSION, Y_REGRESSION)
    assert_array_equal(got.coefs_[0], expected.coefs_[0])


def test_early_stopping_stratifies_two_classes():
    with pytest.raises(ValueError, match="The least populated class"):
        ours.MLPClassifier(early_stopping=True).fit([[1, 2], [2, 3], [3, 4], [4, 5]], [0, 0, 0, 1])


def test_validation_set_too_small():
    with pytest.raises(ValueError, match="The validation set is too small"):
        ours.MLPRegressor(early_stopping=True).fit([[0, 1], [1, 0], [1, 1], [0, 0]], [0, 1, 1, 0])


def test_early_stopping_with_string_labels_and_several_labels():
    names = np.array(["zero", "one", "two"])[Y_DIGITS]
    a = ours.MLPClassifier(early_stopping=True, max_iter=20, random_state=0).fit(X_DIGITS, names)
    assert set(a.predict(X_DIGITS)) <= set(names)
    X, y = make_multilabel_classification(n_samples=60, random_state=0)
    a = ours.MLPClassifier(early_stopping=True, max_iter=20, random_state=0).fit(X, y)
    assert a.predict(X).shape == y.shape


def test_early_stopping_uses_sample_weights():
    X, y = np.array([[-1.0], [1.0], [-1.0], [1.0]] * 30), np.array([0, 1, 1, 0] * 30)
    weight = np.array(
        [1.0, 1.0, 0.0, 0.0] * 30
    )  # the others contradict these: without weights every score is about 0.5
    settings = {"early_stopping": True, "random_state": 0, "max_iter": 30, "learning_rate_init": 0.05}
    got = ours.MLPClassifier(**settings).fit(X, y, sample_weight=weight)
    assert got.best_validation_score_ == got.score(X, y, weight) == 1
    assert ours.MLPClassifier(**settings).fit(X, y).best_validation_score_ < 0.8


def test_diverging_loss_with_early_stopping_raises_nothing():
    X, y = load_diabetes(return_X_y=True)
    got = ours.MLPRegressor(
        activation="identity", solver="sgd", learning_rate_init=1, max_iter=20, early_stopping=True, random_state=0
    )
    got.fit(X * 100, y)
    assert isinstance(got.validation_scores_[-1], float) and np.isnan(got.validation_scores_[-1])
    assert all(np.isfinite(w).all() for w in got.coefs_)


def test_weights_that_are_not_finite_are_refused():
    X = np.finfo(np.float64).max * np.random.RandomState(0).uniform(size=(10, 2))
    with pytest.raises(
        ValueError, match=r"Solver produced non-finite parameter weights\. The input data may contain large"
    ):
        ours.MLPRegressor().fit(X, np.arange(10.0))


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"batch_size": 5000, "tol": 10.0}], ids=str)
def test_warnings_match_in_category_module_and_number(settings):
    shown = []
    for library in (theirs, ours):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("default")
            for _ in range(3):
                library.MLPClassifier(max_iter=11, random_state=0, **settings).fit(X_DIGITS, Y_DIGITS)
        shown.append([w.category for w in caught if issubclass(w.category, UserWarning)])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", module="sklearn")
            library.MLPClassifier(max_iter=11, random_state=0, **settings).fit(X_DIGITS, Y_DIGITS)
    assert shown[0] == shown[1] and shown[1]


@pytest.mark.filterwarnings("error")
def test_convergence_warnings():
    with pytest.warns(
        ConvergenceWarning, match=re.escape("Maximum iterations (5) reached and the optimization hasn't")
    ):
        ours.MLPClassifier(max_iter=5).fit(X_DIGITS, Y_DIGITS)
    with pytest.warns(ConvergenceWarning, match="lbfgs failed to converge"):
        ours.MLPClassifier(solver="lbfgs", max_iter=2).fit(X_DIGITS, Y_DIGITS)
    with pytest.warns(ConvergenceWarning, match="TOTAL NO. OF F"):
        ours.MLPRegressor(solver="lbfgs", max_fun=2).fit(X_REGRESSION, Y_REGRESSION)
    with pytest.warns(UserWarning, match="It is going to be clipped"):
        ours.MLPClassifier(batch_size=5000, tol=10.0).fit(X_DIGITS, Y_DIGITS)


def test_adaptive_learning_rate_falls_until_it_is_too_small(capsys):
    got = ours.MLPClassifier(tol=0.5, max_iter=4000, solver="sgd", learning_rate="adaptive", verbose=True)
    got.fit([[3, 2], [1, 6]], [1, 0])
    assert got.max_iter > got.n_iter_ and got._solver.rate < 1e-6
    printed = capsys.readouterr().out
    assert "Setting learning rate to 0.000200" in printed and "Learning rate too small. Stopping." in printed


def test_verbose_prints_what_theirs_prints(capsys):
    texts = []
    for library in (theirs, ours):
        settings = {"solver": "sgd", "max_iter": 2, "verbose": 10, "hidden_layer_sizes": 2, "random_state": 0}
        library.MLPClassifier(alpha=0.0, **settings).fit([[3, 2], [1, 6]], [1, 0])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] and "Iteration 1, loss = " in texts[1]
    ours.MLPClassifier(early_stopping=True, max_iter=1, verbose=True).fit(X_DIGITS, Y_DIGITS)
    assert "Validation score: " in capsys.readouterr().out


class Interrupt:
    def on_epoch_end(self, state):
        if state.epoch == 3:
            raise KeyboardInterrupt


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_ctrl_c_warns_and_keeps_the_model(solver):
    got = ours.MLPClassifier(callbacks=[Interrupt()], solver=solver)
    with pytest.warns(UserWarning, match="Training interrupted by user."):
        got.fit(X_DIGITS, Y_DIGITS)
    assert got.n_iter_ == len(got.loss_curve_) == 3
    assert got.predict(X_DIGITS).shape == Y_DIGITS.shape


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_stop_iteration_in_a_callback_is_raised(solver):
    class Ends:
        def on_epoch_end(self, state):
            raise StopIteration

    with pytest.raises(StopIteration):
        ours.MLPClassifier(4, callbacks=[Ends()], solver=solver).fit(X_DIGITS, Y_DIGITS)


# ---- warm start, partial_fit -----------------------------------------------------------------------------------------


def test_warm_start_refuses_other_classes():
    X, y = load_iris(return_X_y=True)
    for other in (y % 2, y + 1, np.arange(150) % 5):
        got = ours.MLPClassifier(hidden_layer_sizes=2, solver="lbfgs", warm_start=True, max_iter=5).fit(X, y)
        with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same classes"):
            got.fit(X, other)
    got.fit(X, y)


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"solver": "sgd", "learning_rate": "invscaling"}])
def test_warm_start_goes_on_as_theirs_does(name, settings):
    X, y = data_for(name)
    expected, got = both(name, X, y, warm_start=True, max_iter=4, **settings)
    for _ in range(2 if not settings.get("early_stopping") else 1):  # theirs trains the best weights on and loses them
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected.fit(X, y), got.fit(X, y)
        assert_same(expected, got, rtol=1e-7)
        assert len(got.loss_curve_) == len(expected.loss_curve_)


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("name", CLASSES)
def test_warm_start_counts_the_iterations_of_each_call(name, solver):
    X, y = data_for(name)
    got = getattr(ours, name)(solver=solver, warm_start=True, max_iter=3, early_stopping=False, n_iter_no_change=7)
    for _ in range(2):
        with pytest.warns(ConvergenceWarning):
            got.fit(X, y)
        assert got.n_iter_ == 3


def test_warm_start_needs_the_same_layers():
    got = ours.MLPClassifier(5, warm_start=True, max_iter=2).fit(X_DIGITS, Y_DIGITS)
    with pytest.raises(ValueError, match=re.escape("the layers had [64, 5, 3] units in the previous call")):
        got.set_params(hidden_layer_sizes=6).fit(X_DIGITS, Y_DIGITS)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
@pytest.mark.parametrize(
    "y", [Y_DIGITS, np.stack([Y_DIGITS > 0, Y_DIGITS > 1], axis=1).astype(int)], ids=["one", "labels"]
)
def test_partial_fit_is_theirs(solver, y):
    estimators = [library.MLPClassifier(solver=solver, random_state=1, tol=0, alpha=1e-5) for library in (theirs, ours)]
    for i in range(12):
        part = slice(0, 150) if i % 2 else slice(100, 200)
        for estimator in estimators:
            estimator.partial_fit(X_DIGITS[part], y[part], classes=np.arange(y.shape[1] if y.ndim == 2 else 3))
        assert_same(*estimators, rtol=1e-7)
    assert_array_equal(estimators[0].predict(X_DIGITS), estimators[1].predict(X_DIGITS))


def test_partial_fit_of_a_regressor_is_theirs_and_that_of_epochs():
    estimators = [library.MLPRegressor(solver="sgd", random_state=1, batch_size=40) for library in (theirs, ours)]
    for _ in range(10):
        for estimator in estimators:
            estimator.partial_fit(X_REGRESSION, Y_REGRESSION)
    assert_same(*estimators, rtol=1e-7)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_partial_fit_after_lbfgs_begins_with_its_weights(solver):
    net = ours.MLPRegressor(solver="lbfgs", max_iter=5, random_state=0).fit(X_REGRESSION, Y_REGRESSION)
    found = copy.deepcopy(net).set_params(solver=solver).partial_fit(X_REGRESSION, Y_REGRESSION)
    other = ours.MLPRegressor(solver=solver, random_state=0)
    other.coefs_, other.intercepts_ = net.coefs_, net.intercepts_
    assert_array_equal(found.coefs_[0], other.partial_fit(X_REGRESSION, Y_REGRESSION).coefs_[0])


def test_partial_fit_needs_classes_and_keeps_to_them():
    with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
        ours.MLPClassifier(solver="sgd").partial_fit([[3, 2]], [0])
    with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
        ours.MLPClassifier().partial_fit([[1], [2]], [1, 2], classes=[1, 2]).partial_fit([[1]], [1], classes=[1, 3])
    with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
        ours.MLPClassifier().partial_fit([[1], [2], [3]], ["a", "b", "c"], classes=["a", "b", "d"])
    got = ours.MLPClassifier().partial_fit([[1], [2], [3]], ["a", "b", "c"], classes=["a", "b", "c", "d"])
    got.partial_fit([[4]], ["d"])


@pytest.mark.parametrize("name", CLASSES)
def test_partial_fit_after_fit(name):
    X, y = data_for(name)
    got = getattr(ours, name)(early_stopping=True, max_iter=2).fit(X, y)
    with pytest.raises(ValueError, match="partial_fit does not support early_stopping=True"):
        got.partial_fit(X, y)
    assert not hasattr(getattr(ours, name)(solver="lbfgs"), "partial_fit")
    estimators = both(name, X, y)
    for estimator in estimators:
        estimator.partial_fit(X, y)
    assert_same(*estimators, rtol=1e-7)


def test_partial_fit_goes_on_from_a_memory_mapped_dump(tmp_path):
    got = ours.MLPClassifier(random_state=0)
    got.partial_fit(X_DIGITS, Y_DIGITS, classes=[0, 1, 2])
    joblib.dump(got, tmp_path / "model")
    loaded = joblib.load(tmp_path / "model", mmap_mode="r")
    for estimator in (got, loaded):
        estimator.partial_fit(X_DIGITS, Y_DIGITS)
    assert_array_equal(got.coefs_[0], loaded.coefs_[0])


# ---- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_type_of_the_data_is_kept(dtype, name, solver):
    X, y = data_for(name)
    got = getattr(ours, name)(max_iter=5, solver=solver).fit(X.astype(dtype), y.astype(dtype))
    assert all(w.dtype == dtype for w in got.coefs_ + got.intercepts_)
    answer = got.predict_proba if name == "MLPClassifier" else got.predict
    assert answer(X.astype(dtype)).dtype == dtype


def test_float32_is_near_float64():
    settings = {"max_iter": 50, "random_state": 1}
    for name, (X, y) in {n: data_for(n) for n in CLASSES}.items():
        a = getattr(ours, name)(**settings).fit(X, y)
        b = getattr(ours, name)(**settings).fit(X.astype(np.float32), y)
        method = "predict_proba" if name == "MLPClassifier" else "predict"
        answers = getattr(a, method)(X), getattr(b, method)(X.astype(np.float32))
        assert_allclose(*answers, rtol=5e-3, atol=1e-3)


@pytest.mark.parametrize("container", [*CSR_CONTAINERS, *CSC_CONTAINERS])
@pytest.mark.parametrize(
    "settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}, {"standardize": True}], ids=shown
)
def test_sparse_data_give_the_numbers_of_dense_ones(container, settings):
    for name in CLASSES:
        X, y = data_for(name)
        dense = getattr(ours, name)(random_state=0, max_iter=10, batch_size=33, **settings).fit(X, y)
        sparse = getattr(ours, name)(random_state=0, max_iter=10, batch_size=33, **settings).fit(container(X), y)
        for a, b in zip(dense.coefs_, sparse.coefs_, strict=True):
            assert_allclose(a, b, rtol=1e-9, atol=1e-12)
        assert_allclose(dense.predict(container(X)), sparse.predict(X), rtol=1e-9)


N_WIDE = 1500
X_WIDE = sparse.random(210, N_WIDE, 0.02, format="csr", random_state=0)
Y_WIDE = np.random.default_rng(1).integers(0, 3, 210)
WIDE_SETTINGS = [
    *({}, {"solver": "sgd"}, {"solver": "lbfgs"}, {"solver": "rmsprop"}, {"solver": "adamw"}),
    *({"early_stopping": True}, {"batch_size": 33}, {"dropout": 0.3}, {"clip_norm": 0.1}, {"activation": "gelu"}),
    *({"hidden_layer_sizes": ()}, {"hidden_layer_sizes": (), "solver": "lbfgs"}, {"standardize": True}),
]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("settings", WIDE_SETTINGS, ids=shown)
def test_wide_sparse_data_give_the_numbers_of_dense_ones(settings, weighted):
    weight = np.random.default_rng(2).uniform(0.1, 2, len(Y_WIDE)) if weighted else None
    settings = {"hidden_layer_sizes": (12, 7), "alpha": 1.0, "max_iter": 4, "random_state": 0, **settings}
    found, dense = (ours.MLPClassifier(**settings).fit(X, Y_WIDE, weight) for X in (X_WIDE, X_WIDE.toarray()))
    for a, b in zip(found.coefs_ + found.intercepts_, dense.coefs_ + dense.intercepts_, strict=True):
        assert_allclose(a, b, rtol=1e-8, atol=1e-12)
    assert_allclose(found.loss_curve_, dense.loss_curve_, rtol=1e-9)
    assert_allclose(found.predict_proba(X_WIDE), dense.predict_proba(X_WIDE.toarray()), rtol=1e-9)


@pytest.mark.parametrize("container", [*CSR_CONTAINERS, *CSC_CONTAINERS])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_wide_sparse_data_of_any_kind_are_read(container, dtype):
    X = (X_WIDE > 0).astype(dtype)
    found, dense = (ours.MLPRegressor(max_iter=3, random_state=0).fit(Z, Y_WIDE) for Z in (container(X), X.toarray()))
    assert found.coefs_[0].dtype == (np.float32 if dtype == np.float32 else np.float64)
    assert_allclose(found.predict(container(X)), dense.predict(X.toarray()), rtol=1e-4 if dtype == np.float32 else 1e-9)


@needs_engine  # the reference promises no bits
@pytest.mark.parametrize("n_threads", [1, 2])
def test_a_wide_sparse_row_has_the_same_answer_in_any_slice(n_threads, monkeypatch):
    net = ours.MLPClassifier(max_iter=2, random_state=0, n_threads=n_threads).fit(X_WIDE, Y_WIDE)
    whole = net.predict_proba(X_WIDE)
    for i in (0, 100, 209):
        assert_array_equal(net.predict_proba(X_WIDE[[i]])[0], whole[i])
    monkeypatch.setattr(ours.wide_sparse, "SLICE_BYTES", 10_000)
    assert_array_equal(net.predict_proba(X_WIDE), whole)


@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str)
def test_wide_sparse_data_are_not_densified(settings, monkeypatch):
    monkeypatch.setattr(type(X_WIDE), "toarray", None)
    net = ours.MLPClassifier(max_iter=2, **settings).fit(X_WIDE, Y_WIDE)
    assert len(net.predict(X_WIDE)) == 210


def test_standardised_wide_sparse_data_are_densified_in_slices(monkeypatch):
    slices, densified = [], type(X_WIDE).toarray
    monkeypatch.setattr(ours.wide_sparse, "SLICE_BYTES", 100_000)
    monkeypatch.setattr(type(X_WIDE), "toarray", lambda X: slices.append(X.shape) or densified(X))
    ours.MLPClassifier(solver="lbfgs", max_iter=2, standardize=True).fit(X_WIDE, Y_WIDE).predict(X_WIDE)
    assert max(slices) == (100_000 // (8 * N_WIDE), N_WIDE)


def test_integers_are_read_as_they_are():
    X = (X_DIGITS * 16).astype(np.uint8)
    a = ours.MLPClassifier(random_state=0, max_iter=3).fit(X, Y_DIGITS)
    b = ours.MLPClassifier(random_state=0, max_iter=3).fit(X.astype(np.float64), Y_DIGITS)
    assert_array_equal(a.predict_proba(X), b.predict_proba(X.astype(np.float64)))
    assert a.coefs_[0].dtype == np.float64


def test_probabilities():
    two = ours.MLPClassifier(5, random_state=0, max_iter=5).fit(X_BINARY, Y_BINARY)
    three = ours.MLPClassifier(5, random_state=0, max_iter=5).fit(X_DIGITS, Y_DIGITS)
    X, y = make_multilabel_classification(n_samples=50, random_state=0, return_indicator=True)
    labels = ours.MLPClassifier(30, random_state=0, max_iter=5, solver="lbfgs").fit(X, y)
    for got, X in ((two, X_BINARY), (three, X_DIGITS)):
        p = got.predict_proba(X)
        assert p.shape == (len(X), len(got.classes_))
        assert_allclose(p.sum(axis=1), 1)
        assert_array_equal(got.classes_[p.argmax(axis=1)], got.predict(X))
        assert_allclose(np.log(p), got.predict_log_proba(X))
    p = labels.predict_proba(make_multilabel_classification(n_samples=50, random_state=0)[0])
    assert p.shape == y.shape and ((p > 0) & (p < 1)).all()


def test_several_labels_and_outputs_are_learned():
    X, y = make_multilabel_classification(n_samples=50, random_state=0, return_indicator=True)
    got = ours.MLPClassifier(50, solver="lbfgs", alpha=1e-5, max_iter=150, random_state=0, activation="logistic").fit(
        X, y
    )
    assert got.score(X, y) > 0.95
    X, y = make_regression(n_samples=200, n_targets=5, random_state=0)
    got = ours.MLPRegressor(hidden_layer_sizes=50, solver="lbfgs", max_iter=200, random_state=1).fit(X, y)
    assert got.score(X, y) > 0.9


def test_a_larger_alpha_makes_weights_smaller():
    sums = []
    for alpha in (1e-3, 1.0, 30.0):
        got = ours.MLPClassifier(10, alpha=alpha, random_state=1, solver="lbfgs").fit(X_BINARY, Y_BINARY)
        sums.append(sum(np.abs(w).sum() for w in got.coefs_))
    assert all(a > b for a, b in itertools.pairwise(sums))


def test_assigned_weights_are_those_that_predict():
    got = ours.MLPRegressor(hidden_layer_sizes=2, activation="identity", max_iter=1).fit([[0.0], [1.0]], [0.0, 1.0])
    got.coefs_ = [np.array([[1.0, 2.0]]), np.array([[3.0], [4.0]])]
    got.intercepts_ = [np.array([0.0, 1.0]), np.array([5.0])]
    assert_allclose(got.predict([[10.0]]), [10 * 3 + 21 * 4 + 5])


def test_default_training_learns():
    X, y = load_breast_cancer(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    assert ours.MLPClassifier(random_state=0).fit(X, y).score(X, y) > 0.98


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("warm_start", [False, True])
def test_weights_assigned_before_training_are_the_initial_ones(name, warm_start):
    X, y = data_for(name)
    settings = {"solver": "sgd", "momentum": 0, "shuffle": False, "max_iter": 1, "hidden_layer_sizes": (5,)}
    trained = getattr(ours, name)(**settings, warm_start=warm_start, random_state=0).fit(X, y)
    fresh = getattr(ours, name)(**settings, warm_start=warm_start, random_state=1)
    fresh.coefs_ = [w.copy() for w in trained.coefs_]
    fresh.intercepts_ = [b.copy() for b in trained.intercepts_]
    for estimator in (trained, pickle.loads(pickle.dumps(fresh)), copy.copy(fresh)):
        if estimator is not trained:
            with pytest.raises(NotFittedError, match="is not fitted yet"):
                estimator.predict(X)
        if warm_start:
            estimator.fit(X, y)
        else:
            estimator.partial_fit(X, y, **({"classes": np.unique(y)} if name == "MLPClassifier" else {}))
        for expected, got in zip(
            trained.coefs_ + trained.intercepts_, estimator.coefs_ + estimator.intercepts_, strict=True
        ):
            assert_array_equal(got, expected)
        assert_array_equal(estimator.predict(X[:2]), trained.predict(X[:2]))


@pytest.mark.parametrize("name", CLASSES)
def test_initial_weights_of_a_wrong_shape_are_refused(name):
    X, y = data_for(name)
    estimator = getattr(ours, name)(hidden_layer_sizes=(5,), warm_start=True)
    estimator.coefs_, estimator.intercepts_ = [np.zeros((3, 5)), np.zeros((5, 1))], [np.zeros(5), np.zeros(1)]
    with pytest.raises(ValueError, match=r"must have shape"):
        estimator.fit(X, y)


# ---- weights that were assigned --------------------------------------------------------------------------------------


def set_weights(estimator, how, seed=0):
    """Put random arrays of the same shapes into the attributes, all of them or the first one."""
    rng = np.random.default_rng(seed)
    if how == "one":
        estimator.coefs_[0] = rng.normal(size=estimator.coefs_[0].shape) / 8
        return
    for name in ("coefs_", "intercepts_"):
        setattr(estimator, name, [rng.normal(size=a.shape) / 8 for a in getattr(estimator, name)])


@pytest.mark.parametrize("how", ["all", "one"])
@pytest.mark.parametrize(
    ("method", "solver"),
    [("fit", "adam"), ("fit", "sgd"), ("fit", "lbfgs"), ("partial_fit", "adam"), ("partial_fit", "sgd")],
)
def test_training_after_an_assignment_is_theirs(method, solver, how):
    estimators = both("MLPClassifier", X_DIGITS, Y_DIGITS, warm_start=True, max_iter=3, alpha=1.0, solver=solver)
    for estimator in estimators:
        set_weights(estimator, how)
        for _ in range(2):  # a second call continues from the first
            getattr(estimator, method)(X_DIGITS, Y_DIGITS)
    expected, got = estimators
    assert_allclose(got.coefs_[0], expected.coefs_[0], rtol=1e-6, atol=1e-8)
    assert_allclose(got.predict_proba(X_DIGITS), expected.predict_proba(X_DIGITS), rtol=1e-6, atol=1e-8)
    assert_array_equal(pickle.loads(pickle.dumps(got)).predict_proba(X_DIGITS), got.predict_proba(X_DIGITS))


@pytest.mark.parametrize("how", ["all", "one"])
def test_early_stopping_restarts_after_weights_are_assigned(how):
    settings = {"early_stopping": True, "warm_start": True, "max_iter": 4, "random_state": 0, "hidden_layer_sizes": 5}
    net, other = (ours.MLPRegressor(**settings) for _ in range(2))
    set_weights(net.fit(X_REGRESSION, Y_REGRESSION), how)
    other.coefs_, other.intercepts_ = list(net.coefs_), list(net.intercepts_)
    for estimator in (net, other):
        estimator.fit(X_REGRESSION, Y_REGRESSION)
    assert_array_equal(net.coefs_[0], other.coefs_[0])
    assert net.best_validation_score_ == other.best_validation_score_


def test_training_updates_the_list_of_weights_in_place():
    for library in (theirs, ours):
        net = library.MLPRegressor(hidden_layer_sizes=5, max_iter=2, random_state=0).fit(X_REGRESSION, Y_REGRESSION)
        held = net.coefs_
        for _ in range(2):  # as a loop does that prunes and trains
            held[0] = held[0] * (np.abs(held[0]) > 0.1)
            net.partial_fit(X_REGRESSION, Y_REGRESSION)
            assert_array_equal(net.coefs_[0], held[0])


def test_saved_weights_can_be_restored():
    for library in (theirs, ours):
        net = library.MLPRegressor(hidden_layer_sizes=5, max_iter=2, random_state=0).fit(X_REGRESSION, Y_REGRESSION)
        kept, before = (net.coefs_, net.intercepts_), net.predict(X_REGRESSION)
        set_weights(net, "all")
        assert not np.allclose(net.predict(X_REGRESSION), before)
        net.coefs_, net.intercepts_ = kept
        assert_array_equal(net.predict(X_REGRESSION), before)


def test_arrays_that_two_estimators_were_given_are_left_alone():
    nets = [
        ours.MLPRegressor(hidden_layer_sizes=5, max_iter=2, random_state=i).fit(X_REGRESSION, Y_REGRESSION)
        for i in range(2)
    ]
    set_weights(nets[0], "all")
    nets[1].coefs_, nets[1].intercepts_ = nets[0].coefs_, nets[0].intercepts_
    before = nets[1].predict(X_REGRESSION)
    nets[0].partial_fit(X_REGRESSION, Y_REGRESSION)
    assert_array_equal(nets[1].predict(X_REGRESSION), before)


def test_a_copy_of_assigned_weights_is_not_trained_with_the_first():
    net = ours.MLPRegressor(hidden_layer_sizes=5, max_iter=2, random_state=0).fit(X_REGRESSION, Y_REGRESSION)
    set_weights(net, "all")
    before = net.predict(X_REGRESSION)
    other = copy.copy(net)
    after = net.partial_fit(X_REGRESSION, Y_REGRESSION).predict(X_REGRESSION)
    assert_array_equal(other.predict(X_REGRESSION), before)
    assert_array_equal(net.predict(X_REGRESSION), after)


def by_hand(estimator, fitted):
    """An unfitted estimator, given the public attributes of a fitted one."""
    for name in ("coefs_", "intercepts_", "n_layers_", "n_outputs_", "out_activation_", "classes_", "_label_binarizer"):
        if hasattr(fitted, name):
            setattr(estimator, name, getattr(fitted, name))
    return estimator


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("knows_features", [False, True])
def test_a_model_put_together_by_hand_answers_as_theirs_does(problem, knows_features):
    name, X, y = PROBLEMS[problem]
    fitted = both(name, X, y, hidden_layer_sizes=(6, 4), activation="tanh")[0]
    made = by_hand(getattr(ours, name)(activation="tanh"), fitted)
    if knows_features:
        made.n_features_in_ = X.shape[1]
    for got in (made, pickle.loads(pickle.dumps(made)), copy.deepcopy(made)):
        for method in ("predict", "predict_proba"):
            if hasattr(fitted, method):
                assert_allclose(getattr(got, method)(X), getattr(fitted, method)(X), rtol=1e-9, atol=1e-12)


def test_a_model_put_together_by_hand_can_be_trained():
    settings = {"hidden_layer_sizes": 5, "activation": "tanh", "random_state": 0}
    fitted = ours.MLPRegressor(**settings, max_iter=2).fit(X_REGRESSION, Y_REGRESSION)
    made = by_hand(ours.MLPRegressor(**settings), fitted)
    made.predict(X_REGRESSION)
    made.partial_fit(X_REGRESSION, Y_REGRESSION)
    fresh = ours.MLPRegressor(**settings)
    fresh.coefs_, fresh.intercepts_ = fitted.coefs_, fitted.intercepts_
    assert_array_equal(made.coefs_[0], fresh.partial_fit(X_REGRESSION, Y_REGRESSION).coefs_[0])


def test_a_model_put_together_by_hand_says_what_does_not_fit():
    made = by_hand(
        ours.MLPRegressor(), ours.MLPRegressor(hidden_layer_sizes=5, max_iter=2).fit(X_REGRESSION, Y_REGRESSION)
    )
    made.out_activation_ = "softmax"
    with pytest.raises(ValueError, match="out_activation_ must be 'identity', got 'softmax'"):
        made.predict(X_REGRESSION)
    made.out_activation_, made.intercepts_ = "identity", [np.zeros(4), np.zeros(1)]
    with pytest.raises(ValueError, match=r"must have shape \(5,\), got \(4,\)"):
        made.predict(X_REGRESSION)
    made.intercepts_ = made.intercepts_[:1]
    with pytest.raises(ValueError, match="coefs_ and intercepts_ must have one array for each layer, got 2 and 1"):
        made.predict(X_REGRESSION)


def without_unit(estimator):
    """The second hidden unit is removed."""
    estimator.coefs_ = [np.delete(estimator.coefs_[0], 1, axis=1), np.delete(estimator.coefs_[1], 1, axis=0)]
    estimator.intercepts_ = [np.delete(estimator.intercepts_[0], 1), estimator.intercepts_[1]]


def test_hidden_units_can_be_removed():
    expected, got = both("MLPClassifier", X_DIGITS, Y_DIGITS, hidden_layer_sizes=6)
    for estimator in (expected, got):
        without_unit(estimator)
    for other in (got, pickle.loads(pickle.dumps(got)), copy.copy(got)):
        assert_allclose(other.predict_proba(X_DIGITS), expected.predict_proba(X_DIGITS), rtol=1e-9)


def test_training_goes_on_without_a_removed_unit():
    estimators = both("MLPClassifier", X_DIGITS, Y_DIGITS, hidden_layer_sizes=6, warm_start=True)
    for estimator in estimators:
        without_unit(estimator)
        estimator.set_params(hidden_layer_sizes=5).fit(X_DIGITS, Y_DIGITS)
    assert_allclose(estimators[1].coefs_[0], estimators[0].coefs_[0], rtol=1e-7, atol=1e-9)


def test_standardisation_survives_the_removal_of_a_unit():
    settings = {"hidden_layer_sizes": 6, "standardize": True, "standardize_targets": True, "max_iter": 2}
    net = ours.MLPRegressor(**settings).fit(X_REGRESSION, Y_REGRESSION)
    net.coefs_[1][1] = 0
    before = net.predict(X_REGRESSION)
    without_unit(net)
    assert_allclose(net.predict(X_REGRESSION), before, rtol=1e-12)


def test_weights_that_do_not_fit_each_other_are_refused():
    net = ours.MLPRegressor(hidden_layer_sizes=6, max_iter=2).fit(X_REGRESSION, Y_REGRESSION)
    net.coefs_[0] = np.zeros((10, 5))
    with pytest.raises(ValueError, match=r"must have shape \(10, 6\), got \(10, 5\)"):
        net.predict(X_REGRESSION)


def test_the_learning_rate_is_in_the_optimizer_attribute():
    for settings in ({}, {"learning_rate": "adaptive", "solver": "sgd", "tol": 10, "max_iter": 60}, {"solver": "adam"}):
        expected, got = both("MLPClassifier", X_DIGITS, Y_DIGITS, **settings)
        assert got._optimizer.learning_rate == pytest.approx(expected._optimizer.learning_rate, rel=1e-12)
    assert pickle.loads(pickle.dumps(got))._optimizer.learning_rate == got._optimizer.learning_rate
    assert not hasattr(ours.MLPClassifier(), "_optimizer")


def test_a_callback_stops_training_by_numpy_true():
    X, y = load_iris(return_X_y=True)

    class Stop:
        def on_epoch_end(self, state):
            return np.bool_(state.epoch == 3)

    assert ours.MLPClassifier(callbacks=[Stop()], max_iter=9).fit(X, y).n_iter_ == 3


def test_early_stopping_is_refused_as_a_callback_of_an_estimator():
    X, y = load_iris(return_X_y=True)
    with pytest.raises(ValueError, match=r"callbacks must hold no EarlyStopping: .*early_stopping=True"):
        ours.MLPClassifier(callbacks=[EarlyStopping("loss")]).fit(X, y)
