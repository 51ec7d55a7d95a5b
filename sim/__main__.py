"""Simulate the delivery code: one seed decides one run, its faults and its history; checkers read the history."""

import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sim.controls import CONTROLS, run_control
from sim.runner import Summary, cores, explain, run_many
from sim.settings import FAULTS

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)
console = Console()
Faults = Annotated[str | None, typer.Option(help="Only these faults, comma-separated; an empty string: none.")]


def _faults(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    kinds = tuple(word for word in text.split(",") if word)
    for kind in kinds:
        if kind not in FAULTS:
            raise typer.BadParameter(f"no fault {kind!r}; choose from {', '.join(FAULTS)}")
    return kinds


@app.command()
def run(
    seed: Annotated[int, typer.Option(help="The first seed.")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="How many processes.")] = cores(),
    faults: Faults = None,
) -> None:
    """Run many seeds and check each. Exit code 1 if one violates a rule."""
    kinds = _faults(faults)
    began = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("seeds", total=runs)

        def show(sum_: Summary) -> None:
            failed = f", [red]{sum_.failed} failed[/]" if sum_.failed else ""
            progress.update(task, completed=sum_.runs, description=f"seeds{failed}")

        total = run_many(seed, runs, jobs, show, kinds)
    seconds = time.monotonic() - began
    console.print(f"{total.runs} seeds in {seconds:.1f} s ({total.runs / seconds:.1f}/s, {jobs} processes)")
    console.print(", ".join(f"{n} {name}" for name, n in sorted(total.counts.items())), style="dim", soft_wrap=True)
    for failure in total.failures:
        rules = ", ".join(sorted(set(failure.rules)))
        console.print(
            f"seed {failure.seed} violates {rules}: {failure.text}", style="red", soft_wrap=True, markup=False
        )
    if total.failed:
        if total.failures[0].rules != ["process"]:
            print(explain(total.failures[0].seed, faults=kinds))
        console.print(f"{total.failed} of {total.runs} seeds failed", style="bold red")
        raise typer.Exit(1)


@app.command()
def show(
    seed: Annotated[int, typer.Argument(help="The seed.", show_default=False)],
    whole: Annotated[bool, typer.Option(help="Every event, not only those of the violating envelope.")] = False,
    control: Annotated[str, typer.Option(help="Break the promise of this negative control.")] = "none",
    faults: Faults = None,
) -> None:
    """Show one seed: settings, violations, history and its hash."""
    print(explain(seed, whole=whole, control=control, faults=_faults(faults)))


@app.command()
def controls() -> None:
    """Break each promise on purpose. Exit code 1 if a checker stays silent.

    The same seeds must pass with the promise kept.
    """
    good = True
    for control in CONTROLS:
        outcome = run_control(control)
        good = good and outcome.good
        caught = ", ".join(f"{rule} (seed {seed})" for rule, seed in sorted(outcome.caught_by.items())) or "nothing"
        verdict = "[green]caught[/]" if outcome.good else "[bold red]NOT CAUGHT[/]"
        console.print(f"{verdict} {control.name}: {control.breaks}: {caught}", soft_wrap=True)
        if outcome.false_alarms:
            console.print(f"    false alarm: seeds {outcome.false_alarms} fail with the promise kept", style="red")
    if not good:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(app())
