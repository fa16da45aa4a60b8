"""One file a package: `version()` and `Entrant(case, X, y, weights, threads)` with train, weights and predict.

Each trains the same network on the same data in its own strongest form; raises `cases.Unsupported` where it cannot.
"""
