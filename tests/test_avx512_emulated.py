"""The AVX-512 kernels where the CPU has AVX2 only: their digests are those of the AVX2 kernels.

All that is emulated is the instruction set: 64-byte vectors in two halves. The blocks of one vector and the tiles are
those of the AVX-512 target, and so are the sources, but for the line that names the instructions.
"""

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import fastmlp

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
REGION = re.compile(r'target\("avx512[^"]*"\)')  # in GCC's pragma and in Clang's
DIGEST_LINES = 10  # five networks, in two types


def call(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def emulated_sources(folder):
    """A copy of csrc whose AVX-512 target asks for AVX2, and for the emulation."""
    csrc = folder / "csrc"
    shutil.copytree(CSRC, csrc)
    header = csrc / "simd" / "avx512.h"
    text, regions = REGION.subn('target("avx2,fma")', header.read_text())
    assert regions == 2, "simd/avx512.h opens its region in another way than this test knows"
    words = '#include "words.h"\n'
    assert text.count(words) == 1
    header.write_text(text.replace(words, f'#include "{TESTS / "avx512_emulation.h"}"\n{words}'))
    return csrc


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    """digest.c with the emulated kernels."""
    if "avx2" not in fastmlp.targets():
        pytest.skip("the AVX2 target, to emulate AVX-512 with, is not here")
    if not (CSRC / "fastmlp.h").is_file():
        pytest.skip("the C sources (csrc) are not beside these tests")
    if not (compiler := shutil.which(os.environ.get("CC", "cc"))):
        pytest.skip("there is no C compiler")
    folder = tmp_path_factory.mktemp("avx512")
    csrc = emulated_sources(folder)
    # -O0 gives the same bits as -O3 and takes a tenth of the time. The CPU need not have the real instructions.
    flags = ["-std=gnu11", "-O0", "-ffp-contract=off", "-Wno-psabi", f"-I{csrc}", "-Dfm_cpu_has_avx512=fm_cpu_is_any"]
    sources = [TESTS / "digest.c", *(source for source in csrc.glob("*.c") if source.name != "cpu.c")]
    objects = [folder / f"{source.stem}.o" for source in sources]
    commands = [[compiler, *flags, "-c", source, "-o", to] for source, to in zip(sources, objects, strict=True)]
    commands.append([compiler, "-c", csrc / "cpu.c", "-o", folder / "cpu.o"])
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: call(*command), commands))
    call(compiler, *objects, folder / "cpu.o", "-lm", "-lpthread", "-o", folder / "digest")
    return folder / "digest"


@pytest.mark.parametrize("threads", [1, 3])
def test_emulated_avx512_leaves_the_digests_of_avx2(driver, threads):
    digests = call(driver, "avx512", str(threads))
    assert len(digests.splitlines()) == DIGEST_LINES
    assert digests == call(driver, "avx2", str(threads))


def test_a_target_that_rounds_differently_leaves_other_digests(driver):
    # Or the comparison above could not fail.
    assert call(driver, "avx512", "1") != call(driver, "generic", "1")
