"""scikit-learn's own checks of estimators, on both classes in several configurations: none may fail."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from sklearn.utils.estimator_checks import parametrize_with_checks

from fastmlp.sklearn import MLPClassifier, MLPRegressor

pytestmark = pytest.mark.filterwarnings("ignore")  # the checks fit on what is made to be awkward


class SinglePrecision:
    """Turns every X into float32, so that all checks go through the float32 kernels."""

    def _validate_input(self, X, y, incremental, reset):
        X, y = super()._validate_input(X, y, incremental, reset)
        return X.astype(np.float32), y


class SingleMLPClassifier(SinglePrecision, MLPClassifier):
    """The classifier in float32."""


class SingleMLPRegressor(SinglePrecision, MLPRegressor):
    """The regressor in float32."""


CONFIGURATIONS = [
    {},
    {"solver": "sgd", "learning_rate": "adaptive"},
    {"solver": "lbfgs", "max_iter": 50},
    {"solver": "rmsprop", "activation": "gelu", "max_iter": 50},
    {"solver": "adamw", "activation": ["tanh", "silu"], "hidden_layer_sizes": (20, 10)},
]
ESTIMATORS = [
    *(kind(**settings) for settings in CONFIGURATIONS for kind in (MLPClassifier, MLPRegressor)),
    MLPRegressor(standardize=True, standardize_targets=True),
    MLPClassifier(standardize=True, clip_norm=10.0, n_threads=2),
    SingleMLPClassifier(),
    SingleMLPRegressor(),
]


# Their tolerance is 1e-7, which is less than the distance from one float32 number to the next: sums over rows that are
# weighted and over rows that are repeated are rounded differently.
ROUNDING = dict.fromkeys(
    ("check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data"),
    "asks for 1e-7, float32 has 6e-8 and sums of it have less",
)


def expected_failures(estimator):
    if not isinstance(estimator, SinglePrecision):
        return {}
    own = {"check_regressor_multioutput": "asks for float64 answers, and knows nothing of the float32 in between"}
    return {**ROUNDING, **(own if isinstance(estimator, MLPRegressor) else {})}


@parametrize_with_checks(ESTIMATORS, expected_failed_checks=expected_failures)
def test_checks(estimator, check):
    check(estimator)
