"""The parameters kept for the case of divergence: in memory and in a file."""

import os
import tempfile

import numpy as np
import pytest

import fastmlp
from fastmlp import epochs, memory, threads
from fastmlp import snapshot as module
from fastmlp.snapshot import Snapshot


@pytest.fixture
def no_spare_files():
    module.close_spare_files()
    yield
    module.close_spare_files()


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_the_last_snapshot_is_restored(rng, in_memory):
    vector = memory.aligned(1000, "float32")
    snapshot = Snapshot(vector, in_memory)
    for _ in range(2):
        vector[:] = rng.standard_normal(1000)
        before = vector.copy()
        snapshot.take(vector)
    vector[:] = np.nan
    snapshot.restore(vector)
    assert vector.tobytes() == before.tobytes()


@pytest.mark.parametrize("size", [1000, 1001, 1003])
def test_large_vectors_are_copied_by_several_threads(rng, monkeypatch, no_spare_files, size):
    monkeypatch.setattr(module, "SHARE", 1000)
    vector = rng.standard_normal(size)
    with threads.limited_threads(3):
        snapshot = Snapshot(vector, 0)
    assert len(snapshot._files) == 3
    for _ in range(2):
        vector[:] = rng.standard_normal(size)
        before = vector.copy()
        snapshot.take(vector)
    vector[:] = 0
    snapshot.restore(vector)
    assert (vector == before).all()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a file that is always full")
@pytest.mark.parametrize("share", [module.SHARE, 4000])
def test_a_full_disk_falls_back_to_memory(rng, monkeypatch, no_spare_files, share):
    monkeypatch.setattr(module, "SHARE", share)
    vector = rng.standard_normal(1000)
    snapshot = Snapshot(vector, 0)
    snapshot._files[0].close()
    snapshot._files[0] = module.File.opened(os.open("/dev/full", os.O_RDWR))
    snapshot.take(vector)
    before = vector.copy()
    vector[:] = 0
    snapshot.restore(vector)
    assert (vector == before).all()


@pytest.mark.parametrize("places", [0, 1])
def test_missing_temporary_directories_fall_back_to_memory(rng, no_spare_files, monkeypatch, places):
    opened, temporary_file = [], tempfile.TemporaryFile

    def few(**options):
        if len(opened) == places:
            raise FileNotFoundError("No usable temporary directory found")
        opened.append(True)
        return temporary_file(**options)

    monkeypatch.setattr("tempfile.TemporaryFile", few)
    monkeypatch.setattr(module, "SHARE", 4000)
    closed, close = [], os.close
    monkeypatch.setattr(os, "close", lambda file: (closed.append(file), close(file)))
    vector = rng.standard_normal(1000)
    with threads.limited_threads(2):
        snapshot = Snapshot(vector, 0)
    assert not snapshot._files and len(closed) == places
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


def test_a_file_serves_one_snapshot_after_another(rng, no_spare_files):
    vector = rng.standard_normal(1000)
    first = Snapshot(vector, 0)
    first.take(vector)
    (file,) = first._files
    del first
    second, third = Snapshot(vector[:500], 0), Snapshot(vector, 0)
    assert second._files == [file]
    assert third._files != [file]
    before = vector.copy()
    second.take(vector[:500])
    third.take(vector)
    vector[:] = 0
    second.restore(vector[:500])
    assert (vector[:500] == before[:500]).all()
    assert (vector[500:] == 0).all()
    third.restore(vector)
    assert (vector == before).all()


def test_few_files_are_kept_and_no_large_one(no_spare_files, monkeypatch):
    monkeypatch.setattr(module, "SPARE_BYTES", 8000)
    for size, kept in ((1001, 0), (1000, module.SPARE_FILES)):
        snapshots = [Snapshot(np.zeros(size), 0) for _ in range(module.SPARE_FILES + 2)]
        snapshots.clear()
        assert len(module._spare) == kept


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_child_process_has_files_of_its_own(no_spare_files):
    vector = np.zeros(1000)
    spare, used = Snapshot(vector, 0), Snapshot(vector, 0)
    del spare
    assert module._spare
    child = os.fork()
    if not child:
        emptied = not module._spare
        del used  # the parent still uses it
        os._exit(0 if emptied and not module._spare else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert module._spare


@pytest.mark.parametrize("reused", [False, True])
def test_a_reused_file_descriptor_is_left_alone(rng, tmp_path, no_spare_files, reused):
    vector = rng.standard_normal(1000)
    snapshot, spare = Snapshot(vector, 0), Snapshot(vector, 0)
    descriptor = snapshot._files[0].descriptor
    other = tmp_path / "other"
    other.write_text("precious")
    if reused:
        with open(other, "r+") as theirs:
            os.dup2(theirs.fileno(), descriptor)
    else:
        os.close(descriptor)
    os.close(spare._files[0].descriptor)
    del spare
    snapshot.take(vector)
    before = vector.copy()
    vector[:] = 0
    snapshot.restore(vector)
    assert (vector == before).all()
    assert module._file().is_ours()  # not the spare one
    del snapshot
    assert other.read_text() == "precious"
    if reused:
        os.close(descriptor)  # it is still open


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_takes_snapshots_in_its_own_files(no_spare_files):
    vector = np.ones(1000)
    snapshot = Snapshot(vector, 0)
    snapshot.take(vector)
    child = os.fork()
    if not child:
        snapshot.take(vector + 1)
        snapshot.restore(vector)
        os._exit(0 if (vector == 2).all() else 1)
    assert os.waitpid(child, 0)[1] == 0
    snapshot.restore(vector)
    assert (vector == 1).all()


def test_one_thread_copies_all_if_none_can_be_started(rng, monkeypatch, no_spare_files):
    def start(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(module, "SHARE", 1000)
    vector = rng.standard_normal(1000)
    with threads.limited_threads(3):
        snapshot = Snapshot(vector, 0)
    monkeypatch.setattr("threading.Thread.start", start)
    snapshot.take(vector)
    before = vector.copy()
    vector[:] = 0
    snapshot.restore(vector)
    assert len(snapshot._files) == 3 and (vector == before).all()
