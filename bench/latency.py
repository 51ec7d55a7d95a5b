"""Latency: messages at a fixed rate, however fast the server is; time from when a message was due to its arrival."""

from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import FLOOR, OTHER, SAME, WARM_S, WORKERS
from bench.results import Report, Target
from bench.servers import Floor, Running, Sizing, WaServe
from bench.settings import Settings

RATE = 5_000.0
WINDOW = 64
P99_MS_MAX = 2.0
TIMES_FLOOR_MAX = 3.0


def run(settings: Settings, rate: float = RATE) -> Report:
    report = Report("latency", {"pairs": settings.pairs, "rounds": settings.rounds, "rate": rate})
    n = settings.pairs
    crowd = Crowd(devices=12 * n + 256, workers=WORKERS, streams=3 * n)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        floor = running.add(Floor(settings.server_cores))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        fleets = {}
        for label, measured, owner in ((SAME, server, 0), (FLOOR, floor, 0), (OTHER, server, 1)):
            fleets[label] = Fleet.make(generator, measured, label, settings)
            make_pairs(fleets[label], crowd, crowd.devices.take(n, 0), crowd.devices.take(n, owner))
        interleave(report, settings, judge, fleets, rate=rate)
    judge.judge()
    set_targets(report, f"{rate:g} messages/s")
    return report


def interleave(report: Report, settings: Settings, judge: Judge, fleets: dict[str, Fleet], *, rate: float) -> None:
    load_name = f"{rate:g} messages/s"
    kept: dict[str, list[list[int]]] = {label: [] for label in fleets}
    with settings.progress("latency", (settings.rounds + 1) * len(fleets)) as step:
        for round_ in range(settings.rounds + 1):
            for label, fleet in fleets.items():
                step(label)
                seconds = settings.seconds if round_ else WARM_S
                load = fleet.load("run_rate", seconds=seconds, rate=rate, window=WINDOW, spin=True)
                judge.take(label, load)
                if load.counts["late"]:
                    report.faults.append(f"{label}: {load.counts['late']} messages had to wait for a window")
                if round_:
                    report.find(label, load_name).samples.append(sample_of(load))
                    kept[label].append(load.to_recipient.counts.tolist())
    report.plots["latency"] = {
        label: [sum(bucket) for bucket in zip(*rounds, strict=True)] for label, rounds in kept.items()
    }


def set_targets(report: Report, load: str) -> None:
    floor = report.find(FLOOR, load)
    for label in (SAME, OTHER):
        series = report.find(label, load)
        target = report.ratio(f"{label}: p99 of server / of floor", series, floor, "recipient_p99_ms")
        target.bound = TIMES_FLOOR_MAX
        low, high = series.spread("recipient_p99_ms")
        median = series.median("recipient_p99_ms")
        report.targets += [
            target,
            Target(f"{label}: p99 of send to receive", median, P99_MS_MAX, True, "ms", low, high),
        ]
