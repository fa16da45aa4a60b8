"""scikit-learn's own checks of both estimators in several configurations; a few may fail, in float32 only."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore")  # the checks fit on awkward data on purpose


class SinglePrecision:
    """Turns every X into float32, so that all checks go through the float32 kernels."""

    def _validate_input(self, X, y, incremental, reset):
        X, y = super()._validate_input(X, y, incremental, reset)
        return X.astype(np.float32), y


class SingleMLPClassifier(SinglePrecision, MLPClassifier):
    """The classifier in float32."""


class SingleMLPRegressor(SinglePrecision, MLPRegressor):
    """The regressor in float32."""


SHORT = {"max_iter": 50, "learning_rate_init": 0.01}  # enough for what the checks want to be learned
CONFIGURATIONS = [
    {},
    {"solver": "sgd", "learning_rate": "adaptive"},
    {"solver": "lbfgs", "max_iter": 50},
    {"solver": "rmsprop", "activation": "gelu", "max_iter": 50},
    {"solver": "adamw", "activation": ["tanh", "silu"], "hidden_layer_sizes": (20, 10), **SHORT},
]
ESTIMATORS = [
    *(kind(**settings) for settings in CONFIGURATIONS for kind in (MLPClassifier, MLPRegressor)),
    MLPRegressor(standardize=True, standardize_targets=True, **SHORT),
    MLPClassifier(standardize=True, clip_norm=10.0, n_threads=2, **SHORT),
    SingleMLPClassifier(**SHORT),
    SingleMLPRegressor(**SHORT),
]


# Their tolerance is 1e-7, which is less than the distance from one float32 number to the next: sums over rows that are
# weighted and over rows that are repeated are rounded differently.
ROUNDING = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "requires 1e-7, but float32 is exact to 6e-8 and sums of it to less",
)


def expected_failures(estimator):
    if not isinstance(estimator, SinglePrecision):
        return {}
    own = {"check_regressor_multioutput": "requires float64 predictions"}
    return {**ROUNDING, **(own if isinstance(estimator, MLPRegressor) else {})}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_checks(estimator, check):
    check(estimator)
