"""The parameters kept for the case of divergence: in memory and in a file."""

import numpy as np
import pytest

import fastmlp
from fastmlp import epochs, layout
from fastmlp.snapshot import Snapshot


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_what_was_taken_last_comes_back(rng, in_memory):
    vector = layout.aligned(1000, "float32")
    snapshot = Snapshot(vector, in_memory)
    for _ in range(2):
        vector[:] = rng.standard_normal(1000)
        before = vector.copy()
        snapshot.take(vector)
    vector[:] = np.nan
    snapshot.restore(vector)
    assert vector.tobytes() == before.tobytes()


def test_without_room_for_a_file_memory_serves(rng, monkeypatch):
    vector = rng.standard_normal(1000)
    snapshot = Snapshot(vector, 0)

    def full(data):
        raise OSError("no space left on device")

    class FullFile:
        seek = close = staticmethod(lambda *_: None)
        write = staticmethod(full)

    snapshot._file.close()
    snapshot._file = FullFile()
    snapshot.take(vector)
    before = vector.copy()
    vector[:] = 0
    snapshot.restore(vector)
    assert (vector == before).all()


def test_without_a_place_for_a_file_memory_serves(rng, monkeypatch):
    def nowhere():
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryFile", nowhere)
    vector = rng.standard_normal(1000)
    snapshot = Snapshot(vector, 0)
    snapshot.take(vector)
    before = vector.copy()
    vector[:] = 0
    snapshot.restore(vector)
    assert (vector == before).all()


def test_a_large_network_that_diverges_is_restored_from_its_file(rng, monkeypatch):
    monkeypatch.setattr(epochs, "Snapshot", lambda like: Snapshot(like, 0))
    X, y = rng.standard_normal((40, 3)), rng.standard_normal(40)
    net = fastmlp.MLP([3, 8, 1], loss="mse", seed=0)
    before = net.parameters.tobytes()
    with pytest.raises(fastmlp.DivergenceError):
        net.fit(X, y, epochs=1, optimizer=fastmlp.SGD(1e20))
    assert net.parameters.tobytes() == before
