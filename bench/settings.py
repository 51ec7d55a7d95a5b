"""Settings of a run: cipher, lengths, cores, where data goes, and how progress is shown."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.results import results_directory

SUITES = {"chacha": 1, "aesgcm": 2}


def split_cores() -> tuple[list[int], list[int]]:
    """(the server's, the generators'): the server has the first core that we may use, generators the others."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[:1], usable[1:] or usable


@dataclass
class Settings:
    """suite: 1 ChaCha20-Poly1305, 2 AES-256-GCM.  seconds: of each load.  where: data directories are made there."""

    suite: int = SUITES["aesgcm"]
    rounds: int = 5
    seconds: float = 2.0
    pairs: int = 64
    body_bytes: int = 100
    where: Path = field(default_factory=lambda: results_directory() / "data")
    console: Console = field(default_factory=lambda: Console(stderr=True))
    server_cores: list[int] = field(default_factory=lambda: split_cores()[0])
    generator_cores: list[int] = field(default_factory=lambda: split_cores()[1])

    @contextmanager
    def progress(self, what: str, steps: int) -> Iterator[Callable[[str], None]]:
        """Call what it yields at the beginning of each step, with the step's name."""
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        progress = Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True)
        with self._off_the_servers_core():
            progress.start()  # with a thread that draws ten times a second, a third of a millisecond each
        try:
            task = progress.add_task(what, total=steps)
            done = -1

            def step(name: str) -> None:
                nonlocal done
                done += 1
                progress.update(task, completed=done, description=f"{what}: {name}")

            yield step
        finally:
            progress.stop()

    @contextmanager
    def _off_the_servers_core(self) -> Iterator[None]:
        """Threads started meanwhile stay on the generators' cores."""
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.generator_cores)
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)
