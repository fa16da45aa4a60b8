"""No reference to the arrays of the caller, or to a result, is kept after a call."""

import gc
import warnings
import weakref

import numpy as np
import pytest

from fastmlp import LBFGS, MLP, SGD, DivergenceError, Trainer

ROWS = 600  # more than the short ways take


class Fails:
    def on_epoch_end(self, state):
        raise RuntimeError("a callback's own")


def fit(**settings):
    return lambda net, trainer, X, y: trainer.fit(X, y, epochs=2, **settings)


def fit_estimator(net, trainer, X, y, **settings):
    from fastmlp.sklearn import MLPClassifier

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator = MLPClassifier((4,), max_iter=2, **settings).fit(X, y)
        estimator.partial_fit(X, y) if not settings else estimator.predict(X)
    return estimator


def fit_minimised(net, trainer, X, y):
    pytest.importorskip("scipy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Trainer(net, LBFGS()).fit(X, y, epochs=2)


CALLS = {
    "predict": lambda net, trainer, X, y: net.predict_proba(X),
    "predict again and again": lambda net, trainer, X, y: [net.predict_proba(X[:n]) for n in (1, 1, 1, 30, ROWS)],
    "evaluate": lambda net, trainer, X, y: net.evaluate(X, y),
    "activations": lambda net, trainer, X, y: net.activations(X),
    "gradients": lambda net, trainer, X, y: net.loss_and_gradients(X, y),
    "check gradients": lambda net, trainer, X, y: net.check_gradients(X[:9], y[:9]),
    "step": lambda net, trainer, X, y: [trainer.step(X, y) for _ in range(3)],
    "fit": fit(),
    "fit in order": fit(shuffle=False),
    "fit on all rows at once": fit(batch_size=None),
    "fit with validation": fit(validation_fraction=0.2),
    "fit with early stopping": fit(validation_fraction=0.2, early_stopping=True),
    "fit on batches": lambda net, trainer, X, y: trainer.fit([(X[:300], y[:300]), (X[300:], y[300:])], epochs=2),
    "fit of an estimator": fit_estimator,
    "fit of an estimator with early stopping": lambda *given: fit_estimator(*given, early_stopping=True),
    "L-BFGS": fit_minimised,
}


@pytest.mark.parametrize("name", CALLS)
def test_arrays_are_freed_after_a_call(name, rng):
    if "estimator" in name:
        pytest.importorskip("sklearn")
    net = MLP([5, 6, 3], seed=0)
    trainer = Trainer(net, SGD(0.1))
    X, y = rng.standard_normal((ROWS, 5), np.float32), rng.integers(0, 3, ROWS)
    held = CALLS[name](net, trainer, X, y)
    answers = [weakref.ref(a) for a in (held if isinstance(held, list) else [held]) if isinstance(a, np.ndarray)]
    given = weakref.ref(X), weakref.ref(y)
    del X, y
    gc.collect()
    assert [ref() is None for ref in given] == [True, True]
    del held
    gc.collect()
    assert all(ref() is None for ref in answers)
    net.predict(np.zeros((ROWS, 5)))  # network and trainer still work
    trainer.fit(np.zeros((9, 5)), np.zeros(9, np.int64), epochs=1)


@pytest.mark.parametrize("error", [RuntimeError, DivergenceError])
def test_arrays_are_freed_after_an_error(error, rng):
    net = MLP([5, 6, 1], seed=0, loss="mse")
    trainer = Trainer(net, SGD(1e30 if error is DivergenceError else 0.1))
    X, y = rng.standard_normal((ROWS, 5), np.float32), rng.standard_normal(ROWS)
    with pytest.raises(error):
        trainer.fit(X, y, epochs=9, callbacks=[Fails()] if error is RuntimeError else [])
    given = weakref.ref(X), weakref.ref(y)
    del X, y
    gc.collect()
    assert [ref() is None for ref in given] == [True, True]
