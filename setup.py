"""Builds the engine: one extension from Cython and C. Everything else about the package is in pyproject.toml.

FASTMLP_PURE_PYTHON=1 leaves the engine out; the package then runs on the NumPy reference.
"""

import os
import sys
from itertools import chain
from multiprocessing.pool import ThreadPool
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.sdist import sdist
from setuptools.errors import CompileError

WITHOUT_COMPILER = (
    "fastmlp's engine could not be compiled. It needs a C compiler, gcc or clang, and Python's headers (on Debian and "
    "Ubuntu: apt install build-essential python3-dev). FASTMLP_PURE_PYTHON=1 pip install ... does without the engine: "
    "everything then runs on NumPy, many times slower."
)


def files(*patterns):
    return sorted(path.as_posix() for pattern in patterns for path in Path().glob(pattern) if path.is_file())


def engine():
    extension = Extension(
        "fastmlp._engine",
        sources=["src/fastmlp/_engine.pyx", *files("csrc/*.c")],  # all targets: a file is empty on a foreign CPU
        depends=files("src/fastmlp/*.px[di]", "csrc/**/*.h", "csrc/**/*.inc.c"),
        include_dirs=["csrc"],
        libraries=[] if sys.platform == "win32" else ["m", "pthread"],
        extra_compile_args=[  # after Python's own flags, so these win
            "-std=gnu11",  # the kernels use vector types, GCC's or Clang's
            "-O3",
            "-ffp-contract=off",  # the same bits on every target: an FMA only where the kernel asks for one
            "-fno-fast-math",  # CFLAGS may ask for it
            "-fno-lto",  # some Pythons bring -flto, which could mix code of different targets
            "-g1",  # names and lines for backtraces; with all debug information the extension is four times as large
            "-fvisibility=hidden",
            "-Wno-psabi",  # vectors are passed between inlined functions only
        ],
        # By -ffast-math or -Ofast, GCC would link code that makes the whole process flush subnormal numbers.
        extra_link_args=[] if sys.platform == "win32" else ["-O3", "-fno-fast-math"],
    )
    extension.cython_c_in_temp = True  # no generated C among the sources
    extension.cython_directives = {"language_level": "3", "freethreading_compatible": True}
    return extension


class ParallelBuild(build_ext):
    """Compiles the C files of the extension side by side: the kernels of each target take seconds."""

    def build_extensions(self):
        compile_in_turn = self.compiler.compile

        def compile_together(sources, **options):
            with ThreadPool(os.cpu_count()) as pool:
                objects = pool.map(lambda source: compile_in_turn([source], **options), sources, chunksize=1)
            return list(chain.from_iterable(objects))

        self.compiler.compile = compile_together
        try:
            super().build_extensions()
        except CompileError as error:
            raise CompileError(f"{error}\n{WITHOUT_COMPILER}") from None


class FullSource(sdist):
    """Puts the whole source into a source distribution, also where FASTMLP_PURE_PYTHON hides the extension."""

    def make_distribution(self):
        self.filelist.extend(files("src/fastmlp/*.p[yx]*", "csrc/**/*", "tests/**/*", "benchmarks/**/*"))
        self.filelist.extend(files("docs/*", ".ci/*"))
        self.filelist.exclude_pattern(r"(^|/)__pycache__/", is_regex=True)
        self.filelist.remove_duplicates()
        super().make_distribution()


pure = os.environ.get("FASTMLP_PURE_PYTHON", "0")
if pure not in ("", "0", "1"):
    sys.exit(f"FASTMLP_PURE_PYTHON must be 0 or 1, got {pure!r}")
setup(
    ext_modules=[] if pure == "1" else [engine()],
    cmdclass={"build_ext": ParallelBuild, "sdist": FullSource},
)
