"""The networks that are timed: shapes, data, initial weights, and operations of a step.

One list for all benchmarks. Data are seeded and the same for all packages: normal inputs, labels of a linear teacher, a
tenth of them replaced at random, so that long runs neither finish learning nor run into subnormal numbers.
"""

import fnmatch
import importlib.util
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MOMENTUM = 0.9


def environment(**more):
    """The environment for a child process, with the path of the sources if fastmlp is not installed."""
    path = [] if importlib.util.find_spec("fastmlp") else [str(Path(__file__).resolve().parents[1] / "src")]
    path += filter(None, [os.environ.get("PYTHONPATH")])
    return os.environ | {"PYTHONPATH": os.pathsep.join(path)} | more


class Unsupported(Exception):
    """This package cannot train or run this network."""


@dataclass(frozen=True)
class Case:
    """One row of the table: a network to train (`batch` > 0), or `rows` rows to predict with it (`batch` 0)."""

    name: str
    sizes: tuple[int, ...]
    rows: int
    batch: int = 0
    activation: str = "relu"
    loss: str = "cross_entropy"  # or binary_cross_entropy, mse
    optimizer: str = "sgd"  # with momentum 0.9; or adam
    rate: float = 0.01
    dtype: str = "float32"
    dropout: float = 0.0  # of every hidden layer's outputs

    @property
    def layers(self):
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    @property
    def steps(self):
        """Steps of an epoch."""
        return self.rows // self.batch

    @property
    def flops(self):
        """FLOPs of a step: 6 n_in n_out per row and layer, 4 in the first; 2 for a prediction of all rows."""
        if not self.batch:
            return sum(2.0 * self.rows * n_in * n_out for n_in, n_out in self.layers)
        return sum((6.0 if i else 4.0) * self.batch * n_in * n_out for i, (n_in, n_out) in enumerate(self.layers))

    @property
    def title(self):
        """The case's name in the table."""
        extras = [self.activation] * (self.activation != "relu") + ["mse"] * (self.loss == "mse")
        extras += ["Adam"] * (self.optimizer == "adam") + [self.dtype] * (self.dtype != "float32")
        extras += [f"dropout {self.dropout}"] * (self.dropout > 0)
        text = "-".join(map(str, self.sizes)) + (f" ({', '.join(extras)})" if extras else "")
        return f"{text}, {self.batch}" if self.batch else f"predict {text}, {self.rows:,} row{'s' * (self.rows > 1)}"


WIDE = {"sizes": (784, 512, 512, 10), "rows": 8192, "batch": 128}
CASES = [
    Case("xor", (2, 4, 1), 4, 4, activation="tanh", loss="binary_cross_entropy"),
    Case("tiny-adam", (8, 16, 16, 3), 1024, 16, activation="tanh", optimizer="adam", rate=1e-3),
    Case("mnist-16", (784, 16, 10), 8192, 32),
    Case("mnist-128", (784, 128, 10), 8192, 64),
    Case("mnist-512", **WIDE),
    Case("regression", (32, 256, 256, 1), 8192, 256, loss="mse", rate=1e-3),
    Case("huge", (1024, 4096, 4096, 1000), 1024, 256),
    Case("odd", (100, 300, 300, 7), 8000, 200),
    Case("mnist-128-adam", (784, 128, 10), 8192, 64, optimizer="adam", rate=1e-3),
    Case("mnist-512-adam", **WIDE, optimizer="adam", rate=1e-4),
    Case("mnist-512-dropout", **WIDE, dropout=0.5),
    Case("mnist-512-float64", **WIDE, dtype="float64"),
    Case("mnist-512-tanh", **WIDE, activation="tanh"),
    Case("mnist-512-sigmoid", **WIDE, activation="sigmoid"),
    Case("mnist-512-gelu", **WIDE, activation="gelu"),
    Case("predict-tiny-1", (16, 32, 32, 3), 1),
    Case("predict-tiny-16", (16, 32, 32, 3), 16),
    Case("predict-mnist-1", (784, 128, 10), 1),
    Case("predict-mnist-16", (784, 128, 10), 16),
    Case("predict-mnist-10000", (784, 128, 10), 10_000),
]


def find(names):
    """The cases with these names (wildcards allowed), in the list's order; ValueError for a name that matches none."""
    patterns = [name for name in names.split(",") if name]
    for pattern in patterns:
        if not any(fnmatch.fnmatch(case.name, pattern) for case in CASES):
            raise ValueError(f"no case is called {pattern!r}; there are {', '.join(c.name for c in CASES)}")
    return [case for case in CASES if any(fnmatch.fnmatch(case.name, pattern) for pattern in patterns)]


def data(case, rows=None):
    """X (rows, n_in) and y: int64 class numbers, or targets (rows, 1) of the case's type."""
    rng, rows = np.random.default_rng(1), rows or case.rows
    X = rng.standard_normal((rows, case.sizes[0]), dtype=np.float32).astype(case.dtype, copy=False)
    if case.sizes == (2, 4, 1):
        X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], case.dtype)
        return X, np.array([[0], [1], [1], [0]], case.dtype)
    teacher = rng.standard_normal((case.sizes[0], case.sizes[-1]))
    if case.loss == "mse":
        return X, np.tanh(X @ teacher / case.sizes[0] ** 0.5).astype(case.dtype)
    y = (X[:, :32] @ teacher[:32]).argmax(axis=1)
    noise = rng.permutation(rows)[: max(rows // 10, min(rows, case.sizes[-1]))]
    y[noise] = np.arange(len(noise)) % case.sizes[-1]  # so that every class occurs
    return X, y


def initial_weights(case):
    """(W, b) of each layer: uniform, of He's or Glorot's variance; small biases, so that omitting one is noticed."""
    rng, pairs = np.random.default_rng(2), []
    for n_in, n_out in case.layers:
        limit = math.sqrt(6 / n_in if case.activation == "relu" else 6 / (n_in + n_out))
        W = rng.uniform(-limit, limit, (n_in, n_out)).astype(case.dtype)
        pairs.append((W, rng.uniform(-0.1, 0.1, n_out).astype(case.dtype)))
    return pairs


FUNCTIONS = {
    "relu": lambda z: np.maximum(z, 0),
    "tanh": np.tanh,
    "sigmoid": lambda z: 1 / (1 + np.exp(-z)),
    "gelu": lambda z: z / 2 * (1 + np.vectorize(math.erf)(z / 2**0.5)),
}


def loss_of(case, weights, X, y):
    """The loss of these weights, in float64, independent of all packages' kernels."""
    a = X.astype(np.float64)
    for i, (W, b) in enumerate(weights):
        a = a @ W.astype(np.float64) + b
        a = FUNCTIONS[case.activation](a) if i < len(weights) - 1 else a
    if case.loss == "mse":
        return float(((a - y) ** 2).mean())
    if case.loss == "binary_cross_entropy":
        return float((np.logaddexp(0, a) - y * a).mean())
    a -= a.max(axis=1, keepdims=True)
    return float((np.log(np.exp(a).sum(axis=1)) - a[np.arange(len(a)), y]).mean())
