"""What every scenario needs: settings of the run, cores, progress, and pairs of clients on a server or floor."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.addresses import U64, Devices, KeyPool, key_pool, sources
from bench.children import Child
from bench.generator import Load
from bench.results import Report, Sample, results_directory
from bench.servers import Measured
from bench.streams import Streams

LOGIN_S = 60.0


def spread_cores() -> tuple[list[int], list[int]]:
    """(the server's, the generators'): the server has the first core that we may use, generators the others."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[:1], usable[1:] or usable


@dataclass
class Settings:
    """Of one run.  suite: 1 ChaCha20-Poly1305, 2 AES-256-GCM."""

    suite: int = 2
    rounds: int = 5
    seconds: float = 2.0
    pairs: int = 64
    body_bytes: int = 100
    where: Path = field(default_factory=lambda: results_directory() / "data")
    console: Console = field(default_factory=lambda: Console(stderr=True))
    server_cores: list[int] = field(default_factory=lambda: spread_cores()[0])
    generator_cores: list[int] = field(default_factory=lambda: spread_cores()[1])

    @contextmanager
    def progress(self, what: str, steps: int) -> Iterator["Step"]:
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
        with Progress(*columns, TimeElapsedColumn(), console=self.console, transient=True) as shown:
            task = shown.add_task(what, total=steps)
            yield Step(lambda note: shown.update(task, advance=1, description=f"{what}: {note}" if note else what))


class Step:
    """Call it after each step, with a word on the next one."""

    def __init__(self, advance: "object") -> None:
        self._advance = advance

    def __call__(self, note: str = "") -> None:
        assert callable(self._advance)
        self._advance(note)


@dataclass
class Fleet:
    """A fleet of one generator as its scenario sees it."""

    name: str
    server: Measured
    generator: Child

    def pids(self) -> list[int]:
        return self.server.pids()


class Crowd:
    """The devices, keys and streams of one scenario, made before anything is forked."""

    def __init__(self, devices: int, workers: int, streams: int) -> None:
        self.pool: KeyPool = key_pool()
        self.devices = Devices(devices, workers)
        self.streams = Streams(streams)

    def fleet(
        self, generator: Child, server: Measured, name: str, settings: Settings, *, suite: int | None = None
    ) -> Fleet:
        generator.call(
            "make",
            fleet=name,
            port=server.port,
            suite=settings.suite if suite is None else suite,
            server_public=server.server_public,
            body_bytes=settings.body_bytes,
        )
        return Fleet(name, server, generator)

    def pairs(self, fleet: Fleet, senders: U64, recipients: U64) -> None:
        """One line per device, everyone logged in; sender k writes to recipient k."""
        source = next(sources(1))
        fleet.generator.call("add", fleet=fleet.name, addresses=senders, source=source)
        fleet.generator.call("add", fleet=fleet.name, addresses=recipients, source=source)
        login(fleet)
        streams = self.streams.take(len(senders))
        for k in range(len(senders)):
            fleet.generator.call(
                "send_to",
                fleet=fleet.name,
                line=k,
                targets=recipients[k : k + 1],
                streams=streams[k : k + 1],
            )


def login(fleet: Fleet, concurrent: int = 256, seconds: float = LOGIN_S) -> Load:
    """Raises OSError when somebody could not log in."""
    load: Load = fleet.generator.call(
        "login", fleet=fleet.name, seconds=seconds, concurrent=concurrent, pids=fleet.pids()
    )
    if not load.drained:
        counts = fleet.generator.call("counts", fleet=fleet.name)
        raise OSError(f"{counts['lines'] - counts['live']} of {counts['lines']} could not log in: {counts}")
    return load


def sample_of(load: Load) -> Sample:
    """A load's figures per message with receipt; CPU in µs."""
    n = load.counts["delivered"] or load.counts["accepted"]
    if n == 0:
        return {"messages": 0.0}
    sample: Sample = {
        "messages": float(n),
        "per_s": n / load.wall_s,
        "cpu_us": load.server_cpu.total / n * 1e6,
        "generator_cpu_us": load.generator_cpu.total / n * 1e6,
        "server_busy": load.server_cpu.total / load.wall_s,
        "generator_busy": load.generator_cpu.total / load.wall_s,
        "bytes": (load.counts["bytes_in"] + load.counts["bytes_out"]) / n,
        "records": (load.counts["records_in"] + load.counts["records_out"]) / n,
    }
    ticks = load.server_cpu.user + load.server_cpu.system
    if ticks:
        sample["system_share"] = load.server_cpu.system / ticks
    for name, histogram in (("recipient", load.to_recipient), ("receipt", load.to_receipt)):
        if histogram.n:
            sample |= {f"{name}_{key}": value for key, value in histogram.summary().items()}
    return sample


def judge(report: Report, crowd: Crowd, loads: list[tuple[str, Load]]) -> None:
    """Every message once and in order, every receipt: what is wrong becomes a fault of the report."""
    for label, load in loads:
        if load.faults():
            report.faults.append(f"{label}: {load.faults()}")
    verdict = crowd.streams.verdict()
    if verdict.wrong:
        report.faults.append(f"{verdict.wrong} streams: {verdict.sent} messages sent, {verdict.heard} heard")
    report.parameters["messages_checked"] = verdict.sent
