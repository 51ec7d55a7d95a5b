"""Builds the Cython fast path.  Everything else is in pyproject.toml.

WA_DEBUG=1 builds with assertions, bounds checks and live-object counters: what the tests use.  The generated C
of the two differs, so each has a directory of its own under build/.
The simulated machine of sim/, the load generator and the floor of bench/ are built for the tests and with WA_BENCH=1
(bench/build.py sets it); a wheel has none of them.
"""

import os
import sys
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

HERE = Path(__file__).parent
DEBUG = os.environ.get("WA_DEBUG", "0") == "1"
BENCH = os.environ.get("WA_BENCH", "0") == "1"
BSD = "bsd" in sys.platform

# Which file implements the poller contract on the platform the wheel is built for.
OTHER_POLLER = "poller_epoll" if BSD else "poller_kqueue"

# What each extension links beside libc, by its path without the suffix.  A folder stands for all of its extensions.
LIBRARIES = {
    "wa/_fastpath/bus": ["sodium"],
    "wa/_fastpath/loop/worker": ["sodium"],
    "wa/_fastpath/mailbox": ["lmdb", "sodium"],
    "wa/_fastpath/noise/curve": ["sodium", "gmp"],
    "wa/_fastpath/noise/hkdf": ["crypto", "sodium"],
    "wa/_fastpath/noise/noise": ["sodium"],
    "wa/_fastpath/os/sockets": ["sodium"],
    "wa/_fastpath/session": ["sodium"],
    "sim/_native/dh": ["sodium"],
    "bench/_load": ["sodium"],
}
INCLUDE = ["/usr/local/include"] if BSD else []
LIBDIRS = ["/usr/local/lib"] if BSD else []


def extension(path: Path) -> Extension:
    source = path.relative_to(HERE).with_suffix("")
    return Extension(
        ".".join(source.parts),
        [f"{source}.pyx"],
        libraries=LIBRARIES.get(str(source), LIBRARIES.get(str(source.parent), [])),
        include_dirs=INCLUDE,
        library_dirs=LIBDIRS,
        extra_compile_args=["-O1", "-g", "-UNDEBUG", "-DWA_DEBUG=1"] if DEBUG else ["-O3", "-g", "-DNDEBUG"],
    )


# Time stamps do not tell build_ext that the modules in place are of the other mode.
MODE = "debug" if DEBUG else "release"
IN_PLACE = HERE / "build/in-place-mode"
mode_changed = "--inplace" in sys.argv and not (IN_PLACE.exists() and IN_PLACE.read_text() == MODE)

sources = [p for p in sorted((HERE / "wa/_fastpath").rglob("*.pyx")) if p.stem != OTHER_POLLER]
if BENCH or DEBUG:  # never in a wheel
    sources += sorted((HERE / "sim/_native").glob("*.pyx"))
    if not BSD:  # the floor is epoll, and so are the /proc files that the harness reads
        sources += sorted((HERE / "bench/_load").glob("*.pyx"))
distribution = setup(
    options={"build_ext": {"force": mode_changed, "parallel": os.cpu_count()}},
    ext_modules=cythonize(
        [extension(p) for p in sources],
        build_dir=f"build/{MODE}",
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
if mode_changed and distribution.have_run.get("build_ext"):
    IN_PLACE.parent.mkdir(exist_ok=True)
    IN_PLACE.write_text(MODE)
