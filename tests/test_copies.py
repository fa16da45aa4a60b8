"""Copies and pickles: all of it comes along, and both go on as one would have alone."""

import copy
import pickle

import numpy as np
import pytest

import fastmlp
from fastmlp import DivergenceError, History, LockStepError, metrics

WAYS = {"deepcopy": copy.deepcopy, "pickle": lambda thing: pickle.loads(pickle.dumps(thing))}


@pytest.fixture(params=WAYS)
def copied(request):
    return WAYS[request.param]


# ---- small things ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [*WAYS.values(), copy.copy, lambda error: pickle.loads(pickle.dumps(error, 0))])
def test_a_divergence_comes_out_of_another_process_with_all_it_knows(way):
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
def test_what_the_user_holds_is_copied(name, copied):
    thing = PUBLIC[name]()
    found = copied(thing)
    assert type(found) is type(thing) and repr(found).split(" at ")[0] == repr(thing).split(" at ")[0]
    assert set(getattr(found, "__dict__", ())) == set(getattr(thing, "__dict__", ()))
