"""The short ways to predict a few rows and to train one step, without checks in Python: same bits, same errors."""

import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, SGD, Adam, Trainer, checks, runtime
from fastmlp.plans import prediction_plan
from fastmlp.prediction import QUICK_ROWS, ROW_PARAMETERS
from fastmlp.stepper import Stepper

# Name: sizes, loss, a function that draws targets, options of the network.
PROBLEMS = {
    "classes": ([5, 7, 3], "cross_entropy", lambda rng, rows: rng.integers(0, 3, rows), {}),
    "soft classes": ([5, 7, 3], "cross_entropy", lambda rng, rows: rng.dirichlet(np.ones(3), rows), {}),
    "labels": ([5, 7, 3], "binary_cross_entropy", lambda rng, rows: rng.integers(0, 2, (rows, 3)), {}),
    "one label": ([5, 7, 1], "binary_cross_entropy", lambda rng, rows: rng.integers(0, 2, rows), {}),
    "numbers": ([5, 7, 2], "mse", lambda rng, rows: rng.standard_normal((rows, 2)), {"activation": "tanh"}),
    "one number": ([5, 1], "huber", lambda rng, rows: rng.standard_normal(rows), {"standardize": "mean"}),
    "counts": ([5, 70, 1], "poisson", lambda rng, rows: rng.poisson(2.0, (rows, 1)), {}),
    "a wide layer": ([130, 66, 10], "cross_entropy", lambda rng, rows: rng.integers(0, 10, rows), {}),
}
TRAININGS = {
    "sgd": (SGD(0.1), {}),
    "momentum": (SGD(0.1, momentum=0.9), {}),
    "adam": (Adam(0.01, weight_decay=0.01), {}),
    "decaying": (SGD(lambda step: 0.1 / (1 + step)), {}),
    "dropout": (SGD(0.1), {"dropout": 0.4, "input_dropout": 0.1, "max_norm": 1.0}),
    "clipped": (SGD(0.1, clip_norm=0.5), {}),
    "averaged": (SGD(0.1), {"average": 0.9}),
    "accumulated": (SGD(0.1), {"accumulate": 2}),
}
LONG = ("averaged", "accumulated")  # have no short way


def problem(name, dtype, rows=12, seed=0):
    """A network and arrays of the types that a short way takes."""
    sizes, loss, targets, options = PROBLEMS[name]
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((rows, sizes[0])).astype(dtype)
    y = np.asarray(targets(rng, rows))
    net = MLP(sizes, loss=loss, dtype=dtype, seed=3, **options)
    net.learn_scaling(X)
    return net, X, y.astype(np.int64 if loss == "cross_entropy" and y.ndim == 1 else dtype)


class Other(np.ndarray):
    """A subclass of arrays, which the short way refuses."""


WAYS = ("short", "long")


def going(way, array):
    """The array, so that a step with it goes this way."""
    return array if way == "short" else array.view(Other)


# How else numbers may lie in memory, and which types a gather reads.
LAYOUTS = {
    "Fortran": np.asfortranarray,
    "transposed": lambda a: np.ascontiguousarray(a.T).T,
    "backwards": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "columns backwards": lambda a: np.ascontiguousarray(a[..., ::-1])[..., ::-1],
    "rows apart": lambda a: np.repeat(a, 3, axis=0)[::3],
    "columns apart": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "part of wider rows": lambda a: np.hstack([a, a])[:, : a.shape[1]] if a.ndim == 2 else a,
    "read-only": lambda a: np.frombuffer(a.tobytes(), a.dtype).reshape(a.shape),
}
TYPES = [*sorted(checks.NATIVE), "?"]


