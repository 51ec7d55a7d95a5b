"""kill -9 of a random process at a random moment, again and again, while all clients write to one another.

A round is one kill: of a worker, all workers, the supervisor (its workers die with it), or a client.  A client is
killed from outside at any moment, or kills itself at one of the SDK's persistence steps.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from faults.arena import NUMBERS, Arena, arena
from faults.people import Person
from faults.report import Outcome

GAP_S = 0.3  # mean time between two kills
DURING_START = 0.15  # chance that a kill may hit a server that is not ready yet
ROSTER = {
    "ann": (NUMBERS[0], 1),
    "ann2": (NUMBERS[0], 2),
    "bob": (NUMBERS[1], 1),
    "cid": (NUMBERS[2], 1),
    "dee": (NUMBERS[3], 1),
}


class Victim(Enum):
    CLIENT = "a client"
    WORKER = "a worker"
    WORKERS = "all workers"
    SUPERVISOR = "the supervisor"


CHANCES = {Victim.CLIENT: 0.5, Victim.WORKER: 0.27, Victim.WORKERS: 0.08, Victim.SUPERVISOR: 0.15}


@dataclass
class Killer:
    arena: Arena
    kills: Counter[str] = field(default_factory=Counter)

    def round(self) -> None:
        """One kill.  If the chosen part of the server is already dead, a client is killed instead."""
        (victim,) = self.arena.rng.choices(list(CHANCES), list(CHANCES.values()))
        if victim is Victim.CLIENT or not self._kill_server(victim):
            victim = Victim.CLIENT
            if not self._kill_client():
                return
        self.kills[victim.value] += 1

    def _kill_client(self) -> bool:
        alive: list[Person] = [each for each in self.arena.people.persons.values() if each.pid > 0 and each.wanted]
        return bool(alive) and self.arena.rng.choice(alive).signal(signal.SIGKILL)

    def _kill_server(self, victim: Victim) -> bool:
        server = self.arena.server
        if not server.is_running or (not server.is_ready and self.arena.rng.random() > DURING_START):
            return False
        if victim is Victim.SUPERVISOR:
            server.kill_supervisor()
            return True
        pids = server.worker_pids()
        if not pids:
            return False
        server.kill_workers(pids if victim is Victim.WORKERS else [self.arena.rng.choice(pids)])
        return True


async def kills(rounds: int, seed: int, parent: Path | None, progress: Callable[[int], None]) -> Outcome:
    async with arena(seed, 2, parent) as ground:
        ground.die_at_chance = 0.35
        await ground.open(ROSTER)
        ground.worker_counts = (2, 2, 2, 3, 1)
        ground.keep_server()
        for person in ground.people.persons.values():
            person.go(True)
        killer = Killer(ground)
        at_start = ground.deaths_at_steps
        while ground.round < rounds:
            await asyncio.sleep(ground.rng.expovariate(1 / GAP_S))
            killer.round()
            ground.round = killer.kills.total() + ground.deaths_at_steps - at_start
            progress(ground.round)
        recorded, violations = await ground.account()
        outcome = Outcome("kills", violations)
        outcome.facts = {
            "rounds": ground.round,
            **killer.kills,
            "deaths at a step": ground.deaths_at_steps,
            "server starts": ground.server.starts,
            "messages": sum(len(device.sent) for device in recorded.devices.values()),
            "shown": sum(len(device.shown) for device in recorded.devices.values()),
            "receipts that came with a login": ground.late_receipts,
        }
        ground.conclude(outcome, recorded)
        return outcome
