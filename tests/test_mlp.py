"""The network as its user sees it: it learns, reports, prints its plan, and its gradients are those of its loss."""

import copy
import pickle
import re
from itertools import pairwise

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD, Trainer, losses, network
from fastmlp.activations import KNOWN as ACTIVATIONS
from fastmlp.plans import evaluation_plan
from fastmlp.runtime import executor

CLASSES = 3


@pytest.fixture(params=["reference", pytest.param("engine", marks=[needs_engine, pytest.mark.targets])])
def backend(request):
    return request.param


@pytest.fixture
def blobs(rng):
    """Three classes that a small network can tell apart: X (rows, 4) and labels."""
    y = rng.integers(0, CLASSES, 70)
    return rng.standard_normal((70, 4)) + 2 * np.eye(CLASSES, 4)[y], y


def same_parameters(a, b):
    return a.parameters.tobytes() == b.parameters.tobytes()


# ---- it learns -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "epochs"), [("binary_cross_entropy", 200), ("mse", 600)])
def test_xor_is_solved_from_most_seeds(backend, loss, epochs):
    X, y = fastmlp.datasets.xor()
    solved, seeds = 0, 20 if backend == "engine" else 5  # the reference takes 50 times as long for the same steps
    for seed in range(seeds):
        net = MLP([2, 4, 1], "tanh", loss, output="sigmoid", seed=seed, backend=backend)
        net.fit(X, y, epochs=epochs, batch_size=None, optimizer=SGD(1.0, momentum=0.9))
        solved += bool(((net.predict_proba(X)[:, 0] > 0.5) == y).all())
    assert solved >= 0.8 * seeds, f"{solved} of {seeds} seeds solved all four cases; when this was written, all did"


def test_digits(backend):
    X, y = fastmlp.datasets.load_digits()
    order = np.random.default_rng(0).permutation(len(X))
    train, test = order[:1437], order[1437:]
    net = MLP([64, 64, 10], backend=backend)
    net.fit(X[train] / 16, y[train], epochs=20, optimizer=SGD(0.05, momentum=0.9))
    assert (net.predict(X[test] / 16) == y[test]).mean() >= 0.95


@pytest.mark.parametrize("batch_size", [1, 32, None])
def test_a_network_for_mnist_runs_at_every_batch_size(backend, rng, batch_size):
    X, y = rng.random((50, 784), np.float32), rng.integers(0, 10, 50)
    net = MLP([784, 16, 10], activation="relu", loss="cross_entropy", seed=0, backend=backend)
    history = net.fit(X, y, epochs=3, batch_size=batch_size, optimizer=SGD(0.05))
    assert history.loss[-1] < history.loss[0] < 4
    np.testing.assert_allclose(net.predict_proba(X).sum(axis=1), 1, rtol=1e-5)


def test_softmax_of_two_one_and_a_tenth(backend):
    net = MLP([3, 3], weights=[(np.eye(3), np.zeros(3))], backend=backend)
    assert net.predict_proba([[2.0, 1.0, 0.1]]).round(2).tolist() == np.float32([[0.66, 0.24, 0.10]]).tolist()


# ---- what fit does with its rows -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch_size", "ends"), [(1, range(8)), (3, [0, 3, 6, 7]), (None, [0, 7]), (99, [0, 7])])
def test_every_row_is_trained_once_an_epoch_in_batches(backend, blobs, batch_size, ends):
    X, y = (a[:7] for a in blobs)
    net, by_hand = (MLP([4, 5, CLASSES], seed=1, backend=backend) for _ in range(2))
    history = net.fit(X, y, epochs=1, batch_size=batch_size, shuffle=False, optimizer=SGD(0.1, momentum=0.5))
    trainer = Trainer(by_hand, SGD(0.1, momentum=0.5))
    batch_losses = [trainer.step(X[a:b], y[a:b]) for a, b in pairwise(ends)]
    assert same_parameters(net, by_hand)
    assert history.loss[0] == pytest.approx(np.average(batch_losses, weights=np.diff(ends)))


