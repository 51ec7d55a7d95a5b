"""The simulation's commands; see sim/__init__.py."""

import sys
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sim.controls import CONTROLS, run_control
from sim.runner import Summary, cores, explain, run_many
from sim.settings import FAULTS

app = typer.Typer(add_completion=False, help=__doc__)
console = Console()
Faults = Annotated[str | None, typer.Option(help="only these, comma-separated; an empty string: none")]


def _faults(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    kinds = tuple(word for word in text.split(",") if word)
    for kind in kinds:
        if kind not in FAULTS:
            raise typer.BadParameter(f"no fault {kind!r}; there are {', '.join(FAULTS)}")
    return kinds


@app.command()
def run(
    seed: Annotated[int, typer.Option(help="the first seed")] = 1,
    runs: Annotated[int, typer.Option(min=1, help="how many seeds from there")] = 200,
    jobs: Annotated[int, typer.Option(min=1, help="processes")] = cores(),
    faults: Faults = None,
) -> None:
    """Runs seeds and checks each.  Exit status 1 when any violated a rule."""
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
    seed: int,
    whole: Annotated[bool, typer.Option(help="every event, not only those of the envelope concerned")] = False,
    control: Annotated[str, typer.Option(help="a negative control, by name")] = "none",
    faults: Faults = None,
) -> None:
    """One seed: its settings, its violations, its history and the hash of that."""
    print(explain(seed, whole=whole, control=control, faults=_faults(faults)))


@app.command()
def controls() -> None:
    """The negative controls.  Exit status 0 only if each was caught and none of their seeds fails without."""
    good = True
    for control in CONTROLS:
        outcome = run_control(control)
        good = good and outcome.good
        caught = ", ".join(f"{rule} (seed {seed})" for rule, seed in sorted(outcome.caught_by.items())) or "nothing"
        verdict = "[green]caught[/]" if outcome.good else "[bold red]NOT CAUGHT[/]"
        console.print(f"{verdict} {control.name}: {control.breaks}: {caught}", soft_wrap=True)
        if outcome.false_alarms:
            console.print(f"    and fails without it: seeds {outcome.false_alarms}", style="red")
    if not good:
        raise typer.Exit(1)


if __name__ == "__main__":
    sys.exit(app())
