"""The reference executor against finite differences and against formulas written a second time, in float64."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from one_op import NEEDS_Z

from fastmlp.plan import Op, Rule, Step
from fastmlp.reference import ACTIVATIONS, KERNELS, LOSSES, OPTIMIZERS, ReferenceExecutor, philox

PARAM = {"leaky_relu": 0.2, "elu": 0.7}
ELEMENTWISE = [kind for kind in ACTIVATIONS if kind != "softmax"]
# Away from the kinks at 0 and +-1, and with nothing symmetric about it.
Z = np.linspace(-6.07, 5.93, 241)
Z = Z[np.min(np.abs(Z[:, None] - [-1, 0, 1]), axis=1) > 0.01]


def rng() -> np.random.Generator:
    return np.random.default_rng(20240917)


def slope(f: Any, x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """f'(x) of an elementwise f, by central differences of fourth order."""
    return (8 * (f(x + h) - f(x - h)) - (f(x + 2 * h) - f(x - 2 * h))) / (12 * h)


def gradient(f: Any, x: np.ndarray, h: float = 1e-3) -> np.ndarray:
    """The gradient of a scalar f() by the array x, which is moved in place and put back."""
    found = np.empty_like(x)
    for i in np.ndindex(*x.shape):
        old, value = x[i], {}
        for k in (-2, -1, 1, 2):
            x[i] = old + k * h
            value[k] = f()
        x[i] = old
        found[i] = (8 * (value[1] - value[-1]) - (value[2] - value[-2])) / (12 * h)
    return found


def assert_relative(got: np.ndarray, expected: np.ndarray, bound: float = 1e-7) -> None:
    """Within the bound, or within the rounding of the differences where the gradient is next to nothing."""
    np.testing.assert_allclose(got, expected, rtol=bound, atol=2e-11)


def step(rows: int, weight: Any = None, number: int = 0, lr: float = 0.1) -> Step:
    total = rows if weight is None else float(np.sum(weight))
    return Step(rows, number, np.arange(rows), weight, 1 / total, lr)


def run(op: Op, rows: int = 0, **kwargs: Any) -> None:
    KERNELS[op.opcode](op, step(rows, **kwargs) if rows else step(1, **kwargs), slice(0, rows))


# ---- activations -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_derivative_is_the_slope(kind: str) -> None:
    forward, derivative = ACTIVATIONS[kind]
    a = PARAM.get(kind, 0.0)
    z = Z if kind in NEEDS_Z else None  # the others need y only
    assert_relative(derivative(forward(Z, a), z, a), slope(lambda x: forward(x, a), Z))


