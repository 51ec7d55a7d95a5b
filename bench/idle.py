"""Idle: memory per held connection, before and after it was active, and relay beside very many idle connections."""

import time

from bench import kernel
from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.population import Population, footprint, plan
from bench.results import Report, Sample, Target
from bench.servers import Running
from bench.settings import Settings

FEW_EACH = 128  # connections of each client process when memory is read for the first time
QUIET_S = 1.5  # an active connection has to be small again a second after its last byte
FEW, MANY = "few idle", "all idle"
RELAY = "relay, 16 outstanding"
PROCESS_BYTES_MAX = 256.0


def run(settings: Settings, connections: int) -> Report:
    report = Report("idle", {"connections": connections, "rounds": settings.rounds})
    made = plan(connections, kernel.descriptor_limit())
    n = settings.pairs
    devices = connections + 4 * n * made.workers
    crowd = Crowd(devices=devices, workers=made.workers, streams=n + connections // 2)
    judge = Judge(report, crowd)
    report.parameters |= {"workers": made.workers, "client_processes": made.clients}
    with Running() as running:
        population = Population(running, settings, crowd, made)
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        relay = Fleet.make(generator, population.server, "relay", settings)
        make_pairs(relay, crowd, crowd.devices.take(n, 0), crowd.devices.take(n, 0))
        population.login(judge, FEW_EACH)
        relay_runs(report, settings, judge, relay, FEW)
        memory(report, population, judge, crowd, connections - made.clients * FEW_EACH)
        relay_runs(report, settings, judge, relay, MANY)
        report.parameters["held"] = population.live()
        if population.live() != connections or population.dropped():
            report.faults.append(f"{population.live()} of {connections} held, {population.dropped()} dropped")
    judge.judge()
    few, many = report.find(FEW, RELAY), report.find(MANY, RELAY)
    growth = many.median("cpu_us") / few.median("cpu_us")
    report.targets.append(Target(f"relay CPU with {connections} idle / with few", growth, 1.1, True, "×"))
    return report


def relay_runs(report: Report, settings: Settings, judge: Judge, relay: Fleet, label: str) -> None:
    with settings.progress(f"relay, {label}", settings.rounds) as step:
        for _ in range(settings.rounds):
            step("")
            load = judge.take(f"relay, {label}", relay.load("run", seconds=settings.seconds, window=16))
            report.find(label, RELAY).samples.append(sample_of(load))


def memory(report: Report, population: Population, judge: Judge, crowd: Crowd, more: int) -> None:
    """Reads memory with few connections, with all, and after all of them sent or received a message."""
    before = footprint(population)
    population.login(judge)
    time.sleep(QUIET_S)
    idle = footprint(population) - before
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
    again = footprint(population) - before
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
