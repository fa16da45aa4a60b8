"""One package in one process: reads commands on stdin, one per line, and answers each with a line of JSON on stdout.

    hello  {"entrant", "threads"}  -> {"version"} or {"missing"}       first: imports the package
    open   {"case"}                -> {}                               data, weights and compilation ...
    verify {"case"}                -> {"loss", "rough"} or {"outputs"} ... and results are shown before ...
    time   {"count"}               -> {"seconds", "count", "switches"} ... timing: epochs, or calls of a prediction
    close                          -> {}

An answer {"unsupported"} or {"error"} tells the reason. Separate processes keep the packages' threads apart.
"""

import dataclasses
import gc
import importlib
import json
import os
import resource
import sys
import time
import traceback

import cases
import numpy as np

VERIFY_STEPS = 6
CALLS = 64  # different rows for the one-row predictions


class Worker:
    def __init__(self):
        self.module = self.entrant = self.case = None
        self.threads = 1

    def hello(self, entrant, threads):
        self.threads = threads
        try:
            self.module = importlib.import_module(f"entrants.{entrant}")
        except ImportError as error:
            return {"missing": str(error)}
        return {"version": self.module.version()}

    def make(self, case, rows=None):
        X, y = cases.data(case, rows)
        return self.module.Entrant(case, X, y, cases.initial_weights(case), self.threads), X, y

    def open(self, case):
        self.case = cases.find(case)[0]
        self.entrant, X, _ = self.make(self.case, CALLS if self.case.rows == 1 else None)
        self.inputs = [X[i : i + 1].copy() for i in range(CALLS)] if self.case.rows == 1 else [X]
        return {}

    def verify(self, case):
        case = cases.find(case)[0]
        if not case.batch:
            entrant, X, _ = self.make(case, CALLS)
            calls = [X[i : i + 1] for i in range(4)] if case.rows == 1 else [X]
            return {"outputs": np.concatenate([entrant.predict(x) for x in calls])[:4].tolist()}
        exact = self.loss_after(dataclasses.replace(case, dropout=0.0), VERIFY_STEPS)
        return exact | ({"rough": self.loss_after(case, 8 * VERIFY_STEPS)["loss"]} if case.dropout else {})

    def loss_after(self, case, steps):
        """The loss on the first batch, before and after some steps on the first batches in order."""
        epochs = -(-steps // case.steps) if case.steps < steps else 1
        entrant, X, y = self.make(case, min(case.rows, steps * case.batch))
        X0, y0 = X[: case.batch], y[: case.batch]
        before = cases.loss_of(case, cases.initial_weights(case), X0, y0)
        entrant.train(epochs, shuffle=False)
        return {"before": before, "loss": cases.loss_of(case, entrant.weights(), X0, y0)}

    def time(self, count):
        gc.collect()
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
        seconds, done = self.timed_training(count) if self.case.batch else self.timed_prediction(count)
        switches = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - switches
        return {"seconds": seconds, "count": done, "switches": switches}

    def timed_training(self, epochs):
        chunk = getattr(self.entrant, "chunk", 1)
        epochs = -(-epochs // chunk) * chunk
        start = time.perf_counter()
        self.entrant.train(epochs, shuffle=True)
        return time.perf_counter() - start, epochs * self.case.steps

    def timed_prediction(self, calls):
        predict, inputs, n = self.entrant.predict, self.inputs, len(self.inputs)
        start = time.perf_counter()
        for i in range(calls):
            predict(inputs[i % n])
        return time.perf_counter() - start, calls

    def close(self):
        self.entrant = self.inputs = None
        gc.collect()
        return {}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # a package's output must not be taken for an answer
    worker = Worker()
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = getattr(worker, command.pop("do"))(**command)
        except cases.Unsupported as why:
            answer = {"unsupported": str(why)}
        except Exception as error:  # reported to the parent, which continues without this package
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
