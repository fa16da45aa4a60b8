"""Standardisation of inputs and targets: learned once, part of the network, and the same as doing it by hand."""

import copy
import pickle

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD, Trainer, scaling
from fastmlp.scaling import InputScaling


@pytest.fixture
def data(rng):
    """Columns of odd sizes: plain, far off, tiny, constant, rarely 1, of one step, constant and not representable."""
    n = 200
    X = rng.standard_normal((n, 7)) * [1, 30, 1e-3, 0, 0, 0, 0] + [0, 1e3, 0, 7, 0, 0, 0.1]
    X[:5, 4] = 1
    X[100:, 5] = 1
    return X, X[:, 0] * 2 + (X[:, 1] - 1e3) / 10 + 50


def by_hand(X, method):
    if method == "mean":
        spread = X.std(axis=0)
        return (X - X.mean(axis=0)) * np.where(np.ptp(X, axis=0) > 0, 1 / np.where(spread > 0, spread, 1), 0)
    q25, q50, q75 = np.quantile(X, [0.25, 0.5, 0.75], axis=0)
    width = np.ptp(X, axis=0)
    scale = [1 / (b - a) if b > a else 2 / w if w > 0 else 0 for a, b, w in zip(q25, q75, width, strict=True)]
    x = (X - q50) * scale
    return x / np.sqrt(1 + (x / 3) ** 2)


@pytest.mark.targets
@pytest.mark.parametrize("backend", ["engine", "reference"])
@pytest.mark.parametrize("method", scaling.METHODS)
def test_the_first_layer_reads_standardised_inputs(dtype, data, method, backend):
    X, y = data
    net = MLP([7, 4, 1], "tanh", "mse", standardize=method, dtype=dtype, backend=backend)
    net.fit(X, y, epochs=1, optimizer=SGD(1e-9))
    x = net.activations(X)[0]
    atol = 1e-12 if dtype == "float64" else 3e-4  # 1e3 + 30 z keeps five digits of z in float32
    np.testing.assert_allclose(x, by_hand(X, method), rtol=0, atol=atol)
    assert not x[:, [3, 6]].any()
    if method == "robust":
        np.testing.assert_allclose(np.unique(x[:, 4]), [0, 1.664101], rtol=1e-6)
        assert np.abs(x).max() < 3


@pytest.mark.parametrize("method", scaling.METHODS)
@pytest.mark.parametrize("layout", ["fortran", "strided", "slices", "rows"])
def test_statistics_do_not_depend_on_how_the_data_lie(monkeypatch, data, method, layout):
    X = data[0]
    plain, other = InputScaling(method, 7, np.dtype("float64")), InputScaling(method, 7, np.dtype("float64"))
    plain.learn(X)
    wide = np.full((400, 14), 9.0)
    wide[::2, ::2] = X
    rows = None
    if layout == "slices":
        monkeypatch.setattr(scaling, "CHUNK", 50)
    if layout == "rows":
        rows = np.arange(0, 400, 2)
        wide = np.ascontiguousarray(wide[:, ::2])
    arrays = {"fortran": np.asfortranarray(X), "strided": wide[::2, ::2], "slices": X, "rows": wide}
    other.learn(arrays[layout], rows)
    equal = np.testing.assert_allclose if layout == "slices" else np.testing.assert_array_equal
    equal(plain.shift, other.shift)
    equal(plain.scale, other.scale)


def test_long_columns_are_sampled(monkeypatch, data):
    monkeypatch.setattr(scaling, "QUANTILE_ROWS", 50)
    found = InputScaling("robust", 7, np.dtype("float64"))
    found.learn(data[0])
    np.testing.assert_array_equal(found.shift, np.median(data[0][::4], axis=0))
    assert found.scale[4] == 2  # 1 is not among the quartiles, but the range knows of it