@pytest.mark.parametrize(
    ("kind", "formula"),
    [
        ("identity", lambda z: z),
        ("sigmoid", lambda z: 1 / (1 + math.exp(-z))),
        ("tanh", math.tanh),
        ("relu", lambda z: max(0.0, z)),
        ("leaky_relu", lambda z: z if z > 0 else 0.2 * z),
        ("elu", lambda z: z if z > 0 else 0.7 * (math.exp(z) - 1)),
        ("selu", lambda z: 1.0507009873554805 * (z if z > 0 else 1.6732632423543772 * (math.exp(z) - 1))),
        ("softplus", lambda z: math.log(1 + math.exp(z))),
        ("hard_tanh", lambda z: min(1.0, max(-1.0, z))),
        ("gelu", lambda z: z * 0.5 * (1 + math.erf(z / math.sqrt(2)))),
        ("gelu_tanh", lambda z: z / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))),
        ("silu", lambda z: z / (1 + math.exp(-z))),
        ("mish", lambda z: z * math.tanh(math.log(1 + math.exp(z)))),
    ],
)
def test_activation_has_its_formula(kind: str, formula: Any) -> None:
    expected = [formula(float(z)) for z in Z]
    np.testing.assert_allclose(ACTIVATIONS[kind][0](Z, PARAM.get(kind, 0.0)), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("kind", [kind for kind in ELEMENTWISE if kind != "exp"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_activation_is_finite_and_keeps_its_dtype_far_out(kind: str, dtype: Any) -> None:
    forward, derivative = ACTIVATIONS[kind]
    z, a = np.array([-np.inf, -1e30, -1000, -100, -30, 0, 30, 100, 1000, 1e30, np.inf], dtype), PARAM.get(kind, 0.0)
    with np.errstate(all="ignore"):
        y = forward(z, a)
        slopes = derivative(y, z, a)
    assert y.dtype == slopes.dtype == dtype
    assert np.isfinite(y[1:-1]).all() and not np.isnan(y).any() and np.isfinite(slopes).all()
    assert slopes[-1] in (0, 1, dtype(1.0507009873554805))
    assert slopes[0] in (0, 1, dtype(a))


@pytest.mark.parametrize(("kind", "y"), [("relu", 0.0), ("hard_tanh", 1.0), ("hard_tanh", -1.0)])
def test_a_unit_that_is_off_passes_no_infinity_back(kind: str, y: float) -> None:
    op = Op("activate_back", kind, 2, 2, y=np.array([[y, 0.5]]), dy=np.array([[np.inf, np.inf]]), dx=np.zeros((1, 2)))
    run(op, 1)
    assert op.dx.tolist() == [[0, np.inf]]


def test_softmax_forward_and_back() -> None:
    x, dy = rng().normal(size=(4, 5)), rng().normal(size=(4, 5))
    op = Op("activate", "softmax", 5, 5, x=x, y=np.empty((4, 5)))

    def value() -> float:
        run(op, 4)
        return float((op.y * dy).sum())

    expected = gradient(value, x)
    run(op, 4)
    np.testing.assert_allclose(op.y, np.exp(x) / np.exp(x).sum(axis=1, keepdims=True), rtol=1e-14)
    back = Op("activate_back", "softmax", 5, 5, dy=dy.copy(), y=op.y)
    back.dx = back.dy  # in place, as plans have it
    run(back, 4)
    assert_relative(back.dx, expected)


def test_softmax_has_no_elementwise_derivative() -> None:
    with pytest.raises(TypeError, match="softmax has a Jacobian"):
        ACTIVATIONS["softmax"][1](Z, Z, 0.0)


def test_softmax_and_its_loss_do_not_overflow() -> None:
    y = np.array([[1e4, 0, -1e4]], dtype=np.float32)
    op = Op("activate", "softmax", 3, 3, x=y, y=np.empty_like(y))
    run(op, 1)
    assert op.y.tolist() == [[1, 0, 0]]
    row_loss, dy = LOSSES["softmax_cross_entropy"](y, np.array([1], dtype=np.int32), Op("loss", n_out=3))
    assert row_loss.tolist() == [1e4] and dy.tolist() == [[1, -1, 0]]
    y[0, 2] = -np.inf  # a class that cannot be, and is not
    with np.errstate(invalid="ignore"):
        row_loss, _ = LOSSES["softmax_cross_entropy"](y, np.array([1], dtype=np.int32), Op("loss", n_out=3))
    assert row_loss.tolist() == [1e4]


# ---- losses ----------------------------------------------------------------------------------------------------------


def soft(shape: tuple[int, int]) -> np.ndarray:
    return rng().dirichlet(np.ones(shape[1]), size=shape[0])


LOSS_CASES = {
    # name: (kind, param, aux, targets by shape)
    "labels": ("softmax_cross_entropy", 0.0, None, lambda shape: np.arange(shape[0], dtype=np.int32) % shape[1]),
    "labels, smooth": ("softmax_cross_entropy", 0.1, None, lambda shape: np.arange(shape[0], dtype=np.int32) % 2),
    "soft targets": ("softmax_cross_entropy", 0.0, None, soft),
    "soft targets, smooth": ("softmax_cross_entropy", 0.3, None, soft),
    "targets that do not sum to 1": ("softmax_cross_entropy", 0.2, None, lambda shape: 3 * soft(shape)),
    "binary": ("sigmoid_cross_entropy", 0.0, None, soft),
    "binary, positive weight": ("sigmoid_cross_entropy", 0.0, [2.0, 0.5, 3.0], soft),
    "squared": ("squared_error", 1.0, None, lambda shape: rng().normal(size=shape)),
    "squared, half": ("squared_error", 0.5, None, lambda shape: rng().normal(size=shape)),
    "squared, labels": ("squared_error", 1.0, None, lambda shape: np.arange(shape[0], dtype=np.int32) % shape[1]),
    "absolute": ("absolute_error", 0.0, None, lambda shape: rng().normal(size=shape)),
    "huber": ("huber", 0.8, None, lambda shape: rng().normal(size=shape)),
    "quantile": ("quantile", 0.0, [0.1, 0.5, 0.9], lambda shape: rng().normal(size=shape)),
    "poisson": ("poisson", 0.0, None, lambda shape: rng().poisson(2.0, size=shape).astype(float)),
}


def loss_op(case: str, shape: tuple[int, int] = (7, 3)) -> Op:
    kind, param, aux, targets = LOSS_CASES[case]
    # Seeded apart from the targets, and nowhere near the kinks at e = 0 and |e| = delta.
    y, t = np.random.default_rng(7).normal(size=shape), targets(shape)
    if kind in ("absolute_error", "huber", "quantile"):
        assert np.min(np.abs(np.abs(y - t)[..., None] - [0, param])) > 0.005
    row = None if aux is None else np.array([aux])
    buffers: dict[str, Any] = {"y": y, "t": t, "dy": np.empty(shape), "row_loss": np.empty(shape[0]), "aux": row}
    return Op("loss", kind, shape[1], shape[1], labels=t.ndim == 1, param=param, **buffers)


def test_every_loss_has_a_case() -> None:
    assert {case[0] for case in LOSS_CASES.values()} == set(LOSSES)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("case", LOSS_CASES)
def test_loss_gradient(case: str, weighted: bool) -> None:
    op = loss_op(case)
    weight = np.array([1.0, 0.5, 2.0, 0.0, 3.0, 1.5, 0.25]) if weighted else None

    def value() -> float:
        run(op, 7, weight=weight)
        return float(np.average(op.row_loss, weights=weight))

    expected = gradient(value, op.y)
    run(op, 7, weight=weight)
    assert_relative(op.dy, expected)


def element_loss(kind: str, y: float, t: float, param: float, aux: float) -> float:
    """The formulas of fastmlp.h, one number at a time."""
    e = y - t
    return {
        "sigmoid_cross_entropy": lambda: t * aux * math.log(1 + math.exp(-y)) + (1 - t) * math.log(1 + math.exp(y)),
        "squared_error": lambda: param * e**2,
        "absolute_error": lambda: abs(e),
        "huber": lambda: e**2 / 2 if abs(e) <= param else param * (abs(e) - param / 2),
        "quantile": lambda: aux * -e if -e > 0 else (aux - 1) * -e,
        "poisson": lambda: math.exp(y) - t * y,
    }[kind]()


@pytest.mark.parametrize("case", LOSS_CASES)
def test_loss_has_its_formula(case: str) -> None:
    op = loss_op(case)
    run(op, 7)
    t = np.eye(3)[op.t] if op.labels else op.t
    aux = np.ones(3) if op.aux is None else op.aux[0]
    for r in range(7):
        if op.kind == "softmax_cross_entropy":
            log_sum = math.log(sum(math.exp(y) for y in op.y[r]))
            smooth = (1 - op.param) * t[r] + op.param / 3
            expected = sum(smooth[c] * (log_sum - op.y[r, c]) for c in range(3))
        else:
            expected = sum(element_loss(op.kind, op.y[r, c], t[r, c], op.param, aux[c]) for c in range(3)) / 3
        assert op.row_loss[r] == pytest.approx(expected, rel=1e-13)


def test_one_output_takes_labels_as_targets() -> None:
    y, labels = np.array([[0.3], [-0.7]]), np.array([1, 0], dtype=np.int32)
    op = Op("loss", n_out=1)
    by_label, dense = (LOSSES["sigmoid_cross_entropy"](y, t, op) for t in (labels, labels[:, None] * 1.0))
    np.testing.assert_array_equal(by_label[0], dense[0])
    np.testing.assert_array_equal(by_label[1], dense[1])


def test_loss_without_dy_only_evaluates() -> None:
    op = loss_op("huber")
    op.dy = None
    run(op, 7)
    assert np.isfinite(op.row_loss).all()


@pytest.mark.parametrize("kind", ["absolute_error", "quantile"])
def test_no_gradient_where_the_error_is_zero(kind: str) -> None:
    y = np.zeros((1, 1))
    assert LOSSES[kind](y, y, Op("loss", n_out=1, aux=np.array([[0.9]])))[1] == 0


# ---- the dense layer -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_linear_back(kind: str) -> None:
    """The gradient by the pre-activations of the layer below: this layer's weights, then that one's activation."""
    random = rng()
    z, w, dy, a = random.choice(Z, (5, 4)), random.normal(size=(5, 3)), random.normal(size=(5, 3)), PARAM.get(kind, 0.0)
    forward = Op("linear", "identity", 4, 3, bias=True, w=w, y=np.empty((5, 3)))

    def value() -> float:
        forward.x = ACTIVATIONS[kind][0](z, a)
        run(forward, 5)
        return float((forward.y * dy).sum())

    expected = gradient(value, z)
    y, kept = ACTIVATIONS[kind][0](z, a), z if kind in NEEDS_Z else None
    op = Op("linear_back", kind, 4, 3, dy=dy, w=w, y=y, z=kept, dx=np.empty((5, 4)), param=a)
    run(op, 5)
    assert_relative(op.dx, expected)


def test_linear_grad_and_accumulation() -> None:
    random = rng()
    x, w, dy = random.normal(size=(6, 4)), random.normal(size=(5, 3)), random.normal(size=(6, 3))
    forward = Op("linear", "identity", 4, 3, bias=True, x=x, w=w, y=np.empty((6, 3)))

    def value() -> float:
        run(forward, 6)
        return float((forward.y * dy).sum())

    expected = gradient(value, w)
    op = Op("linear_grad", "", 4, 3, bias=True, x=x, dy=dy, g=np.full((5, 3), np.nan))
    run(op, 6)
    assert_relative(op.g, expected)
    op.accumulate = True
    run(op, 6)
    assert_relative(op.g, 2 * expected)
    op.accumulate = op.bias = False
    run(op, 6)
    assert_relative(op.g[:-1], expected[:-1])
    assert not op.g[-1].any()


def test_linear_keeps_z_and_leaves_rows_past_the_slice() -> None:
    random = rng()
    x, w, y, z = random.normal(size=(6, 4)), random.normal(size=(5, 3)), np.zeros((6, 3)), np.zeros((6, 3))
    op = Op("linear", "elu", 4, 3, bias=True, x=x, w=w, y=y, z=z, param=0.7)
    KERNELS["linear"](op, step(6), slice(2, 5))
    np.testing.assert_allclose(z[2:5], x[2:5] @ w[:4] + w[4])
    np.testing.assert_array_equal(y[2:5], ACTIVATIONS["elu"][0](z[2:5], 0.7))
    assert not y[:2].any() and not y[5:].any() and not z[:2].any() and not z[5:].any()


# ---- rows in and out -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["float32", "float64", "uint8", "int8", "uint16", "int16", "uint32", "int64"])
def test_gather_and_scatter(source: str) -> None:
    data = np.arange(40).reshape(10, 4).astype(source)[:, ::2]
    index, shift, scale = np.array([7, 0, 7]), [1.0, 2.0], [0.5, 0.25]
    at = Step(3, 0, index, None, 1 / 3, 0.0)
    op = Op("gather", source, 2, x=np.zeros((4, 2), np.float32), data=data)
    KERNELS["gather"](op, at, slice(0, 3))
    np.testing.assert_array_equal(op.x, [[28, 30], [0, 2], [28, 30], [0, 0]])
    op.w = np.array([shift, scale], np.float32)
    KERNELS["gather"](op, at, slice(0, 3))
    np.testing.assert_array_equal(op.x[:2], [[13.5, 7], [-0.5, 0]])
    op.smooth_clip = True
    KERNELS["gather"](op, at, slice(0, 3))
    np.testing.assert_allclose(op.x[0], [13.5 / math.sqrt(1 + 4.5**2), 7 / math.sqrt(1 + (7 / 3) ** 2)], rtol=1e-6)
    out = np.zeros((10, 2), np.float32)
    KERNELS["scatter"](Op("scatter", n_out=2, y=op.x, data=out), at, slice(0, 2))
    np.testing.assert_array_equal(out[[7, 0]], op.x[:2])
    assert not out[[1, 2, 3, 4, 5, 6, 8, 9]].any()


def test_gather_labels() -> None:
    op = Op("gather", "int64", labels=True, t=np.zeros(4, np.int32), data=np.array([3, 1, 4, 1, 5]))
    KERNELS["gather"](op, Step(3, 0, np.array([4, 2, 0]), None, 1 / 3, 0.0), slice(0, 3))
    assert op.t.tolist() == [5, 4, 3, 0]


# ---- dropout ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers of Random123, tests/kat_vectors, "philox4x32 10"
        ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
)
def test_philox_known_answers(counter: str, key: str, expected: str) -> None:
    low, high = (int(word, 16) for word in key.split())
    words = philox(tuple(np.array([int(word, 16)], np.uint64) for word in counter.split()), high << 32 | low)
    assert [f"{int(word[0]):08x}" for word in words] == expected.split()


def test_dropout_draws_what_the_header_says() -> None:
    p, seed, number, x = 0.3, 0x123456789ABCDEF0, (5 << 32) + 17, 1 + rng().random((6, 11))
    op = Op("dropout", n_in=11, n_out=11, x=x, y=np.zeros((6, 11)), param=p, seed=seed)
    run(op, 6, number=number)
    for r, c in np.ndindex(6, 11):
        counter = (c // 4, r, number & 0xFFFFFFFF, number >> 32)
        word = int(philox(tuple(np.array([k], np.uint64) for k in counter), seed)[c % 4][0])
        assert op.y[r, c] == (x[r, c] * (1 / (1 - p)) if (word >> 8) * 2.0**-24 >= p else 0)
    part = Op("dropout", n_in=11, n_out=11, x=x, y=np.zeros((6, 11)), param=p, seed=seed)
    for rows in (slice(0, 2), slice(2, 6)):  # a row's mask depends on its place in the batch only
        KERNELS["dropout"](part, step(6, number=number), rows)
    np.testing.assert_array_equal(part.y, op.y)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_keeps_its_share(p: float) -> None:
    x = np.ones((400, 250), np.float32)
    op = Op("dropout", n_in=250, n_out=250, x=x, y=np.zeros_like(x), param=p, seed=42)
    run(op, 400, number=3)
    share = np.count_nonzero(op.y) / x.size
    assert abs(share - (1 - p)) <= 5 * math.sqrt(p * (1 - p) / x.size)
    assert set(np.unique(op.y)) <= {np.float32(0), np.float32(1 / (1 - p))}
    first = op.y.copy()
    run(op, 400, number=4)
    assert p == 0 or (op.y != first).any()


# ---- how parameters move ---------------------------------------------------------------------------------------------


def scalar_optimizer(kind: str, w: float, gradients: list[float], lr: float, rule: Rule, *, penalise: bool) -> float:
    """The formulas of fastmlp.h (and of PyTorch's documentation), one parameter at a time."""
    s1 = s2 = 0.0
    for t, g in enumerate(gradients, start=1):
        if penalise:
            g += rule.l2 * w + rule.l1 * (w > 0) - rule.l1 * (w < 0)
            w -= lr * rule.decay * w
        if kind == "sgd":
            s1 = rule.momentum * s1 + g
            w -= lr * (g + rule.momentum * s1 if rule.nesterov else s1)
        elif kind == "rmsprop":
            s1 = rule.alpha * s1 + (1 - rule.alpha) * g**2
            s2 = rule.momentum * s2 + g / (math.sqrt(s1) + rule.eps)
            w -= lr * s2
        elif kind == "adagrad":
            s1 += g**2
            w -= lr * g / (math.sqrt(s1) + rule.eps)
        else:
            s1 = rule.beta1 * s1 + (1 - rule.beta1) * g
            s2 = rule.beta2 * s2 + (1 - rule.beta2) * g**2
            w -= lr * (s1 / (1 - rule.beta1**t)) / (math.sqrt(s2 / (1 - rule.beta2**t)) + rule.eps)
    return w


RULES = {
    "sgd": ("sgd", 0, Rule()),
    "sgd, momentum": ("sgd", 1, Rule(momentum=0.9)),
    "sgd, nesterov": ("sgd", 1, Rule(momentum=0.9, nesterov=True)),
    "rmsprop": ("rmsprop", 1, Rule(alpha=0.95, eps=1e-2)),
    "rmsprop, momentum": ("rmsprop", 2, Rule(alpha=0.95, eps=1e-2, momentum=0.8)),
    "adagrad": ("adagrad", 1, Rule(eps=1e-2)),
    "adam": ("adam", 2, Rule(beta1=0.8, beta2=0.95, eps=1e-2)),
    "l1": ("sgd", 0, Rule(l1=0.3)),
    "l2": ("adam", 2, Rule(l2=0.3)),
    "decay": ("adam", 2, Rule(decay=0.3)),
    "l1, l2 and decay of biases, too": ("adam", 2, Rule(l1=0.1, l2=0.2, decay=0.3, decay_bias=True)),
    "rates of their own": ("sgd", 1, Rule(momentum=0.5, lr_weight=0.5, lr_bias=2.0)),
}


def test_every_optimizer_has_a_rule() -> None:
    assert {kind for kind, _, _ in RULES.values()} == set(OPTIMIZERS)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", RULES)
def test_update_has_its_formula(name: str, bias: bool) -> None:
    kind, n_states, rule = RULES[name]
    begin, gradients = rng().normal(size=(4, 3)), rng().normal(size=(5, 4, 3))
    states = [np.zeros((4, 3)) if k < n_states else None for k in range(2)]
    op = Op("update", kind, 3, 3, bias=bias, w=begin.copy(), s1=states[0], s2=states[1], rule=rule)
    for number in range(5):
        op.g = gradients[number]
        run(op, 0, number=number, lr=0.05)
    for i, c in np.ndindex(4, 3):
        is_bias = i == 3
        lr = 0.05 * (rule.lr_bias if is_bias else rule.lr_weight)
        history = [float(g) for g in gradients[:, i, c]]
        expected = scalar_optimizer(kind, begin[i, c], history, lr, rule, penalise=not is_bias or rule.decay_bias)
        assert op.w[i, c] == pytest.approx(begin[i, c] if is_bias and not bias else expected, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", ["sgd, nesterov", "adam", "l1, l2 and decay of biases, too"])
def test_linear_update_is_linear_grad_and_update(name: str) -> None:
    kind, _, rule = RULES[name]
    random = rng()
    x, dy, w = random.normal(size=(6, 3)), random.normal(size=(6, 2)), random.normal(size=(4, 2))
    both = [Op(opcode, kind, 3, 2, bias=True, x=x, dy=dy, rule=rule) for opcode in ("linear_update", "update")]
    for op in both:
        op.w, op.s1, op.s2 = w.copy(), np.zeros((4, 2)), np.zeros((4, 2))
    grad = Op("linear_grad", "", 3, 2, bias=True, x=x, dy=dy, g=np.zeros((4, 2)))
    for op in (both[0], grad):
        run(op, 6)
    both[1].g = grad.g
    run(both[1], 6)
    np.testing.assert_array_equal(both[0].w, both[1].w)
    assert (both[0].w != w).all()


def test_clipping_by_value_then_penalties() -> None:
    w, g = np.array([[2.0, -2.0], [0.0, 0.0]]), np.array([[5.0, -0.25], [0.0, 0.0]])
    op = Op("update", "sgd", 1, 2, bias=True, w=w, g=g, rule=Rule(clip_value=1.0, l2=0.5))
    run(op, lr=1.0)
    np.testing.assert_allclose(w[0], [2 - (1 + 1), -2 - (-0.25 - 1)])


@pytest.mark.parametrize(("limit", "expected"), [(6.5, 0.5), (13.0, 1.0), (20.0, 1.0)])
def test_clipping_by_the_norm_of_all_gradients(limit: float, expected: float) -> None:
    """Two layers with gradients (3, 4) and 12: the norm of all is 13."""
    part = np.full((1, 4), np.nan)
    layers = [np.array([[3.0], [4.0]]), np.array([[12.0], [0.0]])]
    for i, g in enumerate(layers):
        run(Op("square_sum", n_in=1, n_out=1, g=g, part=part[:, 2 * i : 2 * i + 2]))
    assert part.tolist() == [[9, 16, 144, 0]]
    for g in layers:
        op = Op("update", "sgd", 1, 1, bias=True, w=np.zeros((2, 1)), g=g, part=part, rule=Rule(clip_norm=limit))
        run(op, lr=1.0)
        np.testing.assert_allclose(op.w, -expected * g)


def test_average_and_max_norm() -> None:
    w, a = np.array([[3.0, 0.3], [4.0, 0.4], [9.0, 9.0]]), np.ones((3, 2))
    run(Op("average", n_in=2, n_out=2, w=w, aux=a, param=0.75))
    np.testing.assert_allclose(a, 0.75 + 0.25 * w)
    run(Op("max_norm", n_in=2, n_out=2, w=w, param=2.0))
    np.testing.assert_allclose(w, [[1.2, 0.3], [1.6, 0.4], [9, 9]])


# ---- the executor ----------------------------------------------------------------------------------------------------


def small_plan(dtype: Any = np.float64, kind: str = "sgd", rule: Rule | None = None) -> Any:
    """gather 3 -> linear 4 tanh -> linear 2, softmax loss, back, and an update of each layer."""
    random, rows = rng(), 5
    data, labels = random.normal(size=(9, 3)), np.arange(9) % 2
    w1, w2 = random.normal(size=(4, 4)).astype(dtype), random.normal(size=(5, 2)).astype(dtype)
    x, h, y = (np.zeros((rows, n), dtype) for n in (3, 4, 2))
    dy, dh, t, row_loss = np.zeros_like(y), np.zeros_like(h), np.zeros(rows, np.int32), np.zeros(rows)
    ops = [
        Op("gather", "float64", 3, x=x, data=data),
        Op("gather", "int64", labels=True, t=t, data=labels),
        Op("linear", "tanh", 3, 4, bias=True, x=x, w=w1, y=h),
        Op("linear", "identity", 4, 2, bias=True, x=h, w=w2, y=y),
        Op("loss", "softmax_cross_entropy", 2, 2, labels=True, y=y, t=t, dy=dy, row_loss=row_loss),
        Op("linear_back", "tanh", 4, 2, dy=dy, w=w2, y=h, dx=dh),
        Op("linear_update", kind, 4, 2, bias=True, x=h, dy=dy, w=w2, rule=rule or Rule()),
        Op("linear_update", kind, 3, 4, bias=True, x=x, dy=dh, w=w1, rule=rule or Rule()),
    ]
    return SimpleNamespace(ops=ops, dtype=np.dtype(dtype), capacity=rows)


ORDER = np.array([8, 1, 5, 3, 0, 2, 7, 4])
WEIGHT = np.array([1.0, 2.0, 0.5, 0.0, 1.5, 3.0, 0.25, 1.0, 0.75])


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["unweighted", "weighted"])
def test_a_step_of_a_plan_goes_down_the_gradient_of_its_loss(weight: Any) -> None:
    plan = small_plan()
    executor, w = ReferenceExecutor(plan), [plan.ops[6].w, plan.ops[7].w]

    def value() -> float:
        return float(executor.run(ORDER, np.array([0, 5]), None, weight=weight, last_op=5)[0])

    slopes, before = [gradient(value, each) for each in w], [each.copy() for each in w]
    executor.run(ORDER, np.array([0, 5]), np.array([0.5]), weight=weight)
    for each, old, expected in zip(w, before, slopes, strict=True):
        assert_relative(each, old - 0.5 * expected)


def test_losses_and_batches_of_a_run() -> None:
    plan = small_plan()
    losses = ReferenceExecutor(plan).run(ORDER, np.array([0, 5, 5, 8]), np.zeros(3), weight=WEIGHT)
    for s, rows in enumerate((ORDER[:5], ORDER[5:8])):
        h = np.tanh(plan.ops[0].data[rows] @ plan.ops[2].w[:-1] + plan.ops[2].w[-1])
        y = h @ plan.ops[3].w[:-1] + plan.ops[3].w[-1]
        rows_loss = np.log(np.exp(y).sum(axis=1)) - y[np.arange(len(rows)), rows % 2]
        assert losses[2 * s] == pytest.approx(np.average(rows_loss, weights=WEIGHT[rows]), rel=1e-13)
    assert losses[1] == 0  # no rows: no loss, no harm


def test_weights_that_sum_to_zero_move_nothing() -> None:
    plan = small_plan()
    before = plan.ops[2].w.copy()
    assert ReferenceExecutor(plan).run(ORDER, np.array([0, 5]), np.ones(1), weight=np.zeros(9)).tolist() == [0]
    np.testing.assert_array_equal(plan.ops[2].w, before)


def test_without_order_rows_are_positions() -> None:
    plan = small_plan()
    executor = ReferenceExecutor(plan)
    assert executor.run(None, np.array([3, 7]), None, last_op=1).tolist() == [0]
    np.testing.assert_array_equal(plan.ops[0].x[:4], plan.ops[0].data[3:7])
    executor.bind(0, plan.ops[0].data[::-1])
    executor.run(None, np.array([0, 2]), None, last_op=1)
    np.testing.assert_array_equal(plan.ops[0].x[:2], plan.ops[0].data[:2])


def test_steps_are_numbered_and_each_has_its_rate() -> None:
    seen: list[tuple[int, float, int]] = []
    plan = SimpleNamespace(ops=[Op("probe")], dtype=np.dtype(float), capacity=9)
    KERNELS["probe"] = lambda op, step, rows: seen.append((step.number, step.lr, rows.stop))
    try:
        ReferenceExecutor(plan).run(None, np.array([0, 2, 5]), np.array([0.5, 0.25]), first_number=7)
    finally:
        del KERNELS["probe"]
    assert seen == [(7, 0.5, 2), (8, 0.25, 3)]


def test_one_run_of_many_steps_is_many_runs_of_one() -> None:
    rule, plans = Rule(), [small_plan(kind="adam", rule=Rule()) for _ in range(2)]
    for plan in plans:
        for op in plan.ops[6:]:
            op.s1, op.s2, op.rule = np.zeros_like(op.w), np.zeros_like(op.w), rule
    offsets, lr = np.array([0, 3, 8]), np.array([0.1, 0.01])
    together = ReferenceExecutor(plans[0]).run(ORDER, offsets, lr)
    for s in range(2):
        alone = ReferenceExecutor(plans[1]).run(ORDER, offsets[s : s + 2], lr[s : s + 1], first_number=s)
        assert alone[0] == together[s]
    np.testing.assert_array_equal(plans[0].ops[2].w, plans[1].ops[2].w)


def test_a_batch_longer_than_the_buffers_is_refused() -> None:
    with pytest.raises(ValueError, match="step 0 has 6 rows; the plan holds 5"):
        ReferenceExecutor(small_plan()).run(ORDER, np.array([0, 6]), None)


def test_float32_stays_float32() -> None:
    """A NumPy scalar of float64 anywhere in a formula would widen the arithmetic without anyone noticing."""
    wide, narrow = small_plan(np.float64), small_plan(np.float32)
    for plan in (wide, narrow):
        ReferenceExecutor(plan).run(ORDER, np.array([0, 5]), np.array([0.5]))
    np.testing.assert_allclose(narrow.ops[2].w, wide.ops[2].w, rtol=1e-5, atol=1e-6)
    for kind, (forward, derivative) in ACTIVATIONS.items():
        z = Z.astype(np.float32)[None]
        assert forward(z, 0.5).dtype == np.float32
        assert kind == "softmax" or derivative(forward(z, 0.5), z, 0.5).dtype == np.float32
    for case in LOSS_CASES:
        op = loss_op(case)
        aux = None if op.aux is None else op.aux.astype(np.float32)
        t = op.t if op.labels else op.t.astype(np.float32)
        found = LOSSES[op.kind](op.y.astype(np.float32), t, Op("loss", n_out=3, param=op.param, aux=aux))
        assert [part.dtype for part in found] == [np.float32, np.float32], case
    for kind, optimizer in OPTIMIZERS.items():
        arrays = [np.ones((2, 2), np.float32) for _ in range(3)]
        assert optimizer(*arrays, Rule(momentum=0.5), 3).dtype == np.float32, kind
