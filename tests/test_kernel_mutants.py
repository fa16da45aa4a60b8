"""Tests found by mutation: kernels were broken line by line; what test_kernels.py did not notice is tested here."""

import signal
import time

import numpy as np
import pytest
from one_op import NEEDS_Z, guarded, run_checked
from test_kernels import ACTIVATIONS, PARAM, layer, normal, padding_is_zero

from fastmlp.plan import Op, Plan, Rule
from fastmlp.reference import ReferenceExecutor
from fastmlp.runtime import _engine

pytestmark = pytest.mark.usefixtures("target")

WORKERS = 3
ODD = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 1.0, -1.0, 1e-42, 60.0, -60.0, 120.0, -120.0, 1e30, -1e30])


# ---- slices: what a worker does starts where its share starts --------------------------------------------------------


@pytest.mark.parametrize("kind", ["gelu", "sigmoid"])
def test_workers_share_a_layer(rng, dtype, target, kind):
    rows, n_in, n_out = 29, 19, 37
    z = normal(rng, dtype, rows, n_out) if kind in NEEDS_Z else None
    fields = layer(rng, dtype, rows, n_in, n_out)
    dy = fields.pop("dy")
    op = Op("linear", kind, y=normal(rng, dtype, rows, n_out), z=z, **fields)
    run_checked(op, rows, dtype, target, n_threads=WORKERS)
    z = normal(rng, dtype, rows, n_in) if kind in NEEDS_Z else None
    y, dx = normal(rng, dtype, rows, n_in), guarded(rows, n_in, dtype)
    op = Op("linear_back", kind, n_in, n_out, dy=dy, w=fields["w"], y=y, z=z, dx=dx)
    run_checked(op, rows, dtype, target, n_threads=WORKERS)
    run_checked(Op("activate_back", kind, n_in, n_in, dy=y, y=y, z=z, dx=dx), rows, dtype, target, n_threads=WORKERS)


def test_backward_through_weights_that_come_from_memory(rng, dtype, target):
    # All rows are enough to go several panels at a time; a worker's share is not. The last panel is not full.
    rows, n_in, n_out = 79, 1500, 1499
    fields = layer(rng, dtype, rows, n_in, n_out)
    del fields["x"]
    assert n_in * fields["w"].strides[0] > 8 << 20
    dx = guarded(rows, n_in, dtype, 7.0)
    op = Op("linear_back", "tanh", y=normal(rng, dtype, rows, n_in), dx=dx, **fields)
    run_checked(op, rows, dtype, target)
    alone = dx.copy()
    run_checked(op, rows, dtype, target, n_threads=WORKERS)
    assert dx.tobytes() == alone.tobytes() and padding_is_zero(dx)


@pytest.mark.parametrize("rows", [5, 30])  # the first below the tallest tile
def test_few_rows_by_weights_that_come_from_memory(rng, dtype, target, rows):
    # Short runs of inputs forward, long ones of outputs backward, and more of dy than stays in the second-level cache.
    n_in, n_out = 480, 4500
    fields = layer(rng, dtype, rows, n_in, n_out)
    assert n_in * fields["w"].strides[0] > 8 << 20
    x, w, dy = (fields.pop(name) for name in ("x", "w", "dy"))
    run_checked(Op("linear", "relu", x=x, w=w, y=normal(rng, dtype, rows, n_out), **fields), rows, dtype, target)
    dx = guarded(rows, n_in, dtype, 7.0)
    run_checked(Op("linear_back", "relu", dy=dy, w=w, y=x, dx=dx, **fields), rows, dtype, target)
    run_checked(Op("linear_update", "sgd", x=x, dy=dy, w=w, **fields), rows, dtype, target)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [6, 700])
def test_workers_share_a_gradient(rng, dtype, target, bias, rows):
    n_in, n_out = 19, 37
    fields = layer(rng, dtype, rows, n_in, n_out) | {"bias": bias}
    w, g = fields.pop("w"), normal(rng, dtype, n_in + 1, n_out)
    g[-1] *= bias  # the row of a bias that is not there is zero, and stays so
    for accumulate in (False, True):
        run_checked(Op("linear_grad", g=g, accumulate=accumulate, **fields), rows, dtype, target, n_threads=WORKERS)
    assert g[-1].any() == bias
    w[-1] *= bias
    s1 = normal(rng, dtype, n_in + 1, n_out)
    op = Op("linear_update", "sgd", w=w, s1=s1, rule=Rule(momentum=0.9), **fields)
    run_checked(op, rows, dtype, target, n_threads=WORKERS)
    assert w[-1].any() == bias


