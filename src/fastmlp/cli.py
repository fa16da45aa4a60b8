"""The command line: ``fastmlp train`` trains on the bundled digits, ``fastmlp info`` describes this installation."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

import fastmlp
from fastmlp import activations
from fastmlp.datasets import load_digits
from fastmlp.runtime import check_backend, target
from fastmlp.threads import MAX_WORKERS

Indices = NDArray[np.int64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: success; 1: training failed, or memory or disk space ran out; 2 (as SystemExit): invalid flags or environment
    variables; 130: interrupted; 141: the output pipe was closed. A shell reports SIGINT and SIGPIPE by the last two.
    """
    try:
        try:
            return _run(arguments)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # while an error can still be reported
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        _drop_output()
        return _fail(f"fastmlp: error: {error}")


def _run(arguments: Sequence[str] | None) -> int:
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except MemoryError as error:
        return _fail(f"fastmlp: error: not enough memory: {error or 'an allocation failed'}")
    return status


def _fail(message: str) -> int:
    with suppress(OSError):  # if stderr goes to the same place as stdout
        print(message, file=sys.stderr)
    return 1


def _drop_output() -> None:
    """Redirect stdout to the null device: Python flushes it again at exit, and would report the error once more."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)


def _check_environment(options: argparse.Namespace) -> None:
    """Reject invalid environment variables in the same way as invalid flags."""
    try:
        fastmlp.show_config()  # reads all of them
    except ValueError as error:
        options.refuse(str(error))


def train(options: argparse.Namespace) -> int:
    """Train on part of the digits, then test on held-out digits."""
    fastmlp.set_num_threads(options.threads)
    _check_environment(options)
    pixels, y = load_digits()
    X = pixels.astype(np.float32) / 16  # pixels are 0 to 16
    rest, validation, test = _split(y)
    sizes = [X.shape[1], *options.hidden, 10]
    try:
        net = fastmlp.MLP(sizes, activation=options.activation, loss="cross_entropy", seed=options.seed)
    except ValueError as error:  # it would not fit into this machine's memory
        options.refuse(f"argument --hidden: {error}")
    print(f"digits    {len(rest)} to train on, {len(validation)} to validate, {len(test)} to test")
    print(f"network   {' -> '.join(map(str, sizes))}, {options.activation}")
    try:
        history = net.fit(
            X[rest],
            y[rest],
            epochs=options.epochs,
            batch_size=min(options.batch_size, len(rest)),
            optimizer=fastmlp.SGD(options.lr, momentum=options.momentum),
            validation=(X[validation], y[validation]),
            callbacks=[_Progress()],
        )
    except fastmlp.DivergenceError as error:
        what = str(error).partition(";")[0]  # the rest recommends settings that have no flag
        print(f"fastmlp train: {what}; try a lower --lr or --momentum", file=sys.stderr)
        return 1
    accuracy = np.mean(net.predict(X[test]) == y[test])
    seconds = sum(history["seconds"])
    speed = len(rest) * options.epochs / seconds
    print(f"test accuracy   {accuracy:.2%} of {len(test)} digits not trained on")
    print(f"speed           {speed:,.0f} samples/s, {seconds:.2f} s of training")
    print(f"target          {target() if check_backend(None) == 'engine' else 'none: NumPy reference'}")
    print(f"threads         {fastmlp.get_num_threads()}")
    return 0


def info(options: argparse.Namespace) -> int:
    """Print what the package found on this machine and what it will use."""
    _check_environment(options)
    print(fastmlp.show_config())
    return 0


class _Progress:
    """Prints a line per epoch."""

    def on_train_begin(self, state: Any) -> None:
        print("epoch       loss   val loss   val accuracy     samples/s")

    def on_epoch_end(self, state: Any) -> None:
        last = {name: values[-1] for name, values in state.history.items() if values}
        print(
            f"{state.epoch:5d} {last['loss']:10.4f} {last['val_loss']:10.4f} {last['val_accuracy']:14.2%}"
            f" {last['samples_per_second']:13,.0f}",
            flush=True,
        )

    def on_train_end(self, state: Any) -> None:
        pass


def _split(y: NDArray[np.int64]) -> tuple[Indices, Indices, Indices]:
    """Return the rows to train, validate and test on: 7, 1 and 2 tenths of every class, in random order.

    The parts do not depend on ``--seed``, so that runs with different flags are tested on the same digits.
    """
    shuffled = np.random.default_rng(0).permutation(len(y))
    by_class = shuffled[np.argsort(y[shuffled], kind="stable")]
    tenth = np.arange(len(y)) % 10  # ten consecutive rows of by_class have one class, except at class boundaries
    return by_class[tenth > 2], by_class[tenth == 2], by_class[tenth < 2]


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def _parser() -> _Parser:
    parser = _Parser(prog="fastmlp", description="Multilayer perceptrons on the CPU.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"fastmlp {fastmlp.__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    command = commands.add_parser(
        "train",
        help="train on the bundled digits",
        description="Train a network on the bundled handwritten digits (8 x 8 pixels) and test it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=train, refuse=command.error)
    names = sorted(set(activations.KNOWN) - {"softmax"})  # softmax is for outputs
    add = command.add_argument
    add("--hidden", metavar="SIZES", type=_sizes, default="256,128", help="sizes of the hidden layers")
    add("--activation", metavar="NAME", choices=names, default="relu", help="activation of the hidden layers")
    add("--epochs", metavar="N", type=_whole(1, 1_000_000), default=30, help="passes over the training part")
    add("--batch-size", metavar="N", type=_whole(1, 1_000_000), default=32, help="samples per step")
    add("--lr", metavar="RATE", type=_real(0, 1000, open_low=True), default=0.05, help="learning rate")
    add("--momentum", metavar="M", type=_real(0, 1, open_high=True), default=0.9, help="momentum")
    add("--seed", metavar="N", type=_whole(0, 2**32 - 1), default=0, help="seed of initial weights and shuffling")
    add("--threads", metavar="N", type=_whole(1, MAX_WORKERS), default=_default_threads(), help="worker threads")

    command = commands.add_parser("info", help="describe this installation", allow_abbrev=False)
    command.set_defaults(run=info, refuse=command.error)
    return parser


def _default_threads() -> int | None:
    """None if FASTMLP_NUM_THREADS is invalid: ``--threads`` may override it, and ``--help`` must still work."""
    try:
        return fastmlp.get_num_threads()
    except ValueError:
        return None


def _whole(low: int, high: int) -> Callable[[str], int]:
    """Return a parser of integers from low to high."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be a whole number from {low} to {high}, got {text!r}")
        return number

    return parse


def _real(low: float, high: float, *, open_low: bool = False, open_high: bool = False) -> Callable[[str], float]:
    """Return a parser of real numbers from low to high, either bound excluded where it is open."""
    above, below = "more than" if open_low else "at least", "less than" if open_high else "at most"

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = float("nan")
        excluded = (open_low and number == low) or (open_high and number == high)
        if excluded or not low <= number <= high:
            raise argparse.ArgumentTypeError(f"must be a number {above} {low:g} and {below} {high:g}, got {text!r}")
        return number

    return parse


def _sizes(text: str) -> list[int]:
    """Return the layer sizes in a text such as ``64,32``."""
    parse = _whole(1, 65536)
    try:
        return [parse(part) for part in text.split(",")]
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(
            f"must be comma-separated whole numbers from 1 to 65536, got {text!r}"
        ) from None
