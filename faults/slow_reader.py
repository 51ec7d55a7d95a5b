"""A client stops reading (SIGSTOP) while others keep writing to it and to one another; later it continues.

The control stops the client's worker too, as a server would that waits for a client that does not read.
"""

import os
import signal
import time
from functools import partial
from pathlib import Path

from faults.arena import NUMBERS, Arena, arena
from faults.checks import Violation
from faults.history import History
from faults.pace import Pace, Watch, attend
from faults.people import Person
from faults.proxy import Proxy
from faults.report import Outcome
from faults.server import anonymous_bytes
from wa.ids import parse_number
from wa.routing.shards import worker_of

ROSTER = {"ann": (NUMBERS[0], 1), "bob": (NUMBERS[1], 1), "cid": (NUMBERS[2], 1), "dee": (NUMBERS[3], 1)}
WORKERS = 2  # ann and cid are bob's neighbours on worker 0, dee is on worker 1
SIZE = 30_000
MESSAGES = 100  # of SIZE from each of two: 6 MB, twenty delivery windows
FIRST = 2  # small ones from each of two, before bob stops
TALK_MIN = 10  # messages that each of the others gets meanwhile
GROWTH_BYTES_MAX = 32 << 20  # of one worker's own memory, while 6 MB wait for one client


async def slow_reader(seconds: float, seed: int, parent: Path | None) -> Outcome:
    """seconds: how long it does not read, at least.  After 20 s the server closes its connection."""
    async with arena(seed, WORKERS, parent) as ground, arena(seed, 1, parent) as control:
        outcome, recorded = await play(ground, Pace(control), seconds, worker_too=False)
        ground.conclude(outcome, recorded)
        return outcome


async def blocked_control(seed: int, parent: Path | None) -> Outcome:
    """A worker that stalls with its client must be caught; once it continues, everything must be delivered."""
    async with arena(seed, WORKERS, parent) as ground, arena(seed, 1, parent) as control:
        outcome, recorded = await play(ground, Pace(control), 0.0, worker_too=True)
        outcome.name = "control: the worker stops with the slow reader"
        caught = [violation for violation in outcome.violations if violation.rule == "stalled"]
        outcome.violations = [violation for violation in outcome.violations if violation.rule != "stalled"]
        if not caught:
            outcome.violations.append(Violation("control", "a worker stalled and no checker noticed"))
        outcome.facts["caught"] = len(caught)
        ground.conclude(outcome, recorded)
        return outcome


async def play(ground: Arena, pace: Pace, seconds: float, *, worker_too: bool) -> tuple[Outcome, History]:
    proxy = Proxy(ground.server.port, narrow=True)
    await proxy.open()
    try:
        return await stop_and_go_on(ground, proxy, pace, seconds, worker_too=worker_too)
    finally:
        await proxy.close()


async def stop_and_go_on(
    ground: Arena, proxy: Proxy, pace: Pace, seconds: float, *, worker_too: bool
) -> tuple[Outcome, History]:
    bob = await everybody_is_there(ground, proxy.port)
    await pace.start()
    workers = ground.server.worker_pids()
    before = [anonymous_bytes(pid) for pid in workers]
    grown = 0
    begun = time.monotonic()

    def is_over() -> bool:
        nonlocal grown
        now = [anonymous_bytes(pid) for pid in workers]
        grown = max(grown, *(later - earlier for earlier, later in zip(before, now, strict=True)))
        return time.monotonic() > begun + seconds

    owner = ground.server.worker_pid(worker_of(parse_number(bob.number) << 8 | bob.device, WORKERS))
    proxy.hold(True)  # without it bob's kernel would read on for a while
    bob.signal(signal.SIGSTOP)
    if worker_too:
        os.kill(owner, signal.SIGSTOP)
    violations = await attend(pace, go_on(ground, bob), is_over)
    stopped_s = time.monotonic() - begun
    if worker_too:
        os.kill(owner, signal.SIGCONT)
    bob.signal(signal.SIGCONT)
    proxy.hold(False)
    recorded, found = await ground.account()
    outcome = Outcome("slow reader", violations + found)
    if grown > GROWTH_BYTES_MAX:
        outcome.violations.append(Violation("memory", f"a worker grew by {grown >> 10} KiB"))
    if workers != ground.workers_at_end:
        outcome.violations.append(Violation("server", f"workers {workers} became {ground.workers_at_end}"))
    outcome.facts = {
        "stopped for s": round(stopped_s),
        "messages of the control pair": pace.now,
        "a worker grew by KiB": grown >> 10,
        "bound, KiB": GROWTH_BYTES_MAX >> 10,
        "messages for it": MESSAGES * 2 + 2 * FIRST,
        "shown": sum(len(device.shown) for device in recorded.devices.values()),
    }
    return outcome, recorded


async def everybody_is_there(ground: Arena, port: int) -> Person:
    """Returns bob, who connects through this port, after the first messages of both writers have reached him."""
    ground.ports = {"bob": port}
    await ground.open(ROSTER)
    ann, bob, cid, _ = ground.people.persons.values()
    for writer in (ann, cid):
        writer.do("burst", to=bob.number, n=FIRST, size=100)
    await ground.until(lambda: ground.shown(bob) == 2 * FIRST, "the first messages did not arrive")
    return bob


def go_on(ground: Arena, bob: Person) -> list[Watch]:
    """Makes two write to bob and the others to one another.  -> what must not stall meanwhile."""
    others = [person for person in ground.people.persons.values() if person is not bob]
    watches = []
    for person in others:
        person.write_to([other.number for other in others if other is not person])
        person.go(True)
        shown = partial(ground.shown, person)
        watches.append(Watch(f"{person.name} was shown messages", shown, shown() + TALK_MIN, ends=False))
    for writer in others[:2]:
        writer.do("burst", to=bob.number, n=MESSAGES, size=SIZE)
        answered = partial(writer.answered_to, bob)
        watches.append(Watch(f"{writer.name} was answered about bob", answered, FIRST + MESSAGES, ends=True))
    return watches
