"""L-BFGS, scipy's on our gradients: the same iterates as scipy on the same function, and when it stops."""

import sys

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, Trainer, lbfgs
from fastmlp.lockstep import LockStepExecutor
from fastmlp.optimizers import LBFGS
from fastmlp.plan import Op

scipy_optimize = pytest.importorskip("scipy.optimize")


@pytest.fixture
def data(rng):
    X = rng.standard_normal((60, 4))
    return X, (X @ rng.standard_normal((4, 3))).argmax(axis=1)


def network(**settings):
    return MLP([4, 6, 3], "tanh", **{"dtype": "float64", "seed": 1, **settings})


def test_a_line_is_fitted_exactly(dtype, rng):
    X = rng.standard_normal((100, 3))
    y = X @ [1.0, -2.0, 0.5] + 3
    net = MLP([3, 1], loss="mse", dtype=dtype)
    history = net.fit(X, y, optimizer="lbfgs", epochs=100)
    np.testing.assert_allclose(net.weights[0][:, 0], [1, -2, 0.5], atol=1e-4)
    np.testing.assert_allclose(net.biases[0], 3, atol=1e-4)
    assert history.loss == sorted(history.loss, reverse=True) and 2 <= history.epochs < 100
    assert all(s > 0 for s in history.seconds)


@pytest.mark.parametrize("bias", [True, False])
def test_the_iterates_are_scipys_on_the_same_function(data, bias):
    X, y = data
    net, other = network(bias=bias), network(bias=bias)
    parameters = [a for w, b in zip(other.weights, other.biases, strict=True) for a in ((w, b) if bias else (w,))]
    weight, l2 = np.linspace(0.5, 2, 60), 0.03

    def function(x):
        start = 0
        for a in parameters:
            a[...] = x[start : start + a.size].reshape(a.shape)
            start += a.size
        loss, pairs = other.loss_and_gradients(X, y, weight)
        g = [(d + l2 * w, db) if bias else (d + l2 * w,) for (d, db), w in zip(pairs, other.weights, strict=True)]
        penalty = l2 / 2 * sum((w**2).sum() for w in other.weights)
        return loss + penalty, np.concatenate([a.ravel() for pair in g for a in pair])

    x0 = np.concatenate([a.ravel() for a in parameters])
    losses = []
    options = {"maxiter": 20, "gtol": 1e-5, "ftol": 0, "maxcor": 5}
    scipy_optimize.minimize(
        function, x0, jac=True, method="L-BFGS-B", options=options, callback=lambda x: losses.append(x)
    )
    history = net.fit(X, y, sample_weight=weight, optimizer=LBFGS(max_iter=20, history=5, l2=l2))
    assert history.epochs == len(losses) == 20
    function(losses[-1])
    np.testing.assert_allclose(net.parameters, other.parameters, rtol=1e-5, atol=1e-7)
    assert history.loss[-1] == pytest.approx(net.evaluate(X, y, weight)["loss"])


def test_rows_in_slices_and_held_out(monkeypatch, data):
    X, y = data
    found = []
    for rows in (4096, 7):
        monkeypatch.setattr(lbfgs, "SLICE_ROWS", rows)
        net = network(standardize="mean")
        history = net.fit(
            X, y, sample_weight=np.arange(60) % 3, validation=np.arange(20), class_weight="balanced", optimizer="lbfgs"
        )
        assert history.epochs == 10 == len(history.val_loss)
        found.append(net.parameters)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-5, atol=1e-8)


def test_one_plan_serves_all_evaluations(monkeypatch, data):
    built, build = [], lbfgs.gradient_plan
    monkeypatch.setattr(lbfgs, "gradient_plan", lambda *args, **more: built.append(1) or build(*args, **more))
    history = network().fit(*data, optimizer="lbfgs", epochs=15)
    assert history.epochs == 15 and len(built) == 1


def test_lock_step_and_threads(monkeypatch, target, data):
    monkeypatch.setenv("FASTMLP_TARGET", target)
    monkeypatch.setattr(Op, "flops", property(lambda op: 1e12))
    found = set()
    for threads in (1, 2, 3):
        fastmlp.set_num_threads(threads)
        net = network(dtype="float32", standardize="robust", backend="engine")
        history = net.fit(*data, optimizer=LBFGS(l2=0.01), epochs=8)
        found.add((net.parameters.tobytes(), str(history.loss)))
    assert len(found) == 1
    monkeypatch.setenv("FASTMLP_CHECK", "1")
    objective = []
    make = lbfgs.DataObjective
    monkeypatch.setattr(lbfgs, "DataObjective", lambda *args: objective.append(make(*args)) or objective[0])
    network(dtype="float32", standardize="robust", backend="engine").fit(*data, optimizer="lbfgs", epochs=8)
    assert isinstance(objective[0].runner, LockStepExecutor)


