"""Ten steps of PyTorch, recorded by tests/golden/record.py, replayed from the same weights on the same data."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from conftest import needs_engine

import fastmlp
from fastmlp import MLP, Trainer, losses

HERE = Path(__file__).parent / "golden"
GOLDEN = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
CASES = GOLDEN["cases"]
LIMIT = {"float64": 1e-9, "float32": 1e-5}


@pytest.fixture(scope="module")
def recorded():
    with np.load(HERE / "trajectories.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(params=["reference", pytest.param("engine", marks=[needs_engine, pytest.mark.targets])])
def backend(request):
    return request.param


def network(case, initial, dtype, backend):
    sizes, pairs, at = case["sizes"], [], 0
    for n_in, n_out in pairwise(sizes):
        w = initial[at : at + n_in * n_out].reshape(n_in, n_out)
        pairs.append((w, initial[at + w.size : at + w.size + n_out]))
        at += w.size + n_out
    name, arguments = case["loss"]
    if "class_weight" in arguments:
        arguments = {**arguments, "class_weight": dict(enumerate(arguments["class_weight"]))}
    loss = getattr(losses, name)(**arguments)
    return MLP(sizes, case["activation"], loss, output=case.get("output"), weights=pairs, dtype=dtype, backend=backend)


def optimizer(case):
    name, arguments = case["optimizer"]
    return getattr(fastmlp, name)(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})


def flat(net):
    return np.concatenate([a.reshape(-1) for pair in zip(net.weights, net.biases, strict=True) for a in pair])


def distance(got, expected):
    """Largest difference, as a share of the largest number."""
    return np.abs(np.asarray(got, np.float64) - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"].replace(" ", "-") for case in CASES])
def test_steps_match_pytorch(recorded, case, dtype, backend):
    X, y = recorded["X"].astype(dtype), recorded[case["target"]]
    weight = recorded["sample_weight"] if case.get("weighted") else None
    losses_of_steps, final = (recorded[f"{case['name']}/{what} {dtype}"] for what in ("losses", "final"))
    net = network(case, recorded["initial " + "-".join(map(str, case["sizes"]))], dtype, backend)
    assert distance(flat(net), final) > 100 * LIMIT[dtype], "these steps move nothing: no test"
    trainer, found = Trainer(net, optimizer(case)), []
    for step in range(GOLDEN["steps"]):
        rows = slice(step * GOLDEN["rows"], (step + 1) * GOLDEN["rows"])
        found.append(trainer.step(X[rows], y[rows], None if weight is None else weight[rows]))
    assert distance(found, losses_of_steps) <= LIMIT[dtype]
    assert distance(flat(net), final) <= LIMIT[dtype]
