"""Dropout of inputs and of hidden units: its masks, its mean, its gradients."""

import copy
import itertools

import numpy as np
import pytest
from trainer_options import flat, network

from fastmlp import MLP, SGD, Trainer


def test_masks_differ_in_every_step_and_come_from_the_seed(data):
    def step_losses(seed=3, dropout=0.5, **more):
        trainer = Trainer(network(seed=seed, weights=weights), SGD(1e-30), dropout=dropout, **more)
        return [trainer.step(*data) for _ in range(4)]

    weights = network().__getstate__()["weights"]
    found = step_losses()
    assert len(set(found)) == 4
    assert found == step_losses()
    assert not set(found) & set(step_losses(seed=4))
    assert step_losses(dropout=0.0) == pytest.approx([network().evaluate(*data)["loss"]] * 4, rel=1e-12)
    assert len(set(step_losses(dropout=0.0, input_dropout=0.5))) == 4


def test_layers_of_the_same_width_have_masks_of_their_own(rng):
    net = MLP([8, 8, 8, 1], "identity", "mse", dtype="float64")
    trainer = Trainer(net, SGD(1e-30), dropout=0.5, input_dropout=0.5)
    trainer.step(np.ones((20, 8)), np.ones(20))
    (runner,) = trainer._plans.values()
    masks = [op.y != 0 for op in runner.plan.ops if op.opcode == "dropout" and op.x is not op.y]
    assert len(masks) == 3 and not any(np.array_equal(a, b) for a, b in itertools.combinations(masks, 2))


def test_a_second_fit_draws_other_masks(data):
    net = network()
    before = net.__getstate__()["weights"]
    losses_of_fits = []
    for _ in range(2):
        net.set_weights(before)
        losses_of_fits.append(net.fit(*data, epochs=1, batch_size=None, optimizer=SGD(1e-30), dropout=0.5).loss[0])
    assert losses_of_fits[0] != losses_of_fits[1]


def test_dropout_keeps_the_mean_and_is_off_in_predictions(rng):
    net = MLP([2000, 1], loss="mse", weights=[(np.ones((2000, 1)), [0.0])], dtype="float64")
    X = np.ones((1, 2000))
    trainer = Trainer(net, SGD(1e-30), input_dropout=0.25)
    outputs = [2000 - np.sqrt(trainer.step(X, [2000.0])) for _ in range(2)]
    outputs += [2000 + np.sqrt(trainer.step(X, [2000.0])) for _ in range(2)]
    assert all(abs(out - 2000) < 5 * np.sqrt(2000 / 3) and out != 2000 for out in outputs)
    assert net.predict(X) == 2000


@pytest.mark.parametrize("backend", ["engine", "reference"])
@pytest.mark.parametrize("options", [{"dropout": [0.4, 0.3]}, {"input_dropout": 0.5}])
def test_gradients_go_through_the_masks_of_the_same_step(data, options, backend):
    X, y = (a[:6] for a in data)
    net = network(backend=backend)

    def first_step(parameters, rate):
        twin = copy.deepcopy(net)  # and with it the key of the masks
        twin.parameters[:] = parameters
        return Trainer(twin, SGD(rate), **options).step(X, y), twin.parameters

    start = flat(net)
    gradient = start - first_step(start, 1.0)[1]
    plain = start - (lambda twin: (Trainer(twin, SGD(1.0)).step(X, y), twin.parameters)[1])(copy.deepcopy(net))
    assert np.abs(gradient - plain).max() > 1e-3
    for i in net.layout.places()[::7]:
        moved = [start.copy(), start.copy()]
        moved[0][i] += 1e-5
        moved[1][i] -= 1e-5
        numerical = (first_step(moved[0], 1e-30)[0] - first_step(moved[1], 1e-30)[0]) / 2e-5
        assert gradient[i] == pytest.approx(numerical, rel=1e-6, abs=1e-9)
