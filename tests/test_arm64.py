"""The kernels without Python: digest.c trains networks, and every FMA target gives the same digests, ARM64's included.

ARM64 is cross-compiled and run by QEMU: on Debian, gcc-aarch64-linux-gnu and qemu-user-static.
"""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
FLAGS = ["-std=gnu11", "-ffp-contract=off", "-Wno-psabi", f"-I{CSRC}"]  # those of setup.py
LIKE_THE_ENGINE = "-O3"
SOON = "-O1"  # on the host, whose digests do not depend on it: it compiles in two thirds of the time
NETWORKS = 10  # five, in two types


class Digest(NamedTuple):
    first_loss: str
    last_loss: str
    weights: str


class Driver:
    """The compiled digest.c, and how to run it."""

    def __init__(self, folder, optimisation, compiler, *emulator):
        if not (CSRC / "fastmlp.h").is_file():
            pytest.skip("the C sources (csrc) are not beside these tests")
        self.command = [*emulator, folder / "digest"]
        sources = [TESTS / "digest.c", *sorted(CSRC.glob("*.c"))]
        objects = [folder / f"{source.stem}.o" for source in sources]
        static = ["-static"] if emulator else []  # or QEMU would look for ARM64's libraries
        compile_one = [compiler, *FLAGS, optimisation, "-c"]
        commands = [[*compile_one, source, "-o", to] for source, to in zip(sources, objects, strict=True)]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(self.call, commands))
        self.call([compiler, *static, *objects, "-lm", "-lpthread", "-o", folder / "digest"])

    @staticmethod
    def call(command, allowed=(0,)):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600)
        assert done.returncode in allowed, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def digests(self, target, threads=1):
        """A digest for each network; None where this CPU has no such target."""
        done = self.call([*self.command, target, str(threads)], allowed=(0, 3))
        if done.returncode == 3:
            return None
        lines = [line.split() for line in done.stdout.splitlines()]
        return {f"{name} {dtype}": Digest(*rest) for name, dtype, *rest in lines}


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("there is no C compiler")
    return Driver(tmp_path_factory.mktemp("host"), SOON, compiler)


@pytest.fixture(scope="session")
def arm64(tmp_path_factory):
    compiler = shutil.which("aarch64-linux-gnu-gcc")
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not (compiler and emulator):
        pytest.skip("needs aarch64-linux-gnu-gcc and qemu-aarch64 (gcc-aarch64-linux-gnu and qemu-user-static)")
    return Driver(tmp_path_factory.mktemp("arm64"), LIKE_THE_ENGINE, compiler, emulator)


def digests_or_skip(driver, target, threads=1):
    found = driver.digests(target, threads)
    if found is None:
        pytest.skip(f"this CPU has no {target}")
    return found


@pytest.mark.parametrize("target", ["generic", "avx2", "avx512", "neon"])
def test_the_networks_of_the_host_learn_and_differ(host, target):
    # Digests of networks that stood still, or of the same one, would agree anywhere.
    found = digests_or_skip(host, target)
    assert len(found) == NETWORKS == len({digest.weights for digest in found.values()})
    for name, digest in found.items():
        assert float(digest.last_loss) < float(digest.first_loss), name


@pytest.mark.parametrize("target", ["generic", "avx2", "avx512", "neon"])
def test_workers_of_the_host_leave_the_same_digests(host, target):
    alone = digests_or_skip(host, target)
    for threads in (2, 3, 7):
        assert host.digests(target, threads) == alone, f"{threads} threads"


@pytest.mark.parametrize("target", ["neon", "generic"])
def test_workers_of_arm64_leave_the_same_digests(arm64, target):
    alone = arm64.digests(target)
    assert len(alone) == NETWORKS
    assert arm64.digests(target, 3) == alone


@pytest.mark.parametrize("target", ["avx2", "avx512", "neon"])
def test_arm64_leaves_the_digests_of_the_host(host, arm64, target):
    expected = digests_or_skip(host, target)
    assert arm64.digests("neon") == expected


def test_avx512_leaves_the_digests_of_avx2(host):
    assert digests_or_skip(host, "avx512") == digests_or_skip(host, "avx2")


def test_generic_gives_the_same_digests_on_arm64(host, arm64):
    # Two roundings for each multiply-add, but the same two everywhere.
    assert arm64.digests("generic") == host.digests("generic")
