"""The state of a pickled estimator, and its validation on loading."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..mlp import MLP
from .solver import Solver

FORMAT = 1


def packed(state: dict[str, Any], net: MLP | None) -> dict[str, Any]:
    """The state to pickle: the weights once, in the network, and fastmlp's version.

    ``net`` is the network used for prediction, not the trained one if arrays have been assigned since.
    """
    from .. import __version__

    state = {name: value for name, value in state.items() if name not in ("_shown", "_lists", "_spare", "_made_with")}
    if net is not None:
        fits = net.sizes == state["_net"].sizes
        state = {name: value for name, value in state.items() if name not in ("coefs_", "intercepts_")}
        state.update(_net=net, _solver=state.get("_solver") if fits else None)
    return {**state, "_fastmlp_version": __version__, "_fastmlp_format": FORMAT}


def unpacked(estimator: Any, state: Any) -> dict[str, Any]:
    """The attributes in such a state.

    Raises
    ------
    ValueError
        If it has another format, or its parts do not fit together.
    """
    name = type(estimator).__name__
    if not isinstance(state, dict) or state.get("_fastmlp_format") != FORMAT:
        found = state.get("_fastmlp_format") if isinstance(state, dict) else None
        raise ValueError(f"this {name} cannot be trusted: its state has format {found!r}, not {FORMAT}")
    attributes = dict(state)
    version = attributes.pop("_fastmlp_version", None)
    attributes.pop("_fastmlp_format")
    net, solver = attributes.get("_net"), attributes.get("_solver")
    try:
        if net is not None:
            check_network(attributes, net)
        if solver is not None:
            if not isinstance(solver, Solver) or net is None:
                raise ValueError("a solver without its network")
            solver.restore(net)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"this {name}, written by fastmlp {version}, cannot be trusted: {error}") from error
    return attributes


def check_network(attributes: dict[str, Any], net: Any) -> None:
    """Raise ValueError unless the network is an MLP, is finite, and has the shape given by the other attributes."""
    if not isinstance(net, MLP):
        raise ValueError(f"the network is a {type(net).__name__}")
    if not np.isfinite(net.parameters).all():
        raise ValueError("a weight is not finite")
    expected = (attributes["n_features_in_"], attributes["n_outputs_"], attributes["n_layers_"])
    if (net.sizes[0], net.sizes[-1], len(net.sizes)) != expected:
        raise ValueError(f"the network has sizes {list(net.sizes)}, not {expected} inputs, outputs and layers")
    if "classes_" in attributes:
        classes = len(attributes["classes_"])
        outputs = 1 if attributes["_label_binarizer"].y_type_ == "binary" else classes
        if outputs != net.sizes[-1]:
            raise ValueError(f"{net.sizes[-1]} outputs do not fit {classes} classes")