@pytest.fixture
def checked(monkeypatch):
    """A list with one item for each step that took the long way."""
    calls = []
    whole = Stepper.training_data
    monkeypatch.setattr(Stepper, "training_data", lambda *given: calls.append(1) or whole(*given))
    return calls


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_steps_of_both_ways_have_the_same_bits(name, training, dtype, checked):
    optimizer, options = TRAININGS[training]
    left = []
    for way in WAYS:
        net, X, y = problem(name, dtype)
        trainer = Trainer(net, optimizer, **options)
        losses = [trainer.step(going(way, X[: 12 - i % 2]), y[: 12 - i % 2]) for i in range(7)]
        left.append((losses, net.parameters.tobytes(), trainer.steps))
        if way == "short":
            assert len(checked) == (7 if training in LONG else 1)  # batches of 11 and 12 rows share a plan
    assert left[0] == left[1] and len(checked) == (14 if training in LONG else 8)
    assert left[0][0][0] != left[0][0][-1]  # of as many rows: something was learnt


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_steps_of_the_short_way_by_several_workers(threads, rng, checked):
    X, y = rng.standard_normal((200, 300), np.float32), rng.integers(0, 7, 200)
    left = set()
    for way in WAYS:
        fastmlp.set_num_threads(threads)
        trainer = Trainer(MLP([300, 257, 7], seed=1), SGD(0.1, momentum=0.9))
        losses = [trainer.step(going(way, X), y) for _ in range(4)]
        left.add((*losses, trainer.net.parameters.tobytes()))
    assert len(left) == 1 and len(checked) == 5


@needs_engine
def test_batches_of_a_fit_go_the_short_way(checked):
    left = []
    for way in WAYS:
        net, X, y = problem("classes", "float32", rows=30)
        batches = [(going(way, X[i : i + 10]), y[i : i + 10]) for i in range(0, 30, 10)]
        history = Trainer(net, SGD(0.1)).fit(batches, epochs=2)
        left.append((history.loss, net.parameters.tobytes()))
    assert left[0] == left[1] and len(checked) == 1 + 6


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", PROBLEMS)
def test_steps_on_the_short_way_read_any_layout(name, layout, dtype, checked):
    left = []
    for rearranged in (np.asarray, LAYOUTS[layout]):
        net, X, y = problem(name, dtype)
        trainer = Trainer(net, SGD(0.1, momentum=0.9))
        losses = [trainer.step(rearranged(X), rearranged(y)) for _ in range(4)]
        left.append((losses, net.parameters.tobytes()))
    assert left[0] == left[1] and len(checked) == 2


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("type_of_y", TYPES)
@pytest.mark.parametrize("type_of_X", TYPES)
def test_steps_on_the_short_way_read_all_types(type_of_X, type_of_y, dtype, rng, checked):
    loss = "binary_cross_entropy" if type_of_y == "?" or np.dtype(type_of_y).kind == "f" else "cross_entropy"
    X, y, left = rng.integers(0, 2, (9, 6)).astype(type_of_X), rng.integers(0, 2, 9).astype(type_of_y), []
    for way in WAYS:
        net = MLP([6, 4, 1 if loss.startswith("binary") else 2], loss=loss, dtype=dtype, seed=2)
        trainer = Trainer(net, SGD(0.1))
        losses = [trainer.step(going(way, X), y) for _ in range(4)]
        left.append((losses, net.parameters.tobytes()))
    assert left[0] == left[1] and len(checked) == 1 + 4


@needs_engine
def test_fractions_are_refused_as_class_numbers_on_both_ways():
    net, X, y = problem("classes", "float32")
    trainer = Trainer(net, SGD(0.1))
    losses = [trainer.step(X, y.astype(np.float32)) for _ in range(2)]
    with pytest.raises(ValueError, match=r"y must hold whole class numbers 0\.\.2, got 0\.5"):
        trainer.step(X, np.full(len(X), 0.5))
    assert losses[1] < losses[0]


@needs_engine
def test_sample_and_class_weights_take_the_long_way(checked):
    net, X, y = problem("classes", "float32")
    trainer, heavy = (Trainer(net, SGD(lambda step: 0.0), class_weight=weight) for weight in (None, {0: 5.0}))
    plain = [trainer.step(X, y) for _ in range(2)]
    weighted = [trainer.step(X, y, np.arange(12)) for _ in range(2)]
    by_class = [heavy.step(X, y) for _ in range(2)]
    assert len(checked) == 1 + 2 + 2
    assert len(set(plain)) == len(set(weighted)) == len(set(by_class)) == 1 and len({*plain, *weighted, *by_class}) == 3


FAULTS = ["columns", "rows", "no rows", "dimensions", "type", "X", "inf", "too large", "far nan", "above", "below"]


