"""Every op of every supported target in lock step with the reference, on awkward shapes, in both types."""

import numpy as np
import pytest
from one_op import NEEDS_Z, guarded, run_checked
from shapes import LAYERS, WIDTHS

from fastmlp import reference, runtime
from fastmlp.opcodes import SPLITS
from fastmlp.plan import Op, Plan, Rule

pytestmark = pytest.mark.usefixtures("target")

ACTIVATIONS = [name for name in reference.ACTIVATIONS if name != "softmax"]
PARAM = {"leaky_relu": 0.1, "elu": 0.7, "huber": 0.8, "squared_error": 0.5, "softmax_cross_entropy": 0.1}


def normal(rng, dtype, rows, columns, scale=1.0):
    return guarded(rows, columns, dtype, scale * rng.standard_normal((rows, columns)))


def layer(rng, dtype, rows, n_in, n_out, **fields):
    """A dense layer's buffers with random contents."""
    return dict(
        n_in=n_in,
        n_out=n_out,
        bias=True,
        x=normal(rng, dtype, rows, n_in),
        w=normal(rng, dtype, n_in + 1, n_out),
        dy=normal(rng, dtype, rows, n_out),
        **fields,
    )


def test_engine_and_reference_know_the_same_ops():
    engine = runtime._engine
    assert set(engine.OPCODES) == set(reference.KERNELS) == set(SPLITS)
    assert engine.SPLITS == SPLITS
    assert set(engine.ACTIVATIONS) == set(reference.ACTIVATIONS)
    assert set(engine.LOSSES) == set(reference.LOSSES)
    assert set(engine.OPTIMIZERS) == set(reference.OPTIMIZERS)


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_linear(rng, dtype, target, shape):
    rows, n_in, n_out = shape
    fields = layer(rng, dtype, rows, n_in, n_out)
    del fields["dy"]
    run_checked(Op("linear", "relu", y=normal(rng, dtype, rows, n_out), **fields), rows, dtype, target)
    run_checked(Op("linear", "tanh", y=normal(rng, dtype, rows, n_out), **fields), rows, dtype, target, n_threads=3)


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("n", [1, 7, 16, 33])
def test_activation_of_a_layer(rng, dtype, target, kind, n):
    z = normal(rng, dtype, 13, n) if kind in NEEDS_Z else None
    fields = layer(rng, dtype, 13, 5, n)
    dy = fields.pop("dy")
    y = normal(rng, dtype, 13, n)
    run_checked(Op("linear", kind, y=y, z=z, param=PARAM.get(kind, 0.0), **fields), 13, dtype, target)
    dx = guarded(13, n, dtype, 7.0)
    below = normal(rng, dtype, n + 1, 9)
    op = Op(
        "linear_back", kind, n, 9, dy=normal(rng, dtype, 13, 9), w=below, y=y, z=z, dx=dx, param=PARAM.get(kind, 0.0)
    )
    run_checked(op, 13, dtype, target)
    assert padding_is_zero(dx)
    run_checked(Op("activate_back", kind, n, n, dy=dy, y=y, z=z, dx=dx, param=PARAM.get(kind, 0.0)), 13, dtype, target)
    assert padding_is_zero(dx)
    run_checked(Op("activate", kind, n, n, x=dy, y=y, param=PARAM.get(kind, 0.0)), 13, dtype, target)


