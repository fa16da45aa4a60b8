"""Time of `import fastmlp` beyond `import numpy`; and a check that it imports nothing heavy.

    python benchmarks/import_time.py [--runs 30]

Each import in a new process, the two in turn; the median of the differences. Fails if a package is imported that should
be imported only when it is needed.
"""

import argparse
import statistics
import subprocess
import sys

from cases import environment

HEAVY = ("scipy", "sklearn", "tqdm", "matplotlib", "pandas", "torch", "jax")
CODE = """
import sys, time
start = time.perf_counter()
import {module}
seconds = time.perf_counter() - start
print(seconds, *(name for name in {heavy} if name in sys.modules))
"""


def imported(module):
    """Seconds of the import in a new process, and the heavy packages that it imported."""
    command = [sys.executable, "-c", CODE.format(module=module, heavy=HEAVY)]
    env = {name: value for name, value in environment().items() if name != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True)
    seconds, *heavy = result.stdout.split()
    return float(seconds), heavy


def main():
    parser = argparse.ArgumentParser(description="The cost of import fastmlp over import numpy.")
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    for module in ("numpy", "fastmlp"):  # writes bytecode, fills the page cache
        imported(module)
    pairs = [(imported("numpy")[0], *imported("fastmlp")) for _ in range(runs)]
    extra = sorted(1e3 * (ours - base) for base, ours, _ in pairs)
    print(f"import numpy    {1e3 * statistics.median(base for base, _, _ in pairs):6.1f} ms")
    print(f"import fastmlp  {1e3 * statistics.median(ours for _, ours, _ in pairs):6.1f} ms")
    quartiles = f"{extra[runs // 4]:.1f} .. {extra[3 * runs // 4]:.1f}"
    print(f"difference      {statistics.median(extra):6.1f} ms (quartiles {quartiles})")
    heavy = {name for _, _, names in pairs for name in names}
    if heavy:
        sys.exit(f"import fastmlp brings in {', '.join(sorted(heavy))}")


if __name__ == "__main__":
    main()