def test_shuffling_takes_new_orders_that_the_seed_determines(backend, blobs):
    weights = [(np.eye(4, 5), None), (np.eye(5, CLASSES), None)]

    def trained(seed=1, **settings):
        net = MLP([4, 5, CLASSES], seed=seed, weights=weights, backend=backend)
        net.fit(*blobs, epochs=2, batch_size=8, optimizer=SGD(0.1), **settings)
        return net

    assert same_parameters(trained(), trained())
    assert not same_parameters(trained(), trained(shuffle=False))
    assert not same_parameters(trained(), trained(seed=2))


def test_integer_sample_weights_repeat_rows(backend, blobs):
    X, y = (a[:12] for a in blobs)
    weight = np.array([0, 1, 2, 3] * 3)
    net = MLP([4, 5, CLASSES], dtype="float64", backend=backend)
    loss, gradients = net.loss_and_gradients(X, y, weight)
    repeated = np.repeat(np.arange(12), weight)
    expected, expected_gradients = net.loss_and_gradients(X[repeated], y[repeated])
    rows = -np.log(net.predict_proba(X)[np.arange(12), y])
    assert loss == pytest.approx(expected) == pytest.approx((weight * rows).sum() / weight.sum())
    for pair, expected_pair in zip(gradients, expected_gradients, strict=True):
        for got, want in zip(pair, expected_pair, strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-14)
    assert net.evaluate(X, y, weight)["loss"] == pytest.approx(loss)
    assert net.evaluate(X, y)["loss"] == pytest.approx(rows.mean())
    history = net.fit(X, y, sample_weight=weight, epochs=1, batch_size=5, optimizer=SGD(1e-12))
    assert history.loss[0] == pytest.approx(loss)


# ---- what is reported ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("loss", "score"), [("cross_entropy", "accuracy"), ("mse", "r2")])
def test_history(backend, blobs, loss, score, capfd):
    X, y = blobs
    y = y if loss == "cross_entropy" else np.eye(CLASSES)[y]
    net = MLP([4, 5, CLASSES], loss=loss, backend=backend)
    history = net.fit(X[:50], y[:50], epochs=4, validation=(X[50:], y[50:]), optimizer=SGD(0.05))
    assert set(history) == {"loss", "val_loss", f"val_{score}", "seconds", "samples_per_second", "learning_rate"}
    assert all(len(values) == 4 for values in history.values())
    assert history.loss is history["loss"] and history.epochs == 4
    assert history.loss[-1] < history.loss[0]
    assert all(seconds > 0 for seconds in history.seconds)
    np.testing.assert_allclose(np.multiply(history.samples_per_second, history.seconds), 50)
    evaluated = net.evaluate(X[50:], y[50:])
    assert evaluated == {"loss": history.val_loss[-1], score: history[f"val_{score}"][-1]}
    without = net.fit(X, y, epochs=7)
    assert "val_loss" not in without and len(without.loss) == 7
    assert capfd.readouterr() == ("", "")


def test_evaluate_agrees_with_the_definitions(backend, blobs):
    X, y = blobs
    net = MLP([4, CLASSES], dtype="float64", backend=backend)
    p = net.predict_proba(X)
    expected = {"loss": -np.log(p[np.arange(70), y]).mean(), "accuracy": (p.argmax(axis=1) == y).mean()}
    assert net.evaluate(X, y) == pytest.approx(expected)
    assert net.evaluate(X, np.eye(CLASSES)[y]) == pytest.approx(expected)
    net = MLP([4, 1], loss="mse", dtype="float64", backend=backend)
    error = ((net.predict(X) - y) ** 2).mean()
    assert net.evaluate(X, y) == pytest.approx({"loss": error, "r2": 1 - error / y.var()})
    net = MLP([4, CLASSES], loss="binary_cross_entropy", dtype="float64", backend=backend)
    p, t = net.predict_proba(X), np.eye(CLASSES)[y]
    loss = -(t * np.log(p) + (1 - t) * np.log(1 - p)).mean()
    assert net.evaluate(X, t) == pytest.approx({"loss": loss, "accuracy": ((p > 0.5) == t).mean()})
    assert (net.predict(X) == (p > 0.5)).all()


