"""The last line of a run over all targets and its exit code; and what goes without the tools of tests and plots."""

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import build, cli, short
from bench.results import Report, Target
from bench.settings import Settings

ROOT = Path(__file__).parent.parent.parent
EXTRA = ["matplotlib", "pytest", "pytest_benchmark", "pytest_timeout", "hypothesis", "mypy", "noise", "x3dh"]


def report(scenario: str, *targets: Target, fault: str | None = None) -> Report:
    return Report(scenario, {}, targets=list(targets), faults=[fault] if fault else [])


MET = report("relay", Target("bytes", 300.0, 340, True), Target("cost", 0.9, 0.6, False), Target("", 0.9, None, True))
MISSED = report("storm", Target("logins", 1_900.0, 2_000, False), Target("p99", 1.0, 2.0, True))
UNMEASURED = report("idle", Target("growth", math.nan, 1.1, True))
UNSOUND = report("group", Target("cost", 1.0, 2.0, True), fault="a message was lost")


@pytest.mark.parametrize(
    ("reports", "line", "codes"),
    [
        ([MET], "all 2 targets met", (0, 0)),
        ([MET, MISSED], "1 of 4 targets missed: storm: logins", (0, 1)),
        ([MISSED, UNMEASURED], "2 of 3 targets missed: storm: logins; idle: growth (not measured)", (0, 1)),
        ([MET, UNSOUND], "not sound: group; all 3 targets met", (1, 1)),
    ],
    ids=["met", "missed", "not measured", "not sound"],
)
def test_the_last_line_and_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reports: list[Report], line: str, codes: tuple[int, int]
) -> None:
    def run(settings: Settings) -> Iterator[Report]:
        yield from reports

    monkeypatch.setattr(short, "run", run)
    monkeypatch.setattr(cli, "results_directory", lambda: tmp_path)
    monkeypatch.setattr(cli.kernel, "descriptor_limit", lambda: None)  # it would be that of all tests
    for arguments, code in zip((["short"], ["short", "--strict"]), codes, strict=True):
        result = CliRunner().invoke(cli.app, arguments)
        assert (result.output.splitlines()[-1], result.exit_code) == (line, code), result.exception


def without(modules: list[str], code: str, results: Path) -> subprocess.CompletedProcess[str]:
    """Runs code in a Python that has none of these modules, as if from the release build."""
    block = f"import sys; sys.modules.update(dict.fromkeys({modules}))\n"
    environment = dict(os.environ, PYTHONPATH=str(ROOT), **{build.ENTERED_ENV: str(results)})
    command = [sys.executable, "-c", block + code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def bench(*arguments: str) -> str:
    return f"import runpy; sys.argv[1:] = {list(arguments)}; runpy.run_module('bench', run_name='__main__')"


REPORT = """
from bench.cli import finish, settings_of
from bench.results import Report
report = Report("relay", {})
report.find("wa", "load").samples.append({"per_s": 5.0})
finish(report, settings_of(1, 0.0, "aesgcm", None))
"""


def test_without_matplotlib_there_are_figures_and_no_plots(tmp_path: Path) -> None:
    done = without(EXTRA, REPORT, tmp_path)
    assert done.stderr == "bench: no plots, since matplotlib is not installed; run: make setup\n"
    assert done.returncode == 0 and "per s" in done.stdout
    assert sorted(path.name for path in (tmp_path / "bench/results").iterdir()) == ["relay.json", "relay.md"]


def test_with_matplotlib_there_are_plots(tmp_path: Path) -> None:
    done = without([], REPORT, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "![relay-throughput](relay-throughput.svg)" in (tmp_path / "bench/results/relay.md").read_text()


def test_what_is_missing_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = without(EXTRA, bench("--help"), tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and "micro" in done.stdout
    done = without(EXTRA, bench("micro"), tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("bench: pytest, pytest_benchmark not installed") and "make setup" in done.stderr
    monkeypatch.delenv(build.ENTERED_ENV, raising=False)
    monkeypatch.setattr(build, "build", lambda built: pytest.fail("built with what is not there"))
    monkeypatch.setitem(sys.modules, "Cython", None)  # type: ignore[arg-type]  # as if not installed
    with pytest.raises(SystemExit, match=r"^bench: Cython not installed .* make setup"):
        build.enter(["short"])


def test_make_bench_hands_its_arguments_on() -> None:
    # The suite runs under make itself, which would say that it enters and leaves a directory.
    environment = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "-n", "bench", "ARGS=--strict"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("-m bench short --strict")
