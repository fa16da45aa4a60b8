"""Objects with names: look-up, ranges in error messages, and values of schedules, initializers and rules."""

from __future__ import annotations

import copy
import doctest
import math
import pickle
from typing import Any

import numpy as np
import pytest

from fastmlp import activations, initializers, losses, optimizers, plan, reference, schedules
from fastmlp.activations import ELU, GELU, LeakyReLU
from fastmlp.losses import MSE, BinaryCrossEntropy, CrossEntropy, Huber, Quantile
from fastmlp.optimizers import SGD, AdaGrad, Adam, AdamW, RMSprop
from fastmlp.schedules import (
    Constant,
    Cosine,
    CosLog4,
    Exponential,
    InverseScaling,
    OneCycle,
    Polynomial,
    ReduceOnPlateau,
    Step,
)

MODULES = [activations, losses, optimizers, schedules]


# ---- look-up ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [*MODULES, initializers])
def test_examples(module: Any) -> None:
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


@pytest.mark.parametrize("module", MODULES)
def test_names_stand_for_objects(module: Any) -> None:
    for name in module.KNOWN:
        thing = module.get(name)
        assert module.get(thing) is thing
        assert module.get(name) == thing
        thing.check()
        assert pickle.loads(pickle.dumps(thing)) == copy.deepcopy(thing) == thing


@pytest.mark.parametrize("module", MODULES)
def test_what_cannot_be_looked_up(module: Any) -> None:
    noun = {activations: "activation", losses: "loss", optimizers: "optimizer", schedules: "schedule"}[module]
    with pytest.raises(ValueError, match=f"unknown {noun} 'else'; known: ") as caught:
        module.get("else")
    assert all(name in str(caught.value) for name in module.KNOWN)
    article = "an" if noun in ("activation", "optimizer") else "a"
    for wrong in (3, None, module.KNOWN):
        with pytest.raises(TypeError, match=f"{noun} must be a name or {article} {noun.capitalize()} object, got "):
            module.get(wrong)


def test_every_kernel_case_has_a_name() -> None:
    outputs = {activations.Exp().kind}  # has no name of its own
    assert {activations.get(name).kind for name in activations.KNOWN} | outputs == set(reference.ACTIVATIONS)
    assert {losses.get(name).kind for name in losses.KNOWN} == set(reference.LOSSES)
    assert {optimizers.get(name).kind for name in optimizers.KNOWN} - {"lbfgs"} == set(reference.OPTIMIZERS)


# ---- errors name the argument, the value and the range ---------------------------------------------------------------

