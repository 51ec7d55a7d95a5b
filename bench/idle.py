"""Idle: memory per held connection, before and after it was active, and relay beside very many idle connections."""

import time

from bench import kernel
from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.population import Footprint, Population, plan
from bench.relay import FLOOR, WARM_S
from bench.results import Report, Sample, Target
from bench.servers import Floor, Running
from bench.settings import Settings

FEW = 256  # connections, of all client processes, when memory is read for the first time
QUIET_S = 1.5  # a second after its last byte an active connection must be small again
SERVER = "wa serve"
STEPS = (0.1, 0.33, 1.0)  # of all connections, after the few
PROCESS_BYTES_MAX = 256.0
GROWTH_MAX = 1.1


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
        counts = ramp(report, settings, judge, crowd, population=population, relays=relays)
        report.parameters["held"] = population.live()
        if population.live() != connections or population.dropped():
            report.faults.append(f"{population.live()} of {connections} held, {population.dropped()} dropped")
    judge.judge()
    set_targets(report, counts)
    return report


def load_name(idle: int) -> str:
    return f"relay, 16 outstanding, {idle:,} idle"


def ramp(
    report: Report,
    settings: Settings,
    judge: Judge,
    crowd: Crowd,
    *,
    population: Population,
    relays: dict[str, Fleet],
) -> list[int]:
    """Few connections, then more and more, with a relay load at each step.  -> how many there were."""
    counts = []
    longest = len(population.parts[0])
    few_each = max(1, FEW // len(population.parts))
    steps = [few_each, *(max(few_each, int(longest * part)) for part in STEPS)]
    before = population.footprint()
    for upto in steps:
        population.login(judge, upto)
        counts.append(population.live())
        if upto == steps[-1]:
            memory(report, population, judge, crowd, before=before, more=counts[-1] - counts[0])
        relay_runs(report, settings, judge, relays, load_name(counts[-1]))
        if upto == few_each:  # after the relay, whose buffers then are in both readings
            time.sleep(QUIET_S)
            before = population.footprint()
    return counts


def relay_runs(report: Report, settings: Settings, judge: Judge, relays: dict[str, Fleet], name: str) -> None:
    """Server and floor in turn: minutes may lie between few and many, and the machine drifts."""
    with settings.progress(name, (settings.rounds + 1) * len(relays)) as step:
        for round_ in range(settings.rounds + 1):
            for label, relay in relays.items():
                step(label)
                load = relay.load("run", seconds=settings.seconds if round_ else WARM_S, window=16)
                judge.take(f"{label}, {name}", load)
                if round_:
                    report.find(label, name).samples.append(sample_of(load))


def set_targets(report: Report, counts: list[int]) -> None:
    ratios = []
    for count in counts:
        found = report.find(SERVER, load_name(count)), report.find(FLOOR, load_name(count))
        ratios.append(report.ratio("", *found, "cpu_us"))
    few, many = ratios[0], ratios[-1]
    name = f"relay CPU with {counts[-1]:,} idle / with {counts[0]:,}, each as a multiple of the floor"
    growth = Target(name, many.value / few.value, GROWTH_MAX, True, "×", many.low / few.high, many.high / few.low)
    report.targets.append(growth)
    report.plots["idle_cost"] = {
        "idle": counts,
        "ratio": [one.value for one in ratios],
        "low": [one.low for one in ratios],
        "high": [one.high for one in ratios],
    }


def memory(
    report: Report, population: Population, judge: Judge, crowd: Crowd, *, before: Footprint, more: int
) -> None:
    """With all connections, `more` than `before`, and again after all of them sent or received a message."""
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
