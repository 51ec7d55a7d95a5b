"""Time on a loaded machine, counted in messages of a control pair that has a server of its own.

Seconds say little while other processes use the same cores and disk.  The control pair feels that load too, but not the
fault.  So what stalls while the pair keeps exchanging messages stalls because of the fault.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults.arena import NUMBERS, POLL_S, SETTLE_S_MAX, Arena
from faults.checks import Violation

ROSTER = {"eve": (NUMBERS[4], 1), "fay": (NUMBERS[5], 1)}
# In messages of the control pair: about 25 a second on a quiet machine.
STALL_MAX = 250  # ten seconds; a server gives up a silent client after twenty
LATE_MAX = 1_500  # a minute


class Pace:
    """`control`: the arena of the pair, which `start` opens."""

    def __init__(self, control: Arena) -> None:
        self._control = control
        self._shown = 0
        self._moved_s = 0.0

    async def start(self) -> None:
        await self._control.open(ROSTER)
        for person in self._control.people.persons.values():
            person.go(True)
        self._moved_s = time.monotonic()
        while not await self.next():
            pass

    @property
    def now(self) -> int:
        return self._shown

    async def next(self) -> int:
        """Messages that the pair has shown, a moment later.  Raises TimeoutError when the pair stalls too."""
        await asyncio.sleep(POLL_S)
        shown = sum(self._control.shown(person) for person in self._control.people.persons.values())
        if shown > self._shown:  # less: a store was busy
            self._shown, self._moved_s = shown, time.monotonic()
        if time.monotonic() > self._moved_s + SETTLE_S_MAX:
            log = self._control.server.log_end()
            raise TimeoutError(f"the control pair stalls too, so the run proves nothing; its server: {log}")
        return self._shown


@dataclass
class Watch:
    """A count that must rise to `goal`, and beyond it unless it `ends` there."""

    name: str
    count: Callable[[], int]
    goal: int
    ends: bool
    value: int = -1
    moved_at: int = 0

    @property
    def is_done(self) -> bool:
        return self.value >= self.goal

    def look(self, now: int) -> int:
        """For how long it has stalled."""
        found = self.count()
        if found > self.value:
            self.value, self.moved_at = found, now
        return 0 if self.is_done and self.ends else now - self.moved_at


async def attend(pace: Pace, watches: list[Watch], is_over: Callable[[], bool]) -> list[Violation]:
    """Waits until it is over and every watch is done.  -> violations: watches that stall, or are late after the end."""
    over_at: int | None = None
    while True:
        now = await pace.next()
        stood = [(watch, watch.look(now)) for watch in watches]
        standing = [
            Violation("stalled", f"{watch.name} {watch.value} times, then stalled while the control pair exchanged {n}")
            for watch, n in stood
            if n > STALL_MAX
        ]
        if standing:
            return standing
        if not is_over():
            continue
        over_at = now if over_at is None else over_at
        missing = [watch for watch in watches if not watch.is_done]
        if not missing:
            return []
        if now > over_at + LATE_MAX:
            return [Violation("late", f"{watch.name} {watch.value} of {watch.goal} times") for watch in missing]
