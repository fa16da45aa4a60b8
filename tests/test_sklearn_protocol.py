"""scikit-learn's callbacks on the estimators (1.9 and later); and no parameter of ours is ignored silently."""

import copy
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn")

from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fastmlp
from fastmlp.sklearn import MLPClassifier, MLPRegressor
from fastmlp.sklearn.sklearn_callbacks import Tasks

try:
    from sklearn.callback import ScoringMonitor
except ImportError:
    ScoringMonitor = None

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
needs_protocol = pytest.mark.skipif(ScoringMonitor is None, reason="sklearn.callback came with scikit-learn 1.9")

X, Y = load_iris(return_X_y=True)
WEIGHT = np.linspace(0.5, 2.0, len(X))
SMALL = {"hidden_layer_sizes": (6,), "max_iter": 7, "random_state": 0}
SOLVERS = ["sgd", "adam", "lbfgs"]


class Recorder:
    """Records all calls; asks to stop after epoch `last`."""

    def __init__(self, last=None):
        self.last, self.events, self.ends = last, [], []

    def setup(self, estimator, context):
        self.events.append(("setup", context.task_name, context.max_subtasks))

    def teardown(self, estimator, context):
        self.events.append(("teardown", context.task_name, context.max_subtasks))

    def on_fit_task_begin(self, estimator, context, *, fitted_estimator=None):
        self.events.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context, *, X=None, y=None, metadata=None, fitted_estimator=None):
        self.events.append(("end", context.task_name, context.task_id))
        self.ends.append((context.task_name, X, y, metadata, fitted_estimator))
        return context.task_name == "epoch" and context.task_id == self.last

    def epochs(self):
        """The arguments of all ends of epochs; an epoch that only began has no fitted estimator."""
        return [end[1:] for end in self.ends if end[0] == "epoch" and end[-1] is not None]


class Quiet(Recorder):
    """Takes no optional arguments."""

    def on_fit_task_begin(self, estimator, context):
        self.events.append(("begin", context.task_name, context.task_id))

    def on_fit_task_end(self, estimator, context):
        self.events.append(("end", context.task_name, context.task_id))


# ---- what callbacks see ----------------------------------------------------------------------------------------------


@needs_protocol
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_every_epoch_begins_and_ends_once(kind, solver):
    recorder = Recorder()
    net = kind(solver=solver, **SMALL).set_callbacks(recorder).fit(X, Y, WEIGHT)
    whole = [("setup", "fit", 7), ("begin", "fit", 0)], [("end", "fit", 0), ("teardown", "fit", 7)]
    epochs = [(event, "epoch", i) for i in range(7) for event in ("begin", "end")]
    assert net.n_iter_ == len(recorder.epochs()) == 7 and recorder.events == [*whole[0], *epochs, *whole[1]]
    for given_X, given_y, metadata, _ in recorder.epochs():
        assert given_X is X
        assert_array_equal(given_y, Y)
        assert_array_equal(metadata["sample_weight"], WEIGHT)
    assert not {"_callback_fit_ctx", "_skl_callbacks_to_teardown"} & set(vars(net))


@needs_protocol
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_fitted_estimator_equals_a_shorter_training(solver):
    recorder = Recorder()
    net = MLPClassifier(solver=solver, **SMALL).set_callbacks(recorder).fit(X, Y)
    assert len(recorder.epochs()) == 7
    for n, (*_, fitted) in enumerate(recorder.epochs(), 1):
        expected = MLPClassifier(solver=solver, **{**SMALL, "max_iter": n}).fit(X, Y)
        assert_allclose(fitted.predict_proba(X), expected.predict_proba(X), rtol=1e-12)
        assert fitted.n_iter_ == n and fitted.loss_curve_ == expected.loss_curve_
        assert fitted is not net and not np.shares_memory(fitted.coefs_[0], net.coefs_[0])


@needs_protocol
def test_callbacks_see_the_training_rows_under_early_stopping():
    recorder = Recorder()
    settings = {**SMALL, "early_stopping": True, "max_iter": 12, "learning_rate_init": 0.5}
    net = MLPClassifier(**settings).set_callbacks(recorder).fit(X, Y, WEIGHT)
    assert len(recorder.epochs()) == net.n_iter_ > 1
    for n, (given_X, given_y, metadata, fitted) in enumerate(recorder.epochs(), 1):
        assert len(given_X) == len(given_y) == len(metadata["sample_weight"]) == 135
        expected = MLPClassifier(**{**settings, "max_iter": n}).fit(X, Y, WEIGHT)
        assert_array_equal(fitted.predict_proba(X), expected.predict_proba(X))


@needs_protocol
@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}, {"dropout": 0.2}], ids=str)
def test_callbacks_do_not_change_the_results(settings):
    alone = MLPClassifier(**SMALL, **settings).fit(X, Y)
    for callback in (Recorder(), Quiet()):
        net = MLPClassifier(**SMALL, **settings).set_callbacks(callback).fit(X, Y)
        assert_array_equal(net.coefs_[0], alone.coefs_[0])
        assert net.loss_curve_ == alone.loss_curve_ and net.n_iter_ == alone.n_iter_
        if net.solver != "lbfgs" and not net.early_stopping:  # the optimizer's memory is the same too
            assert_array_equal(net.partial_fit(X, Y).coefs_[0], copy.deepcopy(alone).partial_fit(X, Y).coefs_[0])