@pytest.mark.parametrize("method", scaling.METHODS)
def test_training_is_that_on_inputs_standardised_by_hand(data, method):
    X, y = data
    net, plain = (MLP([7, 5, 1], "tanh", "mse", standardize=s, dtype="float64") for s in (method, None))
    net.fit(X, y, epochs=3, optimizer=SGD(0.01, momentum=0.9))
    plain.fit(by_hand(X, method), y, epochs=3, optimizer=SGD(0.01, momentum=0.9))
    np.testing.assert_allclose(net.parameters, plain.parameters, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(net.predict(X), plain.predict(by_hand(X, method)), rtol=1e-9)
    assert net.evaluate(X, y) == pytest.approx(plain.evaluate(by_hand(X, method), y), rel=1e-9)
    loss, gradients = net.loss_and_gradients(X, y)
    assert loss == pytest.approx(plain.loss_and_gradients(by_hand(X, method), y)[0])
    np.testing.assert_allclose(gradients[0][0], plain.loss_and_gradients(by_hand(X, method), y)[1][0][0], atol=1e-9)


def test_scaling_is_learned_once_from_the_training_rows(data):
    X, y = data
    net = MLP([7, 1], loss="mse", standardize="mean", standardize_targets=True)
    assert net.needs_scaling()
    np.testing.assert_array_equal(net.activations(X)[0], X.astype(np.float32))  # nothing learned yet
    net.fit(X, y, epochs=1, validation=np.arange(50))
    np.testing.assert_allclose(net.scaling.shift, X[50:].astype(np.float32).mean(axis=0, dtype=float), atol=1e-9)
    np.testing.assert_allclose(net.target_scaling.mean, y[50:].mean(), rtol=1e-6)
    shift = net.scaling.shift.copy()
    net.fit(X + 5, y + 5, epochs=1, optimizer=SGD(1e-9))
    net.learn_scaling(X - 5, y - 5)
    np.testing.assert_array_equal(net.scaling.shift, shift)
    np.testing.assert_allclose(net.target_scaling.mean, y[50:].mean(), rtol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("method", scaling.METHODS)
def test_copies_keep_the_learned_scaling(data, method, copied):
    X, y = data
    net = MLP([7, 3, 1], "tanh", "mse", standardize=method, standardize_targets=True)
    fresh = copied(net)
    assert fresh.needs_scaling()
    net.fit(X, y, epochs=2)
    twin = copied(net)
    assert not twin.needs_scaling() and not np.shares_memory(twin.scaling.matrix, net.scaling.matrix)
    assert twin.predict(X).tobytes() == net.predict(X).tobytes()
    wide = net.twin("float64")
    np.testing.assert_array_equal(wide.scaling.shift, net.scaling.shift)
    np.testing.assert_allclose(wide.predict(X), net.predict(X), rtol=1e-3)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "quantile"])
def test_targets_are_standardised_and_predictions_are_not(data, loss):
    X, y = data
    y = np.stack((y, 1e4 * X[:, 0], np.full(len(X), 3.0)), axis=1)
    net, plain = (
        MLP([7, 5, 3], "tanh", loss, standardize="mean", standardize_targets=on, dtype="float64")
        for on in (True, False)
    )
    z = (y - y.mean(axis=0)) / np.where(y.std(axis=0) > 0, y.std(axis=0), 1)
    settings = {"epochs": 3, "optimizer": SGD(0.05)}
    history = net.fit(X, y, validation=(X, y), **settings)
    expected = plain.fit(X, z, validation=(X, z), **settings)
    np.testing.assert_allclose(history.loss, expected.loss)
    np.testing.assert_allclose(history.val_loss, expected.val_loss)
    np.testing.assert_allclose(history.val_r2, expected.val_r2)
    np.testing.assert_allclose(
        net.predict(X), plain.predict(X) * np.array([y[:, 0].std(), y[:, 1].std(), 1]) + y.mean(0)
    )
    np.testing.assert_array_equal(net.activations(X)[-1], net.predict(X))
    rmse = np.sqrt(((net.predict(X) - y) ** 2).mean(axis=0)).mean()
    assert net.evaluate(X, y, metrics=["rmse"])["rmse"] == pytest.approx(rmse)
    assert net.evaluate(X, y)["loss"] == pytest.approx(history.val_loss[-1])


def test_distant_targets_are_learned_only_if_standardised(rng):
    X = rng.standard_normal((300, 2))
    y = 1e6 + 1e3 * (X[:, 0] - X[:, 1])
    r2 = []
    for on in (False, True):
        net = MLP([2, 8, 1], "tanh", "mse", standardize_targets=on)
        try:
            net.fit(X, y, epochs=30, optimizer=SGD(0.05))
            r2.append(net.evaluate(X, y)["r2"])
        except fastmlp.DivergenceError:
            r2.append(-np.inf)
    assert r2[0] < 0 < 0.9 < r2[1]