def test_workers_share_parameters(rng, dtype, target):
    n_in, n_out = 19, 70
    g, w, a = (normal(rng, dtype, n_in + 1, n_out) for _ in range(3))
    part = np.zeros((1, n_in + 1))
    run_checked(Op("square_sum", n_in=n_in, n_out=n_out, g=g, part=part), 1, dtype, target, n_threads=WORKERS)
    np.testing.assert_allclose(part[0], (g.astype(float) ** 2).sum(axis=1), rtol=1e-6)
    run_checked(Op("average", n_in=n_in, n_out=n_out, w=w, aux=a, param=0.9), 1, dtype, target, n_threads=WORKERS)
    bias = w[-1].copy()
    alone = guarded(n_in + 1, n_out, dtype, w)
    run_checked(Op("max_norm", n_in=n_in, n_out=n_out, w=alone, param=2.0), 1, dtype, target)
    run_checked(Op("max_norm", n_in=n_in, n_out=n_out, w=w, param=2.0), 1, dtype, target, n_threads=WORKERS)
    np.testing.assert_array_equal(w, alone)  # to the bit: a column whose norm is limited twice moves twice
    np.testing.assert_array_equal(w[-1], bias)
    small = 0.01 * w
    w[:] = small
    run_checked(Op("max_norm", n_in=n_in, n_out=n_out, w=w, param=2.0), 1, dtype, target, n_threads=WORKERS)
    np.testing.assert_array_equal(w, small)  # a norm below the limit stays


# ---- several steps in one run ----------------------------------------------------------------------------------------


def small_network(dtype, capacity, optimizer):
    """A layer with dropout and labels; the same for every call."""
    rng = np.random.default_rng(5)
    n_in, n_out, n_data = 9, 18, 40
    x, hidden = guarded(capacity, n_in, dtype), guarded(capacity, n_in, dtype)
    y, dy, w = guarded(capacity, n_out, dtype), guarded(capacity, n_out, dtype), normal(rng, dtype, n_in + 1, n_out)
    t, row_loss = np.zeros(capacity, np.int32), np.zeros(capacity)
    states = [guarded(n_in + 1, n_out, dtype) for _ in range(2)] if optimizer == "adam" else [None, None]
    data, labels = rng.standard_normal((n_data, n_in)), rng.integers(0, n_out, n_data).astype(np.uint8)
    moved = {"w": w, "s1": states[0], "s2": states[1], "rule": Rule()}
    ops = [
        Op("gather", n_in=n_in, x=x, data=data),
        Op("dropout", n_in=n_in, n_out=n_in, x=x, y=hidden, param=0.25, seed=11),
        Op("linear", "identity", n_in, n_out, bias=True, x=hidden, w=w, y=y),
        Op("gather", n_in=1, labels=True, t=t, data=labels),
        Op("loss", "softmax_cross_entropy", n_out, n_out, labels=True, y=y, t=t, dy=dy, row_loss=row_loss),
        Op("linear_update", optimizer, n_in, n_out, bias=True, x=hidden, dy=dy, **moved),
    ]
    plan = Plan("a small network", dtype, capacity, ops, row_block=4)
    plan.work = 1e12  # or the executor would not wake a worker
    return plan


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("n_threads", [1, WORKERS])
def test_a_run_of_several_steps(rng, dtype, target, ordered, optimizer, n_threads):
    # Lock step runs them one at a time. Here the executor counts steps, rates, rows and weights by itself.
    offsets, lr = np.array([3, 14, 15, 23, 25, 34]), np.array([0.1, 0.02, 0.3, 0.04, 0.05])
    order = rng.permutation(40) if ordered else None
    weight = rng.random(40)
    weight[order[23:25] if ordered else slice(23, 25)] = 0  # a step that counts for nothing
    plans = [small_network(dtype, 12, optimizer) for _ in range(2)]
    runners = _engine.Engine(plans[0], target), ReferenceExecutor(plans[1])
    losses = [runner.run(order, offsets, lr, weight=weight, first_number=7, n_threads=n_threads) for runner in runners]
    close = {"rtol": 1e-4 if dtype == np.float32 else 1e-9, "atol": 1e-5 if dtype == np.float32 else 1e-10}
    np.testing.assert_allclose(*losses, **close)
    assert losses[0][3] == 0 and (np.delete(losses[0], 3) > 0).all()
    np.testing.assert_allclose(*(plan.ops[-1].w for plan in plans), **close)


