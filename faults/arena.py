"""A server and its clients on one base directory: every scenario starts and ends with it.

A keeper restarts each process that dies and is still wanted: the server at once, perhaps with another number of
workers; a client after a moment.
"""

import asyncio
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from faults import checks, explain, history
from faults.checks import Violation
from faults.history import History
from faults.people import People, Person, Stored
from faults.report import SHOWN_MAX, Outcome
from faults.server import Server, ServerFailed
from wa import limits
from wa.client.account import STEPS
from wa.errors import LocalError

NUMBERS = tuple(f"+1555123{n:04}" for n in range(1, 10))
SETTLE_S_MAX = 90.0
POLL_S = 0.05
RECEIPTS_S = 3.0  # a live receipt that has not come by then was lost with a worker
RECEIVE_STEPS = tuple(step for step in STEPS if not step.startswith("register:"))


@dataclass
class Arena:
    """`rng` decides the faults; the operating system decides where exactly they hit."""

    base: Path
    seed: int
    server: Server
    rng: random.Random = field(init=False)
    people: People = field(init=False)
    worker_counts: tuple[int, ...] = ()  # a restart of the server picks one of these
    die_at_chance: float = 0.0  # a birth plans its own death at some persistence step
    ports: dict[str, int] = field(default_factory=dict)  # of those that do not reach the server directly
    deaths_at_steps: int = 0
    round: int = 0
    failures: list[Violation] = field(default_factory=list)
    late_receipts: int = 0
    keep: bool = False
    stack: ExitStack = field(default_factory=ExitStack)  # ends after every process has ended
    workers_at_end: list[int] = field(default_factory=list)
    _keepers: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: bool = False

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.people = People(self.server, self.base, str(self.seed), self._on_death)

    # --- life ---

    async def open(self, names: dict[str, tuple[str, int]], *, early_ack: tuple[str, ...] = ()) -> None:
        """Starts the server and registers everybody, one after the other: a code goes to a number."""
        for name, (number, device) in names.items():
            person = self.people.add(name, number, device, early_ack=name in early_ack)
            person.port = self.ports.get(name, 0)
        if not await self.server.start():
            raise ServerFailed(f"it ended: {self.server.log_end()}")
        await self.people.open()
        for person in self.people.persons.values():
            self.people.start(person, die_at=self._registration_death())
            await self.until(partial(_is_registered, person), f"{person.name} was not registered")

    def _registration_death(self) -> tuple[str, int] | None:
        if not self.die_at_chance or self.rng.random() < 0.4:
            return None
        return self.rng.choice([step for step in STEPS if step.startswith(("register:", "keys:"))]), 0

    async def close(self) -> None:
        self._closing = True
        for person in self.people.persons.values():
            person.wanted = False
        await self.people.close()
        for task in list(self._keepers):
            task.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        if self.server.is_running:
            await self.server.stop()

    async def until(
        self,
        condition: Callable[[], bool],
        otherwise: str,
        seconds: float = SETTLE_S_MAX,
        progress: Callable[[], int] = int,
    ) -> None:
        """Waits for `condition`.  Raises TimeoutError with `otherwise` when it and `progress` stall for this long."""
        deadline, most = time.monotonic() + seconds, progress()
        while not condition():
            if (now := progress()) > most:
                deadline, most = time.monotonic() + seconds, now
            if time.monotonic() > deadline:
                raise TimeoutError(f"{otherwise}; server: {self.server.log_end()}; clients: {self.people.log_end()}")
            await asyncio.sleep(POLL_S)

    # --- keepers ---

    def _keep(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._keepers.add(task)
        task.add_done_callback(self._keepers.discard)

    def _on_death(self, person: Person, status: int) -> None:
        code = os.waitstatus_to_exitcode(status)
        if self._closing:
            return
        if code not in (0, -signal.SIGKILL):
            self.failures.append(Violation("client", f"{person.name} ended with {code}: {self.people.log_end()}"))
        if code == -signal.SIGKILL and not person.killed:
            self.deaths_at_steps += 1
        if person.wanted:
            self._keep(self._start_again(person))

    async def _start_again(self, person: Person) -> None:
        await asyncio.sleep(self.rng.choice((0.0, 0.0, 0.1, 0.5)))
        if person.wanted and not person.is_alive:
            self.people.start(person, die_at=self._death_plan(person))

    def _death_plan(self, person: Person) -> tuple[str, int] | None:
        if self.rng.random() >= self.die_at_chance:
            return None
        return self.rng.choice(RECEIVE_STEPS), self.rng.choice((0, 0, 1, 2, 5, 10, 20))

    def keep_server(self) -> None:
        """From here on the server is restarted whenever it ends."""
        self._keep(self._keep_server())

    async def _keep_server(self) -> None:
        while not self._closing:
            status = await self.server.wait_dead()
            if self._closing:
                return
            if status != -signal.SIGKILL and not self._gave_up_rightly():
                text = f"it ended with {status} by itself: {self.server.log_end()}"
                self.failures.append(Violation("server", text))
            if self.worker_counts:
                self.server.workers = self.rng.choice(self.worker_counts)
            await self.server.start()

    def _gave_up_rightly(self) -> bool:
        """Whether it had to give up: too many workers killed in the supervisor's window, or one before it was ready."""
        kills = self.server.worker_kills
        recent = [at for at in kills if at > time.monotonic() - limits.RESTARTS_WINDOW_S - 1]
        if self.server.was_ready:
            return len(recent) > limits.RESTARTS_MAX
        return self.server.start_kills > 0

    # --- quiet, and the account ---

    async def settle(self, missing: int) -> History:
        """Silences all clients, waits until all but `missing` envelopes are delivered, then stops the clients."""
        persons = list(self.people.persons.values())
        self.die_at_chance = 0.0
        for person in persons:
            person.go(False)
        await self.until(lambda: self.server.is_ready, "the server did not get ready")
        await self.until(self._all_answered, "not everything was answered", progress=self._steps_done)
        begun = time.monotonic()
        while not self._all_delivered(missing) and time.monotonic() < begun + RECEIPTS_S:
            await asyncio.sleep(POLL_S)
        for person in persons:  # a login asks for receipts that were lost on the way
            stored = person.stored()
            if stored is not None and stored.accepted:
                self.late_receipts += stored.accepted
                await self.people.stop(person)
                self.people.start(person, going=False)
        delivered = partial(self._all_delivered, missing)
        await self.until(delivered, "not everything was delivered", progress=self._steps_done)
        await asyncio.sleep(0.3)
        for person in persons:
            await self.people.stop(person)
        return history.read(persons)

    def _steps_done(self) -> int:
        """A count that rises until all is delivered, while nobody writes; lower while a store is busy."""
        found = [person.stored() or Stored() for person in self.people.persons.values()]
        return sum(stored.accepted + 2 * stored.delivered + stored.shown for stored in found)

    def _all_answered(self) -> bool:
        found = [person.stored() for person in self.people.persons.values()]
        return all(stored is not None and not stored.unanswered for stored in found)

    def _all_delivered(self, missing: int) -> bool:
        found = [person.stored() for person in self.people.persons.values()]
        return self._all_answered() and sum(stored.accepted for stored in found if stored is not None) <= missing

    def serves(self, without: list[int]) -> bool:
        """Every worker serves, and none of these processes is left."""
        try:
            workers = self.server.status()["workers"]
        except LocalError:
            return False
        ready = [worker["pid"] for worker in workers if worker["ready"]]
        return len(ready) == self.server.workers and not set(ready) & set(without)

    def answered(self, person: Person) -> int:
        return (person.stored() or Stored()).answered

    def unanswered(self, person: Person) -> int:
        """Envelopes of a client without an answer; at least 1 while that is not known."""
        return (person.stored() or Stored(drafts=1)).unanswered

    def shown(self, person: Person) -> int:
        return (person.stored() or Stored()).shown

    def refused(self) -> int:
        """Refusals of the present workers, about a second old."""
        return self.server.counters()["refused"]

    async def account(self, missing: int = 0) -> tuple[History, list[Violation]]:
        """Settles, stops everything and applies every checker.  `missing`: envelopes that cannot be delivered."""
        late: list[Violation] = []
        try:
            recorded = await self.settle(missing)
        except TimeoutError as error:
            late.append(Violation("pending", str(error)[:400]))
            for person in self.people.persons.values():
                await self.people.stop(person)
            recorded = history.read(list(self.people.persons.values()))
        self._closing = True
        self.workers_at_end = self.server.worker_pids()
        status = await self.server.stop()
        if status != 0:
            late.append(Violation("server", f"it stopped with {status}: {self.server.log_end()}"))
        late += self._log_violations()
        return recorded, [*self.failures, *late, *checks.check(recorded), *checks.left(self.server.left())]

    def _log_violations(self) -> list[Violation]:
        found = []
        for event in self.server.log_events():
            if event["event"] == "crashed":
                found.append(Violation("server", f"crashed: {event}"))
            if event["event"] == "worker_died" and event["pid"] not in self.server.killed:
                found.append(Violation("server", f"a worker died by itself: {event}"))
        return found

    def conclude(self, outcome: Outcome, recorded: History) -> None:
        """After a violation: adds the stories, and keeps the directory."""
        if outcome.is_good:
            return
        self.keep = True
        outcome.kept = self.base
        for violation in outcome.violations[:SHOWN_MAX]:
            for token in violation.tokens:
                if token not in outcome.stories:
                    outcome.stories[token] = explain.story(recorded, token, self.server.ring_dirs())
        (self.base / "violations.txt").write_text("\n".join(outcome.lines(self.seed)))


def _is_registered(person: Person) -> bool:
    """Alive, and past the registration."""
    return person.is_alive and person.has_told("registered")


@asynccontextmanager
async def arena(
    seed: int, workers: int, parent: Path | None = None, flags: tuple[str, ...] = ()
) -> AsyncIterator[Arena]:
    """An arena in a directory of its own, which stays after a violation or a failure."""
    base = Path(tempfile.mkdtemp(prefix="wa-faults-", dir=parent))
    made = Arena(base, seed, Server(base / "server", workers, flags))
    try:
        yield made
    except BaseException as error:
        made.keep = True
        error.add_note(f"all files of this run are in {base}")
        raise
    finally:
        try:
            await made.close()
        finally:
            made.stack.close()
        if not made.keep:
            shutil.rmtree(base)
