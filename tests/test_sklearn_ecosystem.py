"""The estimators in pipelines, searches, calibration, pickles, data frames and threads; and our own options."""

import copy
import importlib.util
import pickle
import subprocess
import sys
import threading

import joblib
import numpy as np
import pytest

pytest.importorskip("sklearn")

import sklearn.neural_network
from conftest import needs_engine
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer, load_digits, load_iris
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp.sklearn import MLPClassifier, MLPRegressor
from fastmlp.sklearn.base import threads

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X, Y = load_iris(return_X_y=True)
SMALL = {"hidden_layer_sizes": (10,), "max_iter": 20, "random_state": 0}


# ---- scikit-learn's own --------------------------------------------------------------------------------------------


def test_pipeline_cross_validation_and_clone():
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(max_iter=300, random_state=0))
    assert cross_val_score(pipeline, X, Y).mean() > 0.9
    assert clone(pipeline).get_params()["mlpclassifier__max_iter"] == 300
    if importlib.util.find_spec("pandas"):
        pipeline.set_output(transform="pandas")
    assert pipeline.fit(X, Y).score(X, Y) > 0.9


@pytest.mark.parametrize("backend", ["loky", "threading"])
def test_search_gives_the_same_scores_in_any_number_of_jobs(backend):
    grid = {"alpha": [1e-4, 1.0], "hidden_layer_sizes": [(5,), (20, 5)]}
    results = []
    for n_jobs in (1, 2):
        with joblib.parallel_config(backend):
            search = GridSearchCV(MLPClassifier(max_iter=30, random_state=0), grid, n_jobs=n_jobs, cv=3).fit(X, Y)
        results.append({k: v for k, v in search.cv_results_.items() if "time" not in k})
    for name in results[0]:
        assert_array_equal(results[0][name], results[1][name], err_msg=name)


def test_one_thread_each_in_the_threading_backend():
    seen = joblib.Parallel(2, backend="threading")(joblib.delayed(inside)() for _ in range(4))
    assert set(seen) == {1}
    before = fastmlp.get_num_threads()
    with threads(None):
        assert fastmlp.get_num_threads() == before
    with threads(3):
        assert fastmlp.get_num_threads() == 3


def inside():
    with threads(None):
        return fastmlp.get_num_threads()


def test_calibration_and_permutation_importance():
    X, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(X)
    calibrated = CalibratedClassifierCV(MLPClassifier(random_state=0), cv=3).fit(X, y)
    assert calibrated.score(X, y) > 0.95
    net = MLPClassifier(random_state=0).fit(X[:, :4], y)
    found = permutation_importance(net, X[:, :4], y, n_repeats=3, random_state=0)
    assert found.importances_mean.shape == (4,) and found.importances_mean.max() > 0.05


def test_metadata_routing():
    weight = np.linspace(0.1, 2, len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        net = MLPClassifier(**SMALL).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        routed = make_pipeline(StandardScaler().set_fit_request(sample_weight=False), net).fit(
            X, Y, sample_weight=weight
        )
    expected = MLPClassifier(**SMALL).fit(StandardScaler().fit_transform(X), Y, sample_weight=weight)
    assert_array_equal(routed[-1].coefs_[0], expected.coefs_[0])
    assert "X_val" in net.get_metadata_routing().fit.requests


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize("settings", [{}, {"early_stopping": True}, {"early_stopping": True, "scoring": "accuracy"}])
@pytest.mark.filterwarnings("error")
def test_data_frames(library, settings):
    frames = pytest.importorskip(library)
    names = ["a", "b", "c", "d"]
    frame = frames.DataFrame({name: X[:, i] for i, name in enumerate(names)})
    net = MLPClassifier(**SMALL, tol=1.0, n_iter_no_change=3, **settings).fit(frame, frames.Series(Y))
    if library == "pandas" or tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 9):
        assert net.feature_names_in_.tolist() == names
        with pytest.raises(ValueError, match="feature names"):
            net.predict(frame[["b", "a", "c", "d"]])
    expected = MLPClassifier(**SMALL, tol=1.0, n_iter_no_change=3, **settings).fit(X, Y)
    assert_array_equal(net.coefs_[0], expected.coefs_[0])