@pytest.mark.parametrize("n_threads", [1, 2, WORKERS])
def test_predictions_of_several_steps(rng, dtype, target, n_threads):
    # Rows ops only, so workers never meet: what belongs to one stays with it when a later step is shorter.
    w, data = normal(rng, dtype, 70, 40), rng.standard_normal((3000, 69))
    offsets = np.sort(np.concatenate(([0, 3000], rng.choice(np.arange(1, 3000), 200, replace=False))))
    capacity = int(np.diff(offsets).max())
    x, y, out = guarded(capacity, 69, dtype), guarded(capacity, 40, dtype), np.zeros((3000, 40), dtype)
    ops = [
        Op("gather", n_in=69, x=x, data=data),
        Op("linear", "tanh", 69, 40, bias=True, x=x, w=w, y=y),
        Op("scatter", n_out=40, y=y, data=out),
    ]
    plan = Plan("a prediction", dtype, capacity, ops, row_block=8)
    plan.work = 1e12
    assert not any(plan.syncs)
    _engine.Engine(plan, target).run(None, offsets, n_threads=n_threads)
    expected = np.tanh(data.astype(dtype) @ w[:-1] + w[-1])
    np.testing.assert_allclose(out, expected, rtol=1e-3 if dtype == np.float32 else 1e-9, atol=1e-4)


@pytest.mark.parametrize("n_threads", [2, WORKERS])
def test_losses_of_many_short_steps(dtype, target, n_threads):
    # A worker that is ahead must not write the next step's losses before this step's are summed.
    rng = np.random.default_rng(8)
    y, t, data = guarded(6, 3, dtype), guarded(6, 3, dtype), rng.standard_normal((6000, 3))
    ops = [
        Op("gather", n_in=3, x=y, data=data),
        Op("loss", "squared_error", 3, 3, y=y, t=t, param=1.0, row_loss=np.zeros(6)),
    ]
    plan = Plan("losses", dtype, 6, ops)
    plan.work = 1e12
    losses = _engine.Engine(plan, target).run(None, np.arange(0, 6001, 6), n_threads=n_threads)
    expected = (data.astype(dtype) ** 2).reshape(1000, 18).mean(axis=1)
    np.testing.assert_allclose(losses, expected, rtol=1e-5 if dtype == np.float32 else 1e-12)


def test_more_workers_than_rows_or_the_maximum(dtype, target):
    alone, crowd = (small_network(dtype, 12, "sgd") for _ in range(2))
    for plan, n_threads in ((alone, 1), (crowd, 1000)):
        _engine.Engine(plan, target).run(None, np.array([0, 12, 24]), np.array([0.1, 0.1]), n_threads=n_threads)
    assert alone.ops[-1].w.tobytes() == crowd.ops[-1].w.tobytes()


def test_workers_do_their_share_and_block_signals(dtype, target):
    # The results are the same with one worker. But then all the time would be the caller's.
    rng = np.random.default_rng(9)
    rows, n = 200, 300
    x, w, y = (normal(rng, dtype, *shape) for shape in ((rows, n), (n + 1, n), (rows, n)))
    plan = Plan("a layer", dtype, rows, [Op("linear", "tanh", n, n, bias=True, x=x, w=w, y=y)])
    spent = time.process_time() - time.thread_time()
    own = time.thread_time()
    _engine.Engine(plan, target).run(None, rows * np.arange(41), n_threads=4)
    own = time.thread_time() - own
    spent = time.process_time() - time.thread_time() - spent
    assert spent > own, "three of four shares are the others'"
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