@needs_protocol
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_callback_ends_training(solver):
    recorder = Recorder(last=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        net = MLPClassifier(solver=solver, **SMALL).set_callbacks(Quiet(), recorder).fit(X, Y)
    assert net.n_iter_ == 3 and len(recorder.epochs()) == 3
    assert recorder.events[-2:] == [("end", "fit", 0), ("teardown", "fit", 7)]


@needs_protocol
def test_an_iteration_that_lbfgs_only_begins_ends_too():
    recorder = Recorder()
    net = MLPClassifier(solver="lbfgs", tol=1e9, **SMALL).set_callbacks(recorder).fit(X, Y)
    assert net.n_iter_ == 0 and not recorder.epochs()
    assert recorder.events[2:-2] == [("begin", "epoch", 0), ("end", "epoch", 0)]


@needs_protocol
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_interrupt_ends_all_begun_tasks(solver):
    class Interrupts(Recorder):
        def on_fit_task_begin(self, estimator, context):
            super().on_fit_task_begin(estimator, context)
            if context.task_id == 2:
                raise KeyboardInterrupt

    recorder = Interrupts()
    with pytest.warns(UserWarning, match="interrupted"):
        net = MLPClassifier(solver=solver, **SMALL).set_callbacks(recorder).fit(X, Y)
    assert net.n_iter_ == len(recorder.epochs()) == 2
    assert recorder.events[-4:-1] == [("begin", "epoch", 2), ("end", "epoch", 2), ("end", "fit", 0)]


@needs_protocol
def test_partial_fit_is_a_run_of_one_epoch():
    recorder = Recorder()
    net = MLPClassifier(**SMALL).set_callbacks(recorder)
    for _ in range(2):
        net.partial_fit(X, Y, classes=[0, 1, 2])
    assert [e[:2] for e in recorder.events if e[0] == "setup"] == [("setup", "partial_fit")] * 2
    assert len(recorder.epochs()) == 2


@needs_protocol
def test_an_error_in_a_callback_reaches_the_caller_after_teardown():
    class Fails(Recorder):
        def on_fit_task_end(self, estimator, context):
            raise RuntimeError("no")

    recorder = Fails()
    net = MLPClassifier(**SMALL).set_callbacks(recorder)
    with pytest.raises(RuntimeError, match="no"):
        net.fit(X, Y)
    assert recorder.events[-1][0] == "teardown"
    net.set_callbacks().fit(X, Y)
    assert len(recorder.events) == 4  # setup, two begins, teardown


# ---- with other parts of scikit-learn --------------------------------------------------------------------------------


@needs_protocol
@pytest.mark.parametrize("settings", [{}, {"solver": "lbfgs"}, {"early_stopping": True}], ids=str)
def test_scoring_monitor(settings):
    monitor = ScoringMonitor(scoring=["accuracy", "neg_log_loss"])
    net = MLPClassifier(**SMALL, **settings).set_callbacks(monitor).fit(X, Y)
    log = monitor.get_logs().data
    assert [row["task_name"] for row in log] == ["fit"] + ["epoch"] * 7
    assert log[0]["accuracy"] == net.score(X, Y)
    if not settings:
        assert log[-1]["neg_log_loss"] == pytest.approx(log[0]["neg_log_loss"])


@needs_protocol
def test_scoring_monitor_takes_sample_weights_and_column_names():
    pandas = pytest.importorskip("pandas")
    monitor = ScoringMonitor(scoring="r2")
    net = MLPRegressor(**SMALL, early_stopping=True).set_callbacks(monitor)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)
        net.fit(pandas.DataFrame(X, columns=list("abcd")), Y, WEIGHT)
    data = monitor.get_logs().data
    assert data[0]["r2"] == pytest.approx(net.score(pandas.DataFrame(X, columns=list("abcd")), Y, WEIGHT))


@needs_protocol
def test_clones_pickles_and_copies_keep_their_callbacks():
    recorder = Recorder()
    net = MLPClassifier(**SMALL).set_callbacks(recorder).fit(X, Y)
    seen = len(recorder.epochs())
    clone(net).fit(X, Y)
    assert len(recorder.epochs()) == 2 * seen
    again = pickle.loads(pickle.dumps(MLPClassifier(**SMALL).set_callbacks(Quiet()).fit(X, Y)))
    assert_array_equal(again.predict(X), net.predict(X))
    before = len(again._skl_callbacks[0].events)
    assert len(again.fit(X, Y)._skl_callbacks[0].events) == 2 * before
    assert_array_equal(copy.copy(net).predict_proba(X), net.predict_proba(X))


class Passed(Quiet):
    """Is passed on to the estimators inside a meta-estimator."""

    max_propagation_depth = None


