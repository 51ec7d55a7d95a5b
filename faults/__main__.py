"""Run real processes under real faults, and check what they recorded.

A violation prints the story of its messages and where the files are; the exit
code is then 1.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from faults import report
from faults.control import control as run_control
from faults.corrupt import corrupt as run_corrupt
from faults.cuts import cuts as run_cuts
from faults.disk_full import disk_full as run_disk_full
from faults.kills import kills as run_kills
from faults.report import Outcome
from faults.slow_reader import blocked_control as run_blocked_control
from faults.slow_reader import slow_reader as run_slow_reader

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Run = Coroutine[None, None, Outcome]
Rounds = Annotated[int, typer.Option(min=1, help="How many kills.")]
Seed = Annotated[int, typer.Option(help="Decides the faults; timing still varies.")]
Directory = Annotated[Path | None, typer.Option("--dir", help="Where server and clients keep their files.")]


@app.callback()
def harness() -> None:
    """Real processes under real faults."""


@app.command()
def kills(*, rounds: Rounds = 100, seed: Seed = 1, directory: Directory = None) -> None:
    """kill -9 of workers, supervisor and clients at random moments."""
    end([counted("kills", rounds, seed, partial(run_kills, rounds, seed, directory))], seed)


@app.command()
def disk_full(*, seed: Seed = 1, directory: Directory = None) -> None:
    """Fill the data directory's file system, then make room again."""
    end([alone("disk full", run_disk_full(seed, directory))], seed)


@app.command()
def proxy(
    *,
    incidents: Annotated[int, typer.Option(min=1, help="How many connections to disturb.")] = 60,
    seed: Seed = 1,
    directory: Directory = None,
) -> None:
    """Cut TCP in the middle of a record, stall it, dribble it, half close it."""
    end([counted("TCP cuts", incidents, seed, partial(run_cuts, incidents, seed, directory))], seed)


@app.command()
def slow_reader(
    *,
    seconds: Annotated[float, typer.Option(help="How long the client does not read.")] = 30.0,
    seed: Seed = 1,
    directory: Directory = None,
) -> None:
    """A client stops reading while others keep talking."""
    end([alone("slow reader", run_slow_reader(seconds, seed, directory))], seed)


@app.command()
def corrupt(*, seed: Seed = 1, directory: Directory = None) -> None:
    """Change one byte of a stored envelope while the server is down."""
    end([alone("corrupt", run_corrupt(seed, directory))], seed)


@app.command()
def control(*, seed: Seed = 1, directory: Directory = None) -> None:
    """Negative controls: an early ack and a blocked worker must be caught."""
    end(controls(seed, directory), seed)


@app.command("all")
def everything(*, rounds: Rounds = 100, seed: Seed = 1, directory: Directory = None) -> None:
    """Run every scenario once."""
    outcomes = [
        counted("kills", rounds, seed, partial(run_kills, rounds, seed, directory)),
        alone("disk full", run_disk_full(seed, directory)),
        counted("TCP cuts", 60, seed, partial(run_cuts, 60, seed, directory)),
        alone("slow reader", run_slow_reader(30.0, seed, directory)),
        alone("corrupt", run_corrupt(seed, directory)),
        *controls(seed, directory),
    ]
    end(outcomes, seed)


def controls(seed: int, directory: Path | None) -> list[Outcome]:
    return [
        alone("control", run_control(seed, directory)),
        alone("control: blocked", run_blocked_control(seed, directory)),
    ]


def alone(name: str, scenario: Run) -> Outcome:
    return asyncio.run(report.judged(name, scenario))


def counted(what: str, total: int, seed: int, run: Callable[[Callable[[int], None]], Run]) -> Outcome:
    with report.counting(f"{what}, seed {seed}", total) as progress:
        return alone(what, run(progress))


def end(outcomes: list[Outcome], seed: int) -> None:
    report.show(outcomes, seed)
    sys.exit(0 if all(outcome.is_good for outcome in outcomes) else 1)


if __name__ == "__main__":
    app()
