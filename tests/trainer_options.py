"""The options of a Trainer and a small network to train with them, shared by several test files."""

from fastmlp import MLP, SGD, Adam, AdamW

SIZES = [5, 9, 7, 3]
N = 50


def network(**settings):
    return MLP(SIZES, "tanh", **{"dtype": "float64", "seed": 3, **settings})


def flat(net):
    return net.parameters.copy()


# Name: the optimizer, and the options of Trainer and MLP.
OPTIONS = {
    "dropout": (Adam(0.01), {"dropout": 0.3, "input_dropout": 0.1}, {}),
    "dropout of one layer": (SGD(0.1, momentum=0.9), {"dropout": [0.0, 0.5]}, {}),
    "max_norm": (SGD(0.5), {"max_norm": 0.7}, {}),
    "average": (SGD(0.1), {"average": 0.9}, {}),
    "average and max_norm": (Adam(0.05), {"average": 0.5, "max_norm": 0.5, "dropout": 0.2}, {}),
    "accumulate": (Adam(0.01), {"accumulate": 3}, {}),
    "accumulate all": (
        AdamW(0.01, clip_norm=0.1),
        {"accumulate": 2, "dropout": 0.2, "average": 0.9, "max_norm": 1},
        {},
    ),
    "lr_factors": (SGD(0.1), {"lr_factors": [0.0, 1.0, 2.0]}, {}),
    "class_weight": (SGD(0.1), {"class_weight": "balanced"}, {}),
    "clip_norm": (SGD(0.1, clip_norm=0.05), {}, {}),
    "clip_value": (SGD(0.1, clip_value=0.001), {}, {}),
    "penalties": (SGD(0.1, l1=0.01, l2=0.02, weight_decay=0.03), {}, {}),
    "penalties of biases": (Adam(0.1, l1=0.01, l2=0.02, weight_decay=0.03, decay_biases=True), {}, {}),
    "standardize mean": (SGD(0.1), {}, {"standardize": "mean"}),
    "standardize robust": (SGD(0.1), {"input_dropout": 0.2}, {"standardize": "robust"}),
}
