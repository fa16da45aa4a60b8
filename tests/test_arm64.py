"""The kernels without Python: digest.c trains networks, and every FMA target gives the same digests, ARM64's included.

ARM64 is cross-compiled and run by QEMU: on Debian, gcc-aarch64-linux-gnu and qemu-user-static.
"""

import shutil
from functools import cache
from typing import NamedTuple

import c_code
import pytest

NETWORKS = 10  # five, in two types


class Digest(NamedTuple):
    first_loss: str
    last_loss: str
    weights: str


class Driver:
    """The compiled digest.c: how it is called on this machine. Each call is made only once: emulated ones are slow."""

    def __init__(self, *command):
        self.command = command
        self.digests = cache(self._digests)

    def _digests(self, target, threads=1):
        """A digest for each network; None where this CPU has no such target."""
        done = c_code.run(*self.command, target, str(threads), allowed=(0, 3))
        if done.returncode == 3:
            return None
        lines = [line.split() for line in done.stdout.splitlines()]
        return {f"{name} {dtype}": Digest(*rest) for name, dtype, *rest in lines}


@pytest.fixture(scope="module")
def host(host_objects, tmp_path_factory):
    folder, compiler = tmp_path_factory.mktemp("host"), c_code.compiler()
    return Driver(c_code.link(folder, host_objects, *c_code.sanitizers(compiler), compiler=compiler))


@pytest.fixture(scope="module")
def arm64(arm64_objects, tmp_path_factory):
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if not emulator:
        pytest.skip("needs qemu-aarch64-static or qemu-aarch64")
    compiler, folder = c_code.compiler(c_code.ARM64), tmp_path_factory.mktemp("arm64")
    return Driver(emulator, c_code.link(folder, arm64_objects, "-static", compiler=compiler))  # QEMU has no libraries


def digests_or_skip(driver, target):
    found = driver.digests(target)
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
