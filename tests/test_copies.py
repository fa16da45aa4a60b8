"""Copies and pickles are complete: original and copy train on as the original would have alone."""

import copy
import pickle

import numpy as np
import pytest

import fastmlp
from fastmlp import (
    MLP,
    SGD,
    Adam,
    AdamW,
    DivergenceError,
    History,
    LockStepError,
    Trainer,
    metrics,
    schedules,
)
from fastmlp.memory import ALIGNMENT

WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.fixture(params=WAYS)
def copied(request):
    return WAYS[request.param]


@pytest.fixture
def data(rng):
    return rng.standard_normal((50, 5)), rng.integers(0, 3, 50)


# ---- small things ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*WAYS.values(), copy.copy, lambda error: pickle.loads(pickle.dumps(error, 0))])
def test_a_pickled_divergence_error_is_complete(way):
    history = History()
    history.extend(2, loss=np.array([2.0, 1.0]))
    error = DivergenceError("the loss became nan", 3, 7, history)
    error.add_note("in batch 6")
    found = way(error)
    assert type(found) is DivergenceError and str(found) == "the loss became nan"
    assert (found.epoch, found.step, found.history.loss) == (3, 7, [2.0, 1.0])
    assert type(found.history) is History and found.__notes__ == ["in batch 6"]


def test_other_errors_are_copied(copied):
    assert str(copied(LockStepError("step 0, op 1"))) == "step 0, op 1"


def share_of_ones(y, prediction, sample_weight=None):
    return np.average(prediction, weights=sample_weight)


def test_a_metric_made_of_a_function_is_copied_as_the_function_is(copied):
    found = copied(metrics.get(share_of_ones))
    assert found == metrics.get(share_of_ones) and found.name == "share_of_ones"
    assert found.function(np.zeros(2), np.array([0.0, 1.0]), np.array([1.0, 3.0])) == 0.75