def test_masked_values_are_refused():
    rows = np.ma.masked_less(X, 0.2)
    labels, weights = np.ma.masked_equal(Y, 1), np.ma.masked_array(np.ones(len(Y)), mask=Y == 1)
    fitted = MLPClassifier(**SMALL).fit(X, Y)
    for name, call in {
        "X": lambda: MLPClassifier(**SMALL).fit(rows, Y),
        "y": lambda: MLPClassifier(**SMALL).fit(X, labels),
        "sample_weight": lambda: MLPClassifier(**SMALL).fit(X, Y, weights),
        "y_val": lambda: MLPClassifier(**SMALL).fit(X, Y, X_val=X, y_val=labels),
        "X ": lambda: fitted.predict(rows),
    }.items():
        with pytest.raises(ValueError, match=f"^{name.strip()} must have no masked values"):
            call()
    assert_array_equal(fitted.predict(np.ma.masked_array(X)), fitted.predict(X))


def test_memory_mapped_data(tmp_path):
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    net = MLPClassifier(**SMALL).fit(mapped, Y)
    assert_array_equal(net.predict_proba(mapped), MLPClassifier(**SMALL).fit(X, Y).predict_proba(X))


# ---- pickles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings", [{}, {"solver": "lbfgs"}, {"standardize": "robust"}, {"early_stopping": True}], ids=str
)
def test_a_pickled_estimator_answers_and_goes_on_as_before(settings, tmp_path):
    net = MLPClassifier(**{**SMALL, **settings}, warm_start=True).fit(X, Y)
    joblib.dump(net, tmp_path / "net")
    copies = [pickle.loads(pickle.dumps(net)), copy.deepcopy(net), joblib.load(tmp_path / "net", mmap_mode="r")]
    before, after = net.predict_proba(X), net.fit(X, Y).predict_proba(X)
    for other in copies:
        assert_array_equal(other.predict_proba(X), before)
        assert_array_equal(other.fit(X, Y).predict_proba(X), after)
    assert pickle.loads(pickle.dumps(MLPRegressor())).get_params() == MLPRegressor().get_params()


def test_a_pickle_holds_its_version_and_is_checked():
    net = MLPClassifier(**SMALL).fit(X, Y)
    state = net.__getstate__()
    assert state["_fastmlp_version"] == fastmlp.__version__ and "coefs_" not in state

    def load(**changes):
        MLPClassifier().__setstate__({**copy.deepcopy(state), **changes})

    load()
    broken = copy.deepcopy(net)
    broken._net.weights[0][0, 0] = np.nan
    bad_solver = copy.deepcopy(net)._solver
    bad_solver.states = bad_solver.states[:1]
    short_solver = copy.deepcopy(net)._solver
    short_solver.states = [s[:-1] for s in short_solver.states]
    for changes in (
        {"_fastmlp_format": 99},
        {"_fastmlp_format": None},
        {"n_features_in_": 5},
        {"n_layers_": 4},
        {"classes_": np.arange(4)},
        {"_net": "something else"},
        {"_net": broken._net},
        {"_solver": bad_solver},
        {"_solver": short_solver},
    ):
        with pytest.raises(ValueError, match="cannot be trusted"):
            load(**changes)


def test_assigned_weights_are_pickled():
    net = MLPRegressor(**SMALL).fit(X, Y.astype(float))
    net.coefs_[0] = np.zeros((4, 10))
    assert_array_equal(pickle.loads(pickle.dumps(net)).predict(X), net.predict(X))
    assert np.ptp(net.predict(X)) == 0


# ---- importing -------------------------------------------------------------------------------------------------------


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_scikit_learn_is_imported_only_when_asked_for():
    found = run("import fastmlp, sys; assert 'sklearn' not in sys.modules; print(fastmlp.MLPClassifier.__name__)")
    assert found.stdout == "MLPClassifier\n", found.stderr
    assert {"MLPClassifier", "MLPRegressor"} <= set(dir(fastmlp))
    with pytest.raises(AttributeError, match="has no attribute 'MLPClustering'"):
        fastmlp.MLPClustering  # noqa: B018


