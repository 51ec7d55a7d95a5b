"""Shared by the suites that put io_shim.c between LMDB and the kernel."""

import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library to preload."""
    library = tmp_path_factory.mktemp("shim") / "io_shim.so"
    source = Path(__file__).with_name("io_shim.c")
    compiler = shlex.split(str(sysconfig.get_config_var("CC")))
    options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"]
    subprocess.run([*compiler, *options], check=True)
    return library
