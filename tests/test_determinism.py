"""The same bits, whatever the number of threads, the batches of a prediction, the place of a row, the FMA target."""

from copy import deepcopy
from functools import cache
from itertools import combinations

import numpy as np
import pytest
from conftest import engine_on, needs_engine
from layouts import LAYOUTS

import fastmlp
from fastmlp import MLP, SGD, Adam, RMSprop, Trainer, losses
from fastmlp.plans import prediction_plan, training_plan
from fastmlp.runtime import executor
from fastmlp.tape import DISTANT, FUSED_ROWS, SERIAL_STEP, Learning

pytestmark = [pytest.mark.targets, needs_engine]

# Below so many floating-point operations of a step, and of a run, run.c has one worker: SERIAL_STEP and SERIAL_RUN.
WORTH_A_BARRIER, WORTH_A_WORKER = SERIAL_STEP, 1.6e7

FMA_TARGETS = [name for name in fastmlp.targets() if name != "generic"]  # generic rounds twice: its bits are its own
SIZES = [100, 130, 70, 10]  # no width is a whole number of vectors
ROWS = 1130


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    X = rng.standard_normal((ROWS, SIZES[0]))
    return X, rng.integers(0, SIZES[-1], ROWS), rng.random((ROWS, SIZES[-1])), rng.uniform(0.1, 2, ROWS)


# name: activations, loss, output, optimizer, batch size, whether rows are weighted. 150 leaves a last batch of 80.
RUNS = {
    "momentum": (["relu", "tanh"], "cross_entropy", None, SGD(0.1, momentum=0.9), 150, False),
    "nesterov": (["gelu", "elu"], "mse", "sigmoid", SGD(0.1, momentum=0.9, nesterov=True, l2=1e-3), 150, True),
    "adam": (["silu", "softplus"], "binary_cross_entropy", None, Adam(0.01), 150, True),
    "clipping": (["mish", "selu"], losses.Huber(0.3), None, RMSprop(0.01, clip_norm=0.5), 150, False),
    "counts": (["relu", "sigmoid"], "poisson", None, SGD(0.05), 150, False),
    "unfused": (["gelu_tanh", "leaky_relu"], "cross_entropy", None, SGD(0.1, momentum=0.9), FUSED_ROWS + 76, True),
}


def trained(name, dtype, data, *, threads=1):
    activation, loss, output, optimizer, batch_size, weighted = RUNS[name]
    X, labels, dense, weight = data
    y = labels if loss == "cross_entropy" else dense
    fastmlp.set_num_threads(threads)
    net = MLP(SIZES, activation, loss, output=output, dtype=dtype, seed=2, backend="engine")
    weight = weight if weighted else None
    history = net.fit(X, y, epochs=3, batch_size=batch_size, optimizer=optimizer, sample_weight=weight)
    assert history.loss[-1] < history.loss[0], "nothing was learnt: there is nothing to compare"
    return net, history


def bits(net, history, X):
    """Parameters, losses and predictions."""
    return net.parameters.tobytes(), tuple(history.loss), net._outputs(X).tobytes()


@pytest.fixture(scope="module")
def alone(data):
    """The bits of one thread, of each run once."""
    return cache(lambda name, dtype: bits(*trained(name, dtype, data), data[0]))


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("name", RUNS)
def test_training_and_prediction_do_not_depend_on_the_number_of_threads(alone, data, dtype, name, threads):
    assert bits(*trained(name, dtype, data, threads=threads), data[0]) == alone(name, dtype)


@pytest.mark.parametrize("name", RUNS)
def test_these_runs_are_worth_several_workers(dtype, name):
    # Or the test above would compare one worker with itself. A run may be as short as one step.
    activation, loss, output, optimizer, batch_size, _ = RUNS[name]
    net = MLP(SIZES, activation, loss, output=output, dtype=dtype)
    plan = Trainer(net, optimizer).plan_for(batch_size, loss == "cross_entropy")
    assert plan.work > max(WORTH_A_BARRIER, WORTH_A_WORKER)
    assert prediction_plan(net, ROWS).work > WORTH_A_WORKER
    assert any(op.opcode == "linear_update" for op in plan.ops) == (name not in ("clipping", "unfused"))


