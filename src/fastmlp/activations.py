"""Activation functions: the output y of a layer, given its pre-activation z.

Specify one by name (``"relu"``) or, to set its parameter, as an object (``LeakyReLU(0.2)``). The kernels compute the
derivative from the output y where possible; ``needs_z`` marks the functions whose derivative also needs z. A network
rejects a nonzero parameter that its dtype rounds to 0 or to infinity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from .hyperparameters import check_bool, check_number, hyperparameters, lookup

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "HardTanh",
    "Identity",
    "LeakyReLU",
    "Mish",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "get",
]


@hyperparameters
class Activation:
    """Base class of activations.

    Attributes
    ----------
    name : str
        Name of the function with its default parameter.
    kind : str
        Name of the kernel's case, in ``fm_activation``.
    param : float
        Slope or alpha; 0 if there is none.
    needs_z : bool
        Whether the derivative needs the pre-activation as well as the output.
    for_outputs : bool
        Whether it is allowed in the output layer only, where it is a separate op.
    default_initializer : str
        Default initializer of the weights into a layer with this activation.
    """

    name: ClassVar[str]
    needs_z: ClassVar[bool] = False
    for_outputs: ClassVar[bool] = False
    default_initializer: ClassVar[str] = "glorot_uniform"

    @property
    def kind(self) -> str:
        return self.name

    @property
    def param(self) -> float:
        return 0.0

    def check(self) -> None:
        """Raise TypeError or ValueError for an invalid parameter; the message gives the allowed range."""


@hyperparameters
class Identity(Activation):
    """f(z) = z.

    Examples
    --------
    >>> get("linear")
    Identity()
    """

    name = "identity"


@hyperparameters
class Sigmoid(Activation):
    """f(z) = 1 / (1 + e^-z); f' = y (1 - y).

    Examples
    --------
    >>> get("logistic")
    Sigmoid()
    """

    name = "sigmoid"


@hyperparameters
class Tanh(Activation):
    """f(z) = tanh(z); f' = 1 - y^2.

    Examples
    --------
    >>> Tanh().default_initializer
    'glorot_uniform'
    """

    name = "tanh"


@hyperparameters
class ReLU(Activation):
    """f(z) = max(0, z); f' = 1 where y > 0, else 0.

    Examples
    --------
    >>> ReLU().default_initializer
    'he_normal'
    """

    name = "relu"
    default_initializer = "he_normal"


@hyperparameters
class LeakyReLU(Activation):
    """f(z) = z where z > 0, else slope z.

    Parameters
    ----------
    slope : float, default 0.01
        In [0, inf): with a negative slope the sign of z could not be inferred from the output.

    Examples
    --------
    >>> LeakyReLU(0.2).param
    0.2
    """

    slope: float = 0.01
    name = "leaky_relu"
    default_initializer = "he_normal"

    @property
    def param(self) -> float:
        return float(self.slope)

    def check(self) -> None:
        check_number(self, "slope", "[0, inf)")


@hyperparameters
class ELU(Activation):
    """f(z) = z where z > 0, else alpha (e^z - 1). Clevert, Unterthiner and Hochreiter, ICLR 2016.

    Parameters
    ----------
    alpha : float, default 1.0
        In [0, inf); -alpha is the value for very negative z.

    Examples
    --------
    >>> ELU()
    ELU(alpha=1.0)
    """

    alpha: float = 1.0
    name = "elu"
    default_initializer = "he_normal"

    @property
    def param(self) -> float:
        return float(self.alpha)

    def check(self) -> None:
        check_number(self, "alpha", "[0, inf)")


@hyperparameters
class SELU(Activation):
    """f(z) = s z where z > 0, else s a (e^z - 1), with s = 1.0507009873554805 and a = 1.6732632423543772.

    With LeCun's normal weights, layers preserve mean 0 and variance 1. Klambauer et al., NIPS 2017.

    Examples
    --------
    >>> SELU().default_initializer
    'lecun_normal'
    """

    name = "selu"
    default_initializer = "lecun_normal"


@hyperparameters
class GELU(Activation):
    """f(z) = z Phi(z), Phi the normal distribution function. Hendrycks and Gimpel, arXiv:1606.08415.

    Parameters
    ----------
    approximate : bool, default False
        Whether to use z / 2 (1 + tanh(sqrt(2 / pi) (z + 0.044715 z^3))), which is within 5e-4 of it and which some
        published weights were trained with. Its name is ``"gelu_tanh"``.

    Examples
    --------
    >>> GELU(approximate=True).kind
    'gelu_tanh'
    """

    approximate: bool = False
    name = "gelu"
    needs_z = True
    default_initializer = "he_normal"

    @property
    def kind(self) -> str:
        return "gelu_tanh" if self.approximate else "gelu"

    def check(self) -> None:
        check_bool(self, "approximate")


@hyperparameters
class SiLU(Activation):
    """f(z) = z sigmoid(z), also called swish. Elfwing et al., arXiv:1702.03118.

    Examples
    --------
    >>> get("swish")
    SiLU()
    """

    name = "silu"
    needs_z = True
    default_initializer = "he_normal"


@hyperparameters
class Mish(Activation):
    """f(z) = z tanh(log(1 + e^z)). Misra, BMVC 2020.

    Examples
    --------
    >>> Mish().needs_z
    True
    """

    name = "mish"
    needs_z = True
    default_initializer = "he_normal"


@hyperparameters
class Softplus(Activation):
    """f(z) = log(1 + e^z); f' = 1 - e^-y.

    Examples
    --------
    >>> Softplus().needs_z
    False
    """

    name = "softplus"


@hyperparameters
class HardTanh(Activation):
    """f(z) = min(1, max(-1, z)); f' = 1 where -1 < y < 1, else 0.

    Examples
    --------
    >>> import fastmlp
    >>> fastmlp.MLP([1, 1], loss="mse", output="hard_tanh", weights=[([[1.0]], None)]).predict([[0.5], [3.0]])
    array([0.5, 1. ], dtype=float32)
    """

    name = "hard_tanh"


@hyperparameters
class Softmax(Activation):
    """f(z)_c = e^z_c / sum e^z over the outputs of a row: probabilities. For the output layer only.

    Examples
    --------
    >>> import fastmlp
    >>> fastmlp.MLP([1, 2], output="softmax", weights=[([[0.0, 0.0]], None)]).predict_proba([[1.0]])
    array([[0.5, 0.5]], dtype=float32)
    """

    name = "softmax"
    for_outputs = True


@hyperparameters
class Exp(Activation):
    """f(z) = e^z; f' = y. The output of networks with the poisson loss; not available elsewhere."""

    name = "exp"
    for_outputs = True


KNOWN: dict[str, Callable[[], Activation]] = {
    kind.name: kind
    for kind in (Identity, Sigmoid, Tanh, ReLU, LeakyReLU, ELU, SELU, GELU, SiLU, Mish, Softplus, HardTanh, Softmax)
}
KNOWN |= {"gelu_tanh": lambda: GELU(approximate=True), "swish": SiLU, "logistic": Sigmoid, "linear": Identity}


def get(activation: str | Activation) -> Activation:
    """Return the activation with this name, or the given object, checked.

    Parameters
    ----------
    activation : str or Activation

    Raises
    ------
    ValueError
        For an unknown name (the message lists the known ones) or a parameter out of range.
    TypeError
        For anything else.

    Examples
    --------
    >>> get("leaky_relu"), get(ELU(0.5))
    (LeakyReLU(slope=0.01), ELU(alpha=0.5))
    """
    return lookup(activation, KNOWN, Activation)