class Stopper:
    def __init__(self, at, error=None):
        self.at, self.error, self.ends = at, error, 0

    def on_epoch_end(self, state):
        self.parameters = state.net.parameters.copy()
        if state.epoch == self.at and self.error:
            raise self.error
        return state.epoch == self.at

    def on_train_end(self, state):
        self.ends += 1


def test_callbacks_stop_it_and_ctrl_c_keeps_the_last_iterate(data):
    stopper = Stopper(4)
    net = network()
    history = net.fit(*data, optimizer="lbfgs", epochs=50, callbacks=[stopper])
    assert history.epochs == 4 and stopper.ends == 1
    stopper = Stopper(3, KeyboardInterrupt())
    net = network()
    with pytest.raises(KeyboardInterrupt):
        net.fit(*data, optimizer="lbfgs", epochs=50, callbacks=[stopper])
    assert np.array_equal(net.parameters, stopper.parameters) and stopper.ends == 1
    assert not np.array_equal(net.parameters, network().parameters)


@pytest.mark.parametrize("where", ["callback", "metric"])
def test_stop_iteration_reaches_the_caller(data, where):
    def empty(*given):
        return next(iter([]))

    stopper = Stopper(1, StopIteration()) if where == "callback" else Stopper(9)
    more = {} if where == "callback" else {"validation": data, "metrics": [empty]}
    with pytest.raises(StopIteration):
        network().fit(*data, optimizer="lbfgs", callbacks=[stopper], **more)
    assert stopper.ends == 1


def test_early_stopping_restores_the_best(rng, data):
    held = data[0], rng.permutation(data[1])
    stop = fastmlp.EarlyStopping(patience=3)
    net = network()
    history = net.fit(*data, optimizer="lbfgs", epochs=200, validation=held, early_stopping=stop)
    assert history.epochs == stop.stopped_epoch < 200
    assert net.evaluate(*held)["loss"] == min(history.val_loss) == history.val_loss[stop.best_epoch - 1]


def test_a_second_fit_continues_and_ends_by_tolerance(data):
    net = network()
    first = net.fit(*data, optimizer="lbfgs", epochs=5)
    second = net.fit(*data, optimizer="lbfgs", epochs=5)
    assert second.loss[0] < first.loss[-1]
    assert network().fit(*data, optimizer=LBFGS(tol=10.0), epochs=5).epochs == 0
    trainer = Trainer(network(), LBFGS(max_iter=3))
    assert trainer.fit(*data, epochs=50).epochs == 3
    assert trainer.fit(*data, epochs=50).epochs == 3


@pytest.mark.parametrize("validated", [False, True])
def test_a_converged_network_reports_its_initial_loss(data, validated):
    trainer, stopper = Trainer(network(), LBFGS(tol=10.0, l2=0.1)), Stopper(1)
    before = trainer.net.parameters.copy()
    history = trainer.fit(*data, callbacks=[stopper], **({"validation": data} if validated else {}))
    expected = trainer.net.evaluate(*data)
    assert history.loss == [pytest.approx(expected["loss"])]
    assert history.get("val_loss", []) == [expected["loss"]] * validated
    assert np.array_equal(trainer.net.parameters, before)
    assert (history.epochs, history.seconds, trainer.steps, stopper.ends) == (0, [], 0, 1)
    assert not hasattr(stopper, "parameters")


def test_without_scipy_the_error_says_what_to_install(monkeypatch, data):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    net = network()
    with pytest.raises(ImportError, match=r"pip install 'fastmlp\[lbfgs\]'"):
        net.fit(*data, optimizer="lbfgs")
    net.fit(*data, epochs=1)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (LBFGS(max_iter=0), "LBFGS: max_iter must be a whole number in"),
        (LBFGS(tol=-1.0), "LBFGS: tol must be"),
        (LBFGS(history=0), "LBFGS: history must be"),
        (LBFGS(max_fun=0), "LBFGS: max_fun must be"),
        (LBFGS(l2=-1.0), "LBFGS: l2 must be"),
    ],
    ids=str,
)
def test_bad_settings_are_refused(data, optimizer, message):
    with pytest.raises(ValueError, match=message):
        network().fit(*data, optimizer=optimizer)


def test_options_of_steps_are_refused(data):
    for options in ({"dropout": 0.1}, {"accumulate": 2}, {"average": 0.9}, {"lr_factors": [1, 1]}, {"max_norm": 1.0}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be .* with L-BFGS"):
            network().fit(*data, optimizer="lbfgs", **options)
    for call in (
        lambda: Trainer(network(), "lbfgs").step(*data),
        lambda: network().fit([data], optimizer="lbfgs"),
        lambda: network().plan(optimizer="lbfgs"),
    ):
        with pytest.raises(TypeError, match="L-BFGS takes all data at once"):
            call()
    with pytest.raises(TypeError):
        LBFGS(learning_rate=0.1)
