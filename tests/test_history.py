"""History: what it holds is there however it is read, also while it is still arrays."""

import copy
import json
import pickle
import threading

import numpy as np
import pytest

from fastmlp import MLP, SGD, History, datasets


def recorded():
    """Three epochs in one go, and one after them."""
    history = History()
    history.extend(3, loss=np.array([3.0, 2.0, 1.0]), seconds=0.5)
    history.extend(1, loss=np.array([0.5]), seconds=0.25)
    return history


PLAIN = {"loss": [3.0, 2.0, 1.0, 0.5], "seconds": [0.5, 0.5, 0.5, 0.25]}

WAYS = {
    "item": lambda h: {"loss": h["loss"], "seconds": h["seconds"]},
    "attribute": lambda h: {"loss": h.loss, "seconds": h.seconds},
    "get": lambda h: {name: h.get(name) for name in PLAIN},
    "items": lambda h: dict(h.items()),
    "keys": lambda h: {name: PLAIN[name] for name in h.keys()},  # noqa: SIM118 (it is what is tested)
    "values": lambda h: dict(zip(PLAIN, h.values(), strict=True)),
    "dict": dict,
    "unpacked": lambda h: {**h},
    "copy": lambda h: h.copy(),
    "copy.copy": copy.copy,
    "copy.deepcopy": copy.deepcopy,
    "pickle": lambda h: pickle.loads(pickle.dumps(h)),
    "json": lambda h: json.loads(json.dumps(h)),
    "json, indented": lambda h: json.loads(json.dumps(h, indent=1)),
    "repr": lambda h: eval(repr(h)),
    "or": lambda h: h | {},
    "or, from the right": lambda h: {} | h,
    "in": lambda h: PLAIN if "loss" in h and "seconds" in h else {},
    "len": lambda h: PLAIN if len(h) == 2 else {},
    "reversed": lambda h: {name: PLAIN[name] for name in reversed(h)},
    "pop": lambda h: {name: h.pop(name) for name in PLAIN},
    "popitem": lambda h: dict(h.popitem() for _ in PLAIN),
    "setdefault": lambda h: {name: h.setdefault(name, []) for name in PLAIN},
    "equal": lambda h: PLAIN if h == PLAIN else {},
    "unequal": lambda h: {} if h != PLAIN else PLAIN,
    "epochs": lambda h: PLAIN if h.epochs == 4 else {},
}


@pytest.mark.parametrize("way", WAYS)
def test_it_is_there_however_it_is_read(way):
    found = WAYS[way](recorded())
    assert found == PLAIN
    assert all(type(value) is float for values in found.values() for value in values)


def test_it_can_be_changed_before_it_is_read():
    history = recorded()
    history["loss"] = [7.0]
    assert history.loss == [7.0] and history.seconds == PLAIN["seconds"]
    history = recorded()
    del history["loss"]
    assert list(history) == ["seconds"]
    history = recorded()
    history.clear()
    assert not history
    history = recorded()
    history.update(loss=[1.0])
    history |= {"seconds": [2.0]}
    assert history == {"loss": [1.0], "seconds": [2.0]}


def test_lists_go_on_where_they_were():
    history = recorded()
    losses = history.loss
    history.extend(2, loss=np.array([0.25, 0.125]), seconds=1.0)
    history.add(loss=0.0625, seconds=2.0)
    assert history["loss"] is losses and losses == [3.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert history.seconds == [*PLAIN["seconds"], 1.0, 1.0, 2.0]
    with pytest.raises(AttributeError, match="this history has loss, seconds, not 'accuracy'"):
        _ = history.accuracy


def test_threads_that_read_it_first_all_find_everything():
    for _ in range(20):
        history, found, start = History(), [], threading.Barrier(4)
        history.extend(50_000, loss=np.arange(50_000.0))

        def read(history=history, found=found, start=start):
            start.wait()
            found.append(len(history["loss"]))

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [50_000] * 4


def test_a_fit_of_many_tiny_epochs():
    X, y = datasets.xor()
    net = MLP([2, 4, 1], "tanh", "binary_cross_entropy", seed=0)
    history = net.fit(X, y, epochs=5000, batch_size=None, optimizer=SGD(0.5))
    assert history.epochs == 5000 and {len(values) for values in history.values()} == {5000}
    assert history.loss[-1] < 0.05 < history.loss[0] and set(history.learning_rate) == {0.5}


@pytest.mark.parametrize(
    ("error", "ask"), [(KeyError, lambda h: h["val_loss"]), (AttributeError, lambda h: h.val_loss)]
)
def test_what_it_does_not_have_it_says_with_what_it_has(error, ask):
    history = History()
    history.add(loss=1.0, seconds=0.1)
    with pytest.raises(error, match="this history has loss, seconds, not 'val_loss'"):
        ask(history)
