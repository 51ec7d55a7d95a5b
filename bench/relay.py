"""Relay: pairs with 16 or 1 messages outstanding; recipients on the same and on another worker; beside the floors."""

from dataclasses import dataclass

from bench.generator import Load
from bench.generator import start as start_generator
from bench.results import Report, Target
from bench.servers import Floor, Running, Sizing, WaServe
from bench.setup import Crowd, Fleet, Settings, judge, sample_of

SAME, OTHER, FLOOR, EACH, PLAIN = "same worker", "other worker", "floor", "floor, record per frame", "floor, plaintext"
WINDOWS = (16, 1)
WARM_S = 0.3


@dataclass(frozen=True)
class Contestant:
    label: str
    fleet: Fleet


def run(settings: Settings) -> Report:
    report = Report("relay", {"pairs": settings.pairs, "rounds": settings.rounds, "seconds": settings.seconds})
    n = settings.pairs
    crowd = Crowd(devices=20 * n + 256, workers=2, streams=5 * n)
    with Running() as running:
        server = running.add(WaServe(Sizing(2, settings.server_cores, settings.where), crowd.devices.all, crowd.pool))
        floor = running.add(Floor(settings.server_cores))
        each = running.add(Floor(settings.server_cores, each=True))
        generator = running.add(start_generator("generator", crowd.pool, crowd.streams, settings.generator_cores))
        contestants = []
        for label, measured, owner, suite in (
            (SAME, server, 0, None),
            (FLOOR, floor, None, None),
            (OTHER, server, 1, None),
            (EACH, each, None, None),
            (PLAIN, floor, None, 0),
        ):
            fleet = crowd.fleet(generator, measured, label, settings, suite=suite)
            senders = crowd.devices.take(n, 0 if measured is server else None)
            crowd.pairs(fleet, senders, crowd.devices.take(n, owner))
            contestants.append(Contestant(label, fleet))
        loads = interleave(report, settings, contestants)
        report.parameters["server_stats"] = server.stats()
        judge(report, crowd, loads)
    set_targets(report)
    return report


def interleave(report: Report, settings: Settings, contestants: list[Contestant]) -> list[tuple[str, Load]]:
    """Round after round, everyone in turn, so that a slow minute of the machine hits all alike."""
    loads: list[tuple[str, Load]] = []
    with settings.progress("relay", len(WINDOWS) * (settings.rounds + 1) * len(contestants)) as step:
        for window in WINDOWS:
            for round_ in range(settings.rounds + 1):
                for contestant in contestants:
                    step(f"{window} outstanding, {contestant.label}")
                    fleet = contestant.fleet
                    load: Load = fleet.generator.call(
                        "run",
                        fleet=fleet.name,
                        seconds=settings.seconds if round_ else WARM_S,
                        window=window,
                        pids=fleet.pids(),
                    )
                    loads.append((contestant.label, load))
                    if round_:
                        report.find(contestant.label, f"{window} outstanding").samples.append(sample_of(load))
    return loads


def set_targets(report: Report) -> None:
    for window, bound in ((16, 0.6), (1, 0.7)):
        load = f"{window} outstanding"
        same, other = report.find(SAME, load), report.find(OTHER, load)
        for floor, held in ((FLOOR, bound), (EACH, None)):
            target = report.ratio(f"{load}: {floor} CPU / server CPU", report.find(floor, load), same, "cpu_us")
            target.bound, target.at_most = held, False
            report.targets.append(target)
        rate = report.ratio(f"{load}: server rate / floor rate", same, report.find(FLOOR, load), "per_s")
        rate.at_most = False
        report.targets.append(rate)
        crossing = report.ratio(f"{load}: other worker CPU / same worker CPU", other, same, "cpu_us")
        crossing.bound = 1.6
        report.targets.append(crossing)
        low, high = same.spread("bytes")
        bytes_ = Target(f"{load}: bytes per message with receipt", same.median("bytes"), 340, True, "B", low, high)
        report.targets.append(bytes_)