def spoilt(X, y, what):
    """Data with a fault, and what the error says of it."""
    X, y = X.copy(), y.copy()
    if what == "too large":
        return np.where(X.max() == X, 1e39, X.astype(np.float64)), y, "X must be finite numbers that fit float32"
    if what == "far nan":
        return np.where(X.max() == X, np.nan, X)[::-1], y, "X must be finite"
    if what == "columns":
        return X[:, :-1].copy(), y, "X must have 5 columns"
    if what == "rows":
        return X, y[:-1].copy(), "y must have as many rows as X"
    if what == "no rows":
        return X[:0], y[:0], "X must have at least 1 row"
    if what == "dimensions":
        return X[None], y, "X must have 2 dimensions"
    if what == "type":
        return X.astype("M8[s]"), y, "X must hold real numbers"
    value, array, name = {"X": (np.nan, X, "X"), "inf": (-np.inf, X, "X"), "above": (9, y, "y"), "below": (-1, y, "y")}[
        what
    ]
    array.reshape(-1)[-1] = value
    return X, y, f"{name} must "


@needs_engine
@pytest.mark.parametrize("what", FAULTS)
@pytest.mark.parametrize("name", ["classes", "soft classes", "labels", "one label", "counts"])
def test_bad_data_on_the_short_way_are_named_and_change_nothing(name, what):
    net, X, y = problem(name, "float32")
    if name == "counts" and what == "above":
        pytest.skip("no count is too large")
    trainer = Trainer(net, SGD(0.1, momentum=0.9))
    trainer.step(X, y)
    bad_X, bad_y, message = spoilt(X, y, what)
    before = net.parameters.tobytes(), trainer.states[0].tobytes(), trainer.steps
    with pytest.raises((TypeError, ValueError), match=message):
        trainer.step(bad_X, bad_y)
    assert before == (net.parameters.tobytes(), trainer.states[0].tobytes(), trainer.steps)
    trainer.step(X, y)


@needs_engine
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e39, -1e39])
@pytest.mark.parametrize("name", ["numbers", "one number", "counts"])
def test_bad_values_on_the_short_way_are_named_and_change_nothing(name, bad):
    net, X, y = problem(name, "float32")
    trainer = Trainer(net, SGD(0.01, momentum=0.9))
    trainer.step(X, y)
    bad_y = y.astype(np.float64)
    bad_y.reshape(-1)[4] = bad
    before = net.parameters.tobytes(), trainer.states[0].tobytes(), trainer.steps
    with pytest.raises(ValueError, match="y must be finite numbers that fit float32, got"):
        trainer.step(X, bad_y.astype(np.float32) if not abs(bad) < np.inf else bad_y)
    assert before == (net.parameters.tobytes(), trainer.states[0].tobytes(), trainer.steps)


@needs_engine
@pytest.mark.parametrize("rate", [1e30, 3e38])
def test_a_step_of_the_short_way_that_diverges_is_undone(rate, checked):
    net, X, y = problem("numbers", "float32")
    rates = iter([0.1, rate, rate])
    trainer = Trainer(net, SGD(lambda step: next(rates), momentum=0.9))
    trainer.step(X, y)
    with pytest.raises(fastmlp.DivergenceError, match=r"weight that is not finite|loss is"):
        for _ in range(2):
            before = net.parameters.tobytes()
            trainer.step(X, y)
    assert net.parameters.tobytes() == before and not trainer.states[0].any() and len(checked) == 1


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("name", PROBLEMS)
def test_a_few_rows_have_the_bits_of_many(name, dtype):
    net = problem(name, dtype)[0]
    answer = net.predict_proba if name in ("classes", "labels", "a wide layer") else net._outputs
    for _ in range(2):
        answer(np.zeros((3, net.sizes[0]), dtype))
    short, most = net._row_predictor, net._row_predictor.most
    X = np.random.default_rng(1).standard_normal((most + 1, net.sizes[0])).astype(dtype)
    expected = answer(X)  # of more rows than the short way takes
    assert most > 3000 and short(X) is None and short(X[:0]) is None
    steps = (QUICK_ROWS - 1, QUICK_ROWS, QUICK_ROWS + 1, 2 * QUICK_ROWS, 2 * QUICK_ROWS + 1, 1000, most - 1, most)
    for rows in (1, 2, 3, 5, 8, 17, 33, 64, 100, *steps):
        np.testing.assert_array_equal(answer(X[:rows]), expected[:rows])
        backwards = X[rows - 1 :: -1]
        np.testing.assert_array_equal(answer(backwards), expected[rows - 1 :: -1])
        assert short(backwards) is not None
    np.testing.assert_array_equal(answer(X[::3][:50]), expected[::3][:50])  # rows apart


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(
    ("sizes", "rows"),
    [([784, 128, 10], 75), ([784, 128, 10], 301), ([784, 512, 512, 10], 9)],
    ids=["rows are shared", "in two steps", "columns are shared"],
)
def test_a_few_rows_by_several_workers_have_the_same_bits(sizes, rows, threads, rng):
    net, X = MLP(sizes, seed=1), rng.standard_normal((rows, 784), np.float32)
    expected = MLP(sizes, seed=1).predict_proba(X)  # a network's first prediction goes the long way
    fastmlp.set_num_threads(threads)
    for _ in range(20):
        np.testing.assert_array_equal(net.predict_proba(X), expected)
    assert net._row_predictor(X) is not None
    for threads_now in (1, 5):  # of a plan that was made for others
        fastmlp.set_num_threads(threads_now)
        np.testing.assert_array_equal(net.predict_proba(X), expected)
    X[-1, -1] = np.nan
    with pytest.raises(ValueError, match="X must be finite"):
        net.predict_proba(X)


