"""A generator process: fleets of clients, loaded and measured by commands of the scenario."""

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench._load.fleet import NO_BOUND, Fleet
from bench.addresses import U32, U64, key_index
from bench.children import Child, serve_calls
from bench.crowd import Crowd
from bench.histogram import Histogram
from bench.kernel import Cpu, cpu_of

STALL_S = 20.0  # so long without a byte while something is in flight: the run failed
COUNTED = (
    "sent",
    "accepted",
    "delivered",
    "received",
    "refused",
    "resent",
    "duplicates",
    "gaps",
    "bad_bodies",
    "bad_receipts",
    "bytes_in",
    "bytes_out",
    "records_in",
    "records_out",
    "dropped",
    "late",
    "logins",
    "busy",
    "retries",
    "login_failures",
    "resumed",
    "tickets_refused",
)
PROGRESS = ("live", "dropped", "received", "retries")
PUBLISH_S = 0.5
FAULTS = ("refused", "duplicates", "gaps", "bad_bodies", "bad_receipts", "dropped", "login_failures")


@dataclass
class Load:
    """What one load did and cost.  seconds: while messages were sent; wall_s: until the last receipt."""

    seconds: float = 0.0
    wall_s: float = 0.0
    drained: bool = True
    counts: dict[str, int] = field(default_factory=dict)
    server_cpu: Cpu = field(default_factory=Cpu)
    generator_cpu: Cpu = field(default_factory=Cpu)
    to_recipient: Histogram = field(default_factory=Histogram.empty)
    to_receipt: Histogram = field(default_factory=Histogram.empty)
    login: Histogram = field(default_factory=Histogram.empty)

    def faults(self) -> dict[str, int]:
        found = {name: self.counts[name] for name in FAULTS if self.counts.get(name)}
        return found if self.drained else found | {"not_drained": 1}


class Generator:
    """In the child.  Fleets by name; methods are the commands."""

    def __init__(self, connection: "Connection[Any, Any]", crowd: Crowd, progress: U64) -> None:
        self._connection, self._pool, self._streams = connection, crowd.pool, crowd.streams
        self._progress = progress
        self._fleets: dict[str, Fleet] = {}

    def idle(self) -> None:
        if not self._fleets:
            self._connection.poll(None)
        for fleet in self._fleets.values():
            fleet.hold(1.0 if len(self._fleets) == 1 else 0.05)

    # --- commands ---

    def make(
        self, fleet: str, *, port: int, suite: int, server_public: bytes, body_bytes: int, tickets: bool = False
    ) -> None:
        made = Fleet(
            port=port,
            suite=suite,
            server_public=server_public,
            keys=self._pool.private,
            sent=self._streams.sent,
            heard=self._streams.heard,
            body_bytes=body_bytes,
            tickets=tickets,
        )
        made.watch_command(self._connection.fileno())
        self._fleets[fleet] = made

    def add(self, fleet: str, addresses: U64, source: int = 0) -> int:
        return self._fleets[fleet].add(addresses, key_index(addresses), source)

    def send_to(self, fleet: str, line: int, targets: U64, streams: U32) -> None:
        self._fleets[fleet].send_to(line, targets, streams)

    def drop(self, fleet: str) -> None:
        del self._fleets[fleet]

    def down(self, fleet: str, first: int, n: int) -> None:
        self._fleets[fleet].down(first, n)

    def mute(self, fleet: str, first: int, n: int) -> None:
        self._fleets[fleet].mute(first, n)

    def speak(self, fleet: str, first: int, n: int) -> None:
        self._fleets[fleet].speak(first, n)

    def login(
        self, fleet: str, *, seconds: float, concurrent: int, pids: list[int], upto: int | None = None
    ) -> Load:
        made = self._fleets[fleet]
        lines = made.counts()["lines"]
        if upto is not None:
            lines = min(lines, upto)
        meter = _Meter(made, pids)
        done = False
        while not done and meter.elapsed() < seconds:
            done = made.login_chunk(concurrent, lines)
            self._publish(made)
        return meter.load(meter.elapsed(), made.counts()["live"] >= lines)

    def run(
        self,
        fleet: str,
        *,
        seconds: float,
        window: int,
        pids: list[int],
        per_sender: int = NO_BOUND,
        one_tick: bool = False,
    ) -> Load:
        """Closed loop; see Fleet.run."""
        made = self._fleets[fleet]
        made.begin(window, per_sender, one_tick, one_tick)
        meter = _Meter(made, pids)
        took = made.run(seconds)
        return meter.load(took, made.drain(STALL_S))

    def run_rate(
        self,
        fleet: str,
        *,
        seconds: float,
        rate: float,
        window: int,
        pids: list[int],
        spin: bool,
        one_tick: bool = False,
    ) -> Load:
        """Open loop; see Fleet.run_rate."""
        made = self._fleets[fleet]
        made.begin(window, one_tick=one_tick, receipts_stray=one_tick)
        meter = _Meter(made, pids)
        took = 0.0
        while took < seconds:  # in pieces, so that progress shows
            took += made.run_rate(rate, min(PUBLISH_S, seconds - took), spin)
            self._publish(made)
        return meter.load(took, made.drain(STALL_S))

    def wait_for(self, fleet: str, *, received: int, delivered: int, pids: list[int]) -> Load:
        """Logs everyone in and waits until so many messages and receipts have come in all; see Fleet.wait_for."""
        made = self._fleets[fleet]
        meter = _Meter(made, pids)
        done = made.wait_for(received, delivered, STALL_S)
        return meter.load(meter.elapsed(), done)

    def _publish(self, fleet: Fleet) -> None:
        counts = fleet.counts()
        self._progress[:] = [counts[name] for name in PROGRESS]

    def counts(self, fleet: str) -> dict[str, int]:
        return self._fleets[fleet].counts()


class _Meter:
    """Differences over one load."""

    def __init__(self, fleet: Fleet, pids: list[int]) -> None:
        self._fleet, self._pids = fleet, pids
        fleet.take_command()
        fleet.clear_histograms()
        self._counts = fleet.counts()
        self._own = time.process_time()
        self._cpu = cpu_of(pids)
        self._began = time.perf_counter()

    def elapsed(self) -> float:
        return time.perf_counter() - self._began

    def load(self, seconds: float, drained: bool) -> Load:
        wall_s = self.elapsed()
        cpu = cpu_of(self._pids) - self._cpu
        own = time.process_time() - self._own
        counts = self._fleet.counts()
        histograms = {name: Histogram.of(data) for name, data in self._fleet.histograms().items()}
        return Load(
            seconds=seconds,
            wall_s=wall_s,
            drained=drained,
            counts={name: counts[name] - self._counts[name] for name in COUNTED},
            server_cpu=cpu,
            generator_cpu=Cpu(own, own, 0.0),
            **histograms,
        )


def start(
    name: str, crowd: Crowd, cores: list[int], *, realtime: bool = False, progress: U64 | None = None
) -> Child:
    """A generator process; its commands are the methods of Generator.

    progress: four numbers (PROGRESS) in shared memory that it keeps up to date.
    """
    shown = np.zeros(len(PROGRESS), dtype=np.uint64) if progress is None else progress

    def serve(connection: "Connection[Any, Any]") -> None:
        generator = Generator(connection, crowd, shown)
        serve_calls(connection, generator, generator.idle)

    return Child(name, serve, cores, realtime=realtime)
