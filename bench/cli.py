"""The command line: one command per scenario.  Only the release build comes here (build.enter)."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import relay as relay_scenario
from bench.report import show
from bench.results import Report, environment, results_directory
from bench.servers import revision
from bench.setup import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Rounds = Annotated[int, typer.Option(help="Interleaved rounds; medians and spread are over these.")]
Seconds = Annotated[float, typer.Option(help="Length of each load.")]
Suite = Annotated[str, typer.Option(help="aesgcm or chacha; the floor gets the same.")]
SUITES = {"chacha": 1, "aesgcm": 2}


def finish(report: Report, settings: Settings) -> None:
    report.environment = environment(revision(), settings.suite)
    stem = results_directory() / report.scenario
    Path(f"{stem}.json").write_text(report.to_json())
    show(report, Console())


@app.callback()
def about() -> None:
    """Measure `wa serve` beside an encrypted floor, in one run, with one generator."""


@app.command()
def relay(rounds: Rounds = 5, seconds: Seconds = 2.0, suite: Suite = "aesgcm") -> None:
    """Pairs with 16 and with 1 outstanding message; recipients on the same and on another worker."""
    settings = Settings(suite=SUITES[suite], rounds=rounds, seconds=seconds)
    finish(relay_scenario.run(settings), settings)


def main() -> None:
    app()
