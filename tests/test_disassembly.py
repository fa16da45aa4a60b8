"""The compiled inner loops of the matrix product use vectors and no stack, in every target.

A tile holds its sums in registers for a whole run of k. If the compiler spills one of them, the product is several
times slower but still right, which no other test detects. Targets that this CPU cannot run are examined as well.
"""

import re
import shutil
import sys
from typing import NamedTuple

import c_code
import pytest

from fastmlp import runtime

# What multiplies in a k-loop (fused, but for the generic target), which operands are on the stack, what copies the
# stack pointer to another register, and where a jump goes.
DIALECTS = {
    "x86": {
        "fused": re.compile(r"vfn?m(add|sub)\d+p[sd]\b"),
        "packed": re.compile(r"v?mulp[sd]\b"),
        "scalar": re.compile(r"v?(mul|fmadd\d+|fmsub\d+)s[sd]\b"),
        "stack": r"\((%rsp|{frame})[,)]",
        "frame": re.compile(r"(?:mov\s+%rsp,(%\w+)|lea\s+\S*\(%rsp\),(%\w+))"),
        "jump": re.compile(r"j\w+\s+([0-9a-f]+)\b"),
    },
    "arm64": {
        "fused": re.compile(r"fmla\s+v"),
        "packed": re.compile(r"fmul\s+v\d+\.[24]"),
        "scalar": re.compile(r"(fmul|fmadd|fmsub)\s+[sd]\d"),
        "stack": r"\[(sp|{frame})[,\]]",
        "frame": re.compile(r"(?:mov|add)\s+(x\d+), sp\b()"),
        "jump": re.compile(r"(?:b|b\.\w+|cbn?z\s+\w+,|tbn?z\s+\w+, \S+,)\s+([0-9a-f]+)\b"),
    },
}


class Instruction(NamedTuple):
    address: int
    text: str


def tiles_in(binary, prefix=""):
    """The instructions of every tile, by source file and function."""
    file, spans = "", {}
    for line in c_code.run(prefix + "objdump", "-t", binary).stdout.splitlines():
        if match := re.search(r" df \*ABS\*\s+\w+\s+(\S+)", line):
            file = match[1].removesuffix(".c")
        elif match := re.match(r"(\w+) l +F \.text\S*\s+(\w+)\s+(tile_\w+)", line):
            first = int(match[1], 16)
            spans[first] = (first + int(match[2], 16), file, match[3])
    found, current, end = {}, None, 0
    for line in c_code.run(prefix + "objdump", "-d", "--no-show-raw-insn", binary).stdout.splitlines():
        if not (match := re.match(r" +([0-9a-f]+):\t(.*)", line)):
            continue
        address = int(match[1], 16)
        if address in spans:
            end, *name = spans[address]
            current = found.setdefault(name[0], {}).setdefault(name[1], [])
        if current is not None and address < end:
            current.append(Instruction(address, match[2].split("#")[0].split("//")[0].strip()))
    return found


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """The tiles of the extension in use; of objects compiled for the purpose, where that was stripped of its names."""
    if runtime._engine is None:
        pytest.skip("the compiled engine is not built")
    if not sys.platform.startswith("linux") or not shutil.which("objdump"):
        pytest.skip("needs Linux and objdump, from binutils")
    found = tiles_in(runtime._engine.__file__)
    if not found:
        folder, sources = tmp_path_factory.mktemp("objects"), sorted(c_code.CSRC.glob("target_*.c"))
        flags = [*c_code.engine_flags(), "-fPIC", "-DNDEBUG"]
        for binary in c_code.compile_all(folder, sources, *flags, compiler=c_code.compiler()).values():
            found |= tiles_in(binary)
    return found


@pytest.fixture(scope="module")
def arm64_tiles(arm64_objects):
    if not shutil.which(c_code.ARM64 + "objdump"):
        pytest.skip(f"{c_code.ARM64}objdump is not here")
    found = {}
    for name in ("target_neon_f32", "target_neon_f64"):
        found |= tiles_in(arm64_objects[name], c_code.ARM64)
    return found


def k_loops(code, dialect, multiply):
    """The innermost loops that multiply: from the goal of a backward jump to the jump, with no other loop within.

    What comes after a return was moved out of the way: a jump back over that closes no loop.
    """
    jumps = [(int(m[1], 16), i.address) for i in code if (m := dialect["jump"].match(i.text))]
    returns = [i.address for i in code if re.match(r"ret", i.text)]
    backward = [(goal, end) for goal, end in jumps if code[0].address <= goal <= end]
    loops = [(goal, end) for goal, end in backward if not any(goal < address < end for address in returns)]
    for goal, end in loops:
        inner = any(goal <= g and e <= end and (g, e) != (goal, end) for g, e in loops)
        body = [i for i in code if goal <= i.address <= end]
        if not inner and any(multiply.match(i.text) for i in body):
            yield body


def faults(name, code, dialect, multiply):
    """What is wrong with the k-loops of a tile, in words."""
    rows, vectors = map(int, re.fullmatch(r"tile_\w+?_(\d+)x(\d+)\w*", name).groups())
    frames = [a or b for i in code if (m := dialect["frame"].match(i.text)) for a, b in [m.groups()]]
    stack = re.compile(dialect["stack"].format(frame="|".join(map(re.escape, frames)) or "$."))
    loops = list(k_loops(code, dialect, multiply))
    if not loops:
        yield f"{name}: no loop with vector multiplications"
    for body in loops:
        products = sum(bool(multiply.match(i.text)) for i in body)
        if not products or products % (rows * vectors):
            yield f"{name}: {products} vector multiplications in the loop, not a multiple of {rows * vectors}"
        for i in body:
            if stack.search(i.text):
                yield f"{name}: touches the stack at {i.address:x}: {i.text}"
            if dialect["scalar"].match(i.text):
                yield f"{name}: is scalar at {i.address:x}: {i.text}"


def check(found, file, dialect):
    dialect = DIALECTS[dialect]
    tiles = found[file]
    assert {name.split("_")[1] for name in tiles} >= {"nn", "tn"} and len(tiles) >= 20, f"{file}: tiles {sorted(tiles)}"
    multiply = dialect["packed" if "generic" in file else "fused"]
    wrong = [fault for name, code in sorted(tiles.items()) for fault in faults(name, code, dialect, multiply)]
    assert not wrong, f"{file}:\n" + "\n".join(wrong)


@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "generic"])
@pytest.mark.parametrize("word", ["f32", "f64"])
def test_k_loops_stay_in_registers(tiles, name, word):
    if name not in runtime._engine.targets(supported=False):
        pytest.skip(f"{name} is for another kind of CPU")
    check(tiles, f"target_{name}_{word}", "arm64" if "neon" in runtime._engine.targets(supported=False) else "x86")


@pytest.mark.parametrize("word", ["f32", "f64"])
def test_k_loops_of_arm64_stay_in_registers(arm64_tiles, word):
    check(arm64_tiles, f"target_neon_{word}", "arm64")
