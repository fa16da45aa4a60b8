"""The loop over epochs: slices, Ctrl-C, the numbers it reports, schedules that listen."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, Trainer, epochs, pace, schedules, snapshot
from fastmlp.callbacks import LambdaCallback
from fastmlp.interrupts import WholeSteps

X, Y = fastmlp.datasets.spirals(60, seed=0)


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------

INTERRUPTED = """
    import sys, time
    import numpy as np
    import fastmlp

    rng = np.random.default_rng(0)
    X, y = rng.random(({rows}, {inputs}), np.float32), rng.integers(0, 2, {rows})
    net = fastmlp.MLP([{inputs}, {width}, {width}, 2])
    start = net.parameters.copy()
    ends = []
    watch = [fastmlp.callbacks.LambdaCallback(on_train_end=ends.append)] if {watched} else []
    print("ready", flush=True)
    trainer = fastmlp.Trainer(net, fastmlp.SGD(1e-3))
    try:
        trainer.fit(X, y, epochs=10**8, batch_size=None, callbacks=watch, validation={validation})
    except KeyboardInterrupt as error:
        print(time.time(), flush=True)
        assert [state.error for state in ends] == [error] * {watched}
    assert np.isfinite(net.parameters).all() and not np.array_equal(net.parameters, start)
    twin = fastmlp.MLP([{inputs}, {width}, {width}, 2])
    twin.fit(X, y, epochs=trainer.steps, batch_size=None, optimizer=fastmlp.SGD(1e-3))
    assert twin.parameters.tobytes() == net.parameters.tobytes(), "not what so many whole steps give"
    trainer.fit(X, y, epochs=1)
"""
SMALL = {"rows": 4, "inputs": 2, "width": 4}
LARGE = {"rows": 256, "inputs": 1000, "width": 1000}


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize(("watched", "validation"), [(0, "None"), (1, "(X, y)")])
@pytest.mark.parametrize("size", [SMALL, LARGE], ids=["small", "large"])
def test_an_interrupt_is_prompt_and_leaves_whole_steps(size, watched, validation):
    code = textwrap.dedent(INTERRUPTED.format(**size, watched=watched, validation=validation))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3 if size is SMALL else 1)  # in which a large network makes some steps, even on a busy machine
        sent = time.time()
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, error
    assert float(out) - sent < 2, "0.2 s on an idle machine"


@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"average": 0.9}])
@pytest.mark.parametrize("error", [KeyboardInterrupt, TimeoutError])
def test_an_interrupt_in_a_diverged_epoch_keeps_the_model(monkeypatch, rng, options, error):
    X, y = rng.standard_normal((60, 3)), rng.standard_normal(60)
    net = fastmlp.MLP([3, 8, 1], loss="mse", seed=0)
    rates = [0.01]
    trainer = fastmlp.Trainer(net, fastmlp.SGD(lambda step: rates[-1], momentum=0.9), **options)
    trainer.fit(X, y, epochs=3)
    before, run = net.parameters.copy(), type(trainer)._run

    def interrupted(*args, **kwargs):
        run(*args, **kwargs)
        raise error

    rates.append(1e30)
    monkeypatch.setattr(type(trainer), "_run", interrupted)
    with pytest.raises(error):
        trainer.fit(X, y, epochs=1, batch_size=10)
    monkeypatch.undo()
    assert np.isfinite(net.parameters).all()
    if "average" not in options:  # the network shows the average, from which training continues
        assert net.parameters.tobytes() == before.tobytes()
    rates.append(0.01)
    assert np.isfinite(trainer.fit(X, y, epochs=1).loss[0])


@pytest.mark.parametrize(
    "when",
    [
        {"method": "_first_bad_epoch"},
        {"method": "_raise_divergence"},
        {"restoring": True},
        {"method": "_first_bad_epoch", "restoring": True},
    ],
    ids=str,
)
def test_an_interrupt_while_a_divergence_is_undone_keeps_the_model(monkeypatch, rng, when):
    X, y = rng.standard_normal((60, 3)), rng.standard_normal(60)
    net = MLP([3, 8, 1], loss="mse", seed=0)
    rates = [0.01]
    trainer = Trainer(net, SGD(lambda step: rates[-1], momentum=0.9))
    trainer.fit(X, y, epochs=3)
    before, restore = net.parameters.tobytes(), snapshot.Snapshot.restore

    def interrupted(loop, *args):
        raise KeyboardInterrupt

    def interrupted_restore(kept, vector):
        signal.raise_signal(signal.SIGINT)
        restore(kept, vector)

    rates.append(1e30)
    if "method" in when:
        monkeypatch.setattr(epochs.EpochLoop, when["method"], interrupted)
    if "restoring" in when:
        monkeypatch.setattr(snapshot.Snapshot, "restore", interrupted_restore)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(X, y, epochs=1, batch_size=10)
    monkeypatch.undo()
    assert net.parameters.tobytes() == before and np.isfinite(trainer.states).all()
    rates.append(0.01)
    assert np.isfinite(trainer.fit(X, y, epochs=1).loss[0])


def test_an_interrupt_while_a_snapshot_is_freed_is_raised(monkeypatch):
    class Interrupted(snapshot.Snapshot):
        def __del__(self):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(epochs, "Snapshot", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        MLP([2, 6, 2]).fit(X, Y, epochs=1)


def interrupted_at(line, modules, call):
    """Make the call with Ctrl-C before the given line run in these modules; whether it ran as many lines."""
    left = [line]

    def trace(frame, event, arg):
        if frame.f_globals["__name__"] not in modules:
            return None
        left[0] -= event == "line"
        if left[0] == 0 and event == "line":
            signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return left[0] < 1


def test_an_interrupt_at_any_line_leaves_the_average_in_the_network():
    trainer = Trainer(MLP([2, 6, 2]), SGD(0.1), average=0.9)
    trainer.fit(X, Y, epochs=2, batch_size=None)
    modules = {f"fastmlp.{name}" for name in ("averaging", "interrupts", "stepper")}
    line = 1
    while interrupted_at(line, modules, lambda: trainer.fit(X, Y, epochs=1, batch_size=None)):
        average = trainer.average.copy()
        assert np.array_equal(trainer.net.parameters, average), line
        trainer.show_raw()
        assert np.array_equal(trainer.average, average), line
        trainer.show_average()
        line += 1
    assert line > 50


ANY_TIME = """
    import os, random, signal
    import fastmlp

    X, y = fastmlp.datasets.xor()
    trainer = fastmlp.Trainer(fastmlp.MLP([2, 4, 1], "tanh", "binary_cross_entropy"))
    X, y = X.astype("float32"), y.reshape(-1, 1).astype("float32")
    trainer.step(X, y)
    armed = False

    def late(*args):
        if armed:
            {late}

    signal.signal(signal.SIGALRM, late)
    for _ in range(1000):
        try:
            armed = True
            signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 4e-4), 0.01)  # again, where NumPy drops the error
            while True:
                trainer.step(X, y)
        except (KeyboardInterrupt, TimeoutError):
            armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)
    trainer.step(X, y)
    try:
        os.kill(os.getpid(), signal.SIGINT)
    except KeyboardInterrupt:
        print("heard")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("late", ["os.kill(os.getpid(), signal.SIGINT)", "raise TimeoutError"])
