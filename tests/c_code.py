"""Compiles the C code by itself: for what Python cannot observe, and for other machines than this one."""

import ast
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

TESTS = Path(__file__).resolve().parent
CSRC = TESTS.parent / "csrc"
ARM64 = "aarch64-linux-gnu-"


def compiler(prefix=""):
    """The C compiler, or the one of this prefix; skips where that, or the C code, is missing."""
    if not (CSRC / "fastmlp.h").is_file():
        pytest.skip("the C sources (csrc) are not beside these tests")
    name = prefix + "gcc" if prefix else os.environ.get("CC", "cc")
    return shutil.which(name) or pytest.skip(f"there is no C compiler {name}")


def setup_argument(name):
    """The value of an argument in setup.py; of one that depends on the system, that of all but Windows."""
    for node in ast.walk(ast.parse((TESTS.parent / "setup.py").read_text())):
        if isinstance(node, ast.keyword) and node.arg == name:
            return ast.literal_eval(node.value.orelse if isinstance(node.value, ast.IfExp) else node.value)
    raise AssertionError(f"setup.py has no {name}")


@cache
def engine_flags():
    """The flags of setup.py, but for what goes to debuggers: -g1."""
    return [flag for flag in setup_argument("extra_compile_args") if not flag.startswith("-g")]


def link_flags():
    """The flags by which setup.py links."""
    return setup_argument("extra_link_args")


@cache
def sanitizers(compiler):
    """Flags of the address and undefined-behaviour sanitizers, or none where they do not work.

    They need libraries beside the compiler, and a system that lets a process inspect itself.
    """
    flags = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    with TemporaryDirectory() as folder:
        main, made = Path(folder, "main.c"), Path(folder, "main")
        main.write_text("int main(void) { return 0; }\n")
        for command in ([compiler, *flags, main, "-o", made], [made]):
            if subprocess.run(command, capture_output=True).returncode:
                return ()
    return flags


def run(*command, allowed=(0,)):
    """The completed process of a command that must end with an allowed status, its output as text."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode in allowed, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def compile_all(folder, sources, *flags, compiler, more=lambda source: ()):
    """The object of each source, by its stem; compiled side by side, as setup.py does. more: flags for a source."""
    objects = {source.stem: folder / f"{source.stem}.o" for source in sources}
    commands = [[compiler, *flags, *more(source), "-c", source, "-o", objects[source.stem]] for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda command: run(*command), commands))
    return objects


def link(folder, objects, *flags, compiler):
    """The program of these objects."""
    run(compiler, *flags, *objects.values(), "-lm", "-lpthread", "-o", folder / "program")
    return folder / "program"


def program(folder, text, *names):
    """The program of this text and of the files so named in csrc."""
    main, cc = folder / "main.c", compiler()
    main.write_text(text)
    sources = [main, *(CSRC / f"{name}.c" for name in names)]
    return link(folder, compile_all(folder, sources, "-std=gnu11", "-O2", f"-I{CSRC}", compiler=cc), compiler=cc)
