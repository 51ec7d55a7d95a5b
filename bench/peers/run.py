"""Loads of the relay, storm, idle and group scenarios on ejabberd and mosquitto, with `wa serve` in the same run."""

import time
from dataclasses import dataclass

from bench.children import Child
from bench.crowd import Crowd
from bench.fleets import Fleet, make_group, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.kernel import memory_of
from bench.peers.brokers import BROKERS, Broker, NotInstalled
from bench.peers.clients import start as start_clients
from bench.relay import WARM_S, WINDOWS, WORKERS
from bench.results import Report
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings

WA = "wa serve"
LOGINS = 200
HELD = 500
ROOM = 256
FASTER_MIN = 25.0
SETTLE_S = 1.0


@dataclass(frozen=True)
class Other:
    broker: Broker
    clients: Child


def run(settings: Settings, names: list[str]) -> Report:
    """The report names those that are not installed.  Raises OSError."""
    report = Report("peers", {"pairs": settings.pairs, "rounds": settings.rounds, "seconds": settings.seconds})
    n = settings.pairs
    crowd = Crowd(devices=8 * n + 2 * ROOM, workers=WORKERS, streams=n + ROOM)
    judge = Judge(report, crowd)
    with Running() as running:
        others = start_others(report, settings, running, names)
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        fleet = Fleet.make(generator, server, WA, settings)
        make_pairs(fleet, crowd, crowd.devices.take(n, 0), crowd.devices.take(n, 0))
        group = Fleet.make(generator, server, "group", settings)
        make_group(group, crowd, crowd.devices.take(1), crowd.devices.take(ROOM))
        for other in others:  # memory first: what a load leaves behind would hide it
            logins_and_memory(report, other)
            other.clients.call("leave")
            other.clients.call("pairs", count=n)
        relays(report, settings, judge, fleet, others)
        rooms(report, settings, judge, group, others)
    judge.judge()
    set_targets(report, others)
    report.notes += [
        "peers: plaintext, no end-to-end encryption, nothing on disk before a message is answered; wa: everything on",
        "their clients are Python: 'gen. busy' near 100 % means that the rate is the clients', not the server's",
    ]
    return report


def start_others(report: Report, settings: Settings, running: Running, names: list[str]) -> list[Other]:
    others = []
    for name in names:
        try:
            broker = running.add(BROKERS[name](settings))
        except NotInstalled as missing:
            report.notes.append(str(missing))
            continue
        clients = start_clients(broker.speaks, broker.port, broker.pids(), settings.generator_cores)
        others.append(Other(broker, running.add(clients)))
    return others


def relays(report: Report, settings: Settings, judge: Judge, fleet: Fleet, others: list[Other]) -> None:
    with settings.progress("peers", len(WINDOWS) * (settings.rounds + 1) * (1 + len(others))) as step:
        for window in WINDOWS:
            load_name = f"{window} outstanding"
            for round_ in range(settings.rounds + 1):
                seconds = settings.seconds if round_ else WARM_S
                step(f"{load_name}, {WA}")
                loads = {WA: fleet.load("run", seconds=seconds, window=window)}
                for other in others:
                    step(f"{load_name}, {other.broker.name}")
                    loads[other.broker.name] = other.clients.call("run", seconds=seconds, window=window)
                for name, load in loads.items():
                    judge.take(f"{name}, {load_name}", load)
                    if round_:
                        report.find(name, load_name).samples.append(sample_of(load))


def rooms(report: Report, settings: Settings, judge: Judge, group: Fleet, others: list[Other]) -> None:
    """Per delivery.  Theirs is one message to a room; ours is one SEND per recipient until groups exist."""
    load_name = f"to {ROOM}, per delivery"
    for other in others:
        other.clients.call("leave")
        other.clients.call("room", users=range(10_000, 10_000 + ROOM))
    time.sleep(SETTLE_S)
    for _ in range(settings.rounds):
        ours = judge.take(f"{WA}, {load_name}", group.load("run", seconds=settings.seconds, window=64))
        report.find(WA, load_name).samples.append(sample_of(ours))
        for other in others:
            load = other.clients.call("run_room", seconds=settings.seconds)
            judge.take(f"{other.broker.name}, {load_name}", load)
            report.find(other.broker.name, load_name).samples.append(sample_of(load))


def logins_and_memory(report: Report, other: Other) -> None:
    users = range(20_000, 20_000 + HELD)
    other.broker.speaks.register(other.broker.port, users)
    cost = other.clients.call("login", users=users[:LOGINS])
    report.find(other.broker.name, "login, plaintext password or none").samples.append({"login_ms": cost})
    time.sleep(SETTLE_S)
    before = memory_of(other.broker.pids())
    held = other.clients.call("hold", users=users)
    time.sleep(SETTLE_S)
    each = (memory_of(other.broker.pids()) - before) / held
    report.find(other.broker.name, f"{held} idle connections").samples.append({"server_bytes": each})


def set_targets(report: Report, others: list[Other]) -> None:
    for other in others:
        name = other.broker.name
        for window in WINDOWS:
            load = f"{window} outstanding"
            found = report.find(name, load), report.find(WA, load)
            target = report.ratio(f"{load}: CPU of {name} / of wa", *found, "cpu_us")
            target.bound = FASTER_MIN if name == "ejabberd" and window == WINDOWS[0] else None
            target.at_most = False
            report.targets.append(target)