OUT_OF_RANGE = [
    (LeakyReLU(-0.1), r"LeakyReLU: slope must be a number in \[0, inf\), got -0.1"),
    (ELU(math.nan), r"ELU: alpha must be a number in \[0, inf\), got nan"),
    (CrossEntropy(label_smoothing=1.0), r"CrossEntropy: label_smoothing must be a number in \[0, 1\), got 1.0"),
    (CrossEntropy(class_weight={"a": -1}), r"CrossEntropy: class_weight\['a'\] must be a number in \[0, inf\), got -1"),
    (CrossEntropy(class_weight="even"), r"CrossEntropy: class_weight must be a dict, 'balanced' or None, got 'even'"),
    (BinaryCrossEntropy(0.0), r"BinaryCrossEntropy: positive_weight must be a number in \(0, 1e30\], got 0.0"),
    (BinaryCrossEntropy([1.0, -2.0]), r"positive_weight must be a number in \(0, 1e30\], got -2.0"),
    (BinaryCrossEntropy([]), r"BinaryCrossEntropy: positive_weight must have numbers in \(0, 1e30\], got \[\]"),
    (MSE(0), r"MSE: scale must be a number in \(0, inf\), got 0"),
    (Huber(math.inf), r"Huber: delta must be a number in \(0, inf\), got inf"),
    (Quantile(1.0), r"Quantile: q must be a number in \(0, 1\), got 1.0"),
    (Quantile((0.5, 0.0)), r"Quantile: q must be a number in \(0, 1\), got 0.0"),
    (SGD(0.0), r"SGD: learning_rate must be a number in \(0, inf\), got 0.0"),
    (SGD(0.1, momentum=1.0), r"SGD: momentum must be a number in \[0, 1\), got 1.0"),
    (SGD(0.1, nesterov=True), r"SGD: nesterov=True needs momentum in \(0, 1\), got 0.0"),
    (RMSprop(alpha=1.0), r"RMSprop: alpha must be a number in \[0, 1\), got 1.0"),
    (RMSprop(eps=0.0), r"RMSprop: eps must be a number in \[1e-30, inf\), got 0.0"),
    (RMSprop(momentum=-0.5), r"RMSprop: momentum must be a number in \[0, 1\), got -0.5"),
    (AdaGrad(eps=-1.0), r"AdaGrad: eps must be a number in \[1e-30, inf\), got -1.0"),
    (Adam(betas=(0.9, 1.0)), r"Adam: betas\[1\] must be a number in \[0, 1\), got 1.0"),
    (AdamW(eps=0), r"AdamW: eps must be a number in \[1e-30, inf\), got 0"),
    *(
        (Adam(**{name: -1.0}), rf"Adam: {name} must be a number in \[0, inf\), got -1.0")
        for name in ("l1", "l2", "weight_decay", "weight_lr_factor", "bias_lr_factor")
    ),
    (Adam(clip_norm=0.0), r"Adam: clip_norm must be a number in \(0, inf\), got 0.0"),
    (Adam(clip_value=0.0), r"Adam: clip_value must be a number in \(0, inf\), got 0.0"),
    (Adam(Step(0)), r"Step: step_size must be a whole number in \[1, inf\), got 0"),
    (Constant(learning_rate=-1.0), r"Constant: learning_rate must be a number in \(0, inf\), got -1.0"),
    (Step(3, 0.0), r"Step: gamma must be a number in \(0, 1\], got 0.0"),
    (Exponential(1.5), r"Exponential: gamma must be a number in \(0, 1\], got 1.5"),
    (InverseScaling(0.0), r"InverseScaling: power must be a number in \(0, inf\), got 0.0"),
    (Polynomial(power=-1.0), r"Polynomial: power must be a number in \(0, inf\), got -1.0"),
    (Polynomial(end=1.5), r"Polynomial: end must be a number in \[0, 1\], got 1.5"),
    (Cosine(warmup=-1), r"Cosine: warmup must be a number in \[0, inf\), got -1"),
    (Cosine(restarts=-1), r"Cosine: restarts must be a whole number in \[0, inf\), got -1"),
    (Cosine(end=2.0), r"Cosine: end must be a number in \[0, 1\], got 2.0"),
    (OneCycle(warmup=1.0), r"OneCycle: warmup must be a number in \(0, 1\), got 1.0"),
    (OneCycle(start_divisor=0.5), r"OneCycle: start_divisor must be a number in \[1, inf\), got 0.5"),
    (OneCycle(end_divisor=0.5), r"OneCycle: end_divisor must be a number in \[1, inf\), got 0.5"),
    (ReduceOnPlateau(1.0), r"ReduceOnPlateau: factor_by must be a number in \(0, 1\), got 1.0"),
    (ReduceOnPlateau(patience=-1), r"ReduceOnPlateau: patience must be a whole number in \[0, inf\), got -1"),
    (ReduceOnPlateau(min_delta=-1.0), r"ReduceOnPlateau: min_delta must be a number in \[0, inf\), got -1.0"),
    (ReduceOnPlateau(lowest=2.0), r"ReduceOnPlateau: lowest must be a number in \[0, 1\], got 2.0"),
    (ReduceOnPlateau(mode="up"), r"ReduceOnPlateau: mode must be 'min' or 'max', got 'up'"),
]
WRONG_TYPE = [
    (LeakyReLU("0.1"), "LeakyReLU: slope must be a number"),
    (LeakyReLU(True), "LeakyReLU: slope must be a number"),
    (GELU(1), "GELU: approximate must be True or False, got 1"),
    (CrossEntropy(class_weight=[1, 2]), "CrossEntropy: class_weight must be a dict"),
    (CrossEntropy(class_weight={0: None}), r"CrossEntropy: class_weight\[0\] must be a number"),
    (Quantile("0.5"), "Quantile: q must be a number"),
    (SGD("fast"), r"SGD: learning_rate must be a number in \(0, inf\), a Schedule or a function of .* got 'fast'"),
    (SGD(0.1, momentum=None), "SGD: momentum must be a number"),
    (SGD(0.1, momentum=0.9, nesterov=1), "SGD: nesterov must be True or False, got 1"),
    (Adam(betas=0.9), "Adam: betas must be two numbers in"),
    (Adam(decay_biases="no"), "Adam: decay_biases must be True or False"),
    (Step(2.5), "Step: step_size must be a whole number"),
]


