"""Random networks, data and options: the same bits however they are run, and every op agrees with the reference.

The suite tries the same ones every time. To search for others:

    pytest tests/test_random_trainings.py --hypothesis-profile=search -s --hypothesis-verbosity=verbose

which prints each before it runs, so that one that crashes the interpreter is known.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from conftest import engine_on, needs_engine
from hypothesis import assume, given
from hypothesis import strategies as st
from layouts import LAYOUTS
from test_lockstep import ACTIVATIONS, OPTIMIZERS

import fastmlp
from fastmlp import MLP, DivergenceError, Trainer

pytestmark = [needs_engine, pytest.mark.filterwarnings("ignore:every column of X is constant")]  # of a single row

FMA_TARGETS = [name for name in fastmlp.targets() if name != "generic"]  # generic rounds twice: its bits are its own
SOURCES = ["float32", "float64", "uint8", "int16"]
STEPS = 4


@dataclass(frozen=True)
class Training:
    """A network, its data (from a seed) and how it learns."""

    network: dict[str, Any]
    optimizer: Any
    options: dict[str, Any]
    rows: int
    batch: int
    source: str
    layout: str
    shuffled: bool
    weighted: bool
    seed: int

    def data(self):
        """X as it is laid out, y, and the weights of rows or None."""
        rng, sizes, loss = np.random.default_rng(self.seed), self.network["sizes"], self.network["loss"]
        X = rng.standard_normal((self.rows, sizes[0]))
        X = (X if "float" in self.source else (20 * X + 100).clip(0, 255)).astype(self.source)
        if loss == "cross_entropy":
            y = rng.integers(0, sizes[-1], self.rows)
        else:  # valid for every other loss
            y = rng.integers(0, 2, (self.rows, sizes[-1])).astype(float)
        weight = rng.uniform(0.1, 2, self.rows) if self.weighted else None
        return LAYOUTS[self.layout][0](X), y, weight

    def trainer(self, X):
        net = MLP(**self.network)
        if net.needs_scaling():
            net.learn_scaling(X)
        return Trainer(net, self.optimizer, **self.options)


@dataclass(frozen=True)
class Way:
    """How a training is run, on which its bits must not depend."""

    workers: int
    target: str
    far_apart: bool | None = None
    uneven: bool = False


@st.composite
def trainings(draw, widest=700, most_rows=700):
    width = st.integers(1, 20) | st.integers(1, widest) | st.integers(widest // 4, widest)
    hidden = draw(st.lists(width, max_size=3))
    chosen = st.sampled_from(ACTIVATIONS)
    loss = draw(st.sampled_from(["cross_entropy", "binary_cross_entropy", "mse", "mae", "huber", "poisson"]))
    outputs = draw(st.integers(2 if loss == "cross_entropy" else 1, 70))
    source = draw(st.sampled_from(SOURCES))
    network = {
        "sizes": [draw(width), *hidden, outputs],
        "activation": draw(st.lists(chosen, min_size=len(hidden), max_size=len(hidden))) or "relu",
        "loss": loss,
        "dtype": draw(st.sampled_from(["float32", "float64"])),
        "bias": draw(st.booleans()),
        "standardize": draw(st.sampled_from([None, None, "mean", "robust"] if "float" in source else ["mean"])),
        "seed": draw(st.integers(0, 99)),
    }
    options = {
        "dropout": st.sampled_from([0.1, 0.5]) if hidden else st.just(0),
        "input_dropout": st.just(0.2),
        "max_norm": st.just(1),
        "average": st.just(0.9),
        "accumulate": st.just(2),
    }
    options = draw(st.just({}) | st.fixed_dictionaries({}, optional=options))  # most of them unfuse updates
    rows = draw(st.integers(1, 40) | st.integers(most_rows // 4, most_rows))
    return Training(
        network,
        draw(st.sampled_from(list(OPTIMIZERS.values()))),
        options,
        rows,
        batch=draw(st.sampled_from([1, 16, 32, 64, 100, 128]) | st.integers(1, most_rows) | st.just(most_rows)),
        source=source,
        layout=draw(st.sampled_from(list(LAYOUTS))),
        shuffled=draw(st.booleans()),
        weighted=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )


def ways():
    far_apart = st.sampled_from([None, False, True])
    return st.builds(Way, st.integers(1, 5), st.sampled_from(FMA_TARGETS), far_apart, st.booleans())


def outputs(net, X):
    with np.errstate(over="ignore"):  # exp of what diverges
        return net._outputs(X)


def bits(training, way):
    """Parameters, states, losses and predictions after a few steps."""
    fastmlp.set_num_threads(way.workers)
    X, y, weight = training.data()
    trainer = training.trainer(X)
    net, batch = trainer.net, min(training.batch, training.rows)
    X, y = net.check_data(X, y)
    plan = trainer.plan_for(batch, y.ndim == 1)
    plan.work = max(plan.work, 1e12)  # however little, it is shared
    runner = engine_on(plan, X, net.plan_targets(y))
    assert getattr(runner, "engine", runner).target == way.target
    rng = np.random.default_rng(training.seed)
    order = rng.permutation(training.rows) if training.shuffled else None
    steps = min(STEPS, -(-training.rows // batch))
    offsets, losses = np.minimum(np.arange(steps + 1) * batch, training.rows), []
    for first in (0, steps):  # the second run has other shares
        if way.uneven:
            runner.shares = tuple([*share] for share in rng.dirichlet(np.ones(way.workers), 2))
        how = {"weight": weight, "first_number": first, "n_threads": way.workers, "far_apart": way.far_apart}
        losses.append(runner.run(order, offsets, np.full(steps, 1e-3), **how))
    found = [net.parameters, *trainer.states, *losses, outputs(net, X)]
    assume(all(np.isfinite(array).all() for array in found))  # bits after a divergence are not promised
    return [array.tobytes() for array in found]


@given(trainings(), st.lists(ways(), min_size=1, max_size=2))
def test_bits_do_not_depend_on_workers_shares_or_targets(training, others):
    best = FMA_TARGETS[0]
    found = {}
    for way in (Way(1, best), Way(2, best), Way(2, best, far_apart=True), *others):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FASTMLP_TARGET", way.target)
            found[way] = bits(training, way)
    assert [way for way in found if found[way] != found[Way(1, best)]] == []


@given(trainings(widest=200, most_rows=200), st.sampled_from(fastmlp.targets()), st.integers(1, 3))
def test_every_op_has_the_results_of_the_reference(training, target, workers):
    X, y, weight = training.data()
    fastmlp.set_num_threads(workers)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTMLP_TARGET", target)
        patch.setenv("FASTMLP_CHECK", "1")  # raises LockStepError where they differ
        trainer = training.trainer(X)
        data = {"batch_size": training.batch, "shuffle": training.shuffled, "sample_weight": weight}
        with suppress(DivergenceError):  # until then every op was compared
            trainer.fit(X, y, epochs=1, **data)
        assert outputs(trainer.net, X).shape == (training.rows, training.network["sizes"][-1])


@given(trainings(), st.lists(st.integers(1, 699), max_size=4), st.integers(1, 3))
def test_predictions_do_not_depend_on_their_batches(training, cuts, workers):
    X, _, _ = training.data()
    net = training.trainer(X).net
    fastmlp.set_num_threads(1)
    whole = outputs(net, X)
    fastmlp.set_num_threads(workers)
    parts = [part for part in np.split(X, sorted(cuts)) if len(part)]
    assert np.concatenate([outputs(net, part) for part in parts]).tobytes() == whole.tobytes()
