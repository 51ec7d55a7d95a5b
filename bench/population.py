"""Very many clients, ramped up and held, on as many workers and client processes as the descriptor limit demands."""

import mmap
import time
from dataclasses import dataclass

import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench import kernel
from bench.addresses import FIRST_SOURCE, U64
from bench.children import Child
from bench.crowd import Crowd
from bench.fleets import Fleet
from bench.generator import PROGRESS, Load
from bench.generator import start as start_generator
from bench.judging import Judge
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings, split_cores

CLIENT_RESERVE = 128  # descriptors of a client process that are not connections
# Connections from one source address.  Linux tries the even half of the port range first, one after the other from
# where it last stopped: a connect() finds one at once as long as there are any, and after that searches all of it.
PER_SOURCE = 10_000
WORKER_RESERVE = 700  # of a worker: stores, bus listener, and sockets on their way to their owner
HALF_OPEN = 1_024  # logins under way at a time, all client processes together
SHOW_S = 0.5


@dataclass(frozen=True)
class Plan:
    """workers and clients: processes on each side."""

    connections: int
    workers: int
    clients: int
    descriptors: int

    @property
    def processes(self) -> int:
        return self.workers + self.clients + 2


def plan(connections: int, descriptors: int) -> Plan:
    """The fewest processes.  Workers are a power of two: then every worker owns the same number of shards.

    Raises ValueError when 256 workers are not enough.
    """
    workers = 2
    while workers <= 256:
        mean = connections / workers
        most = mean + 5 * mean**0.5  # devices fall on shards by a hash: 5 sigma over the mean
        if most + 2 * workers + WORKER_RESERVE <= descriptors:
            break
        workers *= 2
    else:
        raise ValueError(f"{connections} connections need more than 256 workers of {descriptors} descriptors")
    clients = max(1, -(-connections // (descriptors - CLIENT_RESERVE)))
    return Plan(connections, workers, clients, descriptors)


@dataclass(frozen=True)
class Footprint:
    """Bytes in use, by who uses them."""

    server: int
    client: int
    kernel: int
    available: int

    def __sub__(self, other: "Footprint") -> "Footprint":
        return Footprint(
            self.server - other.server,
            self.client - other.client,
            self.kernel - other.kernel,
            other.available - self.available,  # what became unavailable
        )


def footprint(server: list[int], clients: list[int]) -> Footprint:
    """Of these processes, and of the kernel."""
    return Footprint(
        kernel.memory_of(server),
        kernel.memory_of(clients),
        kernel.kernel_memory(),
        kernel.meminfo()["MemAvailable"],
    )


class Population:
    """The clients of a plan: devices 0..connections-1 of the crowd, source addresses of each process's own."""

    def __init__(self, running: Running, settings: Settings, crowd: Crowd, made: Plan) -> None:
        self.plan, self._settings = made, settings
        every = sorted({*split_cores()[0], *split_cores()[1]})
        own = settings.server_cores if made.workers <= 2 else every
        self.server = running.add(WaServe(Sizing(made.workers, own, settings.where), crowd))
        self._shared = mmap.mmap(-1, made.clients * len(PROGRESS) * 8)
        self.progress: U64 = np.frombuffer(self._shared, dtype=np.uint64).reshape(made.clients, len(PROGRESS))
        cores = settings.generator_cores if made.workers <= 2 else every
        self.children: list[Child] = [
            running.add(start_generator(f"clients {k}", crowd, cores, progress=self.progress[k]))
            for k in range(made.clients)
        ]
        self.addresses = crowd.devices.take(made.connections)
        self.parts = np.array_split(self.addresses, made.clients)
        self.empty = self.footprint()  # every process is there, no client is
        self.fleets = [Fleet.make(child, self.server, "crowd", settings) for child in self.children]
        source = FIRST_SOURCE
        for fleet, part in zip(self.fleets, self.parts, strict=True):
            for at in range(0, len(part), PER_SOURCE):
                fleet.add(part[at : at + PER_SOURCE], source)
                source += 1

    def footprint(self) -> Footprint:
        return footprint(self.server.pids(), self.client_pids())

    def client_pids(self) -> list[int]:
        return [child.pid for child in self.children]

    def live(self) -> int:
        return sum(fleet.counts()["live"] for fleet in self.fleets)

    def dropped(self) -> int:
        return sum(fleet.counts()["dropped"] for fleet in self.fleets)

    def login(self, judge: Judge, upto_each: int | None = None, seconds: float = 7_200.0) -> list[Load]:
        """Everybody, or the first `upto_each` of every client process.  Shows live progress."""
        wanted = sum(len(part) if upto_each is None else min(upto_each, len(part)) for part in self.parts)
        concurrent = max(4, HALF_OPEN // self.plan.clients)
        for fleet in self.fleets:
            fleet.generator.tell(
                "login", fleet="crowd", seconds=seconds, concurrent=concurrent, pids=[], upto=upto_each
            )
        self.show("logged in", wanted, 0)
        return [judge.take(f"clients {k}", fleet.answer()) for k, fleet in enumerate(self.fleets)]

    def show(self, what: str, wanted: int, column: int) -> None:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[note]}"), console=self._settings.console) as shown:
            task = shown.add_task(what, total=wanted, note="")
            while not all(child.connection.poll(0) for child in self.children):
                done = int(self.progress[:, column].sum())
                available = kernel.meminfo()["MemAvailable"] / 2**30
                dropped = int(self.progress[:, 1].sum())
                shown.update(task, completed=done, note=f"{available:.1f} GiB free, {dropped} dropped")
                time.sleep(SHOW_S)
            shown.update(task, completed=int(self.progress[:, column].sum()))