# ---- values that random data rarely have -----------------------------------------------------------------------------

RULES = {
    "l1": ("sgd", 0, Rule(l1=0.1)),
    "l2": ("sgd", 0, Rule(l2=0.2)),
    "decay": ("sgd", 0, Rule(decay=0.3)),
    "rmsprop": ("rmsprop", 1, Rule(alpha=0.7, eps=0.1)),
    "adagrad": ("adagrad", 1, Rule(eps=0.1)),
    "adam": ("adam", 2, Rule(beta1=0.8, beta2=0.97, eps=0.1)),
}


@pytest.mark.parametrize("name", RULES)
def test_rules(rng, dtype, target, name):
    # No two numbers of a rule are the same, and eps is not small.
    kind, n_states, rule = RULES[name]
    w, g = normal(rng, dtype, 8, 19), normal(rng, dtype, 8, 19, 0.1)
    w[:, ::5] = 0  # the sign of 0 is 0
    w[0, 0], w[1, 5] = -0.0, 0.0
    states = {name: guarded(8, 19, dtype, 0.01 * rng.random((8, 19))) for name in ("s1", "s2")[:n_states]}
    op = Op("update", kind, 7, 19, bias=True, w=w, g=g, rule=rule, **states)
    for number in (0, 3):
        run_checked(op, 1, dtype, target, first_number=number)
    if name in ("l1", "l2"):
        w[:], g[:] = 0, 0
        run_checked(op, 1, dtype, target)
        assert not w.any()


@pytest.mark.parametrize("shape", [(6, 11, 19), (70, 45, 50)], ids=["small", "wide"])
@pytest.mark.parametrize("opcode", ["update", "linear_update"])
@pytest.mark.parametrize("kind", ["sgd", "rmsprop", "adam"])
def test_states_of_dead_weights_do_not_stay_subnormal(dtype, target, kind, opcode, shape):
    rows, n_in, n_out = shape
    info = np.finfo(dtype)
    states = {name: guarded(n_in + 1, n_out, dtype, 1.0) for name in ("s1", "s2")[: 1 + (kind != "sgd")]}
    for s in states.values():
        s[:, ::3] = 10 * info.smallest_subnormal
        s[::2, 1] = -5 * info.smallest_subnormal if kind == "sgd" else 0
        s[0, 4], s[0, 7] = info.tiny, 100 * info.tiny
        s[-1, -1] = np.nan
    zeros = {"g": guarded(n_in + 1, n_out, dtype)} if opcode == "update" else {}
    zeros = zeros or {"x": guarded(rows, n_in, dtype), "dy": guarded(rows, n_out, dtype)}
    rule = Rule(momentum=0.97, alpha=0.97, beta1=0.97, beta2=0.97, eps=0.1)
    op = Op(opcode, kind, n_in, n_out, bias=True, w=guarded(n_in + 1, n_out, dtype, 1.0), rule=rule, **states, **zeros)
    for number, faded in ((14, True), (31, False)):
        run_checked(op, rows, dtype, target, first_number=number, n_threads=WORKERS)
        for s in states.values():
            assert (s[:, 0] != 0).all() == faded
            assert ((np.abs(s) > 0) & (np.abs(s) < info.tiny)).any() == faded
            assert s[0, 7] > 50 * info.tiny and np.isnan(s[-1, -1]) and 0.9 < s[1, 2] < 1


@pytest.mark.parametrize("rows", [1024, 1025, 2100])
@pytest.mark.parametrize("shape", [(3, 5), (130, 7), (300, 270), (40, 1)])
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_long_batch_is_summed_in_parts_of_1024_rows(rng, dtype, target, rows, shape, accumulate):
    n_in, n_out = shape
    x, dy, g = normal(rng, dtype, rows, n_in), normal(rng, dtype, rows, n_out), normal(rng, dtype, n_in + 1, n_out)
    op = Op("linear_grad", n_in=n_in, n_out=n_out, bias=True, x=x, dy=dy, g=g, accumulate=accumulate)
    expected = g.copy() if accumulate else np.zeros_like(g)
    for k in range(0, rows, 1024):
        part, few = guarded(n_in + 1, n_out, dtype), min(1024, rows - k)
        alone = Op("linear_grad", n_in=n_in, n_out=n_out, bias=True, x=x[k:], dy=dy[k:], g=part)
        _engine.Engine(Plan("one op", np.dtype(dtype), few, [alone]), target).run(None, np.array([0, few]))
        expected = expected + part if k or accumulate else part.copy()
    run_checked(op, rows, dtype, target, n_threads=WORKERS)
    np.testing.assert_array_equal(g, expected)


