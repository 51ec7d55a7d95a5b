"""Storm: the cost of a login beside the bare handshake, then ten thousand logins at once while pairs chat.

Logins are complete: accept, handshake, hand-over to the owner, its registry, "ready" and the next ticket.
"""

import time
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from bench import kernel
from bench._load import bare
from bench.addresses import sources
from bench.children import Child, serve_calls
from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import Load
from bench.generator import start as start_generator
from bench.histogram import Histogram
from bench.judging import Judge
from bench.relay import WORKERS
from bench.results import Report, Sample, Target
from bench.servers import Floor, Measured, Running, Sizing, WaServe
from bench.settings import Settings

SERVER, FLOOR, BARE = "wa serve", "floor, no handshake", "bare handshake"
LOGIN, RESUMED = "login, IK", "login, ticket"
SOURCES_N = 32
PER_ROUND = 1_000
CHAT_PAIRS = 16
CHAT_RATE = 500.0
CHAT_SLICE_S = 0.5
TAKEN_MAX = 0.01  # share of a slice: a core that is taken away for longer sets its p99
STORM_S = 300.0
GONE_S = 30.0  # until the server has seen everybody leave
ROUNDS_OF_BARE = 1_000
ROUNDS_TIMES = 4  # as many rounds of logins: one takes half a second, and single ones differ by a tenth
TICKETS_S = 5.0  # until everyone has one, after the last login
TIMES_BARE_MAX = 1.3
TICKET_TIMES_IK_MAX = 0.5


class Bare:
    """In the child: the cryptography alone, all of it libsodium's, on the server's core."""

    def handshake_ms(self, suite: int) -> float:
        return bare.handshake_s(suite, ROUNDS_OF_BARE) * 1e3

    def scalar_ms(self) -> float:
        return bare.scalar_multiplications_s(ROUNDS_OF_BARE) * 1e3


def start_bare(cores: list[int]) -> Child:
    def serve(connection: "Connection[Any, Any]") -> None:
        serve_calls(connection, Bare(), partial(connection.poll, None))

    return Child("bare handshakes", serve, cores)


def run(settings: Settings, clients: int = 10_000) -> Report:
    report = Report("storm", {"clients": clients, "rounds": settings.rounds, "chat_rate": CHAT_RATE})
    devices = clients + 3 * PER_ROUND + 2 * CHAT_PAIRS
    crowd = Crowd(devices=devices, workers=WORKERS, streams=CHAT_PAIRS)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        floor = running.add(Floor(settings.server_cores))
        bare_child = running.add(start_bare(settings.server_cores))
        logging_in = running.add(start_generator("storm", crowd, settings.generator_cores))
        fleets = {
            LOGIN: fleet_of(logging_in, server, crowd, settings, PER_ROUND),
            RESUMED: fleet_of(logging_in, server, crowd, settings, PER_ROUND, tickets=True),
            FLOOR: fleet_of(logging_in, floor, crowd, settings, PER_ROUND),
        }
        cost_of_logins(report, settings, judge, fleets, bare_child)
    # A worker a core, as `wa serve` starts: two on one core would wait for one another's time slices.
    workers = len(settings.server_cores)
    with Running() as running:
        server = running.add(WaServe(Sizing(workers, settings.server_cores, settings.where), crowd))
        storming = running.add(start_generator("storm", crowd, settings.generator_cores))
        chatting = running.add(start_generator("chat", crowd, settings.generator_cores, realtime=True))
        chat = Fleet.make(chatting, server, "chat", settings)
        make_pairs(chat, crowd, crowd.devices.take(CHAT_PAIRS), crowd.devices.take(CHAT_PAIRS))
        storm = fleet_of(storming, server, crowd, settings, clients)
        storms(report, settings, judge, server=server, chat=chat, storm=storm)
        report.parameters |= {"workers_in_the_storm": workers, "server_stats": server.stats()}
    judge.judge()
    return report


def fleet_of(
    generator: Child, server: Measured, crowd: Crowd, settings: Settings, count: int, *, tickets: bool = False
) -> Fleet:
    """Clients from many source addresses, none logged in."""
    name = f"{count} clients of {server.name}{' with tickets' if tickets else ''}"
    fleet = Fleet.make(generator, server, name, settings, tickets=tickets)
    addresses = crowd.devices.take(count)
    for k, source in enumerate(sources(SOURCES_N)):
        fleet.add(addresses[k::SOURCES_N], source)
    return fleet


