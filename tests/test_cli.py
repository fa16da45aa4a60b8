"""The command line: the default run learns the digits, flags reach the network, bad values get one clear line."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import cli
from fastmlp.datasets import load_digits


def epochs_in(output):
    """The lines of the progress table, as lists of words."""
    return [line.split() for line in output.splitlines() if re.match(r" +\d+ ", line)]


@pytest.fixture
def run(capsys):
    """Runs the command line in this process; gives its status and output."""

    def run(*arguments):
        try:
            status = cli.main(arguments)
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return run


@pytest.mark.targets
def test_default_run_learns_the_digits(run):
    status, out, err = run("train")
    assert (status, err) == (0, "")
    accuracy = float(re.search(r"^test accuracy +([\d.]+)%", out, re.MULTILINE)[1])
    assert accuracy >= 97
    assert [line[0] for line in epochs_in(out)] == [str(epoch) for epoch in range(1, 31)]
    for label in ["speed", "target", "threads"]:
        assert re.search(rf"^{label} +\S", out, re.MULTILINE), f"{label} is missing"


def test_losses_fall_and_table_lines_up(run):
    _, out, _ = run("train", "--epochs", "4")
    lines = epochs_in(out)
    losses = [float(line[1]) for line in lines]
    assert losses == sorted(losses, reverse=True)
    assert {len(line) for line in lines} == {5}
    table = [line for line in out.splitlines() if line.startswith(("epoch", "    "))]
    assert len({len(line) for line in table}) == 1


def test_same_seed_same_numbers_other_seed_others(run):
    def losses(*flags):
        return [line[1:4] for line in epochs_in(run("train", "--epochs", "2", *flags)[1])]

    assert losses("--seed", "5") == losses("--seed", "5", "--threads", "1") != losses("--seed", "6")


@pytest.mark.parametrize(
    "flags", [["--hidden", "8"], ["--activation", "tanh"], ["--batch-size", "7"], ["--lr", "0.01"], ["--momentum", "0"]]
)
def test_every_flag_changes_the_run(run, flags):
    default = run("train", "--epochs", "1")[1]
    status, out, err = run("train", "--epochs", "1", *flags)
    assert (status, err) == (0, "")
    assert epochs_in(out)[0][1] != epochs_in(default)[0][1]


def test_threads_flag_sets_the_threads(run):
    out = run("train", "--epochs", "1", "--threads", "3")[1]
    assert re.search(r"^threads +3$", out, re.MULTILINE)
    assert fastmlp.get_num_threads() == 3


def test_batch_larger_than_the_training_part_is_full_batch(run):
    assert run("train", "--epochs", "1", "--batch-size", "5000")[0] == 0


@pytest.mark.parametrize(
    ("flag", "value", "allowed"),
    [
        ("--hidden", "64,0", "from 1 to 65536"),
        ("--hidden", "64,,32", "from 1 to 65536"),
        ("--hidden", "", "from 1 to 65536"),
        ("--activation", "rellu", "gelu"),
        ("--activation", "softmax", "tanh"),
        ("--epochs", "0", "from 1 to 1000000"),
        ("--epochs", "2.5", "whole number"),
        ("--batch-size", "-1", "from 1"),
        ("--lr", "0", "more than 0 and at most 1000"),
        ("--lr", "nan", "more than 0"),
        ("--lr", "fast", "must be a number"),
        ("--momentum", "1", "at least 0 and less than 1"),
        ("--momentum", "inf", "less than 1"),
        ("--seed", "-1", "from 0 to 4294967295"),
        ("--threads", "0", "from 1 to 256"),
        ("--threads", "257", "from 1 to 256"),
    ],
)
def test_bad_flag_value_gets_one_line(run, flag, value, allowed):
    status, out, err = run("train", f"{flag}={value}")
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith(f"fastmlp train: error: argument {flag}: ")
    assert repr(value) in err
    assert allowed in err


@pytest.mark.parametrize("arguments", [[], ["trian"], ["train", "--epoch", "3"], ["train", "extra"]])
def test_bad_command_line_gets_one_line(run, arguments):
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_divergence_gets_one_line(run):
    status, _, err = run("train", "--epochs", "5", "--lr", "1000", "--activation", "identity")
    assert status == 1
    assert re.fullmatch(r"fastmlp train: [^.;]+ in epoch 1 of 5, [^.;]+; try a lower --lr or --momentum\n", err)


def test_interrupt_gets_one_line(run, monkeypatch):
    def interrupt(self, state):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli._Progress, "on_epoch_end", interrupt)
    status, _, err = run("train")
    assert (status, err) == (130, "interrupted\n")


@pytest.mark.parametrize("command", ["info", "train"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FASTMLP_NUM_THREADS", "x"),
        ("FASTMLP_NUM_THREADS", "9" * 5000),
        ("FASTMLP_BACKEND", "foo"),
        pytest.param("FASTMLP_TARGET", "foo", marks=needs_engine),
    ],
)
def test_a_bad_variable_gets_one_line(run, monkeypatch, command, name, value):
    monkeypatch.setenv(name, value)
    status, out, err = run(command)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"fastmlp {command}: error: {name}") and repr(value)[1:-1][:20] in err and len(err) < 400


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["--version"]])
def test_help_needs_no_variable(run, monkeypatch, arguments):
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "x")
    status, out, err = run(*arguments)
    assert (status, err) == (0, "") and "fastmlp" in out


def test_the_flag_comes_before_a_bad_number_of_threads(run, monkeypatch):
    monkeypatch.setenv("FASTMLP_NUM_THREADS", "x")
    assert run("train", "--epochs", "1", "--threads", "1")[0] == 0


def test_a_network_larger_than_the_memory_gets_one_line(run, monkeypatch):
    monkeypatch.setattr("fastmlp.memory.physical_memory", lambda: 1000)
    status, out, err = run("train")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "argument --hidden: sizes=[64, 256, 128, 10] would take" in err


def test_memory_error_gets_one_line(run, monkeypatch):
    def give_out(*arguments, **settings):
        raise MemoryError("12,345 bytes could not be allocated")

    monkeypatch.setattr("fastmlp.mlp.MLP.fit", give_out)
    status, _, err = run("train")
    assert (status, err) == (1, "fastmlp: error: not enough memory: 12,345 bytes could not be allocated\n")


def command(*arguments, **settings):
    """The command in a process of its own, with an output that is not read here."""
    return subprocess.run(
        [sys.executable, "-m", "fastmlp", *arguments], stderr=subprocess.PIPE, text=True, timeout=120, **settings
    )


@pytest.mark.parametrize("arguments", [["info"], ["train", "--epochs", "2"]])
def test_a_closed_pipe_ends_the_command_silently(arguments):
    reads, writes = os.pipe()
    os.close(reads)
    with open(writes, "wb") as nowhere:
        done = command(*arguments, stdout=nowhere)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_a_full_disk_gets_one_line():
    with open("/dev/full", "wb") as full:
        done = command("info", stdout=full)
    assert (done.returncode, done.stderr) == (1, "fastmlp: error: [Errno 28] No space left on device\n")


def test_info_prints_the_configuration(run):
    assert run("info") == (0, fastmlp.show_config() + "\n", "")


def test_help_lists_every_flag_with_its_default(run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    status, out, _ = run("train", "--help")
    assert status == 0
    for flag, default in {"--hidden": "256,128", "--activation": "relu", "--epochs": "30", "--lr": "0.05"}.items():
        assert re.search(rf"{flag} [^(]*\(default: {re.escape(default)}\)", out), f"{flag} in\n{out}"


def test_split_is_stratified_and_disjoint():
    y = load_digits()[1]
    parts = cli._split(y)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(y)))
    for part, share in zip(parts, [0.7, 0.1, 0.2], strict=True):
        assert np.all(np.abs(np.bincount(y[part]) - share * np.bincount(y)) < 2)


def test_module_runs_as_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "fastmlp", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert re.fullmatch(r"fastmlp \d+\.\d+\.\d+\S*\n", done.stdout)