def test_adam_keeps_its_mean_square_as_long_as_its_mean(dtype, target):
    info = np.finfo(dtype)
    s1, s2 = guarded(2, 4, dtype, 1.0), guarded(2, 4, dtype, 1.0)
    s1[:, :2], s2[:] = 0, 10 * info.smallest_subnormal
    rule = Rule(beta1=0.9, beta2=0.999, eps=1.0)
    w, g = guarded(2, 4, dtype, 1.0), guarded(2, 4, dtype)
    op = Op("update", "adam", 1, 4, bias=True, w=w, g=g, s1=s1, s2=s2, rule=rule)
    run_checked(op, 1, dtype, target, first_number=15)
    assert not s2[:, :2].any() and (s2[:, 2:] > 0).all()


@pytest.mark.parametrize("n", [1, 7, 16, 33])
def test_no_gradient_is_nearly_subnormal(dtype, target, n):
    kind = "sigmoid_cross_entropy" if n == 1 else "softmax_cross_entropy"
    gaps = np.linspace(0, 120 if dtype == np.float32 else 800, 101)
    y, t = guarded(101, n, dtype, -gaps[:, None]), guarded(101, n, dtype)
    y[:, n // 2], t[:, n // 2] = gaps * (n == 1), 1.0
    op = Op("loss", kind, n, n, y=y, t=t, dy=guarded(101, n, dtype, 7.0), row_loss=np.zeros(101))
    run_checked(op, 101, dtype, target)
    others = np.abs(op.dy[:, 0])
    assert others[0] > 1e-4 and others[-1] == 0
    assert others[others > 0].min() > np.finfo(dtype).tiny * 1e10
    y[50, 0] = np.nan
    run_checked(op, 101, dtype, target)
    assert np.isnan(op.dy[50, 0])


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_derivatives_where_they_break(dtype, target, kind):
    y = guarded(2, len(ODD), dtype)
    with np.errstate(over="ignore"):
        y[:] = ODD.astype(dtype)
    z = y if kind in NEEDS_Z else None
    if kind in ("elu", "selu", "softplus", "sigmoid", "tanh"):  # of an output that can be
        y[:] = 1 / (1 + np.arange(len(ODD)))
    dy = guarded(2, len(ODD), dtype, 1.0)
    dy[1] = 0.5
    dx, n = guarded(2, len(ODD), dtype), len(ODD)
    op = Op("activate_back", kind, n, n, dy=dy, y=y, z=z, dx=dx, param=PARAM.get(kind, 0.0))
    run_checked(op, 2, dtype, target)
    if kind in NEEDS_Z:
        assert dx[0, :2].tolist() == [1, 0], "at plus and minus infinity"
        assert np.isnan(dx[0, 2])
        assert np.isfinite(dx[:, 3:]).all()
    if kind in ("relu", "hard_tanh"):  # a unit that is off passes nothing back, not even an infinity
        dy[:] = np.inf
        run_checked(op, 2, dtype, target)
        assert dx[0, ODD == -1e30].tolist() == [0]


@pytest.mark.parametrize("kind", ["absolute_error", "quantile", "huber", "squared_error"])
def test_a_loss_without_an_error_has_no_gradient(dtype, target, kind):
    y, t = guarded(2, 5, dtype, 1.5), guarded(2, 5, dtype, 1.5)
    t[1] = [1, 2, 1.5, 0.7, 2.3]  # and an error that is just delta
    q = guarded(1, 5, dtype, 0.3)
    op = Op("loss", kind, 5, 5, y=y, t=t, dy=guarded(2, 5, dtype, 7.0), aux=q, param=0.5, row_loss=np.zeros(2))
    run_checked(op, 2, dtype, target)
    assert not op.dy[0].any() and op.dy[1, :2].all()


def test_labels_of_a_single_output(dtype, target):
    t = np.array([0, 1, 1], np.int32)
    y = guarded(3, 1, dtype, [[0.3], [0.4], [-2.0]])
    for kind in ("sigmoid_cross_entropy", "squared_error"):
        op = Op("loss", kind, 1, 1, labels=True, y=y, t=t, dy=guarded(3, 1, dtype), param=0.5, row_loss=np.zeros(3))
        run_checked(op, 3, dtype, target)


def test_cross_entropy_of_an_impossible_class(dtype, target):
    # 0 log 0 = 0, in the loss and in its gradient.
    y = guarded(1, 3, dtype, [[0.0, -np.inf, 1.0]])
    t = guarded(1, 3, dtype, [[0.25, 0.0, 0.75]])
    op = Op("loss", "softmax_cross_entropy", 3, 3, y=y, t=t, dy=guarded(1, 3, dtype), row_loss=np.zeros(1))
    assert np.isfinite(run_checked(op, 1, dtype, target))
    assert op.dy[0, 1] == 0 and np.isfinite(op.dy).all()


@pytest.mark.parametrize(("p", "number", "word", "kept"), [(0.5, 1122135, 1, True), (0.1, 5391029, 2, False)])
def test_dropout_at_its_threshold(dtype, target, p, number, word, kept):
    # The steps of seed 7 in which this element draws p itself in 24 bits, and the last number below p.
    x, y = guarded(1, 4, dtype, 1.0), guarded(1, 4, dtype)
    run_checked(Op("dropout", n_in=4, x=x, y=y, param=p, seed=7), 1, dtype, target, first_number=number)
    assert (y[0, word] > 0) == kept


@pytest.mark.parametrize("place", range(0, 33, 4))
def test_softmax_finds_its_maximum_anywhere(dtype, target, place):
    x, y = guarded(1, 33, dtype, -1e4), guarded(1, 33, dtype)
    x[0, place] = 1e4
    run_checked(Op("activate", "softmax", 33, 33, x=x, y=y), 1, dtype, target)
    assert y[0, place] == y.sum() == 1
    label = {"labels": True, "t": np.array([place], np.int32)}
    op = Op("loss", "softmax_cross_entropy", 33, 33, y=x, row_loss=np.zeros(1), **label)
    assert run_checked(op, 1, dtype, target) == 0


# ---- padding: whatever stands there reaches no result ----------------------------------------------------------------


def dirty(matrix):
    """The matrix, with NaN in its padding."""
    rows, columns = matrix.shape
    block = 64 // matrix.itemsize
    np.lib.stride_tricks.as_strided(matrix, (rows, -(-columns // block) * block), matrix.strides)[:, columns:] = np.nan
    return matrix


@pytest.mark.parametrize("n", [1, 7, 16, 17, 33])
def test_padding_reaches_no_row(rng, dtype, target, n):
    rows = 5
    y, x, dy, t = (dirty(normal(rng, dtype, rows, n)) for _ in range(4))
    t[:] = np.abs(t) / np.abs(t).sum(axis=1, keepdims=True)
    for kind in ("softmax", "sigmoid"):
        dx = guarded(rows, n, dtype)
        run_checked(Op("activate", kind, n, n, x=x, y=y), rows, dtype, target)
        run_checked(Op("activate_back", kind, n, n, dy=dy, y=dirty(y), dx=dx), rows, dtype, target)
        assert padding_is_zero(dx)
    dropped = guarded(rows, n, dtype)
    run_checked(Op("dropout", n_in=n, x=x, y=dropped, param=0.5, seed=3), rows, dtype, target)
    assert padding_is_zero(dropped)
    for kind in ("softmax_cross_entropy", "squared_error"):
        dx = guarded(rows, n, dtype)
        op = Op("loss", kind, n, n, y=dirty(y), t=t, dy=dx, row_loss=np.zeros(rows), param=0.25)
        assert np.isfinite(run_checked(op, rows, dtype, target))
        assert padding_is_zero(dx)
