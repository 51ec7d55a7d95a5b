"""Group: one sender writes to 256 or 1,000 recipients in turn, spread over both workers; beside the floor."""

from bench.crowd import Crowd
from bench.fleets import Fleet, make_group
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import FLOOR, WARM_S, WORKERS
from bench.results import Report
from bench.servers import Floor, Running, Sizing, WaServe
from bench.settings import Settings

SIZES = (256, 1_000)
WINDOW = 64
SERVER = "wa serve"
TIMES_FLOOR_MAX = 1.5


def run(settings: Settings) -> Report:
    report = Report("group", {"rounds": settings.rounds, "seconds": settings.seconds, "sizes": list(SIZES)})
    crowd = Crowd(devices=2 * (sum(SIZES) + len(SIZES)), workers=WORKERS, streams=2 * sum(SIZES))
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        floor = running.add(Floor(settings.server_cores))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        with settings.progress("group", len(SIZES) * (settings.rounds + 1) * 2) as step:
            for size in SIZES:
                fleets = {}
                for label, measured in ((SERVER, server), (FLOOR, floor)):
                    fleets[label] = Fleet.make(generator, measured, f"{label} {size}", settings)
                    make_group(fleets[label], crowd, crowd.devices.take(1), crowd.devices.take(size))
                for round_ in range(settings.rounds + 1):
                    for label, fleet in fleets.items():
                        step(f"{size} recipients, {label}")
                        load = fleet.load("run", seconds=settings.seconds if round_ else WARM_S, window=WINDOW)
                        judge.take(f"{label}, {size} recipients", load)
                        if round_:
                            report.find(label, f"{size} recipients").samples.append(sample_of(load))
    judge.judge()
    for size in SIZES:
        load_name = f"{size} recipients"
        found = report.find(SERVER, load_name), report.find(FLOOR, load_name)
        target = report.ratio(f"{load_name}: CPU per delivery of server / of floor", *found, "cpu_us")
        target.bound = TIMES_FLOOR_MAX
        report.targets.append(target)
    report.notes.append(
        "one SEND per recipient: the sender's device writes to each, through the bus where it must"
    )
    return report