@needs_engine
@pytest.mark.parametrize("rows", [1, 2, 30])
def test_rows_on_the_short_way_are_read_in_place(rows):
    net = MLP([784, 16, 3], seed=1)
    one, few = (runtime._engine.Engine(prediction_plan(net, n)) for n in (1, 30))
    predict = runtime._engine.RowPredictor(one, None, None, few)
    for width in (800, 1024):  # from one row to the next: 1024 numbers are a page, and all rows share its cache sets
        assert predict(np.ones((rows, width), np.float32)[:, 7:791]).shape == (rows, 3)
        assert (one if rows == 1 else few).in_place == (width == 800 or rows == 1)


@pytest.mark.targets
@needs_engine
@pytest.mark.parametrize("rows", [1, 40])
@pytest.mark.parametrize("sizes", [[6, 5, 3], [784, 128, 10]], ids=["small", "with a partner"])
def test_a_few_rows_of_any_type_and_layout_have_the_same_bits(sizes, rows, dtype, rng):
    X = rng.integers(0, 2, (rows, sizes[0]))
    net, expected = MLP(sizes, dtype=dtype, seed=4), MLP(sizes, dtype=dtype, seed=4).predict_proba(X)
    for _ in range(2):
        net.predict_proba(X)
    if sizes[0] == 784:
        net._row_predictor.insist()
    for source in TYPES:
        for layout in (np.asarray, *LAYOUTS.values()):
            found = net._row_predictor(layout(X.astype(source)))
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == dtype


@needs_engine
def test_other_containers_take_the_short_way_once_converted(rng):
    net, X = MLP([6, 5, 3], seed=4), rng.standard_normal((4, 6))
    expected = [net.predict_proba(X) for _ in range(2)][1]
    calls, quick = [], net._row_predictor
    net._row_predictor = lambda rows: calls.append(type(rows)) or quick(rows)
    for given in (X.tolist(), X.view(Other), X.astype(">f8")):
        np.testing.assert_array_equal(net.predict_proba(given), expected)
    assert calls == [list, np.ndarray, Other, np.ndarray, np.ndarray, np.ndarray]
    with pytest.raises(ValueError, match="X must have 6 columns"):
        net.predict_proba(X[:, 1:].tolist())


@needs_engine
def test_numbers_that_do_not_fit_are_named_on_the_short_way(rng):
    net, X = MLP([6, 5, 3], seed=4), rng.standard_normal((4, 6))
    for _ in range(2):
        net.predict_proba(X)
    X = np.tile(X, (200, 1))
    for rows in (1, 4, QUICK_ROWS, 3 * QUICK_ROWS):
        for bad in (1e39, np.inf, np.nan):
            given, last = X[:rows].copy(), rows - 1  # of the last step
            given[last, 3] = bad
            message = f"X must be finite numbers that fit float32, got {bad} at X[{last}, 3]"
            with pytest.raises(ValueError, match=re.escape(message)):
                net.predict_proba(given)
        np.testing.assert_array_equal(net._row_predictor(X[:rows]), net.predict_proba(X)[:rows])


@needs_engine
def test_the_second_prediction_makes_the_short_way():
    net, row = MLP([5, 3]), np.ones((1, 5), np.float32)
    first = net.predict_proba(row)
    assert net._row_predictor is None
    np.testing.assert_array_equal(net.predict_proba(row), first)
    np.testing.assert_array_equal(net._row_predictor(row), first)


