"""Epochs are cut into runs, and run in groups, by measured times: no result depends on how."""

import numpy as np
import pytest

from fastmlp import MLP, SGD, Adam, DivergenceError, Trainer, pace, schedules, stepper
from fastmlp.callbacks import LambdaCallback

X, Y = np.random.default_rng(0).standard_normal((40, 6)), np.arange(40) % 3
ALONE = [LambdaCallback(on_epoch_end=lambda state: None)]  # with a callback, groups are of one epoch


def state_of(trainer):
    net = trainer.net
    moving = tuple(array.tobytes() for array in trainer.moving)
    return net.parameters.tobytes(), trainer.steps, str(net.shuffle_rng.bit_generator.state), moving


@pytest.mark.parametrize("steps", [1, 3, 1000])
def test_results_do_not_depend_on_the_length_of_slices(monkeypatch, steps):
    class Fixed(pace.Pace):
        def __init__(self, work):
            self.steps = steps

        def took(self, steps, seconds):
            pass

    def train(**more):
        trainer = Trainer(MLP([6, 5, 3], seed=1), Adam(schedules.Cosine(0.05)), dropout=0.25)
        history = trainer.fit(X, Y, epochs=6, batch_size=16, **more)
        return state_of(trainer), history.loss, history.learning_rate

    expected = train(callbacks=ALONE)
    monkeypatch.setattr(stepper, "Pace", Fixed)
    assert train() == expected
    assert train(callbacks=ALONE) == expected


class Explosion(schedules.Schedule):
    """A rate by which the weights overflow float32 in the fifth step, while the loss is still finite."""

    def factor(self, step, total):
        return 1.0 if step < 4 else 1e45


@pytest.mark.parametrize(
    ("rate", "batch_size", "epoch"), [(0.5, 16, 7), (Explosion(learning_rate=0.01), None, 5)], ids=["loss", "weights"]
)
def test_divergence_does_not_depend_on_groups_of_epochs(rate, batch_size, epoch):
    found = []
    for callbacks in ([], ALONE):
        trainer = Trainer(MLP([6, 5, 3], "identity", "mse", seed=1), SGD(rate, momentum=0.9))
        with pytest.raises(DivergenceError) as caught:
            trainer.fit(X, np.eye(3)[Y], epochs=100, batch_size=batch_size, callbacks=callbacks)
        found.append((state_of(trainer), caught.value.epoch, caught.value.step, caught.value.history.loss))
    assert found[0] == found[1]
    assert found[0][1] == epoch, "the epochs before it are fine"


def test_one_batch_of_everything_is_not_shuffled():
    found = []
    for shuffle in (True, False):
        trainer = Trainer(MLP([6, 5, 3], seed=1), SGD(0.1))
        trainer.fit(X, Y, epochs=3, batch_size=None, shuffle=shuffle)
        found.append(state_of(trainer))
    assert found[0] == found[1]


def test_a_trainer_takes_labels_and_dense_targets_in_turn():
    found = []
    for order in ("labels", "both", "dense"):
        trainer = Trainer(MLP([6, 5, 3], seed=1, dtype="float64"), SGD(0.1, momentum=0.9))
        for y in {"labels": [Y, Y, Y], "both": [Y, np.eye(3)[Y], Y], "dense": [np.eye(3)[Y]] * 3}[order]:
            trainer.fit(X, y, epochs=1, batch_size=16)
        found.append(trainer.net.parameters)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9)


def test_the_pace_is_kept_between_fits(monkeypatch):
    begun = []

    class Counted(pace.Pace):
        def __init__(self, work):
            begun.append(work)
            super().__init__(work)

    monkeypatch.setattr(stepper, "Pace", Counted)
    trainer = Trainer(MLP([6, 5, 3], seed=1), Adam(0.01))
    for _ in range(3):
        trainer.fit(X, Y, epochs=2, batch_size=16)
    assert len(begun) == 1
    trainer.fit(X, Y, epochs=2, batch_size=8)
    assert len(begun) == 2, "other steps, another pace"