def padding_is_zero(matrix):
    """Whether the columns up to the edge of the 64-byte block are zero."""
    rows, columns = matrix.shape
    block = 64 // matrix.itemsize
    whole = np.lib.stride_tricks.as_strided(matrix, (rows, -(-columns // block) * block), matrix.strides)
    return not whole[:, columns:].any()


@pytest.mark.parametrize("n", WIDTHS)
def test_softmax(rng, dtype, target, n):
    x, y, dy, dx = (normal(rng, dtype, 7, n, 5) for _ in range(4))
    run_checked(Op("activate", "softmax", n, n, x=x, y=y), 7, dtype, target)
    np.testing.assert_allclose(y.sum(axis=1), 1, rtol=1e-5)
    assert padding_is_zero(y)
    run_checked(Op("activate_back", "softmax", n, n, dy=dy, y=y, dx=dx), 7, dtype, target)
    assert padding_is_zero(dx)


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 16, 29])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 9, 16, 17])
def test_softmax_of_many_rows_has_the_bits_of_one_at_a_time(rng, dtype, target, n, rows):
    x, y, alone = (normal(rng, dtype, rows, n, 30) for _ in range(3))
    for r in range(rows):
        run_checked(
            Op("activate", "softmax", n, n, x=guarded(1, n, dtype, x[r]), y=(one := guarded(1, n, dtype))),
            1,
            dtype,
            target,
        )
        alone[r] = one
    run_checked(Op("activate", "softmax", n, n, x=x, y=y), rows, dtype, target)
    np.testing.assert_array_equal(y, alone)
    run_checked(Op("activate", "softmax", n, n, x=x, y=x), rows, dtype, target)  # in place
    np.testing.assert_array_equal(x, alone)


@pytest.mark.parametrize("kind", reference.LOSSES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 10, 16, 17, 33])
@pytest.mark.parametrize("weighted", [False, True])
def test_loss(rng, dtype, target, kind, n, weighted):
    rows = 9
    dy = guarded(rows, n, dtype, 7.0)
    t = guarded(rows, n, dtype, rng.random((rows, n)))
    if kind == "softmax_cross_entropy":
        t /= t.sum(axis=1, keepdims=True)
    aux = guarded(1, n, dtype, rng.uniform(0.1, 0.9, n)) if kind in ("quantile", "sigmoid_cross_entropy") else None
    op = Op("loss", kind, n, n, y=normal(rng, dtype, rows, n, 3), t=t, dy=dy, aux=aux, param=PARAM.get(kind, 0.0))
    op.row_loss = np.zeros(rows)
    weight = rng.random(rows) if weighted else None
    assert np.isfinite(run_checked(op, rows, dtype, target, weight=weight))
    assert padding_is_zero(dy)
    op.dy = None
    run_checked(op, rows, dtype, target, weight=weight)
    if kind == "softmax_cross_entropy":
        op.dy, op.labels, op.t = dy, True, rng.integers(0, n, rows).astype(np.int32)
        run_checked(op, rows, dtype, target, weight=weight)


@pytest.mark.parametrize("kind", ["softmax_cross_entropy", "sigmoid_cross_entropy"])
def test_loss_of_huge_logits_is_finite(dtype, target, kind):
    y = guarded(2, 3, dtype, [[1e4, -1e4, 0], [-1e4, 1e4, 3]])
    t = guarded(2, 3, dtype, [[0, 1, 0], [0, 1, 0]])
    op = Op("loss", kind, 3, 3, y=y, t=t, dy=guarded(2, 3, dtype), row_loss=np.zeros(2))
    assert np.isfinite(run_checked(op, 2, dtype, target))


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_linear_back(rng, dtype, target, shape):
    rows, n_in, n_out = shape
    fields = layer(rng, dtype, rows, n_in, n_out)
    del fields["x"]
    dx = guarded(rows, n_in, dtype, 7.0)
    run_checked(Op("linear_back", "sigmoid", y=normal(rng, dtype, rows, n_in), dx=dx, **fields), rows, dtype, target)
    assert padding_is_zero(dx)


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_linear_grad(rng, dtype, target, shape):
    rows, n_in, n_out = shape
    fields = layer(rng, dtype, rows, n_in, n_out)
    del fields["w"]
    g = normal(rng, dtype, n_in + 1, n_out)
    run_checked(Op("linear_grad", g=g, **fields), rows, dtype, target)
    run_checked(Op("linear_grad", g=g, accumulate=True, **fields), rows, dtype, target)


