"""The fast path compiles for FreeBSD 14.2 and needs nothing there but libc, CPython and the libraries of setup.py.

The cross compiler is zig's, which carries FreeBSD's headers and the symbol list of its libc.  Linking with
`-z defs` against that libc is the proof: a call that FreeBSD lacks is an undefined symbol.  What CPython,
libsodium, LMDB, libcrypto and GMP define is satisfied by stubs with just those names.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINUX_ONLY = {"poller_epoll"}
FOLDERS = ("wa/_fastpath", "sim/_native")
MODULES = sorted(
    str(path.relative_to(ROOT).with_suffix(""))
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.pyx")
    if path.stem not in LINUX_ONLY
)
TARGET = "x86_64-freebsd.14.2"
LIBRARY_SYMBOL = re.compile(r"_?Py|crypto_|sodium_|randombytes|mdb_|SHA256_|__gmpz_")
COMPILE = ["-c", "-O0", "-fPIC", "-fno-sanitize=undefined", "-Wall", "-Wno-unused-function"]
LINK = ["-shared", "-nostdlib", "-Wl,-z,defs"]  # without zig's start files, which take seconds to build


class CrossCompiler:
    """Everything it makes lies in `work`, the compiler's cache too."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.headers = work / "include"
        self.headers.mkdir()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "ziglang", "cc", "-target", TARGET, *arguments]
        cache = str(self.work / "zig")
        environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)

    def compile(self, source: Path) -> subprocess.CompletedProcess[str]:
        return self.run(*COMPILE, f"-I{self.headers}", str(source), "-o", str(source.with_suffix(".o")))

    def link(self, *objects: Path) -> subprocess.CompletedProcess[str]:
        return self.run(*LINK, *map(str, objects), "-lc", "-lpthread", "-o", str(self.work / "out.so"))

    def link_text(self, name: str, text: str) -> subprocess.CompletedProcess[str]:
        source = self.work / f"{name}.c"
        source.write_text(text)
        compiled = self.compile(source)
        assert compiled.returncode == 0, compiled.stderr
        return self.link(source.with_suffix(".o"))


def undefined(objects: list[Path]) -> set[str]:
    listing = subprocess.run(["nm", "-u", *objects], capture_output=True, text=True, check=True).stdout
    return {line.split()[1] for line in listing.splitlines() if line.lstrip().startswith("U ")}


def copy_headers(target: Path) -> None:
    """Of CPython and the libraries alone: the rest of the include directory is Linux's."""
    python = Path(sysconfig.get_path("include"))
    shutil.copytree(python, target, dirs_exist_ok=True)
    # Debian's pyconfig.h includes one per architecture, and FreeBSD is none that it knows.
    real = python.parent / str(sysconfig.get_config_var("MULTIARCH")) / python.name / "pyconfig.h"
    if real.exists():
        shutil.copy(real, target / "pyconfig.h")
    system, multiarch = Path("/usr/include"), Path("/usr/include") / str(sysconfig.get_config_var("MULTIARCH"))
    for include in (system, multiarch, Path("/usr/local/include")):
        for name in ("sodium.h", "lmdb.h", "gmp.h"):
            if (include / name).exists():
                shutil.copy(include / name, target)
        for name in ("sodium", "openssl"):  # of OpenSSL, Debian has what depends on the architecture elsewhere
            if (include / name).is_dir():
                shutil.copytree(include / name, target / name, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def compiler(tmp_path_factory: pytest.TempPathFactory) -> CrossCompiler:
    cross = CrossCompiler(tmp_path_factory.mktemp("freebsd"))
    copy_headers(cross.headers)
    return cross


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The C files.  Those of the build come along with their times: only stale ones are made again."""
    tree = tmp_path_factory.mktemp("tree")
    leave = shutil.ignore_patterns("*.so", "__pycache__")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tree / folder, ignore=leave)
        shutil.copy2(ROOT / folder / "../__init__.py", (tree / folder).parent)
    paths = [f"{name}.pyx" for name in MODULES]
    command = [sys.executable, "-m", "Cython.Build.Cythonize", "-3", "-q", *paths]
    made = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return tree


@pytest.fixture(scope="module")
def objects(compiler: CrossCompiler, sources: Path) -> list[Path]:
    """All modules compiled; a failure names the file and the compiler's words."""
    made = []
    for name in MODULES:
        compiled = compiler.compile(sources / f"{name}.c")
        assert compiled.returncode == 0, f"{name} does not compile for FreeBSD:\n{compiled.stderr}"
        made.append(sources / f"{name}.o")
    return made


def library_stub(compiler: CrossCompiler, objects: list[Path]) -> Path:
    """Defines what the objects need of the libraries, weakly: a simulation has functions of the same names."""
    names = {name for name in undefined(objects) if LIBRARY_SYMBOL.match(name)}
    assert names
    stub = compiler.work / "stub.c"
    stub.write_text("".join(f"char {name} __attribute__((weak));\n" for name in sorted(names)))
    assert compiler.compile(stub).returncode == 0
    return stub.with_suffix(".o")


def test_everything_resolves(compiler: CrossCompiler, objects: list[Path]) -> None:
    stub = library_stub(compiler, objects)
    for module in objects:
        linked = compiler.link(module, stub)
        assert linked.returncode == 0, f"{module}\n{linked.stderr}"


def test_the_kqueue_backend_is_what_was_built(objects: list[Path]) -> None:
    names = undefined(objects)
    assert {"kqueue", "kevent", "accept4", "getrandom"} <= names
    assert not {name for name in names if name.startswith(("epoll_", "eventfd"))}


def test_a_port_is_shared_with_load_balancing(compiler: CrossCompiler, sources: Path) -> None:
    """Plain SO_REUSEPORT on FreeBSD gives every connection to one worker."""
    text = (sources / "wa/_fastpath/os/sockets.c").read_text()
    assert "#define WA_REUSEPORT SO_REUSEPORT_LB" in text
    linked = compiler.link_text(
        "reuseport",
        "#include <sys/types.h>\n#include <sys/socket.h>\n#ifndef SO_REUSEPORT_LB\n#error missing\n#endif\n",
    )
    assert linked.returncode == 0, linked.stderr


def test_a_linux_call_would_be_noticed(compiler: CrossCompiler) -> None:
    """The control of this file: the same check fails for epoll and passes for kqueue."""
    linux = compiler.link_text("linux", "int epoll_create(int); int f(void) { return epoll_create(1); }")
    assert linked_without(linux) == {"epoll_create"}
    freebsd = compiler.link_text("freebsd", "int kqueue(void); int f(void) { return kqueue(); }")
    assert freebsd.returncode == 0, freebsd.stderr


def linked_without(linked: subprocess.CompletedProcess[str]) -> set[str]:
    """The symbols that the linker missed."""
    assert linked.returncode != 0
    return set(re.findall(r"undefined symbol: (\w+)", linked.stderr))


def test_a_linux_header_would_be_noticed(compiler: CrossCompiler) -> None:
    source = compiler.work / "header.c"
    source.write_text("#include <sys/epoll.h>\n")
    compiled = compiler.compile(source)
    assert compiled.returncode != 0
    assert "sys/epoll.h" in compiled.stderr