def test_steps_need_learned_scaling(data):
    X, y = data
    net = MLP([7, 1], loss="mse", standardize="robust", standardize_targets=True, dtype="float64")
    trainer = Trainer(net, SGD(0.01))
    with pytest.raises(ValueError, match="learn_scaling"):
        trainer.step(X, y)
    with pytest.raises(ValueError, match="needs y"):
        net.learn_scaling(X)
    net.learn_scaling(X, y)
    plain = MLP([7, 1], loss="mse", dtype="float64")
    loss = Trainer(plain, SGD(0.01)).step(by_hand(X, "robust"), (y - y.mean()) / y.std())
    assert trainer.step(X, y) == pytest.approx(loss)
    np.testing.assert_allclose(net.parameters, plain.parameters)


def test_a_column_constant_in_float32_stays_zero(rng):
    X = 1e9 + rng.random((50, 1))
    net = MLP([1, 1], loss="mse", standardize="mean")
    with pytest.warns(UserWarning, match="every column of X is constant over the 50 rows that standardisation is"):
        net.learn_scaling(X)
    assert not net.activations(X + 100)[0].any()


@pytest.mark.parametrize("method", scaling.METHODS)
def test_constant_inputs_get_a_warning(data, method):
    X, y = data
    for learn in (lambda net: net.fit(X[:1], y[:1], epochs=1), lambda net: net.learn_scaling(X[[0, 0]])):
        net = MLP([7, 1], loss="mse", standardize=method)
        with pytest.warns(UserWarning, match="will always read all inputs as 0: create a new one") as caught:
            learn(net)
        assert [warning.filename for warning in caught] == [__file__]
        copy.deepcopy(net).fit(X, y, epochs=1)  # without another one
    MLP([7, 1], loss="mse", standardize=method).learn_scaling(X[:2])


@needs_engine
@pytest.mark.parametrize("n_in", [300, 784])
@pytest.mark.parametrize("method", ["mean", "robust"])
def test_workers_that_share_many_inputs_train_the_same_network(method, n_in, rng):
    X, y = rng.standard_normal((600, n_in)) * 3 + 1, rng.integers(0, 10, 600)
    found = []
    for threads in (1, 2):
        fastmlp.set_num_threads(threads)
        net = MLP([n_in, 40, 10], standardize=method, seed=0)
        trainer = Trainer(net, SGD(0.01, momentum=0.9))
        for _ in range(5):
            trainer.fit(X, y, epochs=5, batch_size=100)
        found.append(net.parameters.tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"standardize": "yes"}, ValueError, "standardize must be None, 'mean' or 'robust', got 'yes'"),
        ({"standardize": True}, ValueError, "standardize must be None"),
        ({"standardize_targets": "mean"}, TypeError, "standardize_targets must be True or False, got 'mean'"),
        (
            {"standardize_targets": True, "loss": "cross_entropy"},
            ValueError,
            "standardize_targets must be False unless",
        ),
        ({"standardize_targets": True, "loss": "poisson"}, ValueError, "standardize_targets must be False unless"),
        ({"standardize_targets": True, "output": "sigmoid"}, ValueError, "output 'identity', got loss 'mse'"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        MLP([2, 3], **{"loss": "mse", **settings})


def test_columns_that_cannot_be_standardised_change_nothing():
    net = MLP([2, 1], loss="mse", standardize="mean", standardize_targets=True)
    X = np.array([[1.0, 1e-45], [2.0, 3e-45]], np.float32)
    with pytest.raises(ValueError, match="X cannot be standardised in float32: column 1 has a spread of"):
        net.fit(X, [1.0, 2.0])
    assert net.needs_scaling() and not net.target_scaling.learned and not net.scaling.learned


@pytest.mark.parametrize("backend", ["engine", "reference"])
@pytest.mark.parametrize("spread", [1.0, 1e-3])
@pytest.mark.parametrize("far", [1e10, 1e20, float(np.finfo("float32").max)])
def test_a_far_outlier_is_clipped(rng, far, spread, backend):
    X = spread * rng.standard_normal((200, 1))
    net = MLP([1, 1], loss="mse", standardize="robust", weights=[([[1.0]], [0.0])], backend=backend)
    net.learn_scaling(X)
    np.testing.assert_allclose(net.predict([[far], [-far]]), [3, -3], rtol=1e-6)
