"""Callbacks: when each is called, with what state, and what the network is left with if one of them raises."""

import copy
import csv
import importlib.util
import io
import json
import math
import pickle
import re
import sys

import numpy as np
import pytest

import fastmlp
from fastmlp import MLP, SGD, Trainer, callbacks
from fastmlp.callbacks import Callback, CSVLogger, JSONLinesLogger, LambdaCallback, LearningRateLogger, ProgressBar

X, Y = fastmlp.datasets.spirals(60, seed=0)


class Recorder:
    """Records its calls."""

    def __init__(self, stop_at=None, answer=True, fail_in=None):
        self.calls, self.stop_at, self.answer, self.fail_in = [], stop_at, answer, fail_in

    def note(self, event, state):
        self.calls.append((event, state.epoch, state.history.epochs, type(state.error).__name__))
        if event == self.fail_in and state.epoch == 2 * (event != "on_train_begin"):
            raise LookupError("on purpose")

    def on_train_begin(self, state):
        self.note("on_train_begin", state)

    def on_epoch_end(self, state):
        self.note("on_epoch_end", state)
        return self.answer if state.epoch == self.stop_at else None

    def on_train_end(self, state):
        self.note("on_train_end", state)


def trained(epochs, callbacks=(), **settings):
    net = MLP([2, 6, 2], seed=4)
    net.fit(X, Y, **{"epochs": epochs, "optimizer": SGD(0.1), "callbacks": callbacks, **settings})
    return net


def test_the_order_of_events_and_what_the_state_says():
    recorder, states = Recorder(), []
    net = trained(3, [recorder, LambdaCallback(on_epoch_end=states.append)], validation=(X, Y))
    expected = [("on_train_begin", 0, 0), *(("on_epoch_end", i, i) for i in (1, 2, 3)), ("on_train_end", 3, 3)]
    assert recorder.calls == [(*call, "NoneType") for call in expected]
    state = states[-1]
    assert state.net is net and state.epochs == 3 and isinstance(state.trainer, Trainer)
    assert len(state.history.val_loss) == 3


@pytest.mark.parametrize("answer", [True, np.True_])
def test_true_stops_training_after_all_callbacks(answer):
    recorders = [Recorder(stop_at=2, answer=answer), Recorder()]
    net = trained(9, recorders)
    for recorder in recorders:
        assert [call[0] for call in recorder.calls].count("on_epoch_end") == 2
        assert recorder.calls[-1][:2] == ("on_train_end", 2)
    assert net.parameters.tobytes() == trained(2).parameters.tobytes()


@pytest.mark.parametrize("answer", [1, "yes", None, False, np.False_])
def test_nothing_but_true_stops(answer):
    recorder = Recorder(stop_at=2, answer=answer)
    trained(4, [recorder])
    assert recorder.calls[-1][:2] == ("on_train_end", 4)


@pytest.mark.parametrize("method", callbacks.METHODS)
def test_one_method_is_enough(method):
    seen = []
    trained(2, [type("Partial", (), {method: lambda self, state: seen.append(state.epoch)})()])
    assert seen == {"on_train_begin": [0], "on_epoch_end": [1, 2], "on_train_end": [2]}[method]


@pytest.mark.parametrize(("event", "epochs"), [("on_train_begin", 0), ("on_epoch_end", 2), ("on_train_end", 2)])
def test_an_error_is_raised_and_the_last_whole_epoch_kept(event, epochs):
    before, failing, after = Recorder(), Recorder(fail_in=event), Recorder()
    net = MLP([2, 6, 2], seed=4)
    with pytest.raises(LookupError, match="on purpose"):
        net.fit(
            X, Y, epochs=2 if event == "on_train_end" else 9, optimizer=SGD(0.1), callbacks=[before, failing, after]
        )
    expected = trained(epochs) if epochs else MLP([2, 6, 2], seed=4)
    assert net.parameters.tobytes() == expected.parameters.tobytes()
    error = "NoneType" if event == "on_train_end" else "LookupError"
    assert before.calls[-1] == ("on_train_end", epochs, epochs, error)
    assert [r.calls[-1][0] for r in (before, failing, after)] == ["on_train_end"] * 3
    assert [[c[0] for c in r.calls].count("on_train_end") for r in (before, failing, after)] == [1, 1, 1]
    net.fit(X, Y, epochs=1)  # and it can be trained again


def test_divergence_and_interrupts_are_told_at_the_end():
    recorder = Recorder()
    net = MLP([2, 6, 1], loss="mse")
    with pytest.raises(fastmlp.DivergenceError):
        net.fit(X, Y * 1e20, epochs=99, optimizer=SGD(100.0), callbacks=[recorder])
    assert recorder.calls[-1][0] == "on_train_end" and recorder.calls[-1][3] == "DivergenceError"

    def interrupt(state):
        raise KeyboardInterrupt

    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        trained(3, [recorder, LambdaCallback(on_epoch_end=interrupt)])
    assert recorder.calls[-1] == ("on_train_end", 1, 1, "KeyboardInterrupt")


@pytest.mark.parametrize("bad", [[3], [ProgressBar], [object()], "callbacks", 7, [None]])
def test_objects_that_are_not_callbacks_are_refused(bad):
    net = MLP([2, 6, 2])
    before = net.parameters.tobytes()
    with pytest.raises(TypeError, match="callbacks must be"):
        net.fit(X, Y, callbacks=bad)
    assert net.parameters.tobytes() == before


