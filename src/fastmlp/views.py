"""Views: the weights or the biases of a network as a list of writable arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from . import checks

if TYPE_CHECKING:
    from .network import Network


class Views(list[NDArray[Any]]):
    """One live view per layer. Assigning to an item checks the array and copies it into the network's parameters.

    Copies and pickles are plain lists of independent arrays.

    Raises
    ------
    TypeError, ValueError
        On assignment of anything but a finite array of the view's shape; the parameters are then unchanged.

    Examples
    --------
    >>> import fastmlp, numpy as np
    >>> net = fastmlp.MLP([2, 1], loss="mse")
    >>> net.weights[0] = [[1.0], [2.0]]
    >>> net.biases[:] = [[0.5]]
    >>> net.predict([[1.0, 1.0]])
    array([3.5], dtype=float32)
    """

    def __init__(self, net: Network, name: str, views: list[NDArray[Any]]) -> None:
        super().__init__(views)
        self._net, self._name = net, name

    def __setitem__(self, index: Any, value: Any) -> None:
        layers = list(enumerate(self))[index]
        if not isinstance(index, slice):
            self._put([layers], [value])
            return
        checks.same_length(f"{self._name}[{_text(index)}]", value, len(layers), "one array for each layer")
        self._put(layers, list(value))

    def _put(self, layers: Any, values: list[Any]) -> None:
        net, checked = self._net, []
        for (i, view), value in zip(layers, values, strict=True):
            if value is view:  # after net.weights[0] *= 2, say
                continue
            array = net.checked_parameters(f"{self._name}[{i}]", value, view.shape)
            if view.ndim == 1 and not net.bias and array.any():
                raise ValueError(f"{self._name}[{i}] must be zero: the network has bias=False")
            checked.append((view, net.apart(array)))
        for view, array in checked:
            view[...] = array

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return list, (list(self),)


def _text(index: slice) -> str:
    """The slice in source notation."""
    ends = ["" if end is None else str(end) for end in (index.start, index.stop, index.step)]
    return ":".join(ends[:2] if index.step is None else ends)
