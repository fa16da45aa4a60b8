"""Early stopping and held-out rows: when training stops, which weights remain, and which rows are not trained on."""

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, EarlyStopping, callbacks
from fastmlp.evaluation import held_out


@pytest.fixture
def noisy(rng):
    """Two classes that overlap, few samples: a network overfits them soon."""
    y = rng.integers(0, 2, 120)
    return rng.normal(0, 1, (120, 6)) + 0.6 * y[:, None], y


class Scripted:
    """A metric that returns given numbers, one for each evaluation."""

    __name__ = "scripted"

    def __init__(self, *values, greater=False):
        self.values, self.greater_is_better = list(values), greater

    def __call__(self, y, prediction):
        return self.values.pop(0)


def stopped_on(values, greater=False, **settings):
    """Train while a metric takes these values; the stopper, and the parameters after every epoch and at the end."""
    stop, seen = EarlyStopping(Scripted(*values, greater=greater), **settings), []
    note = callbacks.LambdaCallback(on_epoch_end=lambda state: seen.append(state.net.parameters.copy()))
    X, y = fastmlp.datasets.xor()
    net = MLP([2, 4, 2], seed=1)
    net.fit(X, y, epochs=len(values), validation=(X, y), early_stopping=stop, callbacks=[note], optimizer=SGD(0.1))
    assert len({p.tobytes() for p in seen}) == len(seen), "every epoch moves the weights"
    return stop, seen, net.parameters


@pytest.mark.parametrize(
    ("values", "settings", "best", "stopped"),
    [
        ((3, 2, 4, 5, 6, 1), {"patience": 3}, 2, 5),
        ((3, 2, 4, 5, 6, 1), {"patience": 4}, 6, 0),
        ((3, 2, 2, 2, 1), {"patience": 2}, 2, 4),  # the first of equals
        ((3, 2, 2, 2, 1), {"patience": 2, "last_best": True}, 4, 4),
        ((3, 2.9, 2.8, 2.7, 2.6), {"patience": 2, "min_delta": 0.15}, 5, 0),  # two steps together are enough
        ((3, 2.9, 2.8, 2.7, 2.6), {"patience": 2, "min_delta": 0.5}, 3, 3),  # yet the best weights are the best
        ((1, 2, 3, 2, 1), {"patience": 2, "greater": True}, 3, 5),
        ((1, 2, 3, 2, 1), {"patience": 2, "mode": "max"}, 3, 5),
        ((1, 2, 3, 2, 1), {"patience": 2, "greater": True, "mode": "min"}, 1, 3),
        ((float("nan"), float("nan"), 5, 6), {"patience": 3}, 3, 0),
        ((float("nan"), float("nan"), 5, 6), {"patience": 2}, 0, 2),
    ],
)
def test_when_it_stops_and_what_it_restores(values, settings, best, stopped):
    stop, seen, final = stopped_on(values, **settings)
    assert (stop.best_epoch, stop.stopped_epoch) == (best, stopped)
    assert len(seen) == (stopped or len(values))
    assert np.isnan(stop.best_value) if best == 0 else stop.best_value == values[best - 1]
    np.testing.assert_array_equal(final, seen[best - 1])


def test_without_restoring_the_last_weights_stay():
    stop, seen, final = stopped_on((1, 2, 3, 4), patience=2, restore_best=False)
    assert (stop.best_epoch, len(seen)) == (1, 3)
    np.testing.assert_array_equal(final, seen[-1])