def module_of(thing: Any) -> Any:
    return next(module for module in MODULES if type(thing).__module__ == module.__name__)


@pytest.mark.parametrize(("thing", "message"), OUT_OF_RANGE)
def test_a_parameter_out_of_range_is_an_error_when_it_is_used(thing: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module_of(thing).get(thing)


@pytest.mark.parametrize(("thing", "message"), WRONG_TYPE)
def test_a_parameter_of_the_wrong_type_is_an_error_when_it_is_used(thing: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        module_of(thing).get(thing)


def test_ends_of_ranges_and_numpy_numbers_are_allowed() -> None:
    for thing in (LeakyReLU(0), SGD(np.float32(0.1), momentum=np.float64(0.5)), Step(np.int64(1), 1.0), Cosine(end=1)):
        assert module_of(thing).get(thing) is thing
    for thing in (Quantile(np.array([0.1, 0.9])), Quantile([0.5]), BinaryCrossEntropy((1, 2)), Adam(betas=[0.0, 0.0])):
        assert module_of(thing).get(thing) is thing


# ---- activations and losses ------------------------------------------------------------------------------------------


def test_activation_attributes() -> None:
    found = {name: activations.get(name) for name in activations.KNOWN}
    assert {name for name, a in found.items() if a.needs_z} == {"gelu", "gelu_tanh", "silu", "swish", "mish"}
    he = {name for name, a in found.items() if a.default_initializer == "he_normal"}
    assert he == {"relu", "leaky_relu", "elu", "gelu", "gelu_tanh", "silu", "swish", "mish"}
    assert {name for name, a in found.items() if a.default_initializer == "lecun_normal"} == {"selu"}
    assert all(a.default_initializer in initializers.KNOWN for a in found.values())
    assert [found[name].kind for name in ("swish", "logistic", "linear")] == ["silu", "sigmoid", "identity"]
    assert found["leaky_relu"].param == 0.01 and ELU(0.5).param == 0.5 and found["elu"].param == 1


def test_loss_attributes() -> None:
    found = {name: losses.get(name) for name in losses.KNOWN}
    assert {name for name, loss in found.items() if loss.is_classifier} == {"cross_entropy", "binary_cross_entropy"}
    outputs = {name: (loss.default_output, loss.fused_output) for name, loss in found.items() if loss.fused_output}
    assert outputs == {
        "cross_entropy": ("softmax", "softmax"),
        "binary_cross_entropy": ("sigmoid", "sigmoid"),
        "poisson": ("exp", "exp"),
    }
    assert {loss.default_output for loss in found.values() if loss.fused_output is None} == {"identity"}
    assert (CrossEntropy(0.1).param, MSE().param, MSE(0.5).param, Huber(2).param) == (0.1, 1.0, 0.5, 2.0)


def test_numbers_for_each_output() -> None:
    assert CrossEntropy().aux(3) is None and BinaryCrossEntropy().aux(3) is None
    np.testing.assert_array_equal(BinaryCrossEntropy([1, 2, 3]).aux(3), [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(Quantile(0.9).aux(2), [0.9, 0.9])
    assert Quantile().aux(1).dtype == np.float64
    with pytest.raises(ValueError, match="Quantile: q has 3 values, the network 2 outputs"):
        Quantile((0.1, 0.5, 0.9)).aux(2)


def test_class_weights() -> None:
    np.testing.assert_array_equal(CrossEntropy().class_weights("ab", [3, 1]), [1, 1])
    np.testing.assert_array_equal(CrossEntropy(class_weight={"b": 5}).class_weights("ab", [3, 1]), [1, 5])
    np.testing.assert_array_equal(CrossEntropy(class_weight={1: 5}).class_weights(np.arange(2), [3, 1]), [1, 5])
    np.testing.assert_allclose(CrossEntropy(class_weight="balanced").class_weights("abc", [3, 1, 0]), [4 / 9, 4 / 3, 0])
    with pytest.raises(ValueError, match=r"class_weight names \['c'\], not among the classes \['a', 'b'\]"):
        CrossEntropy(class_weight={"c": 1}).class_weights("ab", [3, 1])


# ---- optimizers ------------------------------------------------------------------------------------------------------


def test_rules() -> None:
    assert SGD(0.1, momentum=0.9, nesterov=True).rule() == plan.Rule(momentum=0.9, nesterov=True)
    assert RMSprop(0.1, 0.5, 1e-3, 0.7).rule() == plan.Rule(alpha=0.5, eps=1e-3, momentum=0.7)
    assert AdaGrad(0.1, 1e-4).rule() == plan.Rule(eps=1e-4)
    assert Adam(0.1, (0.5, 0.6), 1e-5).rule() == plan.Rule(beta1=0.5, beta2=0.6, eps=1e-5)
    assert AdamW().rule() == plan.Rule(beta1=0.9, beta2=0.999, eps=1e-8, decay=1e-2)
    common = {"l1": 1, "l2": 2, "weight_decay": 3, "decay_biases": True, "clip_norm": 6, "clip_value": 7}
    for kind in (SGD, RMSprop, AdaGrad, Adam, AdamW):
        rule = kind(**common, weight_lr_factor=4, bias_lr_factor=5).rule(layer_factor=0.5)
        assert (rule.l1, rule.l2, rule.decay, rule.decay_bias, rule.clip_norm, rule.clip_value) == (1, 2, 3, True, 6, 7)
        assert (rule.lr_weight, rule.lr_bias) == (2, 2.5)
        assert all(type(getattr(rule, name)) in (bool, float) for name in plan.Rule.__slots__)


def test_states_and_default_rates() -> None:
    names = ("sgd", "momentum", "rmsprop", "adagrad", "adam")
    assert [optimizers.get(name).n_states for name in names] == [0, 1, 1, 1, 2]
    assert RMSprop(momentum=0.1).n_states == 2
    for kind, rate in ((SGD, 0.01), (RMSprop, 0.01), (AdaGrad, 0.01), (Adam, 1e-3), (AdamW, 1e-3)):
        assert kind().rates(0, 2, 9).tolist() == [rate, rate]
        assert kind(Constant()).rates(0, 1, 9).tolist() == [rate]
    assert optimizers.get("nesterov") == SGD(momentum=0.9, nesterov=True)


def test_rates_from_schedules_and_functions() -> None:
    assert SGD(Exponential(0.5, learning_rate=8.0)).rates(1, 3, 9).tolist() == [4, 2, 1]
    rates = SGD(lambda s: 1 / (1 + s)).rates(1, 3, 9)
    assert rates.dtype == np.float64 and rates.tolist() == [1 / 2, 1 / 3, 1 / 4]
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=r"SGD: learning_rate must return rates in \[0, inf\), got .* at step 5"):
            SGD(lambda s, wrong=wrong: wrong if s == 5 else 0.0).rates(3, 4, 9)


# ---- schedules -------------------------------------------------------------------------------------------------------

T = 20
SCHEDULES = [
    (Constant(), lambda s: 1),
    (Step(7, 0.5), lambda s: 0.5 ** (s // 7)),
    (Exponential(0.9), lambda s: 0.9**s),
    (InverseScaling(0.7), lambda s: (s + 1) ** -0.7),
    (Polynomial(2.0, end=0.1), lambda s: 0.1 + 0.9 * (1 - s / T) ** 2),
    (Cosine(), lambda s: (1 + math.cos(math.pi * s / T)) / 2),
    (Cosine(warmup=4), lambda s: (s + 1) / 4 if s < 4 else (1 + math.cos(math.pi * (s - 4) / 16)) / 2),
    (Cosine(warmup=0.2), lambda s: (s + 1) / 4 if s < 4 else (1 + math.cos(math.pi * (s - 4) / 16)) / 2),
    (Cosine(restarts=1, end=0.2), lambda s: 0.2 + 0.8 * (1 + math.cos(math.pi * (s % 10) / 10)) / 2),
    (CosLog4(), lambda s: (1 - math.cos(2 * math.pi * math.log2(1 + 15 * s / T))) / 2),
]


@pytest.mark.parametrize(("schedule", "formula"), SCHEDULES)
def test_schedule_has_its_formula(schedule: Any, formula: Any) -> None:
    expected = [3.0 * formula(s) for s in range(T)]
    rates = schedule.rates(3.0, 0, T, T)
    assert rates.dtype == np.float64
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(schedule.rates(3.0, 5, 4, T), rates[5:9])
    own = type(schedule)(**{**vars(schedule), "learning_rate": 6.0})
    np.testing.assert_array_equal(own.rates(3.0, 0, T, T), 2 * rates)


def test_one_cycle_is_that_of_pytorch() -> None:
    """OneCycleLR(max_lr=1, total_steps=20, pct_start=0.35, div_factor=10, final_div_factor=100), by its definition."""

    def between(start: float, end: float, u: float) -> float:
        return end + (start - end) / 2 * (math.cos(math.pi * u) + 1)

    top = 0.35 * T - 1
    expected = [between(0.1, 1, s / top) if s <= top else between(1, 1e-3, (s - top) / (T - 1 - top)) for s in range(T)]
    rates = OneCycle(0.35, 10, 100).rates(1.0, 0, T, T)
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    np.testing.assert_allclose(rates[[0, 6, T - 1]], [0.1, 1, 1e-3], rtol=1e-12)


def test_a_schedule_without_a_formula() -> None:
    with pytest.raises(NotImplementedError, match="Schedule must define factor"):
        schedules.Schedule().rates(1.0, 0, 1, 1)


@pytest.mark.parametrize("schedule", [Polynomial(end=0.1), Cosine(3, 2, 0.1), OneCycle(), CosLog4()])
def test_the_last_rate_holds_beyond_the_last_step(schedule: Any) -> None:
    late = schedule.rates(1.0, T, 30, T)
    assert np.isfinite(late).all() and np.ptp(late) == 0
    last = {Polynomial: 0.1, Cosine: 0.1, OneCycle: 4e-6, CosLog4: 0}[type(schedule)]
    assert late[0] == pytest.approx(last, abs=1e-12)
    for total in (0, 1):  # trainings too short for any shape
        assert np.isfinite(schedule.rates(1.0, 0, 3, total)).all()


@pytest.mark.parametrize(
    ("schedule", "plain"),
    [
        (Step(np.uint8(30), 0.5), Step(30, 0.5)),
        (Cosine(restarts=np.uint8(255)), Cosine(restarts=255)),
        (InverseScaling(np.float32(0.5)), InverseScaling(0.5)),
    ],
    ids=str,
)
def test_small_numpy_numbers_count_like_pythons(schedule: Any, plain: Any) -> None:
    assert schedule.rates(0.1, 0, 1000, 1000).tolist() == plain.rates(0.1, 0, 1000, 1000).tolist()


def test_a_function_must_give_rates_that_are_numbers() -> None:
    with pytest.raises(TypeError, match="SGD: learning_rate must return numbers, got None at step 2"):
        SGD(lambda step: None if step == 2 else 0.1).rates(0, 4, 4)


def test_a_power_beyond_every_float_leaves_a_rate_of_zero() -> None:
    assert InverseScaling(1e6).rates(0.1, 0, 3, 3).tolist() == [0.1, 0.0, 0.0]


def test_reduce_on_plateau() -> None:
    plateau = ReduceOnPlateau(0.5, patience=2, min_delta=0.1, lowest=0.2, learning_rate=4.0)
    factors = [plateau.observe(loss) for loss in (1.0, 0.95, math.nan, 0.92, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7, 0.7)]
    assert factors == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.2]
    assert plateau.rates(1.0, 5, 2, 100).tolist() == [0.8, 0.8]
    plateau.reset()
    assert plateau.observe(9.0) == 1 and plateau.rates(1.0, 0, 1, 9).tolist() == [4]
    rising = ReduceOnPlateau(0.5, patience=0, mode="max")
    assert [rising.observe(score) for score in (0.5, 0.6, 0.6, 0.7)] == [1, 1, 0.5, 0.5]
    assert schedules.get("reduce_on_plateau") is not schedules.get("reduce_on_plateau")


# ---- initializers ----------------------------------------------------------------------------------------------------

VARIANCE = {
    "glorot_uniform": 2 / 500,
    "glorot_normal": 2 / 500,
    "he_uniform": 2 / 200,
    "he_normal": 2 / 200,
    "lecun_uniform": 1 / 200,
    "lecun_normal": 1 / 200,
}


@pytest.mark.parametrize("name", VARIANCE)
def test_variance_of_initial_weights(name: str) -> None:
    w = initializers.get(name)(np.random.default_rng(3), 200, 300)
    assert w.shape == (200, 300) and w.dtype == np.float64
    assert abs(w.mean()) < 5 * math.sqrt(VARIANCE[name] / w.size)
    assert w.var() == pytest.approx(VARIANCE[name], rel=0.03)
    limit = math.sqrt(3 * VARIANCE[name])
    assert (0.999 * limit < np.abs(w).max() <= limit) == name.endswith("uniform")
    again = initializers.get(name)(np.random.default_rng(3), 200, 300)
    pieces = np.zeros((200, 300))
    initializers.fill(initializers.get(name), np.random.default_rng(3), pieces)  # in several of them
    np.testing.assert_array_equal(pieces, w)
    np.testing.assert_array_equal(w, again)


@pytest.mark.parametrize("shape", [(5, 5), (8, 3), (3, 8)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    w = initializers.orthogonal(np.random.default_rng(3), *shape)
    product = w.T @ w if shape[0] >= shape[1] else w @ w.T
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=1e-14)


def test_orthogonal_is_drawn_evenly() -> None:
    """LAPACK's own signs would make the first diagonal element negative every time."""
    diagonal = [initializers.orthogonal(np.random.default_rng(k), 3, 3)[0, 0] for k in range(40)]
    assert 8 < np.count_nonzero(np.array(diagonal) > 0) < 32


def test_plain_initializers_and_look_up() -> None:
    rng = np.random.default_rng()
    assert not initializers.get("zeros")(rng, 2, 3).any()
    half = pickle.loads(pickle.dumps(initializers.constant(0.5)))
    assert half(rng, 2, 3).tolist() == [[0.5] * 3] * 2
    assert initializers.get(half) is half
    with pytest.raises(ValueError, match=r"unknown initializer 'ones'; known: glorot_normal, .*, zeros"):
        initializers.get("ones")
    with pytest.raises(TypeError, match="initializer must be a name or a function"):
        initializers.get(0.5)
    with pytest.raises(TypeError, match=r"constant: value must be a number in .*, got '1'"):
        initializers.constant("1")
    with pytest.raises(ValueError, match=r"constant: value must be a number in .*, got nan"):
        initializers.constant(math.nan)
