"""What a scenario found: progress on the way, and the table at the end."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from faults.checks import Violation
from faults.server import ProcessFailed

console = Console(highlight=False)
SHOWN_MAX = 10  # violations with a story
LINES_MAX = 200


@dataclass
class Outcome:
    """skipped: why it could not run here.  kept: the directory that stays after a violation."""

    name: str
    violations: list[Violation] = field(default_factory=list)
    facts: dict[str, object] = field(default_factory=dict)
    stories: dict[str, list[str]] = field(default_factory=dict)  # token -> lines
    kept: Path | None = None
    skipped: str = ""

    @property
    def is_good(self) -> bool:
        return not self.violations

    def lines(self, seed: int) -> list[str]:
        """Every violation, each followed by the stories of its messages; a story comes once."""
        found, told = [], set[str]()
        for violation in self.violations:
            found.append(f"{self.name}, seed {seed}, {violation}")
            for token in violation.tokens:
                if token not in told:
                    told.add(token)
                    found += self.stories.get(token, ())
        return found


async def judged(name: str, scenario: Coroutine[None, None, Outcome]) -> Outcome:
    """The outcome.  A timeout, or a process that did not start or end as it must, is a violation too."""
    try:
        return await scenario
    except (TimeoutError, ProcessFailed) as error:
        notes = " ".join(getattr(error, "__notes__", ()))
        return Outcome(name, [Violation("stuck", f"{error} {notes}")])


@contextmanager
def counting(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function that takes how many are done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def show(outcomes: list[Outcome], seed: int) -> None:
    for outcome in outcomes:
        lines = outcome.lines(seed)
        for line in lines[:LINES_MAX]:
            console.print(line, markup=False)
        if len(lines) > LINES_MAX:
            console.print(f"… and {len(lines) - LINES_MAX} more lines")
        if outcome.kept is not None:
            console.print(f"all files of this run are in {outcome.kept}, and this list in its violations.txt")
    table = Table(title=f"Real faults, seed {seed}", title_justify="left")
    for column in ("scenario", "result", "what happened"):
        table.add_column(column)
    for outcome in outcomes:
        if outcome.skipped:
            table.add_row(outcome.name, "[yellow]skipped", outcome.skipped)
            continue
        result = "[green]holds" if outcome.is_good else f"[red]{len(outcome.violations)} violations"
        table.add_row(outcome.name, result, ", ".join(f"{name} {value}" for name, value in outcome.facts.items()))
    console.print(table)