@pytest.mark.parametrize(
    ("monitor", "key", "best"),
    [
        *(("val_loss", "val_loss", min), ("loss", "loss", min), ("accuracy", "val_accuracy", max)),
        *(("val_balanced_accuracy", "val_balanced_accuracy", max), ("roc_auc", "val_roc_auc", max)),
    ],
)
@pytest.mark.parametrize("as_callback", [False, True])
def test_it_watches_losses_and_metrics(noisy, monitor, key, best, as_callback):
    stop = EarlyStopping(monitor, patience=3)
    how = {"callbacks": [stop]} if as_callback else {"early_stopping": stop}
    net = MLP([6, 32, 2], seed=2)
    history = net.fit(*noisy, epochs=60, validation_fraction=0.3, optimizer="adam", **how)
    values = history[key]
    assert stop.best_value == best(values) == values[stop.best_epoch - 1]
    assert values.index(best(values)) + 1 == stop.best_epoch
    if monitor != "loss":
        assert history.epochs == stop.stopped_epoch < 60
        held = held_out(noisy[1], 0.3, True, net.seed)
        scores = net.evaluate(noisy[0][held], noisy[1][held], metrics=[] if key == "val_loss" else [key[4:]])
        assert scores[key[4:]] == stop.best_value, "the weights are those of the best epoch"


def test_true_stands_for_the_defaults(noisy):
    histories = [
        MLP([6, 32, 2], seed=2).fit(*noisy, epochs=300, validation_fraction=0.3, optimizer="adam", early_stopping=how)
        for how in (True, EarlyStopping("val_loss", patience=10), False)
    ]
    assert histories[0].val_loss == histories[1].val_loss == histories[2].val_loss[: histories[0].epochs]
    assert histories[0].epochs < histories[2].epochs == 300
    assert int(np.argmin(histories[0].val_loss)) == histories[0].epochs - 11


def test_a_stopper_can_be_used_again(noisy):
    stop = EarlyStopping(patience=3)
    runs = []
    for _ in range(2):
        net = MLP([6, 32, 2], seed=2)
        net.fit(*noisy, epochs=300, validation_fraction=0.3, optimizer="adam", early_stopping=stop)
        runs.append((stop.best_epoch, stop.stopped_epoch, net.parameters.tobytes()))
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"early_stopping": True}, ValueError, "'val_loss' needs validation rows: give validation"),
        ({"early_stopping": 3}, TypeError, "early_stopping must be True, False or an EarlyStopping, got 3"),
        ({"validation_fraction": 0.0}, ValueError, "validation_fraction must be a number in (0, 1), got 0.0"),
        ({"validation_fraction": 1.5}, ValueError, "validation_fraction must be a number in (0, 1), got 1.5"),
        ({"validation_fraction": "a"}, TypeError, "validation_fraction must be a number in (0, 1), got 'a'"),
        ({"validation_fraction": 0.1, "validation": np.array([1])}, ValueError, "must be None where validation is"),
        ({"validation": np.array([120])}, ValueError, "numbers 0..119, at least one, got [120]"),
        ({"validation": np.array([], int)}, ValueError, "numbers 0..119, at least one, got []"),
        ({"validation": np.arange(120)}, ValueError, "must leave some of the 120 rows to train on"),
        ({"validation": np.ones(3)}, TypeError, "must be whole numbers, got an array of float64"),
        ({"validation": 7}, TypeError, "or an array of row numbers, got int"),
        (
            {"validation_fraction": 0.1, "early_stopping": EarlyStopping(lambda y, p: 0.0)},
            *(ValueError, "mode must be 'min' or 'max' for 'val_<lambda>', whose direction is unknown"),
        ),
        (
            {"validation_fraction": 0.1, "early_stopping": EarlyStopping("f1")},
            *(ValueError, "unknown metric 'f1'; known: loss, accuracy"),
        ),
        (
            {"validation": np.arange(9), "sample_weight": np.arange(120) >= 9},
            *(ValueError, "sample_weight must not be all zero on the 9 rows to validate on"),
        ),
    ],
)
def test_bad_arguments_of_fit(noisy, arguments, error, message):
    net = MLP([6, 2])
    before = net.parameters.tobytes()
    with pytest.raises(error) as caught:
        net.fit(*noisy, **arguments)
    assert message in str(caught.value)
    assert net.parameters.tobytes() == before


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"patience": 0}, ValueError, r"patience must be a whole number in \[1, inf\), got 0"),
        ({"patience": 1.5}, TypeError, "patience must be a whole number"),
        ({"min_delta": -1.0}, ValueError, r"min_delta must be a number in \[0, inf\), got -1.0"),
        ({"mode": "up"}, ValueError, "mode must be 'min', 'max' or None, got 'up'"),
        ({"monitor": 3}, TypeError, "monitor must be the name of a metric or a function"),
        ({"restore_best": 1}, TypeError, "restore_best must be True or False, got 1"),
    ],
)
def test_bad_arguments_of_early_stopping(arguments, error, message):
    with pytest.raises(error, match=message):
        EarlyStopping(**arguments)


