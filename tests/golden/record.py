"""Records ten training steps of small networks in PyTorch, for tests/test_golden.py to replay in fastmlp.

    python tests/golden/record.py        # needs torch (recorded with 2.13.0); rewrites the files here

A case is plain data: the network, the loss and the optimizer under fastmlp's names. `torch_loss` and `torch_optimizer`
are what PyTorch calls them. Weights and data are drawn in float64; the float32 runs begin with the same numbers,
rounded.
"""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

HERE = Path(__file__).parent
STEPS, ROWS, N_IN, N_OUT = 10, 7, 5, 3

ACTIVATIONS = {
    "identity": lambda z: z,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hard_tanh": F.hardtanh,
}

# fastmlp's class and arguments; and what the targets are.
LOSSES = {
    "cross_entropy": (["CrossEntropy", {}], "labels"),
    "cross_entropy_soft": (["CrossEntropy", {}], "soft"),
    "cross_entropy_smoothing": (["CrossEntropy", {"label_smoothing": 0.1}], "labels"),
    "cross_entropy_class_weight": (["CrossEntropy", {"class_weight": [0.5, 2.0, 1.0]}], "labels"),
    "binary_cross_entropy": (["BinaryCrossEntropy", {}], "binary"),
    "binary_cross_entropy_positive_weight": (["BinaryCrossEntropy", {"positive_weight": [0.5, 3.0, 1.0]}], "binary"),
    "mse": (["MSE", {}], "values"),
    "mae": (["MAE", {}], "values"),
    "huber": (["Huber", {"delta": 0.7}], "values"),
    "quantile": (["Quantile", {"q": [0.1, 0.5, 0.8]}], "values"),
    "poisson": (["Poisson", {}], "counts"),
}

SGD, MOMENTUM = {"learning_rate": 0.1}, {"learning_rate": 0.05, "momentum": 0.9}
OPTIMIZERS = {
    "sgd": ["SGD", SGD],
    "sgd_l2": ["SGD", {**SGD, "l2": 0.02, "decay_biases": True}],
    "sgd_l2_weights_only": ["SGD", {**SGD, "l2": 0.05}],
    "sgd_clip_value": ["SGD", {**SGD, "clip_value": 0.01, "l2": 0.02, "decay_biases": True}],
    "momentum": ["SGD", MOMENTUM],
    "momentum_l2": ["SGD", {**MOMENTUM, "l2": 0.02, "decay_biases": True}],
    "nesterov": ["SGD", {**MOMENTUM, "nesterov": True}],
    "nesterov_l2": ["SGD", {**MOMENTUM, "nesterov": True, "l2": 0.02, "decay_biases": True}],
    "rmsprop": ["RMSprop", {"learning_rate": 0.003, "alpha": 0.9}],
    "rmsprop_momentum": ["RMSprop", {"learning_rate": 0.001, "alpha": 0.9, "momentum": 0.8}],
    "rmsprop_l2": ["RMSprop", {"learning_rate": 0.003, "l2": 0.02, "decay_biases": True}],
    "adagrad": ["AdaGrad", {"learning_rate": 0.02}],
    "adagrad_l2": ["AdaGrad", {"learning_rate": 0.02, "l2": 0.02, "decay_biases": True}],
    "adam": ["Adam", {"learning_rate": 0.01}],
    "adam_l2": ["Adam", {"learning_rate": 0.01, "betas": [0.8, 0.95], "l2": 0.02, "decay_biases": True}],
    "adamw": ["AdamW", {"learning_rate": 0.01, "weight_decay": 0.1, "decay_biases": True}],
    "adamw_weights_only": ["AdamW", {"learning_rate": 0.01, "weight_decay": 0.3}],
}


def cases():
    """Every activation and every loss with momentum, every optimizer on two losses; a few corners."""

    def case(name, loss, optimizer, activation="tanh", sizes=(N_IN, 8, 6, N_OUT), **more):
        kind, target = LOSSES[loss]
        both = {"loss": kind, "target": target, "optimizer": OPTIMIZERS[optimizer], "activation": activation}
        return name, {**both, "sizes": list(sizes), **more}

    yield from (case(f"activation {a}", "cross_entropy", "momentum", a) for a in ACTIVATIONS)
    yield from (case(f"loss {loss}", loss, "momentum") for loss in LOSSES)
    for optimizer in OPTIMIZERS:
        yield case(f"optimizer {optimizer} on cross_entropy", "cross_entropy", optimizer, "silu")
        yield case(f"optimizer {optimizer} on mse", "mse", optimizer, "tanh", (N_IN, 9, N_OUT))
    yield case("no hidden layer", "cross_entropy", "adam", sizes=(N_IN, N_OUT))
    yield case("deep", "huber", "adam", "gelu", (N_IN, 7, 6, 5, 4, N_OUT))
    yield case("wide", "cross_entropy", "nesterov", "relu", (N_IN, 40, 33, N_OUT))
    yield case("sigmoid output under mse", "mse", "sgd", "sigmoid", output="sigmoid")
    yield case("sample weights", "cross_entropy_smoothing", "adam", weighted=True)
    yield case("sample weights, values", "huber", "momentum", weighted=True)


def draw():
    """The data of all steps, in float64, which all cases share."""
    rng, n = np.random.default_rng(2026), STEPS * ROWS
    return {
        "X": rng.normal(0, 1, (n, N_IN)),
        "labels": rng.integers(0, N_OUT, n),
        "soft": rng.dirichlet(np.ones(N_OUT), n),
        "binary": rng.integers(0, 2, (n, N_OUT)).astype(np.float64),
        "values": rng.normal(0, 1, (n, N_OUT)),
        "counts": rng.poisson(2, (n, N_OUT)).astype(np.float64),
        "sample_weight": rng.uniform(0.2, 3, n),
    }


