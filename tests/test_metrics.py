"""Metrics are scikit-learn's numbers, ties and weights included, and fit and evaluate report them by name."""

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")

WEIGHTED = [False, True]


def weights(rng, n, weighted):
    return rng.integers(0, 4, n) * rng.random(n) if weighted else None


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize(
    ("name", "theirs"), [("accuracy", "accuracy_score"), ("balanced_accuracy", "balanced_accuracy_score")]
)
def test_metrics_of_classes(rng, name, theirs, classes, weighted):
    y, p = rng.integers(0, classes, (2, 200)) ** 2  # unequal, and class numbers with gaps
    w = weights(rng, 200, weighted)
    expected = getattr(sklearn_metrics, theirs)(y, p, sample_weight=w)
    assert getattr(metrics, name)(y, p, w) == pytest.approx(expected, rel=1e-12)
    assert 0 < expected < 1


def test_metrics_of_labels_are_means_over_the_labels(rng):
    y, p = rng.integers(0, 2, (2, 60, 3))
    for name in ("accuracy", "balanced_accuracy"):
        function = getattr(metrics, name)
        assert function(y, p) == pytest.approx(np.mean([function(y[:, i], p[:, i]) for i in range(3)]), rel=1e-12)


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_roc_auc_counts_ties_half(rng, levels, weighted):
    y, score = rng.integers(0, 2, 300), rng.integers(0, levels, 300) / levels
    w = weights(rng, 300, weighted)
    expected = sklearn_metrics.roc_auc_score(y, score, sample_weight=w)
    assert metrics.roc_auc(y, score, w) == pytest.approx(expected, rel=1e-12)
    pairs = score[y == 1][:, None] - score[y == 0]
    if w is None:
        assert metrics.roc_auc(y, score) == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean(), rel=1e-12)


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize("shape", [(100,), (100, 3)])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [("r2", "r2_score"), ("mae", "mean_absolute_error"), ("rmse", "root_mean_squared_error")],
)
def test_metrics_of_values(rng, name, theirs, shape, weighted):
    y = rng.normal(3, 2, shape)
    p, w = y + rng.normal(0, 1, shape), weights(rng, 100, weighted)
    expected = getattr(sklearn_metrics, theirs)(y, p, sample_weight=w)
    assert getattr(metrics, name)(y, p, w) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", sorted(metrics.KNOWN))
def test_metrics_take_lists(name):
    function, y, out = metrics.KNOWN[name].function, [0, 1, 1, 0], [0.0, 1.0, 0.0, 1.0]
    assert function(y, out, [1, 2, 3, 4]) == function(np.array(y), np.array(out), np.array([1.0, 2.0, 3.0, 4.0]))


@pytest.mark.parametrize("wrong", ["prediction", [1]], ids=["words", "lists"])
def test_a_metric_that_gives_no_number_is_named(rng, wrong):
    def strange(y, prediction):
        return wrong

    X, y = two_classes(rng)
    with pytest.raises(TypeError, match="metric 'strange' must return a number, got"):
        MLP([3, 2]).evaluate(X, y, metrics=[strange])


# ---- in evaluate and fit ---------------------------------------------------------------------------------------------


def two_classes(rng, n=80):
    y = rng.integers(0, 2, n)
    return rng.normal(0, 1.5, (n, 3)) + y[:, None], y


