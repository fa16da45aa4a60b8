"""MLPClassifier and MLPRegressor: scikit-learn's estimators of these names, on fastmlp's kernels.

A script changes from ``from sklearn.neural_network import ...`` to ``from fastmlp.sklearn import ...``. Parameters,
attributes, warnings, and the random numbers that are drawn are scikit-learn's, so in float64 a network begins with the
same weights, sees the same batches and stops by the same rule. What comes on top is keyword-only and off by default.

This is the only part of fastmlp that imports scikit-learn.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError("fastmlp's estimators need scikit-learn >= 1.6: pip install 'fastmlp[sklearn]'") from error

from .classifier import MLPClassifier
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor"]