PUBLIC = {
    **{
        f"callbacks.{name}": make
        for name, make in {
            "LambdaCallback": lambda: fastmlp.callbacks.LambdaCallback(on_epoch_end=print),
            "LearningRateLogger": fastmlp.callbacks.LearningRateLogger,
            "CSVLogger": lambda: fastmlp.callbacks.CSVLogger("log.csv"),
            "JSONLinesLogger": lambda: fastmlp.callbacks.JSONLinesLogger("log.jsonl"),
        }.items()
    },
    "EarlyStopping": lambda: fastmlp.EarlyStopping(monitor=share_of_ones, mode="max"),
    "initializer": lambda: fastmlp.initializers.constant(0.5),
    "ReduceOnPlateau": lambda: fastmlp.schedules.ReduceOnPlateau(0.5),
    "CrossEntropy": lambda: fastmlp.losses.CrossEntropy(class_weight={0: 2.0}),
    "report": lambda: fastmlp.diagnose(fastmlp.MLP([2, 1], loss="mse"), np.eye(2), np.ones(2)),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_objects_are_copied(name, copied):
    thing = PUBLIC[name]()
    found = copied(thing)
    assert type(found) is type(thing) and repr(found).split(" at ")[0] == repr(thing).split(" at ")[0]
    assert set(getattr(found, "__dict__", ())) == set(getattr(thing, "__dict__", ()))


# ---- networks --------------------------------------------------------------------------------------------------------


class Tagged(MLP):
    """A network whose constructor has other arguments than that of MLP."""

    def __init__(self, tag, *, width):
        self.tag = tag
        super().__init__([5, width, 3], "tanh", seed=4)
        self.width = width


@pytest.mark.parametrize("way", [*WAYS.values(), copy.copy])
def test_a_subclass_with_arguments_of_its_own_is_copied(way, data):
    net = Tagged("first", width=6)
    net.fit(*data, epochs=1)
    twin = way(net)
    assert type(twin) is Tagged and (twin.tag, twin.width) == ("first", 6)
    net.fit(*data, epochs=1), twin.fit(*data, epochs=1)
    assert net.parameters.tobytes() == twin.parameters.tobytes()


def test_a_subclass_with_arguments_of_its_own_has_float64_copies(data):
    assert Tagged("first", width=6).check_gradients(*data) < 1e-5


def test_a_subclass_with_arguments_of_its_own_is_trained_by_lbfgs(data):
    pytest.importorskip("scipy")
    history = Tagged("first", width=6).fit(*data, optimizer="lbfgs", epochs=5)
    assert history.loss[-1] < history.loss[0]


def test_attributes_that_users_set_are_copied(copied):
    net = MLP([5, 3])
    net.names, net.of = ["a", "b"], {"rows": np.arange(3)}
    twin = copied(net)
    assert twin.names == ["a", "b"] and twin.names is not net.names
    assert np.array_equal(twin.of["rows"], np.arange(3)) and twin.of["rows"] is not net.of["rows"]
    assert copy.copy(net).names is net.names


def test_a_network_that_knows_its_trainer_is_copied_with_it(copied, data):
    net = MLP([5, 4, 3], seed=1)
    net.trainer = Trainer(net, Adam(0.1), average=0.9, accumulate=2)
    net.trainer.fit(*data, epochs=1)
    twin = copied(net)
    assert twin.trainer.net is twin is not net
    net.trainer.fit(*data, epochs=1), twin.trainer.fit(*data, epochs=1)
    assert bits(net.trainer) == bits(twin.trainer)


# ---- trainers --------------------------------------------------------------------------------------------------------

TRAINERS = {
    "sgd": (SGD(0.1), {}),
    "momentum": (SGD(0.1, momentum=0.9), {}),
    "adam": (Adam(0.01), {}),
    "clipped": (AdamW(0.01, clip_norm=0.1), {"accumulate": 2}),
    "accumulate": (Adam(0.01), {"accumulate": 3}),
    "average": (Adam(0.01), {"average": 0.9}),
    "average of sums": (SGD(0.1, momentum=0.9), {"average": 0.9, "accumulate": 3}),
    "dropout": (SGD(0.1), {"dropout": 0.3, "input_dropout": 0.1}),
    "class_weight": (SGD(0.1), {"class_weight": "balanced"}),
    "schedule": (SGD(schedules.Cosine(learning_rate=0.1)), {"total_steps": 30}),
    "plateau": (SGD(schedules.ReduceOnPlateau(0.5, patience=0, min_delta=1.0, learning_rate=0.1)), {}),
}


def trainer_of(name, **settings):
    optimizer, options = TRAINERS[name]
    net = MLP([5, 9, 3], "tanh", **{"seed": 3, "standardize": "mean", "dtype": "float64", **settings})
    net.learn_scaling(np.random.default_rng(0).standard_normal((20, 5)))
    return Trainer(net, optimizer, **options)


def steps(trainer, data, n):
    if trainer.options.class_weight == "balanced":  # which single steps refuse
        trainer.fit(*data, epochs=n, batch_size=None)
        return
    for i in range(n):
        trainer.step(*(array[10 * i : 10 * i + 10] for array in data))


BEFORE = {
    "nothing": lambda trainer, data: None,
    "a fit": lambda trainer, data: trainer.fit(*data, epochs=2, batch_size=16),
    "a fit that shows the raw weights": lambda trainer, data: trainer.fit(*data, epochs=2, use_average=False),
    "a step": lambda trainer, data: steps(trainer, data, 1),
    "three steps": lambda trainer, data: steps(trainer, data, 3),
    "four steps": lambda trainer, data: steps(trainer, data, 4),
    "steps, and the average": lambda trainer, data: (steps(trainer, data, 2), trainer.show_average()),
}
AFTER = {
    "a fit": lambda trainer, data: trainer.fit(*data, epochs=3, batch_size=16),
    "steps": lambda trainer, data: steps(trainer, data, 5),
    "a flush": lambda trainer, data: trainer.flush(),
    "the average": lambda trainer, data: (trainer.show_raw(), trainer.show_average()),
}


def bits(trainer):
    """The state of a training: steps, shuffling, parameters, states of the optimizer."""
    kept = [trainer.net.parameters, *trainer.moving]
    return trainer.steps, str(trainer.net.shuffle_rng.bit_generator.state), [array.tobytes() for array in kept]


@pytest.mark.parametrize("after", AFTER)
@pytest.mark.parametrize("before", BEFORE)
@pytest.mark.parametrize("name", TRAINERS)
def test_a_trainer_and_its_copy_train_to_the_same_bits(name, before, after, copied, data):
    alone, trainer = trainer_of(name), trainer_of(name)
    for each in (alone, trainer):
        BEFORE[before](each, data)
    twin = copied(trainer)
    assert bits(twin) == bits(trainer) == bits(alone)
    AFTER[after](alone, data)
    AFTER[after](twin, data)
    assert bits(twin) == bits(alone)
    AFTER[after](trainer, data)
    assert bits(twin) == bits(trainer)


def test_a_copied_trainer_shares_no_memory(copied, data):
    trainer = trainer_of("average of sums")
    trainer.fit(*data, epochs=1)
    twin = copied(trainer)
    assert twin.net is twin._average.net and twin.net is not trainer.net
    pairs = zip([*trainer.moving, trainer._sum.flat], [*twin.moving, twin._sum.flat], strict=True)
    assert not any(np.shares_memory(a, b) for a, b in pairs)
    for vector in (twin._average, twin._sum):
        assert all(np.shares_memory(matrix, vector.flat) for matrix in vector.matrices)


def test_a_copied_vector_is_aligned(copied, data):
    twin = copied(trainer_of("average"))
    assert all(array.ctypes.data % ALIGNMENT == 0 for array in twin.moving)


def test_a_shallow_copy_of_a_trainer_has_its_own_network(data):
    trainer = trainer_of("average")
    twin = copy.copy(trainer)
    twin.fit(*data, epochs=1)
    assert trainer.steps == 0 and bits(trainer) == bits(trainer_of("average"))


def test_a_network_and_its_trainer_stay_together(copied, data):
    trainer = trainer_of("momentum")
    net, twin = copied((trainer.net, trainer))
    assert twin.net is net
    twin.fit(*data, epochs=1)
    assert not np.array_equal(net.parameters, trainer.net.parameters)


@pytest.mark.parametrize("name", ["adam", "accumulate", "average", "dropout"])
def test_a_trainer_that_is_copied_while_it_trains(name, copied, data):
    kept = []
    keep = fastmlp.callbacks.LambdaCallback(on_epoch_end=lambda state: kept.append(copied(state.trainer)))
    trainer, alone = trainer_of(name), trainer_of(name)
    trainer.fit(*data, epochs=3, callbacks=[keep])
    alone.fit(*data, epochs=3)
    assert bits(trainer) == bits(alone) == bits(kept[-1])
    kept[0].fit(*data, epochs=2)
    assert bits(kept[0]) == bits(alone)


def test_attributes_of_a_trainer_subclass_are_copied(copied, data):
    trainer = Logged(MLP([5, 3]), SGD(0.1))
    trainer.fit(*data, epochs=1)
    assert copied(trainer).notes == ["begun"]


class Logged(Trainer):
    def __init__(self, *args, **settings):
        super().__init__(*args, **settings)
        self.notes = ["begun"]
