"""A client stops reading (SIGSTOP) while others keep writing to it and to one another; later it goes on."""

import signal
import time
from pathlib import Path

from faults.arena import NUMBERS, arena
from faults.checks import Violation
from faults.report import Outcome
from faults.server import anonymous_bytes

ROSTER = {"ann": (NUMBERS[0], 1), "bob": (NUMBERS[1], 1), "cid": (NUMBERS[2], 1), "dee": (NUMBERS[3], 1)}
SIZE = 30_000
MESSAGES = 100  # of SIZE from each of two: 6 MB, twenty delivery windows
TALK_MIN = 10  # messages that one of the others gets meanwhile
GROWTH_BYTES_MAX = 32 << 20  # of one worker's own memory, while 6 MB wait for one client


async def slow_reader(seconds: float, seed: int, parent: Path | None) -> Outcome:
    """seconds: how long it does not read, at least.  Over 20 s the server gives its connection up."""
    async with arena(seed, 2, parent) as ground:
        await ground.open(ROSTER)
        ann, bob, cid, dee = ground.people.persons.values()
        for writer in (ann, cid):
            writer.do("burst", to=NUMBERS[1], n=2, size=100)
        await ground.until(lambda: ground.shown(bob) == 4, "the first messages did not arrive")
        workers = ground.server.worker_pids()
        before = [anonymous_bytes(pid) for pid in workers]
        bob.signal(signal.SIGSTOP)
        for person in (ann, cid, dee):
            person.write_to([number for number, _ in ROSTER.values() if number not in (person.number, bob.number)])
            person.go(True)
        for writer in (ann, cid):
            writer.do("burst", to=NUMBERS[1], n=MESSAGES, size=SIZE)
        grown = 0
        begun = time.monotonic()

        def everybody_else_is_done() -> bool:
            nonlocal grown
            now = [anonymous_bytes(pid) for pid in workers]
            grown = max(grown, *(later - earlier for earlier, later in zip(before, now, strict=True)))
            answered = min(ann.answered_to(bob), cid.answered_to(bob))
            talked = ground.shown(dee) >= TALK_MIN
            return talked and answered >= MESSAGES + 2 and time.monotonic() > begun + seconds

        await ground.until(everybody_else_is_done, "the others stood still while one does not read")
        stopped_s = time.monotonic() - begun
        bob.signal(signal.SIGCONT)
        recorded, violations = await ground.account()
        outcome = Outcome("slow reader", violations)
        if grown > GROWTH_BYTES_MAX:
            outcome.violations.append(Violation("memory", f"a worker grew by {grown >> 10} KiB"))
        if workers != ground.workers_at_end:
            outcome.violations.append(Violation("server", f"workers {workers} became {ground.workers_at_end}"))
        outcome.facts = {
            "stopped for s": round(stopped_s),
            "a worker grew by KiB": grown >> 10,
            "bound, KiB": GROWTH_BYTES_MAX >> 10,
            "messages for it": MESSAGES * 2 + 4,
            "shown": sum(len(device.shown) for device in recorded.devices.values()),
        }
        ground.conclude(outcome, recorded)
        return outcome
