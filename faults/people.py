"""The harness's side of the client processes: a zygote that forks them, and their control socket."""

import asyncio
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults import journal
from faults.server import ROOT, ProcessFailed, Server
from wa.client.events import Direction, State
from wa.ids import parse_number
from wa.runtime.process import die_with_parent

STOP_S_MAX = 20.0


class PersonFailed(ProcessFailed):
    """A client process did not end when it was asked to."""


@dataclass(frozen=True)
class Stored:
    """Counts of a client's store: drafts, envelopes by state, and messages of others that it shows."""

    drafts: int = 0
    pending: int = 0  # envelopes without an answer
    accepted: int = 0
    delivered: int = 0
    shown: int = 0

    @property
    def unanswered(self) -> int:
        return self.drafts + self.pending

    @property
    def answered(self) -> int:
        return self.accepted + self.delivered


@dataclass
class Person:
    """`device` is what the registration gives it: 1, or 2 for the second device of its number."""

    name: str
    number: str
    device: int
    directory: Path
    peers: list[str]
    early_ack: bool = False
    port: int = 0  # of a proxy; 0: straight to the server
    pid: int = 0  # 0 while there is no process
    lives: int = 0
    killed: bool = False  # in this life, by the harness
    wanted: bool = False  # false: it may stay dead
    going: bool = False
    writer: asyncio.StreamWriter | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_alive(self) -> bool:
        return self.pid != 0

    @property
    def database(self) -> Path:
        return self.directory / "account.db"

    def do(self, what: str, **fields: Any) -> None:
        """Sends a command now; it is lost without a connection.  `going` is sent again at every birth."""
        if self.writer is not None and not self.writer.is_closing():
            self.writer.write(json.dumps({"do": what, **fields}).encode() + b"\n")

    def go(self, going: bool) -> None:
        self.going = going
        self.do("go" if going else "quiet")

    def write_to(self, numbers: list[str]) -> None:
        """Whom it writes to from now on."""
        self.peers = numbers
        self.do("peers", numbers=numbers)

    def signal(self, number: signal.Signals) -> bool:
        """False when its process has just ended by itself."""
        if self.pid <= 0:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        self.killed = self.killed or number is signal.SIGKILL
        return True

    def has_told(self, what: str) -> bool:
        """Whether its journal has such an entry, of any life."""
        return any(entry["what"] == what for _, entry in journal.read(self.directory / journal.NAME))

    def answered_to(self, other: "Person") -> int:
        """Envelopes to the other's number that have an answer."""
        try:
            db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=0.2)
        except sqlite3.OperationalError:
            return 0
        try:
            query = "SELECT count(*) FROM outbox WHERE recipient >> 8 = ? AND state > ?"
            (answered,) = db.execute(query, (parse_number(other.number), State.PENDING)).fetchone()
        except sqlite3.OperationalError:
            return 0
        finally:
            db.close()
        return int(answered)

    def stored(self) -> Stored | None:
        """Counts read from outside.  None while the store does not exist yet, or is busy."""
        try:
            db = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=0.2)
        except sqlite3.OperationalError:
            return None
        try:
            (drafts,) = db.execute("SELECT count(*) FROM drafts").fetchone()
            states = dict(db.execute("SELECT state, count(*) FROM outbox GROUP BY state").fetchall())
            (shown,) = db.execute("SELECT count(*) FROM messages WHERE direction = ?", (Direction.RECEIVED,)).fetchone()
        except sqlite3.OperationalError:
            return None
        finally:
            db.close()
        delivered = states.get(State.DELIVERED, 0) + states.get(State.READ, 0)
        return Stored(drafts, states.get(State.PENDING, 0), states.get(State.ACCEPTED, 0), delivered, shown)


class People:
    """on_death(person, status) is called for every process that ended."""

    def __init__(self, server: Server, base: Path, seed: str, on_death: Callable[[Person, int], None]) -> None:
        self.server, self.base, self.seed, self._on_death = server, base, seed, on_death
        self.persons: dict[str, Person] = {}
        self._control = base / "control.sock"
        self._zygote: asyncio.subprocess.Process | None = None
        self._listener: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, name: str, number: str, device: int, *, early_ack: bool = False) -> Person:
        person = Person(name, number, device, self.base / name, [], early_ack)
        self.persons[name] = person
        numbers = {each.number for each in self.persons.values()}
        for each in self.persons.values():
            each.peers = sorted(numbers - {each.number})
        return person

    async def open(self) -> None:
        self.base.mkdir(parents=True, exist_ok=True)
        self._listener = await asyncio.start_unix_server(self._on_control, self._control)
        harness = os.getpid()
        with (self.base / "people.log").open("ab") as log:
            self._zygote = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "faults.zygote",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=self.base,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                preexec_fn=lambda: die_with_parent(harness),
            )
        self._keep(self._read_zygote())

    def _keep(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._zygote is not None:
            assert self._zygote.stdin is not None
            self._zygote.stdin.close()
            await self._zygote.wait()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- births and deaths ---

    def start(self, person: Person, *, die_at: tuple[str, int] | None = None, going: bool | None = None) -> None:
        """Forks its next process.  `die_at`: it kills itself at that persistence step."""
        assert not person.is_alive, person.name
        assert self._zygote is not None and self._zygote.stdin is not None
        person.wanted = True
        person.lives += 1
        person.going = person.going if going is None else going
        person.pid = -1  # on its way
        person.killed = False
        person.ended.clear()
        settings = {
            "name": person.name,
            "directory": str(person.directory),
            "number": person.number,
            "mode": "add" if person.device > 1 else "replace",
            "server": f"127.0.0.1:{person.port or self.server.port}",
            "root_key": self.server.root_key,
            "codes": str(self.server.codes),
            "control": str(self._control),
            "seed": f"{self.seed}/{person.name}/{person.lives}",
            "peers": person.peers,
            "die_at": die_at,
            "early_ack": person.early_ack,
        }
        self._zygote.stdin.write(json.dumps(settings).encode() + b"\n")

    async def stop(self, person: Person) -> None:
        """Ends it politely.  Raises PersonFailed when it does not end."""
        person.wanted = False
        if not person.is_alive:
            return
        try:
            async with asyncio.timeout(STOP_S_MAX):
                while person.writer is None and person.is_alive:
                    await asyncio.sleep(0.02)
                person.do("stop")
                await person.ended.wait()
        except TimeoutError:
            raise PersonFailed(f"{person.name} did not stop within {STOP_S_MAX} s") from None

    async def _read_zygote(self) -> None:
        assert self._zygote is not None and self._zygote.stdout is not None
        while line := await self._zygote.stdout.readline():
            event = json.loads(line)
            person = self.persons[event["name"]]
            if "born" in event:
                person.pid = event["born"]
                continue
            person.pid = 0
            person.writer = None
            person.ended.set()
            self._on_death(person, event["status"])

    async def _on_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The connection of one process, until it ends."""
        try:
            line = await reader.readline()
            if not line:
                return
            hello = json.loads(line)
            person = self.persons[hello["name"]]
            person.writer = writer
            person.do("go" if person.going else "quiet")
            await reader.read()
        except ConnectionError:
            return
        finally:
            writer.close()

    def log_end(self) -> str:
        return (self.base / "people.log").read_text()[-3_000:]
