"""Prediction: latency of one row, throughput of 10,000 rows; probabilities are checked against the reference first.

    python -m pytest benchmarks/bench_prediction.py
"""

import cases
import numpy as np
import pytest

import fastmlp

PREDICTED = [case for case in cases.CASES if not case.batch]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", PREDICTED, ids=lambda case: case.name)
def test_predict_proba(timed, target, case, threads):
    X, _ = cases.data(case)
    weights = cases.initial_weights(case)
    net, slow = (fastmlp.MLP(case.sizes, weights=weights, backend=backend) for backend in ("engine", "reference"))
    np.testing.assert_allclose(net.predict_proba(X), slow.predict_proba(X), rtol=1e-4, atol=1e-6)
    fastmlp.set_num_threads(threads)
    try:
        repeats = max(1, int(5e-3 / (case.flops / 50e9 + 5e-6)))

        def calls():
            for _ in range(repeats):
                net.predict_proba(X)

        timed(calls, case.flops, case.dtype, threads, repeats=repeats)
    finally:
        fastmlp.set_num_threads(None)
