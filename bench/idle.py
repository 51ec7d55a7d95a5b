"""Idle: memory per held connection, before and after it was active, and relay beside very many idle connections."""

import time

from bench import kernel
from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.population import Population, plan
from bench.relay import FLOOR, WARM_S
from bench.results import Report, Sample, Target
from bench.servers import Floor, Running
from bench.settings import Settings

FEW_EACH = 128  # connections of each client process when memory is read for the first time
QUIET_S = 1.5  # an active connection has to be small again a second after its last byte
FEW, MANY = "relay, 16 outstanding, few idle", "relay, 16 outstanding, all idle"
SERVER = "wa serve"
PROCESS_BYTES_MAX = 256.0


def run(settings: Settings, connections: int) -> Report:
    report = Report("idle", {"connections": connections, "rounds": settings.rounds})
    made = plan(connections, kernel.descriptor_limit())
    n = settings.pairs
    devices = connections + 6 * n * made.workers
    crowd = Crowd(devices=devices, workers=made.workers, streams=2 * n + connections // 2)
    judge = Judge(report, crowd)
    report.parameters |= {"workers": made.workers, "client_processes": made.clients}
    with Running() as running:
        population = Population(running, settings, crowd, made)
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        relays = {}
        for label, measured in ((SERVER, population.server), (FLOOR, running.add(Floor(settings.server_cores)))):
            relays[label] = Fleet.make(generator, measured, label, settings)
            make_pairs(relays[label], crowd, crowd.devices.take(n, 0), crowd.devices.take(n, 0))
        population.login(judge, FEW_EACH)
        relay_runs(report, settings, judge, relays, FEW)
        memory(report, population, judge, crowd, connections - made.clients * FEW_EACH)
        relay_runs(report, settings, judge, relays, MANY)
        report.parameters["held"] = population.live()
        if population.live() != connections or population.dropped():
            report.faults.append(f"{population.live()} of {connections} held, {population.dropped()} dropped")
    judge.judge()
    few = report.ratio("", report.find(SERVER, FEW), report.find(FLOOR, FEW), "cpu_us")
    many = report.ratio("", report.find(SERVER, MANY), report.find(FLOOR, MANY), "cpu_us")
    growth = many.value / few.value
    name = f"relay CPU with {connections} idle / with few, each as a multiple of the floor"
    report.targets.append(Target(name, growth, 1.1, True, "×", many.low / few.high, many.high / few.low))
    return report


def relay_runs(report: Report, settings: Settings, judge: Judge, relays: dict[str, Fleet], load_name: str) -> None:
    """Server and floor in turn: hours may lie between few and many, and the machine drifts."""
    with settings.progress(load_name, (settings.rounds + 1) * len(relays)) as step:
        for round_ in range(settings.rounds + 1):
            for label, relay in relays.items():
                step(label)
                load = relay.load("run", seconds=settings.seconds if round_ else WARM_S, window=16)
                judge.take(f"{label}, {load_name}", load)
                if round_:
                    report.find(label, load_name).samples.append(sample_of(load))


def memory(report: Report, population: Population, judge: Judge, crowd: Crowd, more: int) -> None:
    """Reads memory with few connections, with all, and after all of them sent or received a message."""
    before = population.footprint()
    population.login(judge)
    time.sleep(QUIET_S)
    idle = population.footprint() - before
    for fleet, part in zip(population.fleets, population.parts, strict=True):
        half = len(part) // 2
        streams = crowd.streams.take(half)
        for k in range(half):
            fleet.send_to(k, part[half + k : half + k + 1], streams[k : k + 1])
    for fleet in population.fleets:
        fleet.tell("run", seconds=60.0, window=1, per_sender=1)
    for fleet in population.fleets:
        judge.take("everybody active once", fleet.answer())
    time.sleep(QUIET_S)
    again = population.footprint() - before
    for label, used in (("idle", idle), ("idle again after traffic", again)):
        sample: Sample = {
            "server_bytes": used.server / more,
            "client_bytes": used.client / more,
            "kernel_bytes": used.kernel / more,
            "all_bytes": used.available / more,
        }
        report.find("per connection", label).samples.append(sample)
        target = Target(
            f"server process bytes per connection, {label}", used.server / more, PROCESS_BYTES_MAX, True, "B"
        )
        report.targets.append(target)
