"""The data directory: who may use it, what is where, and that it fits the number of workers.

    layout.json                 {"format": 1, "shards": 1024, "workers": 4, "generation": 2}: the only truth
    lock                        locked (flock) by the process that uses the directory; holds its pid
    g2/w0/mail, g2/w0/registry  the environments of worker 0 in generation 2
    keys/  run/                 the server's own keys; sockets

When the number of workers changed, `open_layout` moves every record to its new owner.  It builds generation+1 beside
the one in use, makes it durable, replaces layout.json in one rename, and only then removes the old generation.  After a
crash at any point layout.json names a complete generation; the rest is leftovers, which the next start removes.

redistribute.py knows what a record is and moves it.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wa import limits
from wa._fastpath.os.durable import sync_directory
from wa.errors import LocalError
from wa.storage import redistribute
from wa.storage.redistribute import Place

FORMAT = 1
Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much
_GENERATION = re.compile(r"g(\d+)")
_FIELDS = {"format", "shards", "workers", "generation"}


def silent(what: str, done: int, total: int) -> None:
    """The Progress for a caller that does not watch."""


@dataclass(frozen=True)
class Layout:
    """An open data directory.  `close()` lets the next process have it.

    The lock belongs to the open file, so processes forked after `open_layout` share it with their parent: no second
    server starts while a worker of a killed supervisor still writes.
    """

    data_dir: Path
    workers: int
    generation: int
    lock_fd: int

    def mail(self, worker: int) -> Path:
        return self._place(worker).mail

    def registry(self, worker: int) -> Path:
        return self._place(worker).registry

    @property
    def keys(self) -> Path:
        return self.data_dir / "keys"

    @property
    def run(self) -> Path:
        return self.data_dir / "run"

    def close(self) -> None:
        """Gives up this process's hold on the lock; forked processes keep theirs."""
        os.close(self.lock_fd)

    def _place(self, worker: int) -> Place:
        if not 0 <= worker < self.workers:
            raise LocalError(f"there is no worker {worker} of {self.workers}")
        return place(self.data_dir, self.generation, worker)


def place(data_dir: Path, generation: int, worker: int) -> Place:
    return Place(data_dir / f"g{generation}" / f"w{worker}")


def open_layout(data_dir: Path, workers: int, progress: Progress = silent) -> Layout:
    """Locks the data directory, makes it if it is missing, and fits it to `workers`.

    Directories are 0700, files 0600.  `progress` is called from this thread.  Raises LocalError when another process
    uses the directory, another version made it, there is no room to move records, or layout.json is damaged.
    """
    if not 1 <= workers <= limits.WORKERS_MAX:
        raise LocalError(f"a server has 1 to {limits.WORKERS_MAX} workers, not {workers}")
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock_fd = _lock(data_dir)
    opened = False
    try:
        layout = _fit(data_dir, workers, lock_fd, progress)
        opened = True
    finally:
        if not opened:
            os.close(lock_fd)
    return layout


def _fit(data_dir: Path, workers: int, lock_fd: int, progress: Progress) -> Layout:
    stored = _read(data_dir)
    generations = _generations(data_dir)
    if stored is None:
        if generations:
            raise LocalError(f"{data_dir} has data but no layout.json: put it back, or use another directory")
        stored = (workers, 0)
        _write(data_dir, *stored)
    workers_before, generation = stored
    _remove(data_dir, [left for left in generations if left != generation], "removing leftovers", progress)
    if workers_before != workers:
        old = [place(data_dir, generation, worker) for worker in range(workers_before)]
        new = [place(data_dir, generation + 1, worker) for worker in range(workers)]
        redistribute.move(old, new, progress)
        sync_directory(data_dir)
        progress("switching", 0, 1)
        _write(data_dir, workers, generation + 1)
        progress("switching", 1, 1)
        _remove(data_dir, [generation], "removing the old generation", progress)
        generation += 1
    for worker in range(workers):
        place(data_dir, generation, worker).path.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / f"g{generation}").chmod(0o700)
    sync_directory(data_dir / f"g{generation}")
    for name in ("keys", "run"):
        (data_dir / name).mkdir(mode=0o700, exist_ok=True)
    sync_directory(data_dir)
    return Layout(data_dir, workers, generation, lock_fd)


def _lock(data_dir: Path) -> int:
    path = data_dir / "lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(fd)
        raise LocalError(f"{data_dir} is in use by process {holder}; stop that server first") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
    return fd


def _read(data_dir: Path) -> tuple[int, int] | None:
    """(workers, generation), or None when there is no layout.json."""
    path = data_dir / "layout.json"
    try:
        stored: Any = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise LocalError(f"{path} is damaged: {error}") from None
    if not isinstance(stored, dict) or set(stored) != _FIELDS or {type(n) for n in stored.values()} != {int}:
        raise LocalError(f"{path} is damaged: it must hold the numbers {', '.join(sorted(_FIELDS))} and nothing else")
    if stored["format"] != FORMAT:
        raise LocalError(
            f"{path} is of format {stored['format']}, this version reads {FORMAT}: start the version of wa that wrote"
            " it"
        )
    if stored["shards"] != limits.SHARDS:
        raise LocalError(f"{path} was made for {stored['shards']} shards, this version has {limits.SHARDS}")
    if not 1 <= stored["workers"] <= limits.WORKERS_MAX or stored["generation"] < 0:
        raise LocalError(f"{path} is damaged: a number is out of range")
    return stored["workers"], stored["generation"]


def _write(data_dir: Path, workers: int, generation: int) -> None:
    """Replaces layout.json in one step, durably."""
    layout = {"format": FORMAT, "shards": limits.SHARDS, "workers": workers, "generation": generation}
    temporary = data_dir / "layout.json.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump(layout, file)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(data_dir / "layout.json")
    sync_directory(data_dir)


def _generations(data_dir: Path) -> list[int]:
    found = [_GENERATION.fullmatch(path.name) for path in data_dir.iterdir()]
    return sorted(int(match[1]) for match in found if match)


def _remove(data_dir: Path, generations: list[int], what: str, progress: Progress) -> None:
    for done, generation in enumerate(generations):
        progress(what, done, len(generations))
        shutil.rmtree(data_dir / f"g{generation}")
    if generations:
        progress(what, len(generations), len(generations))