@needs_protocol
def test_in_a_pipeline_and_a_search():
    recorder, passed = Recorder(), Passed()
    pipeline = make_pipeline(StandardScaler(), MLPClassifier(**SMALL).set_callbacks(recorder))
    pipeline.set_callbacks(passed).fit(X, Y)
    assert len(recorder.epochs()) == 7
    assert sum(e[:2] == ("end", "epoch") for e in passed.events) == 7
    assert not hasattr(pipeline[-1], "_parent_callback_ctx") and pipeline[-1]._skl_callbacks == [recorder]
    passed = Passed()
    search = GridSearchCV(MLPClassifier(**SMALL), {"alpha": [1e-4, 1e-2]}, cv=2).set_callbacks(passed).fit(X, Y)
    assert sum(e[:2] == ("end", "epoch") for e in passed.events) == 5 * 7
    assert not hasattr(search.best_estimator_, "_skl_callbacks")


def test_without_callbacks_there_are_no_tasks(monkeypatch):
    made = []
    monkeypatch.setattr(Tasks, "__init__", lambda *arguments: made.append(arguments))
    for solver in SOLVERS:
        assert MLPClassifier(solver=solver, **SMALL).fit(X, Y).n_iter_ > 0
    assert made == []


@pytest.mark.skipif(ScoringMonitor is not None, reason="scikit-learn has callbacks")
def test_older_versions_have_no_set_callbacks():
    assert not hasattr(MLPClassifier(), "set_callbacks")


# ---- parameters that a solver does not use ---------------------------------------------------------------------------


@pytest.mark.parametrize("solver", ["lbfgs", fastmlp.optimizers.LBFGS()], ids=["name", "object"])
@pytest.mark.parametrize(
    "settings",
    [
        {"dropout": 0.5},
        {"dropout": [0.25]},
        {"weight_decay": 0.1},
        {"clip_norm": 1.0},
        {"scoring": "accuracy"},
        {"learning_rate": "cosine"},
        {"learning_rate": lambda step: 0.1},
    ],
    ids=lambda s: str(next(iter(s))),
)
def test_lbfgs_refuses_options_of_steps(solver, settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} must be .* with solver='lbfgs'.* got ") as error:
        MLPClassifier(solver=solver, **SMALL, **settings).fit(X, Y)
    assert repr(value) in str(error.value)


def test_lbfgs_takes_zeros_and_ignores_what_scikit_learn_ignores():
    plain = MLPClassifier(solver="lbfgs", **SMALL).fit(X, Y)
    zeros = {"dropout": [0.0], "weight_decay": 0.0}
    theirs = {"learning_rate": "adaptive", "momentum": 0.5, "batch_size": 10, "early_stopping": True}
    for settings in (zeros, theirs):
        net = MLPClassifier(solver="lbfgs", **SMALL, **settings).fit(X, Y)
        assert_array_equal(net.coefs_[0], plain.coefs_[0])


@pytest.mark.parametrize("solver", ["lbfgs", fastmlp.optimizers.LBFGS()], ids=["name", "object"])
def test_lbfgs_refuses_validation_data(solver):
    net = MLPClassifier(solver=solver, **SMALL)
    with pytest.raises(ValueError, match="X_val and y_val must be None with solver='lbfgs'"):
        net.fit(X, Y, X_val=X, y_val=Y)
    assert not hasattr(net, "coefs_")


@pytest.mark.parametrize(
    "settings", [{"max_iter": 3}, {"tol": 0.1}, {"max_fun": 9}, {"l2": 0.1}, {"decay_biases": True}]
)
def test_an_lbfgs_object_refuses_settings_of_the_estimator(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name} of LBFGS must be .* in an estimator, .*, got {value}"):
        MLPClassifier(solver=fastmlp.optimizers.LBFGS(**settings), **SMALL).fit(X, Y)


def test_an_lbfgs_object_sets_the_history():
    settings = {**SMALL, "max_iter": 40}
    plain, same, less = (
        MLPRegressor(solver=solver, **settings).fit(X, Y).loss_
        for solver in ("lbfgs", fastmlp.optimizers.LBFGS(), fastmlp.optimizers.LBFGS(history=1))
    )
    assert plain == same != less


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": "adaptive"},
        {"learning_rate_init": 0.1},
        {"power_t": 0.1},
        {"momentum": 0.5},
        {"nesterovs_momentum": False},
        {"beta_1": 0.5},
        {"beta_2": 0.5},
        {"epsilon": 0.5},
        {"weight_decay": 0.0},
        {"clip_norm": 1.0},
    ],
    ids=lambda s: str(next(iter(s))),
)
def test_a_solver_object_refuses_settings_of_the_estimator(settings):
    ((name, value),) = settings.items()
    solver = fastmlp.optimizers.AdamW(0.01)
    with pytest.raises(ValueError, match=rf"{name} must be .* set it in AdamW\(\.\.\.\), got {value!r}"):
        MLPClassifier(solver=solver, **SMALL, **settings).fit(X, Y)
    MLPClassifier(solver=solver, **SMALL).fit(X, Y)
