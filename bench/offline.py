"""Offline: messages for absent devices go to disk behind an fsync; then the devices log in and drain."""

from collections.abc import Callable, Iterator

from bench.crowd import Crowd
from bench.fleets import Fleet
from bench.generator import Load
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import WORKERS
from bench.results import Report
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings

SERVER = "wa serve"
PER_RECIPIENT = 50
STORE, DRAIN = "store (accepted after fsync)", "drain (logins, deliveries, receipts)"
FILL_S = 120.0


def run(settings: Settings, recipients: int = 1_000) -> Report:
    """Each round has new recipients: a mailbox that was full once is not like a fresh one."""
    senders = settings.pairs
    each = max(1, recipients // senders)
    report = Report(
        "offline", {"recipients": each * senders, "messages_each": PER_RECIPIENT, "rounds": settings.rounds}
    )
    count = settings.rounds * senders * (1 + each)
    crowd = Crowd(devices=count, workers=WORKERS, streams=settings.rounds * senders * each)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        with settings.progress("offline", settings.rounds * 2) as step:
            for round_ in range(settings.rounds):
                fleet = Fleet.make(generator, server, f"round {round_}", settings)
                for name, per, load in one_round(settings, crowd, fleet, each, step):
                    report.find(SERVER, name).samples.append(
                        sample_of(judge.take(name, load), per, times=per == "delivered")
                    )
        report.parameters["server_stats"] = server.stats()
    judge.judge()
    report.parameters["data_on"] = str(settings.where)
    report.notes.append(
        "no floor: a relay without custody has nothing to compare with; see the relay scenario for hops"
    )
    return report


def one_round(
    settings: Settings, crowd: Crowd, fleet: Fleet, each: int, step: Callable[[str], None]
) -> Iterator[tuple[str, str, Load]]:
    senders = settings.pairs
    fleet.add(crowd.devices.take(senders))
    fleet.login()
    away = crowd.devices.take(senders * each)
    streams = crowd.streams.take(senders * each)
    for k in range(senders):
        part = slice(k * each, (k + 1) * each)
        fleet.send_to(k, away[part], streams[part])
    step("store")
    quota = each * PER_RECIPIENT
    yield STORE, "accepted", fleet.load("run", seconds=FILL_S, window=64, per_sender=quota, one_tick=True)
    step("drain")
    fleet.add(away)
    yield DRAIN, "received", fleet.load("wait_for", received=senders * quota, delivered=senders * quota)