def test_without_scikit_learn_the_error_says_what_to_install():
    found = run("import sys; sys.modules['sklearn'] = None\nimport fastmlp\nfastmlp.MLP([2, 2])\nfastmlp.MLPClassifier")
    assert "AttributeError: fastmlp's estimators need scikit-learn" in found.stderr
    assert "pip install 'fastmlp[sklearn]'" in found.stderr


# ---- what scikit-learn does not have ---------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [1e-310, 1e308])
def test_weights_whose_sums_are_no_numbers_are_refused(value):
    with pytest.raises(ValueError, match="sample_weight must be 0 or in"):
        MLPRegressor(**SMALL).fit(X, Y, np.full(len(Y), value))
    with pytest.raises(ValueError, match="class_weight must be 0 or in"):
        MLPClassifier(**SMALL, class_weight={1: value}).fit(X, Y)


def test_class_weight():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 2)), np.array(["rare"] * 15 + ["usual"] * 285)
    X[:15] += 1.0
    plain = MLPClassifier(max_iter=100, random_state=0).fit(X, y)
    weighted = MLPClassifier(max_iter=100, random_state=0, class_weight="balanced").fit(X, y)
    assert (weighted.predict(X) == "rare").sum() > 2 * (plain.predict(X) == "rare").sum()
    by_hand = MLPClassifier(max_iter=100, random_state=0).fit(X, y, sample_weight=np.where(y == "rare", 10, 300 / 570))
    assert_allclose(by_hand.coefs_[0], weighted.coefs_[0], rtol=1e-6)
    with pytest.raises(ValueError, match="needs all data at once"):
        MLPClassifier(class_weight="balanced").partial_fit(X, y, classes=["rare", "usual"])


def test_a_batch_need_not_have_the_classes_that_class_weight_names():
    names, weights = np.array(["common", "other", "rare"]), {"rare": 20.0}
    clf, weighted = (MLPClassifier(**SMALL, class_weight=w) for w in (weights, None))
    for rows in (slice(0, 90), slice(60, 150)):
        clf.partial_fit(X[rows], names[Y[rows]], classes=names)
        weighted.partial_fit(X[rows], names[Y[rows]], np.where(Y[rows] == 2, 20.0, 1.0), classes=names)
    assert_array_equal(clf.coefs_[0], weighted.coefs_[0])
    with pytest.raises(ValueError, match=r"class_weight must be for \['common', 'other', 'rare'\], got .*'typo'"):
        clf.set_params(class_weight={"rare": 2, "typo": 1}).fit(X, names[Y])


@pytest.mark.parametrize("solver", ["sgd", "adam", "adamw", "rmsprop", "adagrad", "momentum", "nesterov"])
@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.3},
        {"weight_decay": 0.1},
        {"clip_norm": 1e-3},
        {"learning_rate": "cosine"},
        {"learning_rate": fastmlp.schedules.Step(3, 0.5)},
        {"learning_rate": lambda step: 0.01 / (1 + step)},
        {"activation": ["tanh", "gelu"]},
        {"standardize": "robust"},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_every_option_works_with_every_solver(solver, settings):
    common = {"hidden_layer_sizes": (8, 6), "max_iter": 5, "random_state": 0, "learning_rate_init": 0.05}
    plain = MLPClassifier(solver=solver, **common).fit(X, Y)
    found = [MLPClassifier(solver=solver, **common, **settings).fit(X, Y) for _ in range(2)]
    assert_array_equal(found[0].coefs_[0], found[1].coefs_[0])
    assert not np.array_equal(plain.coefs_[0], found[0].coefs_[0])
    assert np.isfinite(found[0].loss_)


def test_solver_and_activation_objects():
    solver, activation = fastmlp.RMSprop(0.01, momentum=0.9), fastmlp.activations.LeakyReLU(0.2)
    net = MLPClassifier(solver=solver, activation=activation, **SMALL)
    assert net.fit(X, Y).loss_curve_[-1] < net.loss_curve_[0]
    assert "LeakyReLU" in repr(net) and clone(net).get_params()["solver"] == net.solver


