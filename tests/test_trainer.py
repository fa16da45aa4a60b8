"""The attributes of a Trainer: which can be assigned, and that a new optimizer is in force at once."""

import numpy as np
import pytest
from trainer_options import network

from fastmlp import SGD, Adam, Trainer, schedules
from fastmlp.callbacks import LambdaCallback


@pytest.mark.parametrize("name", ["net", "options", "states"])
def test_attributes_of_a_trainer_cannot_be_assigned(name):
    trainer, other = Trainer(network(), Adam(0.1)), Trainer(network(), SGD(0.1), dropout=0.5)
    before = getattr(trainer, name)
    with pytest.raises(AttributeError, match=f"^{name} is fixed at construction: create a new Trainer [(]got "):
        setattr(trainer, name, getattr(other, name))
    assert getattr(trainer, name) is before


@pytest.mark.parametrize("wrong", [Adam(0.1), SGD(0.1), "lbfgs"])
def test_an_optimizer_with_other_states_is_refused(data, wrong):
    trainer, plain = (Trainer(network(), SGD(0.1, momentum=0.5)) for _ in range(2))
    trainer.step(*data), plain.step(*data)
    with pytest.raises(AttributeError, match=r"optimizer must have the same .* SGD\(.*, got .*: create a new Trainer"):
        trainer.optimizer = wrong
    trainer.step(*data), plain.step(*data)
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)


def test_a_new_optimizer_applies_at_once(data):
    trainer, plain = (Trainer(network(), SGD(0.1, momentum=momentum)) for momentum in (0.5, 0.9))
    trainer.step(*data)  # from a state of zeros: the momentum has no part in it
    trainer.optimizer = SGD(0.2, momentum=0.9)
    plain.step(*data)
    plain.optimizer = SGD(0.2, momentum=0.9)
    for _ in range(3):
        assert trainer.step(*data) == plain.step(*data)
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_an_optimizer_set_by_a_callback_applies_from_the_next_epoch(data, accumulate):
    def change(state):
        state.trainer.optimizer = SGD(0.05, momentum=0.1)

    first, second = (Trainer(network(), SGD(0.1, momentum=0.9), accumulate=accumulate) for _ in range(2))
    first.fit(*data, epochs=2, shuffle=False, callbacks=[LambdaCallback(on_epoch_end=change)])
    second.fit(*data, epochs=1, shuffle=False)
    second.optimizer = SGD(0.05, momentum=0.1)
    second.fit(*data, epochs=1, shuffle=False)
    assert np.array_equal(first.net.parameters, second.net.parameters)


def test_a_plateau_set_by_a_callback_observes_the_losses(data):
    def change(state):
        if state.epoch == 1:
            state.trainer.optimizer = SGD(schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=1e-30))

    watch = [LambdaCallback(on_epoch_end=change)]
    history = Trainer(network(), SGD(0.1)).fit(*data, epochs=5, batch_size=None, callbacks=watch)
    assert history.learning_rate == [0.1, 1e-30, 1e-30, 0.5e-30, 0.25e-30]


def test_sums_are_flushed_by_another_optimizer(data):
    trainer, plain = (Trainer(network(), SGD(0.1, l2=l2), accumulate=2) for l2 in (0.0, 0.1))
    trainer.step(*data), plain.step(*data)
    trainer.optimizer = SGD(0.1, l2=0.1)
    trainer.flush(), plain.flush()
    assert np.array_equal(trainer.net.parameters, plain.net.parameters)
