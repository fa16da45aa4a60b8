"""Schedules of the learning rate in a training."""

import numpy as np
import pytest
from trainer_options import network

from fastmlp import SGD, schedules

SCHEDULES = [
    schedules.Constant(),
    schedules.Step(5, 0.5),
    schedules.Exponential(0.95),
    schedules.InverseScaling(),
    schedules.Polynomial(2.0),
    schedules.Cosine(warmup=4, restarts=1),
    schedules.OneCycle(),
    schedules.CosLog4(),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_schedules_know_the_steps_of_the_whole_training(data, schedule):
    history = network().fit(
        *data, epochs=4, batch_size=16, optimizer=SGD(schedule), validation=data
    )  # 4 steps an epoch
    np.testing.assert_array_equal(history.learning_rate, schedule.rates(0.01, 0, 16, 16)[3::4])


def test_a_plateau_belongs_to_its_trainer(data):
    plateau = schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=1e-30)
    optimizer = SGD(plateau)
    for _ in range(2):
        history = network().fit(*data, epochs=4, batch_size=None, optimizer=optimizer)
        np.testing.assert_allclose(np.array(history.learning_rate) / 1e-30, [1, 1, 0.5, 0.25])
    assert plateau.progress.factor == 1