@pytest.mark.parametrize("loss", ["absolute_error", "mae", "huber", "quantile", fastmlp.losses.Quantile(0.9)], ids=str)
def test_losses(loss):
    rng = np.random.default_rng(0)
    X = rng.uniform(-1, 1, (400, 2))
    y = X[:, 0] + rng.exponential(size=400)
    net = MLPRegressor(loss, standardize=True, max_iter=300, learning_rate_init=0.01, random_state=0).fit(X, y)
    above = (y > net.predict(X)).mean()
    if isinstance(loss, fastmlp.losses.Quantile):
        assert 0.05 < above < 0.15
    elif loss != "huber":
        assert 0.42 < above < 0.58
    assert net.loss_ < net.loss_curve_[0]


def test_warm_start_with_a_loss_that_holds_an_array():
    y = np.column_stack([X[:, 0]] * 2)
    quantiles = (fastmlp.losses.Quantile(np.array([0.1, 0.9])) for _ in range(2))
    reg = MLPRegressor(**SMALL, loss=next(quantiles), warm_start=True).fit(X, y)
    assert reg.set_params(loss=next(quantiles)).fit(X, y).n_iter_ > 0


def test_poisson_refuses_negative_targets():
    with pytest.raises(ValueError, match="y must not be negative with loss='poisson', got -1"):
        MLPRegressor("poisson").fit(X, Y - 1)


def test_a_constant_target_stays_constant_where_rows_are_weighted():
    y = np.column_stack([X[:, 0], np.full(len(X), 0.1)])
    reg = MLPRegressor(**SMALL, standardize_targets=True).fit(X, y, sample_weight=np.linspace(0.1, 0.7, len(X)))
    assert reg._net.target_scaling.std[1] == 1
    assert reg._net.plan_targets(y)[:, 1].std() < 1e-12


def test_an_activation_that_is_changed_after_the_fit_counts():
    net = {"hidden_layer_sizes": (5,), "random_state": 0, "max_iter": 5}
    expected, found = (kind(**net).fit(X, X[:, 0]) for kind in (sklearn.neural_network.MLPRegressor, MLPRegressor))
    for regressor in (expected, found):
        regressor.set_params(activation="tanh")
    for _ in range(2):
        assert_allclose(found.predict(X), expected.predict(X))
        assert_allclose(pickle.loads(pickle.dumps(found)).predict(X), expected.predict(X))
        found.partial_fit(X, X[:, 0])
        expected.partial_fit(X, X[:, 0])
    with pytest.raises(ValueError, match=r"the loss was .* in the previous call, now it is Poisson"):
        found.set_params(loss="poisson").partial_fit(X, X[:, 0])


def test_a_schedule_ends_with_the_last_of_max_iter_partial_fits():
    falling = fastmlp.SGD(fastmlp.schedules.Polynomial(learning_rate=1.0))
    clf, rates = MLPClassifier((), solver=falling, max_iter=10, random_state=0), []
    for _ in range(10):
        rates.append(clf.partial_fit(X, Y, classes=range(3))._solver.last_rate)
    assert_allclose(rates, np.arange(10, 0, -1) / 10)


def test_a_rate_that_follows_the_score():
    rate = fastmlp.schedules.ReduceOnPlateau(0.5, patience=3, mode="max", learning_rate=0.05)
    settings = {**SMALL, "max_iter": 10, "solver": fastmlp.SGD(rate)}
    clf = MLPClassifier(**settings, early_stopping=True).fit(X, Y)
    heard = fastmlp.schedules.ReduceOnPlateau(0.5, patience=3, mode="max")
    assert rate_after(clf) == 0.05 * [heard.observe(score) for score in clf.validation_scores_][-1]
    with pytest.raises(ValueError, match="mode 'max' needs a validation score"):
        MLPClassifier(**settings).fit(X, Y)


def rate_after(clf):
    return clf._solver.optimizer.rates(clf._solver.steps, 1, 0)[0]