@pytest.mark.parametrize("shape", LAYERS, ids=str)
def test_linear_update(rng, dtype, target, shape):
    rows, n_in, n_out = shape
    fields = layer(rng, dtype, rows, n_in, n_out)
    s1 = normal(rng, dtype, n_in + 1, n_out)
    run_checked(Op("linear_update", "sgd", s1=s1, rule=Rule(momentum=0.9), **fields), rows, dtype, target)


RULES = {
    "sgd": ("sgd", 0, Rule()),
    "momentum": ("sgd", 1, Rule(momentum=0.9)),
    "nesterov": ("sgd", 1, Rule(momentum=0.9, nesterov=True)),
    "penalties": ("sgd", 1, Rule(momentum=0.9, l1=0.1, l2=0.2, decay=0.3, lr_weight=0.5, lr_bias=2.0)),
    "decay_bias": ("sgd", 0, Rule(l1=0.1, l2=0.2, decay=0.3, decay_bias=True)),
    "clip_value": ("sgd", 0, Rule(clip_value=0.3)),
    "rmsprop": ("rmsprop", 1, Rule(alpha=0.9)),
    "rmsprop_momentum": ("rmsprop", 2, Rule(alpha=0.9, momentum=0.8)),
    "adagrad": ("adagrad", 1, Rule(eps=1e-10)),
    "adam": ("adam", 2, Rule()),
    "adamw": ("adam", 2, Rule(decay=0.01)),
}


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("opcode", ["update", "linear_update"])
@pytest.mark.parametrize("shape", [(6, 11, 19), (70, 45, 50)], ids=["6x11x19", "tiles that move the one before"])
def test_optimizers(rng, dtype, target, name, bias, opcode, shape):
    kind, n_states, rule = RULES[name]
    rows, n_in, n_out = shape
    w = normal(rng, dtype, n_in + 1, n_out)
    states = [guarded(n_in + 1, n_out, dtype, rng.random((n_in + 1, n_out))) for _ in range(n_states)]
    if opcode == "update":
        fields = {"g": normal(rng, dtype, n_in + 1, n_out)}
    else:
        fields = {"x": normal(rng, dtype, rows, n_in), "dy": normal(rng, dtype, rows, n_out)}
    op = Op(
        opcode, kind, n_in, n_out, bias=bias, w=w, rule=rule, **fields, **dict(zip(("s1", "s2"), states, strict=False))
    )
    before = w.copy()
    for number in (0, 1, 1000):
        run_checked(op, rows, dtype, target, first_number=number, n_threads=2)
    assert (w[:-1] != before[:-1]).all()
    assert (w[-1] != before[-1]).all() == bias


@pytest.mark.parametrize("limit", [0.5, 1e9])
def test_clipping_by_global_norm(rng, dtype, target, limit):
    g, w = normal(rng, dtype, 12, 19), normal(rng, dtype, 12, 19)
    parts = np.zeros((1, 20))
    parts[0, 12:] = 3.0
    run_checked(Op("square_sum", n_in=11, n_out=19, g=g, part=parts[:, :12]), 1, dtype, target)
    np.testing.assert_allclose(parts[0, :12], (g.astype(float) ** 2).sum(axis=1), rtol=1e-6)
    op = Op("update", "sgd", 11, 19, bias=True, w=w, g=g, part=parts, rule=Rule(clip_norm=limit))
    before = w.copy()
    run_checked(op, 1, dtype, target, lr=1.0)
    moved = np.linalg.norm((before - w).astype(float))
    total = np.sqrt(parts.sum())
    np.testing.assert_allclose(moved, np.linalg.norm(g.astype(float)) * min(1, limit / total), rtol=1e-4)


def test_average_and_max_norm(rng, dtype, target):
    w, a = normal(rng, dtype, 12, 19), normal(rng, dtype, 12, 19)
    run_checked(Op("average", n_in=11, n_out=19, w=w, aux=a, param=0.9), 1, dtype, target)
    run_checked(Op("max_norm", n_in=11, n_out=19, w=w, param=2.0), 1, dtype, target, n_threads=2)
    assert np.linalg.norm(w[:-1].astype(float), axis=0).max() <= 2.0001