@pytest.mark.parametrize(
    "sizes", [[400, 16, 5], [60, 30, 5], [100, 130, 5], [100, 301], [100, 64, 64, 5], [90, 400, 401, 5]], ids=str
)
@pytest.mark.parametrize("threads", [2, 3])
def test_workers_with_ops_of_their_own_have_the_same_bits(dtype, sizes, threads, rng):
    # In float32 the rows are read in place where that pays, in float64 they are gathered.
    X, y = rng.standard_normal((ROWS, sizes[0])).astype(np.float32), rng.integers(0, sizes[-1], ROWS)
    found = []
    for workers in (1, threads, threads + 1):  # only `threads` of them have ops of their own
        fastmlp.set_num_threads(threads)
        net = MLP(sizes, "gelu", dtype=dtype, seed=2)
        trainer = Trainer(net, Adam(0.01, l2=1e-3))
        plan = trainer.plan_for(60, True)
        assert plan.work > WORTH_A_BARRIER and (any(plan.own) or threads > 2)
        runner = engine_on(plan, X, y)
        order = np.random.default_rng(5).permutation(ROWS)
        offsets = np.minimum(np.arange(20) * 60, ROWS)
        losses = runner.run(order, offsets, np.full(19, 0.01), n_threads=workers)
        found.append((net.parameters.tobytes(), losses.tobytes(), *(s.tobytes() for s in trainer.states)))
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("threads", [2, 3])
def test_few_rows_shared_by_columns_have_the_same_bits(dtype, threads, rng):
    net = MLP([90, 400, 401, 70], "gelu", dtype=dtype, seed=2)  # by columns, but for the last layer
    X = rng.standard_normal((60, 90)).astype(dtype)
    offsets = np.array([3, 4, 18, 19, 43, 60])  # several steps, of which none may overtake the one before
    found = []
    for workers in (1, threads, threads + 1, threads):
        plan = prediction_plan(net, 24, threads)
        assert [op.share for op in plan.ops] == ["rows", "rows", "columns", "rows", "rows", "rows"]
        out, plan.work = np.zeros((60, 70), dtype), 1e12
        runner = executor(plan, "engine")
        runner.bind(0, X)
        runner.bind(len(plan.ops) - 1, out)
        for _ in range(10):
            runner.run(None, offsets, n_threads=workers)
        assert not out[:3].any() and out[3:].all()
        found.append(out.tobytes())
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    "optimizer", [SGD(0.01), SGD(0.01, momentum=0.9, l2=1e-3), Adam(0.01), RMSprop(0.01, clip_norm=0.5)], ids=str
)
@pytest.mark.parametrize(
    ("sizes", "activation", "batch"),
    [
        ([60, 90, 300, 310, 10], "relu", 100),
        ([600, 400, 150, 10], "gelu", 100),
        ([40, 256, 10], "tanh", 100),
        ([150, 256, 10], "tanh", 300),
        ([640, 2, 48], "silu", 300),
        ([130, 40, 10], "relu", 300),
    ],
    ids=["small and large", "long sums", "own columns", "long own columns", "own inputs by blocks", "fewer inputs"],
)
def test_cores_that_are_far_apart_have_the_same_bits(dtype, optimizer, sizes, activation, batch, rng):
    # Some of these weights are small, and some large enough to bypass the caches and to be prefetched. So are
    # activations, and the batch's rows where they are gathered for all.
    X, y = rng.standard_normal((ROWS, sizes[0])), rng.integers(0, 10, ROWS)
    offsets = np.minimum(np.arange(1 + -(-ROWS // batch)) * batch, ROWS)[-6:]  # up to five steps, the last one short
    found = []
    for n, far_apart in ((1, None), (2, False), (2, True), (2, None), (3, False), (3, True), (3, None)):
        net = MLP(sizes, activation, dtype=dtype, seed=2)
        trainer = Trainer(net, optimizer)
        fastmlp.set_num_threads(n)
        plan = trainer.plan_for(batch, True)
        assert plan.work > WORTH_A_BARRIER
        runner = engine_on(plan, X, y)
        losses = runner.run(None, offsets, np.full(len(offsets) - 1, 0.01), n_threads=n, far_apart=far_apart)
        found.append((net.parameters.tobytes(), losses.tobytes(), *(s.tobytes() for s in trainer.states)))
    assert len(set(found)) == 1


@pytest.mark.parametrize(
    ("sizes", "standardize"),
    [([60, 90, 300, 310, 10], None), ([300, 40, 70, 10], None), ([300, 40, 70, 10], "mean")],
    ids=["split", "own first layer", "own inputs, gathered"],
)
@pytest.mark.parametrize("optimizer", [SGD(0.01, momentum=0.9), Adam(0.01, clip_norm=0.5)], ids=str)
def test_uneven_shares_have_the_same_bits(dtype, sizes, standardize, optimizer, rng):
    fastmlp.set_num_threads(2)
    X, y = rng.standard_normal((ROWS, sizes[0])), rng.integers(0, 10, ROWS)
    found = []
    for shares in ([1], [0.5, 0.5], [0.37, 0.63], [0.999, 0.001], [0, 1], [0.2, 0.1, 0.7], [0.6, 0.1, 0.3]):
        net = MLP(sizes, dtype=dtype, seed=2, standardize=standardize)
        if standardize:
            net.learn_scaling(X)
        trainer = Trainer(net, optimizer)
        plan = trainer.plan_for(100, True)
        assert plan.work > WORTH_A_BARRIER
        runner = engine_on(plan, X, y)
        offsets, losses = np.minimum(np.arange(13) * 100, ROWS), []
        for s in range(12):  # a run moves the shares
            runner.shares = shares, shares[::-1]
            losses.append(runner.run(None, offsets[s : s + 2], np.full(1, 0.01), first_number=s, n_threads=len(shares)))
        states = [s.tobytes() for s in trainer.states]
        found.append((net.parameters.tobytes(), np.concatenate(losses).tobytes(), *states))
    assert len(set(found)) == 1


def test_a_step_in_parts_may_change_its_workers(dtype, rng):
    fastmlp.set_num_threads(2)
    X, y = rng.standard_normal((500, 100)), rng.integers(0, 5, 500)
    plan = Trainer(MLP([100, 130, 5], dtype=dtype, seed=2), SGD(0.1)).plan_for(500, True)
    assert any(plan.own) and plan.work > WORTH_A_WORKER
    runner = executor(plan, "engine")
    for i, array in zip(plan.gathers, (X, y), strict=True):
        runner.bind(i, array)
    found, last = [], len(plan.ops) - 2  # no weight is to move
    for workers in ((1, 1), (1, 2), (2, 1), (2, 2)):  # before the first layer, and from there
        for (first, stop), n in zip(((0, 1), (1, last)), workers, strict=True):
            runner.run(None, np.array([0, 500]), np.full(1, 0.1), first_op=first, last_op=stop, n_threads=n)
        found.append(plan.ops[1].y.tobytes())
        for op in plan.ops[:2]:
            (op.x if op.opcode == "gather" else op.y)[...] = 7  # values that one run leaves must not serve the next
        for copy in plan.ops[0].copies:
            copy[...] = 7
    assert len(set(found)) == 1


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("inputs", "hidden"), [(90, 60), (90, 20), (5, 6)])  # by columns; by inputs; a tiny layer
def test_rows_read_in_place_give_the_bits_of_gathered_rows(dtype, inputs, hidden, layout, threads, rng):
    arrange, in_place = LAYOUTS[layout]
    X, y = rng.standard_normal((300, inputs)).astype(np.float32).astype(dtype), rng.integers(0, 7, 300)
    fastmlp.set_num_threads(threads)

    def run(X):
        net = MLP([inputs, hidden, 7], "tanh", seed=4, dtype=dtype, backend="engine")
        trainer = Trainer(net, SGD(0.1, momentum=0.9))
        trainer.fit(X, y, epochs=3, batch_size=64)
        engine = next(iter(trainer._plans.values()))
        evaluation = net.evaluate(X, y)["loss"]
        outputs = [net._outputs(X).tobytes(), *(net._outputs(X[i : i + 1]).tobytes() for i in (0, 0, 1))]
        return engine.in_place, (net.parameters.tobytes(), evaluation, outputs)

    plain = run(np.asfortranarray(X))  # gathered
    assert not plain[0]
    assert run(arrange(X)) == (in_place, plain[1])


def test_a_step_without_its_gather_reads_the_gathered_rows(dtype, rng):
    X, y = rng.standard_normal((64, 90)).astype(dtype), rng.integers(0, 5, 64)
    plan = Trainer(MLP([90, 20, 5], "identity", dtype=dtype, seed=2), SGD(0.1)).plan_for(64, True)
    runner = executor(plan, "engine")
    for i, array in zip(plan.gathers, (X, y), strict=True):
        runner.bind(i, array)
    assert runner.in_place
    plan.ops[0].x[...] = 0
    runner.run(None, np.array([0, 64]), np.zeros(1), first_op=1)
    assert not plan.ops[1].y.any()
    runner.run(None, np.array([0, 64]), np.zeros(1))
    assert plan.ops[1].y.all() and not plan.ops[0].x.any()


@pytest.mark.parametrize(
    ("sizes", "rows", "options"),
    [
        ([90, 4, 7], 64, {}),  # so few outputs that the gradient goes along vectors of inputs
        ([90, 65, 7], 64, {}),  # so many that a copy pays
        ([60, 20, 7], 64, {}),  # short rows
        ([90, 20, 7], 1025, {}),
        ([90, 20, 7], 64, {"dropout": (0.5, 0.0)}),
    ],
)
def test_rows_that_have_to_be_gathered_are(sizes, rows, options):
    net = MLP(sizes, dtype=np.float32)
    learning = Learning("sgd", [SGD(0.1).rule() for _ in sizes[1:]], [], **options)
    assert not any(op.direct for op in training_plan(net, rows, True, learning).ops)


def test_a_run_can_be_repeated(alone, data, dtype):
    assert bits(*trained("adam", dtype, data), data[0]) == alone("adam", dtype)


@pytest.mark.parametrize("sizes", [SIZES, [100, 3], [100, 17, 33]], ids=str)
@pytest.mark.parametrize("output", ["softmax", "identity"])
def test_a_prediction_does_not_depend_on_its_batch(data, dtype, sizes, output, rng):
    X = data[0]
    fastmlp.set_num_threads(3)
    net = MLP(sizes, "tanh", "mse", output=output, dtype=dtype, seed=4, backend="engine")
    whole = net.predict(X)
    assert len(np.unique(whole[:, 0])) > ROWS / 2  # not one answer to everything
    row_by_row = np.vstack([net.predict(X[i : i + 1]) for i in range(ROWS)])
    assert row_by_row.tobytes() == whole.tobytes()
    for cuts in ([1], [7, 20, 33], [128, 129, 700], [511, 1024]):
        assert np.vstack([net.predict(part) for part in np.split(X, cuts)]).tobytes() == whole.tobytes(), cuts
    order = rng.permutation(ROWS)
    assert net.predict(X[order]).tobytes() == whole[order].tobytes()
    assert net.activations(X)[-1].tobytes() == whole.tobytes()


def test_losses_of_an_evaluation_do_not_depend_on_threads(data, dtype):
    # Its batches are longer with more threads; what they add up to must be cut the same.
    X, labels, _, weight = data
    found = set()
    for threads in (1, 2, 3, 7):
        fastmlp.set_num_threads(threads)
        net = MLP(SIZES, dtype=dtype, backend="engine")
        loss, gradients = net.loss_and_gradients(X, labels, weight)
        scores = net.evaluate(X, labels, weight)
        found.add((loss, scores["loss"], scores["accuracy"], *(d.tobytes() for pair in gradients for d in pair)))
    assert len(found) == 1


def test_epochs_in_two_calls_are_epochs_in_one(data, dtype):
    X, y, _, weight = data
    nets = [MLP(SIZES, dtype=dtype, seed=2, backend="engine") for _ in range(2)]
    for net, calls in zip(nets, ([5], [3, 2]), strict=True):
        before = net.parameters.copy()
        for epochs in calls:
            net.fit(X, y, epochs=epochs, batch_size=200, optimizer=SGD(0.1), sample_weight=weight)
        assert not np.array_equal(before, net.parameters)
    assert nets[0].parameters.tobytes() == nets[1].parameters.tobytes()


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("pair", list(combinations(FMA_TARGETS, 2)) or [None], ids=str)
def test_every_fma_target_gives_the_same_bits(monkeypatch, data, dtype, name, pair):
    if pair is None:
        pytest.skip(f"one FMA target only on this CPU: {', '.join(FMA_TARGETS) or 'none'}")
    found = []
    for target in pair:
        monkeypatch.setenv("FASTMLP_TARGET", target)
        net, history = trained(name, dtype, data, threads=2)
        used = executor(prediction_plan(net, 1), "engine")
        assert getattr(used, "engine", used).target == target
        found.append(bits(net, history, data[0]))
    assert found[0] == found[1]


def test_a_network_that_fits_short_vectors_is_run_on_them(monkeypatch, dtype):
    monkeypatch.setenv("FASTMLP_TARGET", "")
    best = fastmlp.targets()[0]
    columns = 32 // np.dtype(dtype).itemsize

    def target(n):
        return executor(prediction_plan(MLP([2, n, 1], loss="mse", dtype=dtype), 4), "engine").target

    assert (target(columns), target(columns + 1)) == ("avx2" if best == "avx512" else best, best)
    monkeypatch.setenv("FASTMLP_TARGET", "generic")
    assert target(columns) == "generic"


@needs_engine
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_one_row_by_weights_from_memory(activation, rng):
    net = MLP([1029, 2100, 3], activation, seed=0)
    assert net.weights[0].nbytes > DISTANT
    X, y = rng.standard_normal((12, 1029), np.float32), rng.integers(0, 3, 12)
    expected = net.predict_proba(X)
    for rows in (slice(3, 4), slice(8, 9), slice(0, 2), slice(2, 12)):
        for _ in range(3):  # by several ways
            np.testing.assert_array_equal(net.predict_proba(X[rows]), expected[rows])
    losses = [Trainer(deepcopy(net), SGD(0.01)).step(X[i : i + 1], y[i : i + 1]) for i in range(12)]
    assert np.mean(losses) == pytest.approx(net.evaluate(X, y)["loss"], rel=1e-6)
