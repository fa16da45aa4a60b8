"""Peak memory of a fit, measured in its own process, compared with what it must hold.

    python benchmarks/memory.py [CASE ...]

Measured: the highest resident size during construction and fit of the network, less that with the data loaded. Needed:
parameters + optimizer state + activations of one batch (inputs and outputs of every layer), as bare numbers.
"""

import argparse
import json
import resource
import subprocess
import sys

import cases
import numpy as np

NAMES = ["mnist-128", "mnist-512", "mnist-512-adam", "huge"]


def resident_peak():
    """Highest resident size of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def load(case):
    """The data, without temporaries: memory that the allocator reuses would hide some of the fit's."""
    rng = np.random.default_rng(1)
    X = np.empty((case.rows, case.sizes[0]), case.dtype)
    rng.standard_normal(out=X, dtype=case.dtype)
    y = np.arange(case.rows) % case.sizes[-1]
    return X, y if case.loss == "cross_entropy" else np.zeros((case.rows, case.sizes[-1]), case.dtype)


def child(name):
    """One fit; prints its bytes."""
    import fastmlp

    case = cases.find(name)[0]
    little = fastmlp.MLP([40, 40, 3], case.activation, seed=0)  # too wide for the kernels of small layers
    little.fit(np.eye(40), np.arange(40) % 3, epochs=2, optimizer=case.optimizer)  # loads the code
    X, y = load(case)
    before = resident_peak()
    net = fastmlp.MLP(case.sizes, case.activation, case.loss, dtype=case.dtype)
    built = resident_peak()
    optimizer = fastmlp.Adam(1e-6) if case.optimizer == "adam" else fastmlp.SGD(1e-6, momentum=cases.MOMENTUM)
    net.fit(X, y, epochs=2, batch_size=case.batch, optimizer=optimizer)
    print(json.dumps({"data": X.nbytes, "built": built - before, "fit": resident_peak() - before}))


def needed(case):
    """Bytes of parameters, optimizer state, activations."""
    itemsize = 4 if case.dtype == "float32" else 8
    parameters = sum((n_in + 1) * n_out for n_in, n_out in case.layers) * itemsize
    return parameters, parameters * (2 if case.optimizer == "adam" else 1), case.batch * sum(case.sizes) * itemsize


def measure(name):
    """The results of `child`, in a new process."""
    command = [sys.executable, __file__, "--child", name]
    result = subprocess.run(command, env=cases.environment(), check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description="Peak memory of a fit.")
    parser.add_argument("names", nargs="*", default=NAMES, help="cases; default: %(default)s")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child)
        return
    print(f"{'MB':<44}{'data':>8}{'params':>8}{'state':>8}{'activ.':>8}{'needed':>8}{'built':>8}{'fit':>8}{'ratio':>7}")
    for name in options.names:
        for case in cases.find(name):
            found, parts = measure(case.name), needed(case)
            columns = [found["data"], *parts, sum(parts), found["built"], found["fit"]]
            numbers = "".join(f"{c / 1e6:>8.1f}" for c in columns)
            print(f"{case.title:<44}{numbers}{found['fit'] / sum(parts):>7.2f}")


if __name__ == "__main__":
    main()
