"""The AVX-512 kernels where the CPU has AVX2 only: their digests are those of the AVX2 kernels.

All that is emulated is the instruction set: 64-byte vectors in two halves. The blocks of one vector and the tiles are
those of the AVX-512 target, and so are the sources, but for the line that names the instructions.
"""

import re
import shutil
from functools import cache

import c_code
import pytest

import fastmlp

pytestmark = pytest.mark.skipif("avx2" not in fastmlp.targets(), reason="no AVX2 target to emulate AVX-512 with")
REGION = re.compile(r'target\("avx512[^"]*"\)')  # in GCC's pragma and in Clang's
DIGEST_LINES = 10  # five networks, in two types


def emulated_sources(folder):
    """A copy of csrc whose AVX-512 target asks for AVX2, and for the emulation."""
    csrc = folder / "csrc"
    shutil.copytree(c_code.CSRC, csrc)
    header = csrc / "simd" / "avx512.h"
    text, regions = REGION.subn('target("avx2,fma")', header.read_text())
    assert regions == 2, "simd/avx512.h opens its region in another way than this test knows"
    words = '#include "words.h"\n'
    assert text.count(words) == 1
    header.write_text(text.replace(words, f'#include "{c_code.TESTS / "avx512_emulation.h"}"\n{words}'))
    return csrc


@pytest.fixture(scope="module")
def digest(host_objects, tmp_path_factory):
    """A function that runs digest.c with the emulated kernels on a target and a number of threads."""
    folder, compiler = tmp_path_factory.mktemp("avx512"), c_code.compiler()
    csrc = emulated_sources(folder)
    emulated = [*csrc.glob("target_avx512_*.c"), csrc / "targets.c"]
    # The CPU need not have the real instructions.
    flags = [*c_code.engine_flags(), "-O0", f"-I{csrc}", "-Dfm_cpu_has_avx512=fm_cpu_is_any"]
    objects = host_objects | c_code.compile_all(folder, emulated, *flags, compiler=compiler)
    program = c_code.link(folder, objects, *c_code.sanitizers(compiler), compiler=compiler)
    return cache(lambda target, threads: c_code.run(program, target, str(threads)).stdout)


@pytest.mark.parametrize("threads", [1, 3])
def test_emulated_avx512_leaves_the_digests_of_avx2(digest, threads):
    digests = digest("avx512", threads)
    assert len(digests.splitlines()) == DIGEST_LINES
    assert digests == digest("avx2", threads)


def test_a_target_that_rounds_differently_leaves_other_digests(digest):
    # Or the comparison above could not fail.
    assert digest("avx512", 1) != digest("generic", 1)
