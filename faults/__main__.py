"""python -m faults …"""

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from faults import report
from faults.kills import kills as run_kills
from faults.report import Outcome

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__)
Seed = Annotated[int, typer.Option(help="Decides the faults; printed with every run.")]
Directory = Annotated[Path | None, typer.Option("--dir", help="Where server and clients keep their files.")]


@app.callback()
def harness() -> None:
    """Real processes under real faults."""


@app.command()
def kills(
    *,
    rounds: Annotated[int, typer.Option(min=1, help="How many times something is killed.")] = 100,
    seed: Seed = 1,
    directory: Directory = None,
) -> None:
    """kill -9 of workers, supervisor and clients at random moments."""
    with report.counting(f"kills, seed {seed}", rounds) as progress:
        outcome = asyncio.run(run_kills(rounds, seed, directory, progress))
    end([outcome], seed)


def end(outcomes: list[Outcome], seed: int) -> None:
    report.show(outcomes, seed)
    sys.exit(0 if all(outcome.is_good for outcome in outcomes) else 1)


if __name__ == "__main__":
    app()
