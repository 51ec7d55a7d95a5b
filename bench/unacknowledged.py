"""Unacknowledged: messages for connected devices that never acknowledge; each lingers, is committed, then accepted."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.crowd import Crowd
from bench.fleets import Fleet
from bench.generator import Load
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import WORKERS
from bench.results import Report, Sample, Target
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings
from wa import limits

SERVER, DISK = "wa serve", "append of 4 KiB with fsync, alone"
RATE = 1_000.0
RECIPIENTS = 1_000  # one message a second each: the delivery window fills up after a minute
SECONDS = 15.0
# The first delivery is repeated three times; after that the connection is closed.
SECONDS_MAX = limits.RESEND_AFTER_MS * (limits.RESENDS_MAX + 1) / 1e3 - 2.0
WARM_S = 2.0
WINDOW = 64
OVER_LINGER_MS_MAX = 50.0
APPENDS = 100
STATS_S = 1.5  # the counters of a worker are up to a second old


def run(settings: Settings, rate: float = RATE) -> Report:
    report = Report(
        "unacknowledged",
        {"recipients": RECIPIENTS, "rate": rate, "rounds": settings.rounds, "seconds": settings.seconds},
    )
    crowd = Crowd(devices=RECIPIENTS + settings.pairs, workers=WORKERS, streams=RECIPIENTS)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        fleet = Fleet.make(generator, server, "silent", settings)
        make_senders(fleet, crowd, settings.pairs)
        with settings.progress("unacknowledged", settings.rounds + 1) as step:
            for round_ in range(settings.rounds + 1):
                step("warm" if round_ == 0 else f"{rate:g} messages/s")
                load = one_round(report, judge, fleet, seconds=settings.seconds if round_ else WARM_S, rate=rate)
                if round_:
                    report.find(SERVER, f"{rate:g} messages/s").samples.append(figures(load))
                    report.find(DISK, "beside it").samples.append(appends(settings.where))
        time.sleep(STATS_S)
        tell_ways(report, server.stats())
    judge.judge()
    report.parameters["data_on"] = str(settings.where)
    set_target(report, f"{rate:g} messages/s")
    return report


def make_senders(fleet: Fleet, crowd: Crowd, senders: int) -> None:
    """Recipients are lines 0..RECIPIENTS-1, a sender behind them writes to every `senders`-th."""
    recipients, streams = crowd.devices.take(RECIPIENTS), crowd.streams.take(RECIPIENTS)
    fleet.add(recipients)
    first = fleet.add(crowd.devices.take(senders))
    fleet.login()
    for k in range(senders):
        fleet.send_to(first + k, recipients[k::senders], streams[k::senders])


def one_round(report: Report, judge: Judge, fleet: Fleet, *, seconds: float, rate: float) -> Load:
    """Silence under load; then all acknowledge, so that the next round begins with empty mailboxes."""
    fleet.mute(0, RECIPIENTS)
    load = judge.take(
        SERVER,
        fleet.load("run_rate", seconds=seconds, rate=rate, window=WINDOW, spin=False, one_tick=True),
    )
    counts = load.counts
    if counts["late"]:
        report.faults.append(f"{counts['late']} messages had to wait for a window")
    if counts["delivered"] or counts["accepted"] != counts["sent"]:
        report.faults.append(
            f"of {counts['sent']} messages {counts['accepted']} accepted, "
            f"{counts['delivered']} delivered while nobody acknowledged"
        )
    fleet.speak(0, RECIPIENTS)
    sent = fleet.counts()["sent"]
    judge.take("the end of the silence", fleet.load("wait_for", received=sent, delivered=sent))
    return load


def figures(load: Load) -> Sample:
    sample = sample_of(load, "accepted", times=False)
    told = load.to_receipt
    sample |= {"accepted_p50_ms": told.quantile_ms(0.5), "accepted_p99_ms": told.quantile_ms(0.99)}
    return sample | {"accepted_max_ms": told.max_ms(), "resends": load.counts["resent"] / load.counts["accepted"]}


def appends(where: Path) -> Sample:
    """What the disk takes by itself, through the same file system, once the load is over."""
    times = []
    with tempfile.TemporaryFile(dir=where) as file:
        for _ in range(APPENDS):
            began = time.perf_counter()
            os.write(file.fileno(), bytes(4_096))
            os.fsync(file.fileno())
            times.append((time.perf_counter() - began) * 1e3)
    p50, p99 = np.quantile(times, (0.5, 0.99))
    return {"accepted_p50_ms": float(p50), "accepted_p99_ms": float(p99), "accepted_max_ms": max(times)}


def tell_ways(report: Report, stats: dict[str, int]) -> None:
    """How many lingered, as measured; the others found a full window and went to disk at once."""
    report.parameters["server_stats"] = stats
    taken, lingered = stats["envelopes_in"], stats["linger_commits"]
    report.notes.append(
        f"of {taken:,} envelopes {lingered:,} lingered and were committed, "
        f"{taken - stats['delivered_live']:,} went to the mailbox directly"
    )
    if stats["unresponsive"]:
        report.faults.append(f"{stats['unresponsive']} connections were given up")


def set_target(report: Report, load: str) -> None:
    series = report.find(SERVER, load)
    low, high = series.spread("accepted_p99_ms")
    bound = limits.LINGER_MS + OVER_LINGER_MS_MAX
    median = series.median("accepted_p99_ms")
    report.targets.append(Target("p99 of send to accepted, nobody acknowledges", median, bound, True, "ms", low, high))
