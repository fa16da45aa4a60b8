"""fastmlp against NumPy, scikit-learn, PyTorch, JAX and onnxruntime: the same networks, data and weights, side by side.

    python benchmarks/rivals.py --markdown rivals.md --plot rivals.png

Every package trains each network from the same weights on the same batches first, and must end with the same loss,
before it is timed. A package that is not installed is named in the table; `pip install ".[bench]"` installs all but
PyTorch, whose CPU wheel is enough. PyTorch compiled needs a C++ compiler. With RIVALS_LOG=file, the packages' output
goes to that file. See contest.py for how it is measured and cases.py for what.
"""

import argparse
import json
import random
import sys
import time

import cases
import report
from contest import Contest
from roofline import library, usable_cpus

RIVALS = list(report.NAMES)


def arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ",".join(name.removeprefix("by_") for name in RIVALS)
    parser.add_argument("--rows", default="*", help="names of cases, with commas and wildcards; default: all (--list)")
    parser.add_argument("--rivals", default=names, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=min(2, usable_cpus()), help="at most; default: %(default)s")
    parser.add_argument("--rounds", type=int, default=20, help="7 if a round takes over 5 s; default: %(default)s")
    parser.add_argument("--milliseconds", type=float, default=50, help="of a turn (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="3 rounds of 5 ms: does it work at all?")
    parser.add_argument("--markdown", help="file for the table (default: the terminal)")
    parser.add_argument("--plot", help="file for the plot; needs matplotlib")
    parser.add_argument("--json", help="file for every single time")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    options = parser.parse_args(argv)
    options.rivals = [f"by_{name}" for name in options.rivals.split(",") if name]
    unknown = [name for name in options.rivals if name not in RIVALS]
    if unknown or options.threads < 1:
        parser.error(f"no rival is called {unknown[0]!r}" if unknown else "--threads must be at least 1")
    if options.quick:
        options.rounds, options.milliseconds = 3, 5
    return options


def write(options, rows, contest):
    text = report.markdown(rows, contest, options.rivals)
    if options.markdown:
        with open(options.markdown, "w") as file:
            file.write(text)
    if options.json:
        dump = [{"case": r.case.name, "seconds": r.seconds, "threads": r.threads, "peak": r.peak} for r in rows]
        with open(options.json, "w") as file:
            json.dump(dump, file)
    return text


def main(argv=None):
    options = arguments(argv)
    if options.list:
        print("\n".join(f"{case.name:<20} {case.title}" for case in cases.CASES))
        return 0
    chosen = cases.find(options.rows)
    library()  # the peak first: a missing compiler should be noticed now, not after an hour
    random.seed(0)
    contest, rows = Contest(options.rivals, options.threads, options.rounds, options.milliseconds / 1e3), []
    try:
        for case in chosen:
            start = time.perf_counter()
            rows.append(contest.run(case))
            text = write(options, rows, contest)  # after every row: an interrupted run keeps what it has
            print(f"{case.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    finally:
        contest.close()
    if not options.markdown:
        print(text)
    if options.plot:
        report.plot(rows, options.rivals, options.plot)
    return 0 if all("ours" in row.seconds for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
