"""History gives the same values by every way of reading, also while they are still stored as arrays."""

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


def unread():
    """The same numbers, all of them still stored as arrays."""
    history = History()
    history.extend(2, loss=np.array([3.0, 2.0]), seconds=0.5)
    history.extend(2, loss=np.array([1.0, 0.5]), seconds=np.array([0.5, 0.25]))
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
    "json, within": lambda h: json.loads(json.dumps({"all": [h]}))["all"][0],
    "json, past the methods": lambda h: json.loads(json.dumps({k: list(v) for k, v in dict.items(h)})),
    "dict.items": lambda h: dict(dict.items(h)),
    "dict.values": lambda h: dict(zip(PLAIN, dict.values(h), strict=True)),
    "dict.copy": lambda h: dict.copy(h),
    "dict.get": lambda h: {name: dict.get(h, name) for name in PLAIN},
    "dict.copy, pickled": lambda h: pickle.loads(pickle.dumps(dict.copy(h))),
    "dict.copy, copied": lambda h: copy.deepcopy(dict.copy(h)),
    "dict.len": lambda h: PLAIN if dict.__len__(h) == 2 else {},
    "dict.eq": lambda h: PLAIN if dict.__eq__(h, PLAIN) else {},
    "last of dict.items": lambda h: PLAIN if [v[-1] for _, v in dict.items(h)] == [0.5, 0.25] else {},
    "array of dict.get": lambda h: PLAIN if np.array_equal(np.array(dict.get(h, "loss")), PLAIN["loss"]) else {},
    "bool": lambda h: PLAIN if h else {},
    "iteration": lambda h: {name: h[name] for name in h},
    "keywords": lambda h: (lambda **found: found)(**h),
    "update": lambda h: (lambda found: (found.update(h), found)[1])({}),
    "data frame": lambda h: pytest.importorskip("pandas").DataFrame(h).to_dict("list"),
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


@pytest.mark.parametrize("made", [recorded, unread])
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_reading_finds_the_values(way, made):
    found = WAYS[way](made())
    assert found == PLAIN
    assert all(type(value) is float for values in found.values() for value in values)


@pytest.mark.parametrize("made", [recorded, unread])
def test_changes_before_the_first_read(made):
    history = made()
    history["loss"] = [7.0]
    assert history.loss == [7.0] and history.seconds == PLAIN["seconds"]
    history = made()
    del history["loss"]
    assert list(history) == ["seconds"]
    history = made()
    history.clear()
    assert not history
    history = made()
    history.update(loss=[1.0])
    history |= {"seconds": [2.0]}
    assert history == {"loss": [1.0], "seconds": [2.0]}


def test_lists_already_read_are_extended():
    history = recorded()
    losses = history.loss
    history.extend(2, loss=np.array([0.25, 0.125]), seconds=1.0)
    history.add(loss=0.0625, seconds=2.0)
    assert history["loss"] is losses and losses == [3.0, 2.0, 1.0, 0.5, 0.25, 0.125, 0.0625]
    assert history.seconds == [*PLAIN["seconds"], 1.0, 1.0, 2.0]
    with pytest.raises(AttributeError, match="this history has loss, seconds, not 'accuracy'"):
        _ = history.accuracy


def test_lists_read_by_dict_methods_are_extended():
    history = unread()
    losses = dict.get(history, "loss")
    losses.append(0.25)
    assert history.loss == [*PLAIN["loss"], 0.25] and losses == history.loss
    history.extend(2, loss=np.array([0.125, 0.0]), seconds=1.0)
    assert losses[-1] == 0.25 and history.loss[-1] == losses[-1] == 0.0


def test_copies_have_no_internal_state():
    assert vars(copy.copy(unread())) == vars(pickle.loads(pickle.dumps(unread()))) == {}


def test_json_of_an_unread_history():
    X, y = datasets.xor()
    history = MLP([2, 4, 1], "tanh", "binary_cross_entropy").fit(X, y, epochs=50, batch_size=None)
    assert len(json.loads(json.dumps(history))["loss"]) == 50


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
def test_an_unknown_name_lists_the_known_ones(error, ask):
    history = History()
    history.add(loss=1.0, seconds=0.1)
    with pytest.raises(error, match="this history has loss, seconds, not 'val_loss'"):
        ask(history)
