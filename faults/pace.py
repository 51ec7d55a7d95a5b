"""Time that a loaded machine stretches: counted in the messages of a control pair with a server of its own.

Seconds say little while other processes want the same cores and the same disk; the control pair meets with all of
that too, and with none of the fault.  What stands still while they go on was made to stand still by the fault.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from faults.arena import NUMBERS, POLL_S, SETTLE_S_MAX, Arena
from faults.checks import Violation

ROSTER = {"eve": (NUMBERS[4], 1), "fay": (NUMBERS[5], 1)}
# In messages of the control pair, which exchanges about 25 a second on a quiet machine.
STALL_MAX = 250  # ten seconds: a server that waits for a silent client gives it up after twenty
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
        """Messages that the pair has shown, a moment later.  Raises TimeoutError when even they stand still."""
        await asyncio.sleep(POLL_S)
        shown = sum(self._control.shown(person) for person in self._control.people.persons.values())
        if shown > self._shown:  # less: a store was busy
            self._shown, self._moved_s = shown, time.monotonic()
        if time.monotonic() > self._moved_s + SETTLE_S_MAX:
            log = self._control.server.log_end()
            raise TimeoutError(f"the control pair stands still, so nothing can be said; its server: {log}")
        return self._shown


@dataclass
class Watch:
    """What must go on: `count` rises to `goal`, and beyond it where that is not its end."""

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
        """For how long it has stood still."""
        found = self.count()
        if found > self.value:
            self.value, self.moved_at = found, now
        return 0 if self.is_done and self.ends else now - self.moved_at


async def attend(pace: Pace, watches: list[Watch], is_over: Callable[[], bool]) -> list[Violation]:
    """Until it is over and every watch is done: nothing; or those that stand still, or are late after the end."""
    over_at: int | None = None
    while True:
        now = await pace.next()
        stood = [(watch, watch.look(now)) for watch in watches]
        standing = [
            Violation("stalled", f"{watch.name} {watch.value} times, no more while the control pair exchanged {n}")
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
