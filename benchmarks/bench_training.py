"""Whole training steps of the table's networks, in process: by network, threads and target; the loss is checked first.

`test_step` takes many steps a call, as `Trainer.fit` does; `test_single_step` is a loop over `Trainer.step`.

    python -m pytest benchmarks/bench_training.py -k "mnist-512 and avx2"
"""

import cases
import numpy as np
import pytest

import fastmlp

TURN = 0.03  # seconds of a round
CALLS = 200  # of a round, where each step is a call
TRAINED = [case for case in cases.CASES if case.batch]


def trainer_for(case, backend=None):
    """A trainer at the case's initial weights."""
    net = fastmlp.MLP(
        case.sizes, case.activation, case.loss, weights=cases.initial_weights(case), dtype=case.dtype, backend=backend
    )
    sgd = fastmlp.SGD(case.rate, momentum=cases.MOMENTUM)
    optimizer = fastmlp.Adam(case.rate) if case.optimizer == "adam" else sgd
    return fastmlp.Trainer(net, optimizer, **({"dropout": case.dropout} if case.dropout else {}))


def check(case, X, y):
    """A few steps give the reference's losses."""
    rows = min(len(X), 3 * case.batch)
    losses = []
    for backend in ("engine", "reference"):
        history = trainer_for(case, backend).fit(X[:rows], y[:rows], epochs=2, batch_size=case.batch, shuffle=False)
        losses.append(history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", TRAINED, ids=lambda case: case.name)
def test_step(timed, target, case, threads):
    X, y = cases.data(case)
    check(case, X, y)
    fastmlp.set_num_threads(threads)
    try:
        trainer = trainer_for(case)
        epochs = max(1, int(TURN / (case.steps * (case.flops / 50e9 + 1e-6))))
        settings = {"epochs": epochs, "batch_size": case.batch}
        repeats, rounds = epochs * case.steps, 7 if case.flops * case.steps > 1e10 else 15
        timed(lambda: trainer.fit(X, y, **settings), case.flops, case.dtype, threads, rounds, repeats)
    finally:
        fastmlp.set_num_threads(None)


@pytest.mark.parametrize("case", [case for case in TRAINED if case.flops < 1e8], ids=lambda case: case.name)
def test_single_step(timed, target, case):
    X, y = cases.data(case)
    check(case, X, y)
    fastmlp.set_num_threads(1)
    try:
        trainer, X, y = trainer_for(case), X[: case.batch], y[: case.batch]

        def calls():
            for _ in range(CALLS):
                trainer.step(X, y)

        timed(calls, case.flops, case.dtype, repeats=CALLS)
    finally:
        fastmlp.set_num_threads(None)
