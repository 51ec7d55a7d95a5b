"""What setup.py builds: a wheel has the product and nothing of the simulation, the benchmarks or the tests."""

import runpy
import sys
from pathlib import Path
from typing import Any, ClassVar

import Cython.Build
import pytest
import setuptools

ROOT = Path(__file__).parents[2]


def built(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[setuptools.Extension]:
    """The extensions that setup.py asks for, without building them."""
    asked: list[setuptools.Extension] = []

    class Done:
        have_run: ClassVar[dict[str, Any]] = {}

    def setup(**arguments: Any) -> Done:
        asked.extend(arguments["ext_modules"])
        return Done()

    for name in ("WA_DEBUG", "WA_BENCH"):
        monkeypatch.setenv(name, environment.get(name, "0"))
    monkeypatch.setattr(Cython.Build, "cythonize", lambda extensions, **_: extensions)
    monkeypatch.setattr(setuptools, "setup", setup)
    monkeypatch.setattr(sys, "argv", ["setup.py", "bdist_wheel"])
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return asked


def test_a_wheel_carries_nothing_of_the_simulation(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {extension.name for extension in built(monkeypatch)}
    assert {name.split(".")[0] for name in names} == {"wa"}
    assert not [name for name in names if "sim" in name or "memory" in name]
    assert {f"wa._fastpath.{room}" for room in ("base", "bus", "conn", "custody", "loop", "mailbox", "noise")} <= {
        name.rpartition(".")[0] for name in names
    }


def test_packages_of_a_wheel_are_the_product_s(monkeypatch: pytest.MonkeyPatch) -> None:
    packages = setuptools.find_packages(str(ROOT), include=["wa*"])
    assert "wa._fastpath.custody" in packages
    assert {package.split(".")[0] for package in packages} == {"wa"}


def test_the_tests_build_has_the_simulated_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: the same look finds it where it is."""
    names = {extension.name for extension in built(monkeypatch, WA_DEBUG="1")}
    assert {"sim._native.poller", "sim._native.memory_store"} <= names


def test_every_extension_says_what_it_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of LIBRARIES that fits nothing was left behind by a move."""
    asked = built(monkeypatch, WA_DEBUG="1", WA_BENCH="1")
    paths = {extension.name.replace(".", "/") for extension in asked}
    keys = runpy.run_path(str(ROOT / "setup.py"))["LIBRARIES"]
    assert [key for key in keys if key not in paths and not any(path.startswith(key + "/") for path in paths)] == []