def cost_of_logins(
    report: Report, settings: Settings, judge: Judge, fleets: dict[str, Fleet], bare_child: Child
) -> None:
    """All clients log in and leave, round after round: by IK, by ticket, at the floor; the bare handshake in between.

    The first round does not count: there are no tickets yet.
    """
    rounds = ROUNDS_TIMES * settings.rounds
    with settings.progress("logins", (rounds + 1) * len(fleets)) as step:
        for round_ in range(rounds + 1):
            for name, fleet in fleets.items():
                step(name)
                load = judge.take(name, fleet.login(concurrent=64))
                if round_:
                    report.find(*((FLOOR, "login") if name == FLOOR else (SERVER, name))).samples.append(cost_of(load))
                wanted = PER_ROUND if round_ and name == RESUMED else 0
                if load.counts["resumed"] != wanted or load.counts["tickets_refused"]:
                    report.faults.append(f"{name}: {load.counts['resumed']} of {wanted} came back with a ticket")
                if name == RESUMED:
                    everyone_has_a_ticket(fleet, (round_ + 1) * PER_ROUND)
                fleet.down(0, PER_ROUND)
            if round_:
                alone = bare_child.call("handshake_ms", suite=settings.suite)
                scalars = bare_child.call("scalar_ms")
                report.find(BARE, LOGIN).samples.append({"login_ms": alone, "per_s": 1e3 / alone})
                report.find("its five scalar multiplications", LOGIN).samples.append({"login_ms": scalars})
    targets_of_logins(report)


def cost_of(load: Load) -> Sample:
    n = load.counts["logins"]
    return {
        "login_ms": load.server_cpu.total / n * 1e3,
        "per_s": n / load.wall_s,
        "server_busy": load.server_cpu.total / load.wall_s,
        "generator_busy": load.generator_cpu.total / load.wall_s,
    }


def everyone_has_a_ticket(fleet: Fleet, tickets: int) -> None:
    """It comes right behind "ready".  Raises OSError when it does not."""
    deadline = time.monotonic() + TICKETS_S
    while (have := fleet.counts()["tickets"]) < tickets:
        if time.monotonic() > deadline:
            raise OSError(f"{have} of {tickets} tickets came")
        time.sleep(0.01)


def targets_of_logins(report: Report) -> None:
    by_ik, by_ticket = report.find(SERVER, LOGIN), report.find(SERVER, RESUMED)
    bare_handshake = report.find(BARE, LOGIN)
    for name, above, below, bound in (
        ("CPU of login / of bare handshake", by_ik, bare_handshake, TIMES_BARE_MAX),
        ("CPU of login by ticket / by IK", by_ticket, by_ik, TICKET_TIMES_IK_MAX),
        ("CPU of login by ticket / of bare IK handshake", by_ticket, bare_handshake, None),
    ):
        ratio = report.ratio(name, above, below, "login_ms")
        ratio.bound = bound
        report.targets.append(ratio)
    floor = report.find(FLOOR, "login")
    name = "CPU of login by ticket / by IK, each less a connection at the floor"
    net = by_ticket.less(floor, "login_ms"), by_ik.less(floor, "login_ms")
    report.targets.append(report.ratio(name, net[0], net[1], "login_ms"))
    per_core = 1e3 / by_ik.median("login_ms")
    report.targets.append(Target("logins per second of one core", per_core, 2_000, False, "/s"))


def chat_slice(judge: Judge, chat: Fleet) -> Load:
    load = chat.load("run_rate", seconds=CHAT_SLICE_S, rate=CHAT_RATE, window=64, spin=False)
    return judge.take("chat", load)