def test_activations_are_those_of_every_layer(backend, blobs):
    X, _ = blobs
    net = MLP([4, 6, 5, CLASSES], ["tanh", "relu"], dtype="float64", backend=backend)
    inputs, first, second, outputs = net.activations(X)
    np.testing.assert_array_equal(inputs, X)
    np.testing.assert_allclose(first, np.tanh(X @ net.weights[0] + net.biases[0]), rtol=1e-12)
    np.testing.assert_allclose(second, np.maximum(0, first @ net.weights[1] + net.biases[1]), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(outputs, net.predict_proba(X))


PLAN = """\
plan of MLP(784 -> 16 -> 10), float32, batch 32, 2 workers                    split
gather                 data[n, 784] -> x[32, 784]                             inputs
----------------------------------------------------------------------------- barrier
linear                 x[32, 784] w[784, 16] b[16] -> y[32, 16]  relu         inputs
----------------------------------------------------------------------------- barrier
linear                 x[32, 16] w[16, 10] b[10] -> y[32, 10]  identity       rows
gather                 labels[n] -> t[32]                                     rows
softmax_cross_entropy  y[32, 10] t[32] -> dy[32, 10] loss                     rows
linear_back            dy[32, 10] w[16, 10] y[32, 16] -> dx[32, 16]  relu'    rows
----------------------------------------------------------------------------- barrier
linear_update          x[32, 16] dy[32, 10] -> w[16, 10] b[10]  sgd           params
linear_update          x[32, 784] dy[32, 16] -> w[784, 16] b[16]  sgd         params"""


def test_the_plan_prints_as_backpropagation():
    fastmlp.set_num_threads(2)
    assert str(MLP([784, 16, 10]).plan(batch_size=32)) == PLAN


@pytest.mark.parametrize("standardize", [None, "mean", "robust"])
def test_the_plan_tells_where_inputs_are_standardised(standardize):
    lines = str(MLP([3, 4, 2], standardize=standardize).plan(batch_size=8)).splitlines()
    assert [line for line in lines if "standardize" in line] == (lines[1:2] if standardize else [])


def test_the_plan_tells_decoupled_decay():
    for optimizer, clip_norm in (("adam", None), ("adamw", None), ("adamw", 1.0)):
        rule = {"adam": fastmlp.Adam, "adamw": fastmlp.AdamW}[optimizer](clip_norm=clip_norm)
        assert re.findall(r"\badamw?\b", str(MLP([3, 4, 2]).plan(8, rule))) == 2 * [optimizer]


def test_dense_targets_are_gathered_for_the_loss():
    plan = str(MLP([3, 4, 1], loss="mse").plan(batch_size=8))
    assert "data[n, 3] -> x[8, 3]" in plan and "data[n, 1] -> t[8, 1]" in plan


# ---- parameters ------------------------------------------------------------------------------------------------------


def test_weights_and_biases_are_live_views_of_the_flat_parameters(backend):
    net = MLP([2, 3, 1], "identity", "mse", backend=backend)
    assert [w.shape for w in net.weights] == [(2, 3), (3, 1)]
    assert [b.shape for b in net.biases] == [(3,), (1,)]
    assert net.n_parameters == 2 * 3 + 3 + 3 * 1 + 1
    assert net.parameters.ndim == 1
    assert all(np.shares_memory(a, net.parameters) for a in (*net.weights, *net.biases))
    for i, value in ((0, 2.0), (1, 3.0)):
        net.weights[i][...] = value
        net.biases[i][...] = 1
    assert net.predict([[1.0, 1.0]]).tolist() == [5 * 3 * 3 + 1]
    assert net.parameters.sum() == 6 * 2 + 3 + 3 * 3 + 1  # all of them, and padding of zeros
    net.fit([[1.0, 1.0]], [0.0], epochs=1, optimizer=SGD(1e-3))
    assert (net.weights[0] < 2).all() and (net.biases[1] < 1).all()


def test_initial_weights_can_be_given_and_are_copied(backend):
    w, b = np.arange(6.0).reshape(2, 3), np.array([1.0, 2, 3])
    net = MLP([2, 3], loss="mse", weights=[(w, b)], backend=backend)
    w[:] = 9
    assert net.predict([[1, 10]]).tolist() == [[31, 43, 55]]
    net.set_weights([(w, None)])
    assert net.predict([[1, 10]]).tolist() == [[99, 99, 99]]


ASSIGNED = {
    "parameters": lambda net, W, b, flat: setattr(net, "parameters", flat),
    "weights and biases": lambda net, W, b, flat: (
        *(net.weights.__setitem__(i, W[i]) for i in range(2)),
        *(net.biases.__setitem__(i - 2, b[i]) for i in range(2)),
    ),
    "slices": lambda net, W, b, flat: (net.weights.__setitem__(slice(None), W), net.biases.__setitem__(slice(2), b)),
    "lists": lambda net, W, b, flat: (
        net.weights.__setitem__(slice(None), [w.tolist() for w in W]),
        net.biases.__setitem__(slice(None), tuple(b)),
    ),
}


@pytest.mark.parametrize("way", ASSIGNED)
def test_assigned_arrays_are_copied_into_the_parameters(backend, blobs, way):
    X, y = blobs
    net, other = (MLP([4, 5, CLASSES], seed=seed, backend=backend) for seed in (0, 1))
    trainer, flat = fastmlp.Trainer(net, SGD(0.1)), net.parameters
    trainer.step(X, y)
    net.predict(X), net.predict(X[:1]), net.evaluate(X, y)  # plans and short ways are there now
    given = [w.copy() for w in other.weights], [b.copy() for b in other.biases], other.parameters.astype("float64")
    ASSIGNED[way](net, *given)
    assert net.parameters is flat and same_parameters(net, other)
    for array in (*given[0], *given[1], given[2]):
        array[...] = 9
    assert net.predict_proba(X).tobytes() == other.predict_proba(X).tobytes()
    assert net.predict_proba(X[:1]).tobytes() == other.predict_proba(X[:1]).tobytes()
    assert trainer.step(X, y) == fastmlp.Trainer(other, SGD(0.1)).step(X, y)
    assert same_parameters(net, other)


REFUSED = {
    "a shape of weights": (
        lambda net: net.weights.__setitem__(0, np.zeros((4, 2))),
        ValueError,
        "weights[0] must have shape (2, 4), got (4, 2)",
    ),
    "a shape of biases": (
        lambda net: net.biases.__setitem__(-1, [1.0, 2.0]),
        ValueError,
        "biases[1] must have shape (1,), got (2,)",
    ),
    "too large a number": (
        lambda net: net.biases.__setitem__(1, [1e39]),
        ValueError,
        "biases[1] must be finite numbers that fit float32, got 1e+39 at biases[1][0]",
    ),
    "words": (lambda net: net.weights.__setitem__(1, "abcd"), TypeError, "weights[1] must hold real numbers"),
    "too few": (
        lambda net: net.weights.__setitem__(slice(None), [np.zeros((2, 4))]),
        ValueError,
        "weights[:] must have 2 items, one array for each layer, got 1",
    ),
    "one of several": (
        lambda net: net.biases.__setitem__(slice(None), [np.ones(4), [np.nan]]),
        ValueError,
        "biases[1] must be finite numbers that fit float32, got nan",
    ),
    "a layer that is not there": (lambda net: net.weights.__setitem__(2, 0), IndexError, "list index out of range"),
    "a length": (
        lambda net: setattr(net, "parameters", np.zeros(17)),
        ValueError,
        "parameters must have shape (128,), got (17,)",
    ),
    "no number": (
        lambda net: setattr(net, "parameters", np.full(128, np.inf)),
        ValueError,
        "parameters must be finite numbers that fit float32, got inf",
    ),
    "all weights": (
        lambda net: setattr(net, "weights", [1, 2]),
        AttributeError,
        "weights cannot be assigned as a whole: use net.set_weights([(W, b), ...]), net.weights[i] = ... or ",
    ),
    "all biases": (lambda net: setattr(net, "biases", []), AttributeError, "biases cannot be assigned as a whole"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parameters_that_do_not_fit_are_refused_and_change_nothing(name):
    assign, error, message = REFUSED[name]
    net = MLP([2, 4, 1], loss="mse")
    before = net.parameters.tobytes()
    with pytest.raises(error) as caught:
        assign(net)
    assert message in str(caught.value)
    assert net.parameters.tobytes() == before


def test_biases_of_a_network_without_bias_are_refused():
    net = MLP([2, 1], loss="mse", bias=False)
    with pytest.raises(ValueError, match=r"biases\[0\] must be zero: the network has bias=False"):
        net.biases[0] = [1.0]
    with pytest.raises(ValueError, match="parameters must be zero where biases are: the network has bias=False"):
        net.parameters = np.ones_like(net.parameters)
    assert not net.biases[0].any()


def test_parameters_can_be_changed_in_place():
    net, plain = MLP([2, 3, 1], seed=0), MLP([2, 3, 1], seed=0)
    flat = net.parameters
    net.parameters *= 2
    net.weights[0] *= 2
    net.weights[1:] = [-net.weights[1]]
    assert net.parameters is flat
    np.testing.assert_array_equal(net.weights[0], 4 * plain.weights[0])
    np.testing.assert_array_equal(net.weights[1], -2 * plain.weights[1])


def test_parameters_can_be_assigned_from_their_own_memory():
    net = MLP([3, 3, 3], seed=1)
    first, second = (w.copy() for w in net.weights)
    net.weights[:] = net.weights[::-1]
    np.testing.assert_array_equal(net.weights[0], second)
    net.weights[1] = net.weights[1].T
    np.testing.assert_array_equal(net.weights[1], first.T)


def test_assigned_parameters_leave_the_padding_alone():
    net = MLP([2, 3], loss="mse")
    net.parameters = np.ones_like(net.parameters)
    assert net.parameters.sum() == net.n_parameters


def test_copies_of_weights_are_plain_lists():
    net = MLP([2, 3])
    for found in (copy.deepcopy(net.weights), pickle.loads(pickle.dumps(net.weights))):
        assert type(found) is list and not np.shares_memory(found[0], net.parameters)
        np.testing.assert_array_equal(found[0], net.weights[0])


def test_weights_can_be_set_from_the_networks_own_views():
    net = MLP([3, 3, 3], "tanh", seed=1)
    net.biases[0][:], net.biases[1][:] = 1, 2
    (w0, w1), (b0, b1) = ([array.copy() for array in views] for views in (net.weights, net.biases))
    net.set_weights([(net.weights[1].T, net.biases[1]), (net.weights[0][::-1], net.biases[0])])
    for got, expected in zip([*net.weights, *net.biases], (w1.T, w0[::-1], b1, b0), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_network_without_bias_keeps_none(backend, blobs):
    net = MLP([4, 5, CLASSES], "tanh", bias=False, backend=backend)
    assert net.n_parameters == 4 * 5 + 5 * CLASSES
    before = net.parameters.copy()
    net.fit(*blobs, epochs=3, optimizer=SGD(0.1, momentum=0.9))
    assert not np.array_equal(before, net.parameters)
    assert not any(b.any() for b in net.biases)
    assert not any(db.any() for _, db in net.loss_and_gradients(*blobs)[1])
    np.testing.assert_allclose(net.predict_proba(np.zeros((1, 4))), 1 / CLASSES, rtol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("loss", ["cross_entropy", "poisson", losses.BinaryCrossEntropy(positive_weight=2.0)])
def test_a_copy_has_the_same_bits_and_goes_on_the_same(backend, blobs, copied, loss):
    X, y = blobs
    y = y if loss == "cross_entropy" else np.eye(CLASSES)[y]
    net = MLP([4, 5, CLASSES], fastmlp.activations.ELU(0.5), loss, seed=5, backend=backend)
    net.fit(X, y, epochs=2, batch_size=8)
    twin = copied(net)
    assert same_parameters(net, twin) and not np.shares_memory(net.parameters, twin.parameters)
    assert net.predict(X).tobytes() == twin.predict(X).tobytes()
    before = net.parameters.copy()
    twin.fit(X, y, epochs=2, batch_size=8)
    assert net.parameters.tobytes() == before.tobytes(), "training the copy moved the original"
    net.fit(X, y, epochs=2, batch_size=8)
    assert same_parameters(net, twin)


# ---- what cannot be changed ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(network.FIXED))
def test_constructor_arguments_cannot_be_assigned(blobs, name):
    X, y = blobs
    net = MLP([4, 5, CLASSES], seed=0)
    with pytest.raises(AttributeError, match=f"^{name} is fixed at construction: create a new MLP [(]got "):
        setattr(net, name, 7)
    net.fit(X, y, epochs=1)
    plain = MLP([4, 5, CLASSES], seed=0)
    plain.fit(X, y, epochs=1)
    assert same_parameters(net, plain)


def test_a_network_is_made_only_once():
    net = MLP([4, 5, CLASSES], seed=0)
    with pytest.raises(AttributeError, match="sizes is fixed at construction: create a new MLP"):
        net.__init__([4, 9, CLASSES], seed=1)
    assert same_parameters(net, MLP([4, 5, CLASSES], seed=0)) and net.sizes == (4, 5, CLASSES)


def test_a_subclass_may_keep_the_arguments_that_it_hands_on():
    class Kept(MLP):
        def __init__(self, seed, standardize):
            super().__init__([4, 3], seed=seed, standardize=standardize)
            self.seed, self.standardize = seed, standardize

    assert Kept(12345, "mean").seed == 12345


def test_a_network_that_could_not_be_made_may_be_tried_again():
    net = MLP.__new__(MLP)
    with pytest.raises(ValueError, match="dtype must be"):
        net.__init__([2, 1], loss="mse", dtype="int8")
    net.__init__([2, 1], loss="mse")
    assert net.predict([[0.0, 0.0]]).shape == (1,)


def test_own_lists_all_attributes():
    assert set(vars(MLP([2, 3, 1]))) == network.OWN - {"_users"}


# ---- containers ------------------------------------------------------------------------------------------------------


def strided(a):
    wide = np.full(tuple(3 * n for n in a.shape), 99, a.dtype)
    view = wide[tuple(slice(1, None, 3) for _ in a.shape)][::-1]
    view[...] = a
    return view


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


def memory_mapped(a, path):
    np.save(path / f"{a.ndim}.npy", a)
    return np.load(path / f"{a.ndim}.npy", mmap_mode="r")


def pandas(a):
    pd = pytest.importorskip("pandas")
    return pd.DataFrame(a) if a.ndim == 2 else pd.Series(a)


CONTAINERS = {
    "list": lambda a: a.tolist(),
    "rows of tuples": lambda a: tuple(map(tuple, a.tolist())) if a.ndim == 2 else tuple(a.tolist()),
    "fortran": np.asfortranarray,
    "strided": strided,
    "read_only": read_only,
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "big_endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "pandas": pandas,
    **{name: lambda a, name=name: a.astype(name) for name in ("bool", "uint8", "int8", "uint64", "int64")},
    **{name: lambda a, name=name: a.astype(name) for name in ("float16", "float64", "longdouble")},
    "memmap": memory_mapped,
}


@pytest.mark.parametrize("name", CONTAINERS)
@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_any_container_gives_the_same_bits_as_a_plain_array(backend, rng, tmp_path, name, loss):
    # Zeros and ones, which every type holds.
    X, y = (rng.integers(0, 2, shape).astype(np.float32) for shape in ((30, 4), (30,)))
    make = CONTAINERS[name] if name != "memmap" else lambda a: memory_mapped(a, tmp_path)
    n_out = 2 if loss == "cross_entropy" else 1
    plain, other = (MLP([4, 5, n_out], loss=loss, backend=backend) for _ in range(2))
    plain.fit(X, y, epochs=2, batch_size=7, sample_weight=1 + y, validation=(X, y))
    other.fit(make(X), make(y), epochs=2, batch_size=7, sample_weight=1 + y, validation=(make(X), make(y)))
    assert same_parameters(plain, other)
    assert plain.predict_proba(X).tobytes() == other.predict_proba(make(X)).tobytes()
    assert plain.evaluate(X, y, 1 + y) == other.evaluate(make(X), make(y), 1 + y)


# ---- gradients -------------------------------------------------------------------------------------------------------

# Every loss with every output activation it can have; those with parameters also with other than their defaults.
ALIASES = {"swish", "logistic", "linear"}
REGRESSIONS = ["mse", "mae", losses.Huber(0.8), losses.Quantile((0.2, 0.7))]
PAIRS = [
    *(("cross_entropy", "softmax"), ("binary_cross_entropy", "sigmoid"), ("poisson", "exp")),
    *((losses.CrossEntropy(label_smoothing=0.1), "softmax"), (losses.BinaryCrossEntropy(2.0), "sigmoid")),
    *((loss, output) for loss in REGRESSIONS for output in ACTIVATIONS if output not in ALIASES),
]


def targets_of(net, rng, rows):
    """Targets in the loss's range: class numbers and dense ones for cross-entropy."""
    if net.loss.name == "cross_entropy":
        dense = rng.random((rows, 2))
        return [rng.integers(0, 2, rows), dense / dense.sum(axis=1, keepdims=True)]
    positive = net.loss.is_classifier or net.loss.name == "poisson"
    return [rng.random((rows, 2)) if positive else rng.normal(size=(rows, 2))]


def far_from_kinks(net, X, targets):
    """Whether the loss is smooth around here, and no layer is dead: differences mean nothing across a kink."""
    _, hidden, y = net.activations(X)
    z = np.concatenate((X @ net.weights[0] + net.biases[0], hidden @ net.weights[1] + net.biases[1]), axis=1)
    e = np.abs(y - targets[-1])
    kinks = [np.abs(z[..., None] - [-1, 0, 1]), e, np.abs(e - getattr(net.loss, "delta", 9))]
    if min(k.min() for k in kinks) < 0.01:
        return False
    return all(np.abs(d).max() > 1e-2 for pair in net.loss_and_gradients(X, targets[-1])[1] for d in pair)


def numerical_derivative(f, x, direction, h=1e-3):
    """The derivative of f() as x moves: central differences of fourth order. x is put back."""
    before, value = x.copy(), {}
    for k in (-2, -1, 1, 2):
        x[...] = before + k * h * direction
        value[k] = f()
    x[...] = before
    return (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS.keys() - ALIASES - {"softmax"}))
@pytest.mark.parametrize(("loss", "output"), PAIRS, ids=lambda value: value if isinstance(value, str) else value.name)
def test_gradients_are_central_differences(backend, activation, loss, output):
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        pairs = [(rng.normal(0, 0.8, (3, n)), rng.normal(0, 0.5, n)) for n in (3, 2)]
        net = MLP([3, 3, 2], activation, loss, output=output, weights=pairs, dtype="float64", backend=backend)
        X, targets = rng.normal(size=(3, 3)), targets_of(net, rng, 3)
        if far_from_kinks(net, X, targets):
            break
    else:
        pytest.fail("no seed keeps away from the kinks")
    for y in targets:
        labels = y.ndim == 1
        for weight in (None, np.array([0.5, 2.0, 1.2])):
            plan = evaluation_plan(net, 3, labels)  # it shares no op after the loss with the gradients under test
            plan.ops[plan.gathers[0]].data, plan.ops[plan.gathers[1]].data = X, y
            plan.ops[-1].data = np.empty((3, 2))
            runner = executor(plan, backend)
            loss, gradients = net.loss_and_gradients(X, y, weight)
            value = lambda: runner.run(None, np.array([0, 3]), weight=weight)[0]  # noqa: B023, E731
            assert loss == pytest.approx(value(), rel=1e-12)
            for pair, derivatives in zip(zip(net.weights, net.biases, strict=True), gradients, strict=True):
                for x, dx in zip(pair, derivatives, strict=True):
                    # An error in any element shows in a random direction; to try each takes five times as long.
                    direction = rng.normal(size=x.shape)
                    direction /= np.linalg.norm(direction)
                    found = numerical_derivative(value, x, direction)
                    assert found == pytest.approx(np.vdot(dx, direction), rel=1e-7, abs=2e-11)