def test_callbacks_do_not_change_the_numbers():
    """Without callbacks, the epochs of a small data set run many at a time."""
    for settings in ({}, {"batch_size": 7}, {"batch_size": 7, "sample_weight": np.arange(1.0, 61)}, {"shuffle": False}):
        alone, watched = ([MLP([2, 6, 2], seed=4)] for _ in range(2))
        histories = [
            net.fit(X, Y, epochs=300, optimizer=SGD(0.1, momentum=0.9), callbacks=looking, **settings)
            for (net,), looking in ((alone, []), (watched, [Callback()]))
        ]
        assert alone[0].parameters.tobytes() == watched[0].parameters.tobytes()
        assert histories[0].loss == histories[1].loss and histories[0].epochs == 300


# ---- the callbacks of the package ------------------------------------------------------------------------------------


def test_the_loggers_write_every_epoch(tmp_path):
    table, lines = tmp_path / "log.csv", tmp_path / "log.jsonl"
    seen = []

    def watch(state):  # lines are written during training
        seen.append((len(table.read_text().splitlines()), len(lines.read_text().splitlines())))

    histories = []
    for append in (False, True):
        logs = [CSVLogger(table, append=append), JSONLinesLogger(str(lines), append=append)]
        net = MLP([2, 6, 2])
        watch_last = LambdaCallback(on_epoch_end=watch)
        histories.append(net.fit(X, Y, epochs=2, validation=(X, Y), callbacks=[*logs, watch_last]))
        assert all(log.file is None for log in logs), "closed"
    assert seen == [(2, 1), (3, 2), (4, 3), (5, 4)]
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    objects = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["epoch"] for row in rows] == ["1", "2", "1", "2"] and [o["epoch"] for o in objects] == [1, 2, 1, 2]
    for i, (row, found) in enumerate(zip(rows, objects, strict=True)):
        history = histories[i // 2]
        assert row.keys() == found.keys() == {"epoch", *history}
        for name, values in history.items():
            assert float(row[name]) == found[name] == values[i % 2]
    net.fit(X, Y, epochs=1, callbacks=[JSONLinesLogger(lines)])
    assert len(lines.read_text().splitlines()) == 1, "a new file, unless told to append"


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))])
def test_copies_of_active_callbacks_are_idle(tmp_path, copied):
    listeners = [CSVLogger(tmp_path / "log.csv"), JSONLinesLogger(tmp_path / "log.jsonl")]
    if importlib.util.find_spec("tqdm"):
        listeners.append(ProgressBar(file=io.StringIO(), leave=False))
    copies = []
    trained(2, [*listeners, LambdaCallback(on_epoch_end=lambda state: copies.extend(map(copied, listeners)))])
    for i, twin in enumerate(copies):
        original = listeners[i % len(listeners)]
        assert type(twin) is type(original) and vars(twin).keys() == vars(original).keys()
        assert getattr(twin, "file", None) is None and getattr(twin, "bar", None) is None
        twin.on_train_end(None)
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3, "the original went on"
    trained(1, copies[: len(listeners)])
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize("kind", [CSVLogger, JSONLinesLogger])
@pytest.mark.parametrize("path", [3, None, ["log"]], ids=repr)
def test_a_bad_path_is_refused_by_name(kind, path):
    with pytest.raises(TypeError, match=f"^path must be the path of a file, got {re.escape(repr(path))}"):
        kind(path)


def test_nan_is_null_in_json(tmp_path):
    log = JSONLinesLogger(tmp_path / "log.jsonl")
    metrics = [lambda y, prediction: math.nan]
    MLP([2, 6, 2]).fit(X, Y, epochs=1, validation=(X, Y), metrics=metrics, callbacks=[log])
    found = json.loads((tmp_path / "log.jsonl").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert found["val_<lambda>"] is None


def test_files_are_closed_after_an_error(tmp_path):
    log = CSVLogger(tmp_path / "log.csv")
    with pytest.raises(LookupError):
        trained(5, [log, Recorder(fail_in="on_epoch_end")])
    assert log.file is None
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3


def test_the_learning_rate_is_told_when_it_changes():
    lines = []
    logger = LearningRateLogger(lines.append)
    for _ in range(2):
        lines.clear()
        steps = fastmlp.schedules.Step(2, 0.1, learning_rate=0.5)
        trained(5, [logger], optimizer=SGD(steps), batch_size=None)
        assert lines == ["epoch 1: learning rate 0.5", "epoch 3: learning rate 0.05", "epoch 5: learning rate 0.005"]
        assert logger.rates == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005])
    with pytest.raises(TypeError, match="write must be a function of a line, got 3"):
        LearningRateLogger(3)


def test_the_progress_bar_fills():
    pytest.importorskip("tqdm")
    written = []
    file = type("File", (), {"write": lambda self, text: written.append(text), "flush": lambda self: None})()
    bar = ProgressBar(file=file, mininterval=0, ncols=150, ascii=True)
    trained(3, [bar], validation=(X, Y))
    text = "".join(written)
    assert "3/3" in text and "loss=" in text and "val_accuracy=" in text
    assert bar.bar is None, "closed"


def test_without_tqdm_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(ImportError, match=r"ProgressBar needs tqdm: pip install 'fastmlp\[progress\]'"):
        ProgressBar()


def test_training_state_is_in_the_callbacks_module():
    seen = []
    MLP([2, 2]).fit(X, Y, epochs=1, callbacks=[callbacks.LambdaCallback(on_epoch_end=seen.append)])
    assert type(seen[0]) is callbacks.TrainingState