def storms(
    report: Report, settings: Settings, judge: Judge, *, server: WaServe, chat: Fleet, storm: Fleet
) -> None:
    """Runs the storms one after the other, each compared with a quiet time before it."""
    clients = storm.counts()["lines"]
    sums = {"quiet": Histogram.empty(), "during the storm": Histogram.empty()}
    displaced = kernel.Displaced(server.worker_pids(), server.pids(), settings.server_cores)
    with settings.progress(f"{clients} clients at once", settings.rounds) as step:
        for _ in range(settings.rounds):
            step("storm")
            before = kernel.descriptors_of(server.pids())
            heard_in = one_storm(report, settings, judge, chat=chat, storm=storm, displaced=displaced)
            for name, heard in heard_in.items():
                report.find("chat", name).samples.append(heard.sample())
                sums[name] += heard.times
            storm.down(0, clients)
            everyone_has_left(server, before)
    served = report.find(SERVER, f"{clients} clients at once").spread("served")[0]
    report.targets.append(Target("clients served of those that came", served, clients, False))
    quiet, stormy = (report.find("chat", name) for name in sums)
    rise = report.ratio("p99 of chatting pairs: storm / quiet", stormy, quiet, "recipient_p99_ms")
    rise.bound = 2.0
    report.targets.append(rise)
    report.plots["latency"] = {name: histogram.counts.tolist() for name, histogram in sums.items()}
    slices, left_out = (sum(quiet.values(what) + stormy.values(what)) for what in ("slices", "left_out"))
    report.notes.append(
        f"of {slices:.0f} slices of chat {left_out:.0f} are left out: the hypervisor took a core away meanwhile,"
        f" or another program had the server's for more than {TAKEN_MAX:.0%} of the time"
    )


class Chat:
    """Latency of chatting pairs, in slices.  A slice in which the hypervisor or another program took the server's core
    says nothing about the server: it is left out, and counted."""

    def __init__(self, judge: Judge, fleet: Fleet, displaced: kernel.Displaced) -> None:
        self._judge, self._fleet, self._displaced = judge, fleet, displaced
        self._clean, self._all = Histogram.empty(), Histogram.empty()
        self.slices, self.left_out = 0, 0

    def listen(self) -> None:
        stolen, displaced = kernel.stolen_s(), self._displaced.seconds()
        times = chat_slice(self._judge, self._fleet).to_recipient
        self._all += times
        self.slices += 1
        if kernel.stolen_s() > stolen or self._displaced.seconds() - displaced > TAKEN_MAX * CHAT_SLICE_S:
            self.left_out += 1
        else:
            self._clean += times

    @property
    def times(self) -> Histogram:
        return self._clean if self._clean.n else self._all

    def sample(self) -> Sample:
        found = {f"recipient_{key}": value for key, value in self.times.summary().items()}
        return found | {"slices": float(self.slices), "left_out": float(self.left_out)}


def one_storm(
    report: Report, settings: Settings, judge: Judge, *, chat: Fleet, storm: Fleet, displaced: kernel.Displaced
) -> dict[str, Chat]:
    """Pairs that chat before and while everyone comes."""
    quiet, stormy = Chat(judge, chat, displaced), Chat(judge, chat, displaced)
    for _ in range(max(4, int(2 * settings.seconds / CHAT_SLICE_S))):
        quiet.listen()
    clients = storm.counts()["lines"]
    storm.tell("login", seconds=STORM_S, concurrent=clients)
    while not storm.generator.connection.poll(0):
        stormy.listen()
    load = judge.take("storm", storm.answer())
    live = storm.counts()["live"]
    if live != clients:
        report.faults.append(f"storm: {clients - live} of {clients} were not served")
    sample = {"served": float(live), "per_s": clients / load.wall_s, "storm_s": load.wall_s}
    sample |= {"login_ms": load.server_cpu.total / clients * 1e3}
    sample |= {"shed_with_a_time": float(load.counts["busy"]), "came_back": float(load.counts["retries"])}
    sample |= {f"login_{key}": value for key, value in load.login.summary().items()}
    report.find(SERVER, f"{clients} clients at once").samples.append(sample)
    return {"quiet": quiet, "during the storm": stormy}


def everyone_has_left(server: WaServe, before: int) -> None:
    """Until the server has no more descriptors than `before` the storm.  Raises OSError when somebody stays.

    Its own counters are up to a second old: they may still be those from before the storm.
    """
    deadline = time.monotonic() + GONE_S
    while (more := kernel.descriptors_of(server.pids()) - before) > 0:
        if time.monotonic() > deadline:
            raise OSError(f"{more} clients of the storm are still connected")
        time.sleep(0.1)  # nothing tells of a close in another process
