"""Estimators of fastmlp and scikit-learn in default settings: cross-validated score and fit time, one Markdown table.

    python benchmarks/sklearn_comparison.py [--seeds 10] [--output table.md]

Every fold is fitted by both libraries one after the other, with the same seed, so that other load on the machine
affects both. Scores are accuracy or R2, the mean over seeds (a seed determines the folds and the network's random
numbers) with its standard error; times are medians over all fits. Both libraries use their default number of threads.
"""

import argparse
import time
import warnings
from pathlib import Path

import numpy as np
import sklearn
import sklearn.neural_network as theirs
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_wine
from sklearn.model_selection import KFold, StratifiedKFold

import fastmlp
import fastmlp.sklearn as ours

DATASETS = {
    "digits": load_digits,
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
}
LIBRARIES = (theirs, ours)
FOLDS = 5


def fit_and_score(library, name, seed, fold):
    """Seconds and score of one fit."""
    X, y, train, test = fold
    estimator = getattr(library, name)(random_state=seed)
    start = time.perf_counter()
    estimator.fit(X[train], y[train])
    seconds = time.perf_counter() - start
    return seconds, estimator.score(X[test], y[test])


def compare(load, seeds):
    """Arrays (seed, fold, library) of seconds and of scores."""
    X, y = load(return_X_y=True)
    regression = load is load_diabetes
    name = "MLPRegressor" if regression else "MLPClassifier"
    results = np.empty((seeds, FOLDS, len(LIBRARIES), 2))
    for seed in range(seeds):
        folds = (KFold if regression else StratifiedKFold)(FOLDS, shuffle=True, random_state=seed)
        for f, (train, test) in enumerate(folds.split(X, y)):
            turns = list(enumerate(LIBRARIES))
            for i, library in turns if (seed + f) % 2 else turns[::-1]:
                results[seed, f, i] = fit_and_score(library, name, seed, (X, y, train, test))
    return results[..., 0], results[..., 1]


def row(name, seconds, scores):
    """One line of the table."""
    by_seed = scores.mean(axis=1)
    error = by_seed.std(axis=0, ddof=1) / np.sqrt(len(by_seed))
    cells = [f"{m:.4f} ± {e:.4f}" for m, e in zip(by_seed.mean(axis=0), error, strict=True)]
    times = np.median(seconds, axis=(0, 1))
    ratio = np.median(seconds[..., 0] / seconds[..., 1])
    return f"| {name} | {cells[0]} | {cells[1]} | {times[0] * 1e3:.0f} ms | {times[1] * 1e3:.0f} ms | {ratio:.1f} x |"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--output", type=Path, help="also write the table here")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # about max_iter: the defaults are as they are
    header = f"| data | scikit-learn {sklearn.__version__} | fastmlp {fastmlp.__version__} | its fit | ours | faster |"
    lines = [header, "|---|---|---|---:|---:|---:|"]
    for name in arguments.datasets:
        lines.append(row(name, *compare(DATASETS[name], arguments.seeds)))
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
