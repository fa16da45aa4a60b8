"""The machine's own limits: FMA peak by type and number of threads, memory bandwidth by size.

    python benchmarks/roofline.py [--threads 2]

The loops are in peak.c, compiled on the fly with the system's C compiler (CC, else cc). The other benchmarks import
`peak`, which takes ~20 ms, and call it next to what they time: on a shared machine the peak itself varies.
"""

import argparse
import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SECONDS = 0.005  # of one try
TRIES = 4
FLAGS = ["-O3", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi", "-shared", "-fPIC", "-pthread"]


@functools.cache
def library():
    """peak.c, compiled and loaded; RuntimeError where there is no C compiler."""
    compiler = os.environ.get("CC", "cc").split()
    if not shutil.which(compiler[0]):
        raise RuntimeError(f"the peak is measured by compiled C, and there is no C compiler {compiler[0]!r}: set CC")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "peak.so"
        command = [*compiler, *FLAGS, "-o", str(built), str(Path(__file__).with_name("peak.c"))]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{result.stderr}")
        loaded = ctypes.CDLL(str(built))
    loaded.gflops.restype = loaded.gbytes.restype = ctypes.c_double
    loaded.gflops.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64]
    loaded.gbytes.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    loaded.isa.restype = ctypes.c_char_p
    return loaded


def peak(dtype="float32", threads=1, tries=TRIES):
    """GFLOP/s of the FMA loop (a multiply-add counts as two), the best of some tries.

    >>> peak("float32", 1) > 0.1
    True
    """
    run, double = library().gflops, int(np.dtype(dtype) == np.float64)
    rate, repeats = max(run(double, 1, 10_000), 1e-3), 10_000
    flops_a_repeat = 2 * {"baseline": 12 * 16, "AVX2": 12 * 32, "AVX-512": 24 * 64}[isa()] / np.dtype(dtype).itemsize
    repeats = max(1, int(SECONDS * rate * 1e9 / flops_a_repeat))
    return max(run(double, threads, repeats) for _ in range(tries))


def bandwidth(size, threads=1, kind="read", tries=TRIES):
    """GB/s between the cores and `size` bytes for each thread; kind "read" or "triad" (two reads and a write)."""
    run, triad, memory = library().gbytes, int(kind == "triad"), np.ones(size * threads + 64, np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 64
    rate = max(run(triad, threads, start, size, 1), 1e-3)
    repeats = max(1, int(SECONDS * rate * 1e9 / (size * threads)))
    return max(run(triad, threads, start, size, repeats) for _ in range(tries))


def isa():
    """The instruction set that the loops use."""
    return library().isa().decode()


def cpu_name():
    """The CPU's name, as it reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model")))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cpus():
    """CPUs this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def caches():
    """Cache sizes of the first CPU as reported by the system: {"L1": bytes, ...}; empty if unknown."""
    found = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found[f"L{level}"] = int(size.rstrip("KM")) << (20 if size.endswith("M") else 10)
    return found


def size_name(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def level_of(size, threads):
    """The cache that holds `size` bytes for each thread (L3 is shared), or DRAM."""
    for name, capacity in caches().items():
        if size * (threads if name == "L3" else 1) <= 0.8 * capacity:
            return name
    return "DRAM" if caches() else "?"


def main():
    parser = argparse.ArgumentParser(description="The machine's FMA peak and memory bandwidth.")
    parser.add_argument("--threads", type=int, default=usable_cpus(), help="measure 1 thread and this many")
    counts = sorted({1, parser.parse_args().threads})
    print(f"{cpu_name()}, {usable_cpus()} CPUs, {isa()} vectors")
    print(", ".join(f"{name} {size_name(size)}" for name, size in caches().items()) or "cache sizes unknown")
    print(f"\n{'FMA peak':<12}" + "".join(f"{n:>4} thread{'s' * (n > 1):<2}" for n in counts) + "   GFLOP/s")
    for dtype in ("float32", "float64"):
        print(f"{dtype:<12}" + "".join(f"{peak(dtype, n, 20):>12.1f}" for n in counts))
    header = "".join(f"{f'{kind} x{n}':>11}" for kind in ("read", "triad") for n in counts)
    print(f"\n{'bytes each':<12}{'where':<6}{header}   GB/s")
    for size in [1 << k for k in (14, 16, 17, 18, 19, 21, 22, 23, 24, 26, 28)]:
        rates = [bandwidth(size, n, kind) for kind in ("read", "triad") for n in counts]
        print(f"{size_name(size):<12}{level_of(size, 1):<6}" + "".join(f"{rate:>11.1f}" for rate in rates))


if __name__ == "__main__":
    main()