@pytest.mark.parametrize("weighted", WEIGHTED)
@pytest.mark.parametrize(("loss", "outputs"), [("cross_entropy", 2), ("binary_cross_entropy", 1)])
def test_evaluate_reports_classification_metrics(rng, loss, outputs, weighted):
    X, y = two_classes(rng)
    w = weights(rng, len(y), weighted)
    net = MLP([3, 4, outputs], "tanh", loss, seed=3)
    found = net.evaluate(
        X, y, w, metrics=["loss", "roc_auc", "balanced_accuracy", "accuracy", sklearn_metrics.f1_score]
    )
    p, score = net.predict(X), net.predict_proba(X)[:, -1]
    assert found == pytest.approx(
        {
            "loss": net.evaluate(X, y, w)["loss"],
            "roc_auc": sklearn_metrics.roc_auc_score(y, score, sample_weight=w),
            "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(y, p, sample_weight=w),
            "accuracy": sklearn_metrics.accuracy_score(y, p, sample_weight=w),
            "f1_score": sklearn_metrics.f1_score(y, p, sample_weight=w),
        },
        rel=1e-6,
    )
    assert net.evaluate(X, y, metrics=[]).keys() == {"loss"}


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize(("loss", "more"), [("mse", {}), ("mae", {"standardize_targets": True}), ("poisson", {})])
def test_regression_metrics_are_in_units_of_the_targets(rng, loss, more, outputs):
    X, y = rng.normal(0, 1, (50, 3)), rng.poisson(40, (50, outputs)).astype(float)
    net = MLP([3, 4, outputs], "tanh", loss, seed=3, **more)
    net.fit(X, y, epochs=1)
    found = net.evaluate(X, y if outputs > 1 else y[:, 0], metrics=["mae", "rmse", "r2"])
    p = net.predict(X)
    expected = {
        "mae": sklearn_metrics.mean_absolute_error(y, p),
        "rmse": sklearn_metrics.root_mean_squared_error(y, p),
        "r2": sklearn_metrics.r2_score(y, p),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def test_fit_reports_the_metrics_asked_for(rng):
    X, y = two_classes(rng)

    def errors(y, prediction):
        assert y.shape == prediction.shape == (30,)
        return (y != prediction).sum()

    net = MLP([3, 4, 1], "tanh", "binary_cross_entropy")
    history = net.fit(X[:50], y[:50], epochs=3, validation=(X[50:], y[50:]), metrics=["roc_auc", errors])
    own = {"loss", "learning_rate", "seconds", "samples_per_second"}
    assert history.keys() - own == {"val_loss", "val_roc_auc", "val_errors"}
    assert all(len(values) == 3 for values in history.values())
    found = net.evaluate(X[50:], y[50:], metrics=["roc_auc", errors])
    assert [found["roc_auc"], found["errors"]] == [history.val_roc_auc[-1], history.val_errors[-1]]


@pytest.mark.parametrize("outputs", [1, 2])
def test_a_function_may_keep_the_predictions_it_is_given(rng, outputs):
    X, y, kept, epochs = rng.normal(0, 1, (40, 3)), rng.normal(0, 1, (40, outputs)), [], []

    def keeps(y, prediction):
        kept.append(prediction)
        return 0.0

    remembers = fastmlp.callbacks.LambdaCallback(on_epoch_end=lambda state: epochs.append(state.net.predict(X)))
    net = MLP([3, outputs], loss="mse")
    net.fit(X, y, epochs=3, validation=(X, y), metrics=[keeps, "r2"], callbacks=[remembers])
    np.testing.assert_allclose(kept, epochs, rtol=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "balanced_accuracy", "roc_auc", "r2", "mae", "rmse"])
def test_only_the_proportions_of_weights_count(rng, name):
    y, p, w = np.arange(40) % 2, rng.integers(0, 2, 40), rng.uniform(1, 5, 40)
    for scale in (1e-100, 1e99):
        assert getattr(metrics, name)(y, p, scale * w) == pytest.approx(getattr(metrics, name)(y, p, w), rel=1e-12)


@pytest.mark.parametrize("weight", [1e-310, 1e-170, 1e170, 1e308])
def test_weights_whose_products_are_no_numbers_are_refused(weight):
    with pytest.raises(ValueError, match="weight must be 0 or in"):
        metrics.roc_auc([0, 1], [0.3, 0.2], [weight, weight])


def test_validation_is_the_same_for_any_number_of_threads(rng):
    X, y = rng.normal(0, 1, (5000, 3)), rng.integers(0, 2, 5000)
    found = []
    for n in (1, 2, 3):
        fastmlp.set_num_threads(n)
        found.append(MLP([3, 30, 2]).evaluate(X, y, np.arange(1, 5001)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        ("accuracy", TypeError, "metrics must be a list of names or functions, got 'accuracy'"),
        (5, TypeError, "metrics must be a list of names or functions, got 5"),
        (["f1"], ValueError, "unknown metric 'f1'; known: loss, accuracy, balanced_accuracy, mae, r2"),
        ([3], TypeError, "metrics must be the name of a metric or a function (y, prediction) -> number, got 3"),
        (["r2"], ValueError, "'r2' is for regression; the loss is 'cross_entropy': use accuracy, balanced_accuracy"),
        (["accuracy", "accuracy"], ValueError, "metrics must have different names, got 'accuracy' twice"),
        (["roc_auc"], ValueError, "'roc_auc' needs two classes; the network has 3 outputs"),
    ],
)
def test_bad_metrics_are_refused_before_training(rng, wanted, error, message):
    X, y = two_classes(rng)
    net = MLP([3, 4, 3])
    before = net.parameters.tobytes()
    for call in (lambda: net.evaluate(X, y, metrics=wanted), lambda: net.fit(X, y, validation=(X, y), metrics=wanted)):
        with pytest.raises(error) as caught:
            call()
        assert message in str(caught.value)
    assert net.parameters.tobytes() == before


def test_metrics_that_cannot_be_had(rng):
    X, y = two_classes(rng)
    with pytest.raises(ValueError, match="'accuracy' is for classification; the loss is 'mse': use r2, mae, rmse"):
        MLP([3, 1], loss="mse").evaluate(X, y, metrics=["accuracy"])
    with pytest.raises(ValueError, match="'roc_auc' needs samples of both classes in y, got only class 0"):
        MLP([3, 2]).evaluate(X, y * 0, metrics=["roc_auc"])
    with pytest.raises(ValueError, match="metrics need validation rows"):
        MLP([3, 2]).fit(X, y, metrics=["accuracy"])