def test_signals_during_steps_leave_the_network_trainable(late):
    code = textwrap.dedent(ANY_TIME.format(late=late))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr


def test_a_signal_handler_left_behind_restores_the_previous_one():
    heard = []
    before = signal.signal(signal.SIGINT, lambda *given: heard.append(given))

    def enter_alone():
        WholeSteps().__enter__()  # an exception of another signal's handler came before its end

    try:
        enter_alone()
        with WholeSteps():
            os.kill(os.getpid(), signal.SIGINT)
            assert not heard
        assert len(heard) == 1
        enter_alone()
        os.kill(os.getpid(), signal.SIGINT)
        assert len(heard) == 2
    finally:
        signal.signal(signal.SIGINT, before)


# ---- slices ----------------------------------------------------------------------------------------------------------


def slices_of(work, seconds_a_step, calls=12):
    found, p = [], pace.Pace(work)
    for _ in range(calls):
        found.append(p.steps)
        p.took(p.steps, p.steps * seconds_a_step)
    return found


@pytest.mark.parametrize("work", [1.0, 1e3, 1e6, 1e8, 1e10])
@pytest.mark.parametrize("flops", [1e9, 1e10, 1e11])
def test_slices_grow_to_fifty_milliseconds(work, flops):
    seconds = max(work / flops, 2e-7)  # a step
    found = slices_of(work, seconds)
    assert found[0] * seconds <= max(pace.SLICE_SECONDS, seconds)
    assert all(b <= 2 * a for a, b in pairwise(found))
    assert all(n == 1 or n * seconds <= pace.SLICE_SECONDS * 1.001 for n in found)
    assert slices_of(work, seconds, 40)[-1] == max(1, int(pace.SLICE_SECONDS / seconds * 1.0000001))


