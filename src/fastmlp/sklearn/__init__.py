"""MLPClassifier and MLPRegressor: scikit-learn's estimators of these names, on fastmlp's kernels.

In a script, replace ``from sklearn.neural_network import ...`` by ``from fastmlp.sklearn import ...``. Parameters,
attributes, warnings and random draws are scikit-learn's, so that in float64 a network starts from the same weights,
sees the same batches and stops by the same rule. Additional parameters are keyword-only and off by default.

This is the only part of fastmlp that imports scikit-learn.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("fastmlp's estimators need scikit-learn >= 1.6: pip install 'fastmlp[sklearn]'") from error

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
