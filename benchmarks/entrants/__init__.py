"""One file per package: `version()` and `Entrant(case, X, y, weights, threads)` with train, weights and predict.

Each trains the same network on the same data in its package's fastest way, or raises `cases.Unsupported`.
"""