def test_slices_shrink_at_once_when_steps_become_slow():
    p = pace.Pace(1e3)
    for _ in range(20):
        p.took(p.steps, p.steps * 1e-6)
    assert p.steps == 50_000
    p.took(p.steps, 5.0)
    assert p.steps == 500


# ---- what is reported ------------------------------------------------------------------------------------------------


def test_seconds_are_those_of_training_alone():
    slow = LambdaCallback(on_epoch_end=lambda state: time.sleep(0.1))

    def metric(y, prediction):
        time.sleep(0.1)
        return 0.0

    history = MLP([2, 6, 2]).fit(X, Y, epochs=3, validation=(X, Y), metrics=[metric], callbacks=[slow])
    assert 0 < sum(history.seconds) < 0.2
    np.testing.assert_allclose(np.multiply(history.seconds, history.samples_per_second), len(X))


@pytest.mark.parametrize("batch_size", [7, 31, None])
def test_losses_are_weighted_means_over_the_rows_of_an_epoch(batch_size):
    weight = np.linspace(0.1, 3, 60)
    net = MLP([2, 6, 2], dtype="float64")
    history = net.fit(X, Y, epochs=2, batch_size=batch_size, sample_weight=weight, optimizer=SGD(1e-12))
    assert history.loss == pytest.approx([net.evaluate(X, Y, weight)["loss"]] * 2, rel=1e-6)
    assert history.loss != pytest.approx([net.evaluate(X, Y)["loss"]] * 2, rel=1e-6)


@pytest.mark.parametrize("batch_size", [7, None])
def test_steps_are_numbered_through(batch_size):
    numbers = []

    def rate(step):
        numbers.append(step)
        return 0.01

    trainer = Trainer(MLP([2, 6, 2]), SGD(rate))
    steps = 9 if batch_size else 1
    for n in (1, 3, 2):
        history = trainer.fit(X, Y, epochs=n, batch_size=batch_size)
        assert history.learning_rate == [0.01] * n
    assert trainer.steps == 6 * steps
    assert numbers == list(range(6 * steps))


def test_a_schedule_spans_all_epochs_of_a_call():
    history = MLP([2, 6, 2]).fit(X, Y, epochs=5, batch_size=12, optimizer=SGD(schedules.Polynomial(learning_rate=1e-3)))
    np.testing.assert_allclose(history.learning_rate, 1e-3 * (1 - (np.arange(1, 6) * 5 - 1) / 25))


# ---- ReduceOnPlateau -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["min", "max"])
def test_the_rate_falls_on_a_plateau(mode):
    """The monitored value never improves: the loss at a rate of nearly 0, or a constant metric."""
    plateau = schedules.ReduceOnPlateau(0.5, patience=1, learning_rate=1e-30, mode=mode)
    more = {"validation": (X, Y), "metrics": [lambda y, p: 1.0]} if mode == "max" else {}
    for _ in range(2):  # each fit starts from the full rate
        history = MLP([2, 6, 2]).fit(X, Y, epochs=6, batch_size=None, optimizer=SGD(plateau), **more)
        np.testing.assert_allclose(np.divide(history.learning_rate, 1e-30), [1, 1, 1, 0.5, 0.5, 0.25])


def test_the_rate_stays_while_the_loss_falls():
    plateau = schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=0.05)
    history = MLP([2, 6, 2]).fit(X, Y, epochs=20, batch_size=None, optimizer=SGD(plateau))
    assert history.learning_rate == [0.05] * 20


def test_a_plateau_observes_the_validation_loss_if_there_is_one():
    plateau = schedules.ReduceOnPlateau(0.5, patience=0, learning_rate=0.05)
    validation = (X, 1 - Y)  # gets worse as the training gets better
    history = MLP([2, 6, 2]).fit(X, Y, epochs=9, batch_size=None, optimizer=SGD(plateau), validation=validation)
    assert history.loss == sorted(history.loss, reverse=True)
    val_loss = np.array(history.val_loss)
    better = np.append(True, val_loss[1:] < np.minimum.accumulate(val_loss)[:-1])
    assert (~better).sum() >= 5
    np.testing.assert_allclose(history.learning_rate[1:], 0.05 * 0.5 ** np.cumsum(~better)[:-1])


def test_plateau_mode_max_needs_validation():
    plateau = schedules.ReduceOnPlateau(mode="max")
    with pytest.raises(ValueError, match="mode 'max' needs validation rows and a metric"):
        MLP([2, 6, 2]).fit(X, Y, optimizer=SGD(plateau))
