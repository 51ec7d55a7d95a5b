"""`wa serve` as an operator runs it: a supervisor and its workers, started and killed from outside."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wa import limits
from wa._fastpath.mailbox.contract import Op, What
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.errors import LocalError
from wa.runtime.operator_socket import NAME, ask
from wa.runtime.process import die_with_parent
from wa.storage.layout import open_layout

START_S_MAX = 60.0
STOP_S_MAX = 40.0
RINGS_KEPT = 100  # kills
ARENA = 64 << 20  # bytes: a full mailbox of the largest envelopes
READY = re.compile(rb"ready: 127\.0\.0\.1:(\d+), ")
ROOT = Path(__file__).parent.parent


class ProcessFailed(Exception):
    """A process did not start or end as it must."""


class ServerFailed(ProcessFailed):
    """The server did not start or stop as its operator expects; the message has the end of its log."""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def children(pid: int) -> list[int]:
    """Process ids of the direct children; none when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for word in text.split()]


def is_alive(pid: int) -> bool:
    """False also for a zombie, which holds nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def anonymous_bytes(pid: int) -> int:
    """Resident memory of its own, without the pages of mapped files; 0 when the process is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = re.search(r"^RssAnon:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@dataclass
class Server:
    """`base` gets the data directory `d`, the log, the sent codes and the rings of dead workers."""

    base: Path
    workers: int = 2
    flags: tuple[str, ...] = ()
    data_dir: Path = field(init=False)
    port: int = field(init=False)
    process: asyncio.subprocess.Process | None = None
    starts: int = 0
    ready_at: float = 0.0  # monotonic; 0 while it is not
    was_ready: bool = False  # in this life
    start_kills: int = 0  # workers killed in this life before it was ready
    killed: set[int] = field(default_factory=set)  # processes that were ended on purpose
    worker_kills: list[float] = field(default_factory=list)  # monotonic

    def __post_init__(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.base / "d"
        self.port = free_port()

    @property
    def codes(self) -> Path:
        return self.base / "codes"

    @property
    def log_path(self) -> Path:
        return self.base / "server.log"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    @property
    def is_ready(self) -> bool:
        return self.is_running and self.ready_at > 0

    @property
    def root_key(self) -> str:
        return (self.data_dir / "keys" / "root.pub").read_text().strip()

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    # --- start and end ---

    async def start(self) -> bool:
        """True once every worker serves; False when it ended before.  Raises ServerFailed after START_S_MAX."""
        command = [sys.executable, "-m", "wa.cli.main", "serve", "--data-dir", str(self.data_dir)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--workers", str(self.workers)]
        command += ["--code-transport", f"file:{self.codes}", "--log-format", "json", "--trace", *self.flags]
        harness = os.getpid()
        self.ready_at = 0.0
        self.was_ready = False
        self.start_kills = 0
        self.starts += 1
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *command,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.base,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: die_with_parent(harness),
            )
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(START_S_MAX):
                line = await self.process.stdout.readline()
                await self.process.stdout.readline()  # the root key
        except TimeoutError:
            raise ServerFailed(f"not ready after {START_S_MAX} s: {self.log_end()}") from None
        if READY.match(line) is None:
            await self.process.wait()
            return False
        self.ready_at = time.monotonic()
        self.was_ready = True
        return True

    async def wait_dead(self) -> int:
        """The supervisor's exit status, once it and all workers are gone."""
        assert self.process is not None
        status = await self.process.wait()
        self.ready_at = 0.0
        return status

    async def stop(self) -> int:
        """SIGTERM.  -> exit status.  Raises ServerFailed when it does not end."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(STOP_S_MAX):
                return await self.wait_dead()
        except TimeoutError:
            self.kill_supervisor()
            raise ServerFailed(f"it did not stop within {STOP_S_MAX} s: {self.log_end()}") from None

    # --- kill -9 ---

    def worker_pids(self) -> list[int]:
        """Workers that run, also those that do not serve yet."""
        return [pid for pid in children(self.pid) if is_alive(pid)] if self.is_running else []

    def worker_pid(self, number: int) -> int:
        """Of the worker that owns this part of the shards.  Raises LocalError."""
        pid: int = self.status()["workers"][number]["pid"]
        return pid

    def kill_workers(self, pids: list[int]) -> None:
        self._keep_rings()
        self.start_kills += 0 if self.was_ready else len(pids)
        for pid in pids:
            self.killed.add(pid)
            self.worker_kills.append(time.monotonic())
            with contextlib.suppress(ProcessLookupError):  # it died since the list was made
                os.kill(pid, signal.SIGKILL)

    def kill_supervisor(self) -> None:
        """Its workers die with it, by PR_SET_PDEATHSIG."""
        self._keep_rings()
        self.killed.update([self.pid, *self.worker_pids()])
        assert self.process is not None
        self.process.kill()
        self.ready_at = 0.0

    def _keep_rings(self) -> None:
        """Keeps a dead worker's trace ring under a second name, since a new worker begins a new ring."""
        rings = list((self.data_dir / "run").glob("trace-*.ring"))
        if not rings or self.data_dir.stat().st_dev != self.base.stat().st_dev:
            return  # another file system: no second names there
        directory = self.base / "rings" / f"{time.monotonic_ns()}"
        directory.mkdir(parents=True)
        for ring in rings:
            with contextlib.suppress(FileNotFoundError):  # its worker is being started anew
                (directory / ring.name).hardlink_to(ring)
        for old in sorted((self.base / "rings").iterdir())[:-RINGS_KEPT]:
            shutil.rmtree(old)

    def ring_dirs(self) -> list[Path]:
        kept = self.base / "rings"
        return [*(sorted(kept.iterdir()) if kept.exists() else ()), self.data_dir / "run"]

    # --- what it says ---

    def status(self) -> dict[str, Any]:
        """Raises LocalError."""
        found: dict[str, Any] = ask(self.data_dir / "run" / NAME, "status")
        return found

    def counters(self) -> Counter[str]:
        """Counters of all workers together, about a second old; empty while the server does not answer."""
        total: Counter[str] = Counter()
        try:
            for worker in self.status()["workers"]:
                total.update(worker["stats"])
        except LocalError:
            return Counter()
        return total

    def log_events(self) -> list[dict[str, Any]]:
        """Events of all its lives, without lines that a kill has cut, or that are no events."""
        events = []
        for line in self.log_path.read_text().splitlines():
            if line.startswith("{") and line.endswith("}"):
                events.append(json.loads(line))
        return events

    def event_names(self) -> set[str]:
        return {event["event"] for event in self.log_events()}

    def log_end(self) -> str:
        return self.log_path.read_text()[-2_000:] if self.log_path.exists() else "(no log)"

    def mailbox_paths(self) -> list[Path]:
        return sorted(self.data_dir.glob("g*/w*/mail"))

    def left(self) -> list[Op]:
        """Envelopes and receipts that a stopped server still holds; of damaged ones only recipient and seq."""
        open_layout(self.data_dir, self._workers_on_disk()).close()  # removes the leftovers of a move that was cut
        rows: list[Op] = []
        for path in self.mailbox_paths():
            store = LmdbMailStore(path)
            keys = store.census()
            readable = set()
            for recipient, priority in sorted({key[:2] for key in keys}):
                for row in store.read(recipient, priority, count_max=limits.MAILBOX_ENVELOPES_MAX, arena_bytes=ARENA):
                    readable.add((recipient, priority, row.seq))
                    rows.append(row)
            rows += [Op(What.PUT, recipient=key[0], seq=key[2]) for key in keys if key not in readable]
            for owner in sorted({key[0] for key in store.receipt_census()}):
                rows += store.read_receipts(owner)
            store.close()
        return rows

    def _workers_on_disk(self) -> int:
        return int(json.loads((self.data_dir / "layout.json").read_text())["workers"])