SOURCES = ["float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]


@pytest.mark.parametrize("source", SOURCES)
def test_gather(rng, dtype, target, source):
    wide = rng.integers(0, 100, (20, 42)).astype(source)
    offset = np.frombuffer(b"\0" + wide.tobytes(), dtype=np.uint8)[1:].view(source).reshape(20, 42)
    readonly = wide[:, :21]
    readonly.flags.writeable = False
    for data in (
        wide[:, :21],
        wide[::2, ::2],
        np.asfortranarray(wide[:, :21]),
        offset[:, :21],
        wide[::-1, 20::-1],
        readonly,
    ):
        rows = min(9, len(data))
        order = rng.permutation(len(data))[:rows]
        x = guarded(rows, 21, dtype, 7.0)
        run_checked(Op("gather", n_in=21, x=x, data=data), rows, dtype, target, order=order)
        np.testing.assert_array_equal(x, data[order].astype(dtype))
    labels = np.zeros(9, np.int32)
    column = wide[:, 3]
    run_checked(Op("gather", n_in=1, labels=True, t=labels, data=column), 9, dtype, target)
    np.testing.assert_array_equal(labels, column[:9])


@pytest.mark.parametrize("smooth_clip", [False, True])
def test_gather_standardises(rng, dtype, target, smooth_clip):
    scaling = guarded(2, 21, dtype, rng.uniform(0.5, 2, (2, 21)))
    data = 10 * rng.standard_normal((9, 21))
    x = guarded(9, 21, dtype)
    run_checked(Op("gather", n_in=21, x=x, w=scaling, data=data, smooth_clip=smooth_clip), 9, dtype, target)
    assert (np.abs(x).max() <= 3) == smooth_clip


@pytest.mark.parametrize(("begin", "end"), [(0, 20), (20, 40), (1, 40), (7, 8)])
def test_a_part_of_the_inputs_is_standardised_alone(rng, dtype, target, begin, end):
    # Beside these columns are those of another worker.
    scaling = guarded(2, 40, dtype, rng.uniform(0.5, 2, (2, 40)))
    x = guarded(9, 40, dtype, np.full((9, 40), 7.0))
    part = Op("gather", n_in=end - begin, first_in=begin, x=x[:, begin:end], w=scaling[:, begin:end])
    part.data = rng.standard_normal((9, 40))
    engine = runtime._engine.Engine(Plan("one op", np.dtype(dtype), 9, [part]), target)
    engine.run(None, np.array([0, 9]))
    mean, factor = scaling[:, begin:end]
    np.testing.assert_allclose(x[:, begin:end], (part.data[:, begin:end] - mean) * factor, rtol=1e-5, atol=1e-6)
    assert (np.delete(x, np.s_[begin:end], axis=1) == 7).all()


def test_scatter(rng, dtype, target):
    y = normal(rng, dtype, 9, 5)
    for out in (np.zeros((12, 5), dtype), np.zeros((5, 12), dtype).T):
        order = rng.permutation(12)[:9]
        run_checked(Op("scatter", n_out=5, y=y, data=out), 9, dtype, target, order=order)
        np.testing.assert_array_equal(out[order], y)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("n", [1, 5, 16, 33])
def test_dropout(rng, dtype, target, p, n):
    x = guarded(13, n, dtype, 1 + rng.random((13, n)))
    y = guarded(13, n, dtype)
    run_checked(Op("dropout", n_in=n, x=x, y=y, param=p, seed=2**63 + 5), 13, dtype, target, first_number=2**33 + 1)
    kept = y != 0
    np.testing.assert_allclose(y[kept], x[kept] / dtype.type(1 - p), rtol=1e-6)
    run_checked(Op("dropout", n_in=n, x=x, y=x, param=p, seed=7), 13, dtype, target, n_threads=2)