def draw_weights(sizes):
    """Initial weights and biases, layer by layer; the same for all cases of that shape."""
    rng, weights = np.random.default_rng(sizes), []
    for n_in, n_out in pairwise(sizes):
        weights += [rng.normal(0, 1.2 / np.sqrt(n_in), (n_in, n_out)), rng.normal(0, 0.3, n_out)]
    return weights


def torch_row_losses(case, z, t):
    """Loss of each row, as PyTorch computes it without reduction."""
    name, arguments = case["loss"]
    if name == "CrossEntropy":
        return F.cross_entropy(z, t, reduction="none", label_smoothing=arguments.get("label_smoothing", 0.0))
    if name == "BinaryCrossEntropy":
        weight = arguments.get("positive_weight")
        weight = None if weight is None else torch.tensor(weight, dtype=z.dtype)
        return F.binary_cross_entropy_with_logits(z, t, pos_weight=weight, reduction="none").mean(dim=1)
    if name == "Quantile":
        q, e = torch.tensor(arguments["q"], dtype=z.dtype), t - z
        return torch.maximum(q * e, (q - 1) * e).mean(dim=1)
    return {
        "MSE": lambda: F.mse_loss(z, t, reduction="none"),
        "MAE": lambda: F.l1_loss(z, t, reduction="none"),
        "Huber": lambda: F.huber_loss(z, t, reduction="none", delta=arguments.get("delta", 1.0)),
        "Poisson": lambda: F.poisson_nll_loss(z, t, log_input=True, full=False, reduction="none"),
    }[name]().mean(dim=1)


def torch_loss(case, z, t, weight):
    """Loss of the batch: PyTorch's own mean, or its weighted mean."""
    name, arguments = case["loss"]
    if name == "CrossEntropy" and "class_weight" in arguments:
        return F.cross_entropy(z, t, weight=torch.tensor(arguments["class_weight"], dtype=z.dtype))
    rows = torch_row_losses(case, z, t)
    return rows.mean() if weight is None else (weight * rows).sum() / weight.sum()


def torch_optimizer(case, weights):
    """PyTorch's weight_decay is fastmlp's l2, but for AdamW's, which is fastmlp's weight_decay; it includes biases."""
    name, arguments = case["optimizer"]
    rest = {k: v for k, v in arguments.items() if k not in ("learning_rate", "l2", "decay_biases", "clip_value")}
    decay = rest.pop("weight_decay", 0.0) if name == "AdamW" else arguments.get("l2", 0.0)
    groups = [
        {"params": weights[0::2], "weight_decay": decay},
        {"params": weights[1::2], "weight_decay": decay if arguments.get("decay_biases") else 0.0},
    ]
    kind = {"AdaGrad": "Adagrad"}.get(name, name)
    return getattr(torch.optim, kind)(groups, lr=arguments["learning_rate"], **rest)


def train(case, weights, X, y, sample_weight, dtype):
    """Ten steps: the loss before each, and the weights after all."""

    def tensor(a):
        return torch.tensor(a, dtype=torch.int64 if a.dtype.kind == "i" else dtype)

    weights = [tensor(w).requires_grad_() for w in weights]
    X, y = tensor(X), tensor(y)
    sample_weight = None if sample_weight is None else tensor(sample_weight)
    optimizer, losses = torch_optimizer(case, weights), []
    for step in range(STEPS):
        rows = slice(step * ROWS, (step + 1) * ROWS)
        z = X[rows]
        for i in range(0, len(weights), 2):
            z = z @ weights[i] + weights[i + 1]
            if i < len(weights) - 2:
                z = ACTIVATIONS[case["activation"]](z)
        z = ACTIVATIONS[case.get("output", "identity")](z)
        loss = torch_loss(case, z, y[rows], None if sample_weight is None else sample_weight[rows])
        optimizer.zero_grad()
        loss.backward()
        if "clip_value" in case["optimizer"][1]:
            torch.nn.utils.clip_grad_value_(weights, case["optimizer"][1]["clip_value"])
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses), [w.detach().numpy() for w in weights]


def flat(arrays):
    return np.concatenate([a.reshape(-1) for a in arrays])


def main():
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    data, described = draw(), []
    arrays = dict(data)
    for name, case in cases():
        weights = draw_weights(case["sizes"])
        arrays["initial " + "-".join(map(str, case["sizes"]))] = flat(weights)
        sample_weight = data["sample_weight"] if case.get("weighted") else None
        for dtype in ("float64", "float32"):
            losses, final = train(case, weights, data["X"], data[case["target"]], sample_weight, getattr(torch, dtype))
            arrays[f"{name}/losses {dtype}"], arrays[f"{name}/final {dtype}"] = losses, flat(final)
        described.append({"name": name, **case})
    lines = ",\n".join("  " + json.dumps(case) for case in described)
    top = {"torch": torch.__version__.split("+")[0], "steps": STEPS, "rows": ROWS}
    head = json.dumps(top)[:-1]
    (HERE / "cases.json").write_text(f'{head}, "cases": [\n{lines}\n]}}\n')
    np.savez_compressed(HERE / "trajectories.npz", **arrays)
    print(len(described), "cases")


if __name__ == "__main__":
    main()