# ---- held-out rows ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.05, 0.1, 1 / 3, 0.5, 0.9])
def test_every_class_gives_its_share(rng, fraction):
    y = rng.choice(4, 1000, p=[0.7, 0.2, 0.09, 0.01])
    rows = held_out(y, fraction, True, seed=0)
    assert len(np.unique(rows)) == len(rows) == round(fraction * 1000)
    assert (np.diff(rows) > 0).all()
    for c in range(4):
        assert abs((y[rows] == c).sum() - fraction * (y == c).sum()) <= 1
    again, other = held_out(y, fraction, True, seed=0), held_out(y, fraction, True, seed=1)
    assert np.array_equal(rows, again) and not np.array_equal(rows, other)
    free = [(y[held_out(y, fraction, False, seed=s)] == 1).sum() for s in range(30)]
    assert max(free) - min(free) > 2, "without classes, chance decides"


def test_at_least_one_row_is_held_out_and_one_is_left():
    assert len(held_out(np.arange(2), 0.01, False, 0)) == len(held_out(np.arange(2), 0.99, False, 0)) == 1
    with pytest.raises(ValueError, match="needs at least 2 rows to divide, got 1"):
        held_out(np.arange(1), 0.5, False, 0)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [7, None])
def test_held_out_rows_are_not_trained_on(noisy, batch_size, shuffle):
    X, y = noisy
    weight = np.linspace(0.5, 2, 120)
    rows = held_out(y, 0.25, True, seed=5)
    rest = np.setdiff1d(np.arange(120), rows)
    settings = {"epochs": 3, "batch_size": batch_size, "shuffle": shuffle, "optimizer": SGD(0.1, momentum=0.9)}
    by_fraction, by_rows, by_hand = (MLP([6, 8, 2], seed=5) for _ in range(3))
    histories = [
        by_fraction.fit(X, y, validation_fraction=0.25, sample_weight=weight, **settings),
        by_rows.fit(X, y, validation=rows, sample_weight=weight, **settings),
        by_hand.fit(
            X[rest], y[rest], validation=(X[rows], y[rows], weight[rows]), sample_weight=weight[rest], **settings
        ),
    ]
    for net, history in zip((by_fraction, by_rows), histories, strict=False):
        assert net.parameters.tobytes() == by_hand.parameters.tobytes()
        for key in ("loss", "val_loss", "val_accuracy"):
            assert history[key] == histories[2][key]
    poisoned = X.copy()
    poisoned[rows] = 1e3
    other = MLP([6, 8, 2], seed=5)
    other.fit(poisoned, y, validation=rows, sample_weight=weight, **settings)
    assert other.parameters.tobytes() == by_hand.parameters.tobytes()


def test_regression_and_several_labels_are_divided_without_classes(rng):
    X, y = rng.normal(0, 1, (50, 3)), rng.normal(0, 1, (50, 2))
    seen = []
    count = callbacks.LambdaCallback(on_epoch_end=lambda state: seen.append(len(state.history.val_loss)))
    MLP([3, 2], loss="mse").fit(X, y, epochs=2, validation_fraction=0.2, callbacks=[count])
    MLP([3, 2], loss="binary_cross_entropy").fit(X, y > 0, epochs=2, validation_fraction=0.2, callbacks=[count])
    assert seen == [1, 2, 1, 2]
