"""A small network for each kind of target, and data for them, shared by several test files."""

from types import SimpleNamespace

import numpy as np

from fastmlp import MLP, losses

ROWS = 24
X = np.random.default_rng(0).standard_normal((ROWS, 4))
LABELS = np.arange(ROWS) % 3
VALUES = X @ [1.0, -2.0, 0.5, 0.0]


def networks():
    """One network for each kind of target."""
    return SimpleNamespace(
        labels=MLP([4, 5, 3]),
        values=MLP([4, 5, 1], loss="mse"),
        several=MLP([4, 5, 3], loss="mse"),
        binary=MLP([4, 5, 2], loss="binary_cross_entropy"),
        counts=MLP([4, 5, 1], loss="poisson"),
        rates=MLP([4, 5, 3], loss="poisson"),
        quantiles=MLP([4, 5, 3], loss=losses.Quantile((0.1, 0.5, 0.9))),
    )


def state(net):
    """Everything about a network that an unsuccessful call could have changed, shuffling included."""
    return net.parameters.tobytes(), str(net.shuffle_rng.bit_generator.state)


def fit(X=X, y=LABELS, net="labels", **settings):
    return lambda nets: getattr(nets, net).fit(X, y, **settings)
