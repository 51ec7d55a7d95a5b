"""Relay: pairs with 16 or 1 messages in flight; recipients on the same and on another worker; beside the floors."""

from dataclasses import dataclass

from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.results import Report, Series, Target
from bench.servers import Floor, Running, Sizing, WaServe
from bench.settings import Settings

SAME, OTHER, FLOOR, EACH, PLAIN = (
    "same worker",
    "other worker",
    "floor",
    "floor, record per frame",
    "floor, plaintext",
)
WINDOWS = (16, 1)
WARM_S = 0.3
WORKERS = 2


@dataclass(frozen=True)
class Contestant:
    """owner: worker of the recipients; senders are on worker 0.  suite: None for that of the run."""

    label: str
    floor: bool
    owner: int = 0
    suite: int | None = None


CONTESTANTS = (
    Contestant(SAME, False),
    Contestant(FLOOR, True),
    Contestant(OTHER, False, owner=1),
    Contestant(EACH, True),
    Contestant(PLAIN, True, suite=0),
)


def run(settings: Settings) -> Report:
    report = Report("relay", {"pairs": settings.pairs, "rounds": settings.rounds, "seconds": settings.seconds})
    n = settings.pairs
    crowd = Crowd(devices=20 * n + 256, workers=WORKERS, streams=len(CONTESTANTS) * n)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        floors = {each: running.add(Floor(settings.server_cores, each=each)) for each in (False, True)}
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        fleets = {}
        for one in CONTESTANTS:
            measured = floors[one.label == EACH] if one.floor else server
            fleets[one.label] = Fleet.make(generator, measured, one.label, settings, one.suite)
            senders = crowd.devices.take(n, 0)
            make_pairs(fleets[one.label], crowd, senders, crowd.devices.take(n, one.owner))
        interleave(report, settings, judge, fleets)
        report.parameters["server_stats"] = server.stats()
    judge.judge()
    set_targets(report)
    return report


def interleave(report: Report, settings: Settings, judge: Judge, fleets: dict[str, Fleet]) -> None:
    """Round after round, each contestant in turn, so that a slow minute of the machine hits all alike."""
    with settings.progress("relay", len(WINDOWS) * (settings.rounds + 1) * len(fleets)) as step:
        for window in WINDOWS:
            for round_ in range(settings.rounds + 1):
                for label, fleet in fleets.items():
                    step(f"{window} outstanding, {label}")
                    load = fleet.load("run", seconds=settings.seconds if round_ else WARM_S, window=window)
                    judge.take(f"{label}, {window} outstanding", load)
                    if round_:
                        report.find(label, f"{window} outstanding").samples.append(sample_of(load))


def set_targets(report: Report) -> None:
    for window, bound in ((16, 0.6), (1, 0.7)):
        load = f"{window} outstanding"
        same, other = report.find(SAME, load), report.find(OTHER, load)
        for floor in (FLOOR, EACH):
            target = report.ratio(f"{load}: CPU of {floor} / of server", report.find(floor, load), same, "cpu_us")
            target.bound, target.at_most = bound if floor == FLOOR else None, False
            report.targets.append(target)
        rate = report.ratio(f"{load}: rate of server / of floor", same, report.find(FLOOR, load), "per_s")
        rate.at_most = False
        report.targets.append(rate)
        crossing = report.ratio(f"{load}: CPU of other worker / of same worker", other, same, "cpu_us")
        crossing.bound = 1.6
        report.targets.append(crossing)
        low, high = same.spread("bytes")
        bytes_ = Target(f"{load}: bytes per message with receipt", same.median("bytes"), 340, True, "B", low, high)
        report.targets.append(bytes_)
        report.notes.append(ceilings(load, same, report.find(FLOOR, load)))


def ceilings(load: str, server: Series, floor: Series) -> str:
    """What one core could do at this cost.  The lowest ceiling sets the rate."""
    parts = [
        f"generator {1e6 / server.median('generator_cpu_us'):,.0f}",
        f"server {1e6 / server.median('cpu_us'):,.0f}",
        f"floor {1e6 / floor.median('cpu_us'):,.0f}",
    ]
    return f"{load}, messages/s that a core has CPU for: {', '.join(parts)}; who has least sets the rate"
