"""C programs that call parts of csrc directly, for what Python cannot see."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parent.parent / "csrc"


def build(folder, text, *names):
    """The program of this text and of the files so named in csrc, compiled in a folder; skips where that cannot be."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or not CSRC.is_dir():
        pytest.skip("needs a C compiler and the C sources (csrc) beside these tests")
    (folder / "main.c").write_text(text)
    sources = [folder / "main.c", *(CSRC / f"{name}.c" for name in names)]
    command = [compiler, "-std=gnu11", "-O2", f"-I{CSRC}", *sources, "-lm", "-lpthread", "-o", folder / "main"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "main"
