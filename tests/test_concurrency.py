"""One network and several threads: one trains it at a time, any number predict with it."""

import threading

import numpy as np
import pytest
from conftest import needs_engine
from kinds import LABELS, X, fit, networks, state

from fastmlp import MLP, Trainer, forks


class Pause:
    """A callback that pauses a training until the event `go_on` is set."""

    def __init__(self):
        self.reached, self.go_on = threading.Event(), threading.Event()

    def on_epoch_end(self, state):
        self.reached.set()
        assert self.go_on.wait(60)


@pytest.mark.parametrize("call", [fit(epochs=1), lambda nets: Trainer(nets.labels).step(X, LABELS)])
def test_only_one_thread_trains_a_network_at_a_time(call):
    nets, undisturbed, pause = networks(), networks(), Pause()
    thread = threading.Thread(target=fit(epochs=2, callbacks=[pause]), args=[nets])
    thread.start()
    try:
        assert pause.reached.wait(60)
        before = state(nets.labels)
        with pytest.raises(RuntimeError, match="being trained already"):
            call(nets)
        assert state(nets.labels) == before
        networks().labels.fit(X, LABELS, epochs=1)  # another network can be trained
    finally:
        pause.go_on.set()
        thread.join()
    undisturbed.labels.fit(X, LABELS, epochs=2)
    assert state(nets.labels) == state(undisturbed.labels)
    call(nets)


@pytest.mark.parametrize("name", ["flush", "show_raw", "show_average"])
def test_other_threads_leave_the_weights_of_a_training_alone(name):
    trainer, undisturbed = (Trainer(networks().labels, average=0.9, accumulate=2) for _ in range(2))
    pause = Pause()
    thread = threading.Thread(target=trainer.fit, args=(X, LABELS), kwargs={"epochs": 2, "callbacks": [pause]})
    thread.start()
    try:
        assert pause.reached.wait(60)
        with pytest.raises(RuntimeError, match="being trained already"):
            getattr(trainer, name)()
    finally:
        pause.go_on.set()
        thread.join()
    undisturbed.fit(X, LABELS, epochs=2)
    assert state(trainer.net) == state(undisturbed.net)
    getattr(trainer, name)()


def test_a_callback_may_look_at_raw_and_averaged_weights():
    seen = []

    class Looks:
        def on_epoch_end(self, state):
            state.trainer.flush()
            for show in (state.trainer.show_raw, state.trainer.show_average):
                show()
                seen.append(np.array_equal(state.net.parameters, state.trainer.average))

    trainer, undisturbed = (Trainer(networks().labels, average=0.9) for _ in range(2))
    trainer.fit(X, LABELS, epochs=2, callbacks=[Looks()])
    undisturbed.fit(X, LABELS, epochs=2)
    assert seen == [False, True] * 2 and state(trainer.net) == state(undisturbed.net)


def test_a_callback_that_trains_the_network_is_refused():
    class Trains:
        def on_epoch_end(self, state):
            state.net.fit(X, LABELS)

    net = networks().labels
    with pytest.raises(RuntimeError, match="being trained already"):
        net.fit(X, LABELS, callbacks=[Trains()])
    net.fit(X, LABELS, epochs=1)


def predicted_wrongly(net, data, times):
    """Indices of the data whose predictions change when one thread each predicts them at once, `times` times."""
    expected = [net.predict_proba(X).tobytes() for X in data]
    wrong, start = [], threading.Barrier(len(data))

    def predict(i):
        start.wait()
        for _ in range(times):
            if net.predict_proba(data[i]).tobytes() != expected[i]:
                wrong.append(i)

    threads = [threading.Thread(target=predict, args=[i]) for i in range(len(data))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return wrong


@pytest.mark.targets
def test_threads_that_predict_at_once_do_not_disturb_each_other(rng):
    data = [rng.standard_normal((700 + i, 30)) for i in range(4)]
    assert not predicted_wrongly(MLP([30, 64, 5], seed=1), data, 30)


@needs_engine  # the reference has no short way
@pytest.mark.targets
def test_concurrent_predictions_of_single_rows(rng):
    rows = list(rng.standard_normal((4, 1, 784)))  # float64: to be converted
    rows[::2] = [row.astype(np.float32) for row in rows[::2]]
    assert not predicted_wrongly(MLP([784, 512, 10], seed=1), rows, 500)


@needs_engine  # the reference has no short way
@pytest.mark.targets
def test_concurrent_predictions_of_a_few_rows_with_and_without_the_gil(rng):
    # 9 million operations, and 0.2 to 0.4: from 2 million on, a prediction releases the GIL.
    data = [rng.standard_normal((rows, 784), np.float32) for rows in (44, 1, 2, 40)]
    assert not predicted_wrongly(MLP([784, 128, 10], seed=1), data, 300)


@needs_engine
def test_a_child_does_not_wait_for_predictors_of_the_parents_threads(monkeypatch, rng):
    net, X = MLP([20, 30, 3]), rng.standard_normal((600, 20), np.float32)
    expected = net.predict_proba(X)
    for _, lock in net._predictors.values():  # as if another thread were predicting during the fork
        lock.acquire()
    monkeypatch.setattr(forks, "count", forks.count + 1)
    np.testing.assert_array_equal(net.predict_proba(X), expected)
    kept = dict(net._predictors)
    np.testing.assert_array_equal(net.predict_proba(X), expected)
    assert net._predictors == kept, "a predictor was built anew"
    assert not any(lock.locked() for _, lock in kept.values())
