"""Builds the Cython fast path.  Everything else is in pyproject.toml.

WA_DEBUG=1 builds with assertions, overflow checks and live-object counters (what the tests use).
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
DEBUG = os.environ.get("WA_DEBUG", "0") == "1"
BSD = "bsd" in sys.platform

# Which file implements the poller contract on the platform the wheel is built for.
OTHER_POLLER = "poller_epoll" if BSD else "poller_kqueue"

LIBRARIES = {
    "noise": ["sodium"],
    "loop": ["sodium"],
    "session": ["sodium"],
    "lmdb_ops": ["lmdb"], "lmdb_reads": ["lmdb"], "lmdb_store": ["lmdb"]}
INCLUDE = ["/usr/local/include"] if BSD else []
LIBDIRS = ["/usr/local/lib"] if BSD else []


def extension(path: Path) -> Extension:
    name = path.stem
    return Extension(
        f"wa._fastpath.{name}",
        [str(path.relative_to(HERE))],
        libraries=LIBRARIES.get(name, []),
        include_dirs=INCLUDE,
        library_dirs=LIBDIRS,
        extra_compile_args=["-O1", "-g", "-UNDEBUG", "-DWA_DEBUG=1"] if DEBUG else ["-O3", "-g", "-DNDEBUG"],
    )


# Time stamps tell cythonize and build_ext when a .pyx or a .pxd changed, but not when the mode did.
MODE = "debug" if DEBUG else "release"
STAMP = HERE / "build" / "mode"
mode_changed = not STAMP.exists() or STAMP.read_text() != MODE

sources = [p for p in sorted((HERE / "wa/_fastpath").glob("*.pyx")) if p.stem != OTHER_POLLER]
distribution = setup(
    options={"build_ext": {"force": mode_changed}},
    ext_modules=cythonize(
        [extension(p) for p in sources],
        force=mode_changed,
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": False,
            "embedsignature": True,
        },
    ),
)
if distribution.have_run.get("build_ext"):
    STAMP.parent.mkdir(exist_ok=True)
    STAMP.write_text(MODE)