def test_standardized_targets_are_answered_in_their_own_units():
    y = 1e4 + 100 * X[:, 0]
    plain = MLPRegressor(random_state=0).fit(X, y)
    scaled = MLPRegressor(random_state=0, standardize=True, standardize_targets=True).fit(X, y)
    assert plain.score(X, y) < 0 < 0.9 < scaled.score(X, y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_own_validation_data(early_stopping):
    settings = {"max_iter": 15, "random_state": 0, "early_stopping": early_stopping}
    net = MLPClassifier(**settings).fit(X[::2], Y[::2], X_val=X[1::2], y_val=Y[1::2])
    assert len(net.validation_scores_) == net.n_iter_
    assert net.best_validation_score_ == max(net.validation_scores_)
    assert net.t_ == 75 * net.n_iter_  # nothing was held out
    if early_stopping:
        assert_allclose(net.score(X[1::2], Y[1::2]), net.best_validation_score_)
    else:
        assert_array_equal(net.coefs_[0], MLPClassifier(**settings).fit(X[::2], Y[::2]).coefs_[0])
    with pytest.raises(ValueError, match="X_val and y_val must be given together"):
        MLPClassifier().fit(X, Y, X_val=X)
    with pytest.raises(ValueError, match="has classes not in"):
        MLPClassifier().fit(X, Y, X_val=X, y_val=Y + 1)


@pytest.mark.parametrize(
    "scoring", ["neg_log_loss", "balanced_accuracy", lambda estimator, X, y: estimator.score(X, y)]
)
def test_early_stopping_by_a_scorer(scoring):
    net = MLPClassifier(max_iter=10, random_state=0, early_stopping=True, scoring=scoring).fit(X, Y)
    assert len(net.validation_scores_) == net.n_iter_
    if scoring == "neg_log_loss":
        assert max(net.validation_scores_) < 0


class Recorder:
    def __init__(self):
        self.losses, self.ended = [], 0

    def on_train_begin(self, state):
        assert state.epoch == 0 and state.epochs == 50

    def on_epoch_end(self, state):
        self.losses.append(state.history.loss[-1])
        assert state.trainer.loss_ == self.losses[-1]
        return state.epoch == 4

    def on_train_end(self, state):
        self.ended += 1


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
@pytest.mark.filterwarnings("error")
def test_callbacks_and_progress(solver, capsys):
    pytest.importorskip("tqdm")
    recorder = Recorder()
    net = MLPClassifier(max_iter=50, random_state=0, solver=solver, callbacks=[recorder], progress=True).fit(X, Y)
    assert net.loss_curve_ == recorder.losses and len(recorder.losses) == 4 and recorder.ended == 1
    assert net.n_iter_ == 4


@needs_engine  # NumPy's products, which the reference uses, promise no such thing
def test_results_do_not_depend_on_threads():
    X, y = load_digits(return_X_y=True)
    found = [MLPClassifier((64, 64), max_iter=3, random_state=0, n_threads=n).fit(X, y) for n in (1, 2, 4)]
    for other in found[1:]:
        assert_array_equal(found[0].coefs_[0], other.coefs_[0])
        assert_array_equal(found[0].predict_proba(X), other.predict_proba(X))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_an_estimator_in_training_is_not_trained_by_a_callback(solver):
    clf = MLPClassifier(**SMALL, solver=solver)
    for again in [clf.fit] if solver == "lbfgs" else [clf.fit, clf.partial_fit]:
        callback = fastmlp.callbacks.LambdaCallback(on_epoch_end=lambda _, again=again: again(X, Y))
        with pytest.raises(RuntimeError, match="being trained already"):
            clf.set_params(callbacks=[callback]).fit(X, Y)
    assert clf.set_params(callbacks=None).fit(X, Y).score(X, Y) > 0.3


@needs_engine
def test_concurrent_training_of_one_estimator_is_refused():
    clf, refused = MLPClassifier(**SMALL, batch_size=50).partial_fit(X, Y, classes=range(3)), []
    many = np.tile(X, (200, 1)), np.tile(Y, 200)

    def train(data):
        for _ in range(10):
            try:
                clf.partial_fit(*data)
            except Exception as error:
                refused.append("being trained already" in str(error))

    workers = [threading.Thread(target=train, args=(data,)) for data in ((X, Y), many)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(refused)
    assert np.isfinite(clf.coefs_[0]).all()


def test_predictions_from_several_threads():
    net = MLPClassifier(**SMALL).fit(X, Y)
    expected, wrong = net.predict_proba(X), []

    def work():
        for _ in range(50):
            if not np.array_equal(net.predict_proba(X), expected):
                wrong.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