@needs_engine
def test_large_calls_take_the_long_way(monkeypatch):
    net, larger = MLP([1000, 700, 2]), MLP([1000, 800, 2])
    monkeypatch.setattr("fastmlp.prediction.QUICK_WORK", larger.n_parameters - 1)
    for _ in range(2):
        net.predict_proba(np.zeros((1, 1000), np.float32))
        larger.predict_proba(np.zeros((1, 1000), np.float32))
    assert larger._row_predictor is None
    assert net._row_predictor.most == 1
    assert net._row_predictor(np.zeros((1, 1000), np.float32)) is not None
    assert net._row_predictor(np.zeros((2, 1000), np.float32)) is None


@needs_engine
def test_one_row_of_a_large_network_from_several_threads(rng):
    net = MLP([2000, 700, 2], seed=0)
    assert net.n_parameters > ROW_PARAMETERS
    X = rng.standard_normal((6, 2000), np.float32)
    expected = net.predict_proba(X)
    for _ in range(2):
        net.predict_proba(X[:1])
    for i in range(6):
        np.testing.assert_array_equal(net._row_predictor(X[i : i + 1]), expected[i : i + 1])
    with ThreadPoolExecutor(4) as pool:  # of which one at a time takes the short way
        found = list(pool.map(lambda i: net.predict_proba(X[i % 6 : i % 6 + 1]), range(60)))
    for i, row in enumerate(found):
        np.testing.assert_array_equal(row, expected[i % 6 : i % 6 + 1])


@needs_engine
def test_concurrent_predict_while_threads_are_counted(rng):
    net = MLP([64, 256, 10], seed=0)
    one, few = (runtime._engine.Engine(prediction_plan(net, n)) for n in (1, 90))
    X, other = rng.standard_normal((2, 90, 64), np.float32)
    expected = [net.predict_proba(rows) for rows in (X, other)]
    second = []

    def count():
        if not second:  # as if the interpreter switched to another thread here
            second.append(None)
            second.append(predict(other))
        return 1

    predict = runtime._engine.RowPredictor(one, None, count, few)
    np.testing.assert_array_equal(predict(X), expected[0])
    np.testing.assert_array_equal(second[1], expected[1])


@needs_engine
def test_threads_predict_a_few_rows_while_their_number_changes(rng):
    net = MLP([64, 256, 256, 10], seed=0)
    X = rng.standard_normal((4, 90, 64), np.float32)
    expected = [[net.predict_proba(rows) for _ in range(2)][1] for rows in X]
    wrong, stop, interval = [], threading.Event(), sys.getswitchinterval()

    def predict(i):
        while not stop.is_set():
            if not np.array_equal(net.predict_proba(X[i]), expected[i]):
                wrong.append(i)

    workers = [threading.Thread(target=predict, args=(i,)) for i in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        for n in range(300):
            fastmlp.set_num_threads(1 + n % 2)
            time.sleep(1e-3)
    finally:
        stop.set()
        for worker in workers:
            worker.join()
        sys.setswitchinterval(interval)
    assert not wrong


@needs_engine
def test_a_buffer_of_another_size_is_refused_for_parameters():
    net, X, y = problem("classes", "float32")
    trainer = Trainer(net, SGD(0.1))
    trainer.step(X, y)
    trainer._before = np.empty(3, np.float32)
    before = net.parameters.copy()
    with pytest.raises(ValueError, match="before must have as many bytes as parameters"):
        trainer.step(X, y)
    np.testing.assert_array_equal(net.parameters, before)


@needs_engine
@pytest.mark.parametrize("kib", [128, 192, 256, 512])
def test_threads_with_a_small_stack(rng, kib):
    X, y = rng.standard_normal((1100, 100), np.float32), np.arange(1100) % 10
    expected, net = MLP([100, 300, 300, 10]), MLP([100, 300, 300, 10])

    def train(net, rows):
        net.fit(X[:rows], y[:rows], epochs=1, batch_size=None, optimizer=Adam())
        net.loss_and_gradients(X, y)
        net.predict(X)

    before = threading.stack_size(kib << 10)
    try:
        thread = threading.Thread(target=lambda: [train(net, rows) for rows in (300, 1100)])
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    for rows in (300, 1100):
        train(expected, rows)
    assert net.parameters.tobytes() == expected.parameters.tobytes()
