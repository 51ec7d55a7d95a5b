"""Million: up to two million encrypted connections, both ends on this machine, with messages among them."""

import time

import numpy as np

from bench import kernel
from bench.crowd import Crowd
from bench.generator import Load
from bench.histogram import Histogram
from bench.judging import Judge, sample_of
from bench.population import PER_SOURCE, Footprint, Population, plan
from bench.results import Report, Target
from bench.servers import Running
from bench.settings import Settings

SENDERS_EACH = 16  # of each client process
TARGETS_EACH = 64  # random recipients of each sender
WINDOW = 64
RATE = 2_000.0  # messages per second, all together
SETTLE_S = 2.0
IDLE_S = 5.0


def short_of(connections: int) -> list[kernel.Need]:
    """Kernel settings that have to change first."""
    made = plan(connections, kernel.descriptor_limit())
    return kernel.needs(connections, made.processes, min(connections, PER_SOURCE))


def run(settings: Settings, connections: int, talk_s: float) -> Report:
    made = plan(connections, kernel.descriptor_limit())
    report = Report("million", {"connections": connections, "talk_s": talk_s, "rate": RATE})
    report.parameters |= {"workers": made.workers, "client_processes": made.clients}
    talkers = made.clients * SENDERS_EACH
    crowd = Crowd(devices=connections, workers=made.workers, streams=talkers * TARGETS_EACH)
    judge = Judge(report, crowd)
    console = settings.console
    console.print(
        f"{connections:,} connections: {made.workers} workers, {made.clients} client processes of at most"
        f" {made.descriptors:,} descriptors; the registry is filled first"
    )
    with Running() as running:
        population = Population(running, settings, crowd, made)
        began = time.perf_counter()
        cpu = kernel.cpu_of(population.server.pids())
        logins = population.login(judge)
        seconds = time.perf_counter() - began
        login_cpu = kernel.cpu_of(population.server.pids()) - cpu
        time.sleep(SETTLE_S)
        full = population.footprint()
        held = population.live()
        ramp(report, logins, held, seconds, login_cpu)
        quiet(report, population)
        if held:
            talk(report, population, judge, crowd, talk_s)
        final(report, population, connections)
        shares(report, full - population.empty, full, held)
    judge.judge()
    return report


def ramp(report: Report, logins: list[Load], held: int, seconds: float, cpu: kernel.Cpu) -> None:
    login = sum((load.login for load in logins), Histogram.empty())
    sample = {"per_s": held / seconds, "login_ms": cpu.total / max(held, 1) * 1e3}
    sample |= {f"login_{k}": v for k, v in login.summary().items()}
    report.find("wa serve", "ramp").samples.append(sample)
    report.parameters |= {"ramp_s": seconds, "retries": sum(load.counts["retries"] for load in logins)}


def quiet(report: Report, population: Population) -> None:
    """The cost of all these connections while nothing happens."""
    pids = population.server.pids()
    cpu, began = kernel.cpu_of(pids), time.perf_counter()
    time.sleep(IDLE_S)
    share = (kernel.cpu_of(pids) - cpu).total / (time.perf_counter() - began)
    report.find("wa serve", "all held, nothing said").samples.append({"server_busy": share})


def talk(report: Report, population: Population, judge: Judge, crowd: Crowd, seconds: float) -> None:
    """Random pairs out of everybody, at a fixed rate."""
    random = np.random.default_rng(1)
    recipients = random.permutation(len(population.addresses))
    at = 0
    for fleet, part in zip(population.fleets, population.parts, strict=True):
        for line in random.choice(len(part), min(SENDERS_EACH, len(part)), replace=False).tolist():
            chosen = recipients[np.arange(at, at + TARGETS_EACH) % len(recipients)]
            at += TARGETS_EACH
            fleet.send_to(line, population.addresses[chosen], crowd.streams.take(TARGETS_EACH))
    pids = population.server.pids()
    cpu = kernel.cpu_of(pids)
    rate = RATE / len(population.fleets)
    for fleet in population.fleets:
        fleet.generator.tell(
            "run_rate", fleet="crowd", seconds=seconds, rate=rate, window=WINDOW, pids=[], spin=False
        )
    population.show("heard", int(RATE * seconds), 2)
    loads = [judge.take("talk", fleet.answer()) for fleet in population.fleets]
    # What is under way is heard by fleets that may have finished: nothing is lost, only counted later.
    total = Load(wall_s=max(load.wall_s for load in loads), server_cpu=kernel.cpu_of(pids) - cpu)
    for load in loads:
        total.to_receipt += load.to_receipt
        total.to_recipient += load.to_recipient
        for name, count in load.counts.items():
            total.counts[name] = total.counts.get(name, 0) + count
    report.find("wa serve", f"{RATE:g} messages/s among all").samples.append(sample_of(total))
    report.plots["latency"] = {"to receipt": total.to_receipt.counts.tolist()}


def final(report: Report, population: Population, connections: int) -> None:
    held, dropped = population.live(), population.dropped()
    counted = population.server.stats()["connections"]
    report.parameters |= {"held_at_the_end": held, "dropped": dropped, "server_counts": counted}
    report.targets.append(Target("connections held to the end", held, connections, False))
    report.targets.append(Target("connections dropped", dropped, 0, True))
    if held != connections or dropped:
        report.faults.append(f"{held} of {connections} held at the end, {dropped} dropped: not passed")


def shares(report: Report, used: Footprint, full: Footprint, held: int) -> None:
    """Bytes per connection, and which part of the whole is the kernel's, the server's and the clients'.

    used: what the connections added; full: with the processes themselves.
    """
    n = max(held, 1)
    sample = {
        "server_bytes": used.server / n,
        "client_bytes": used.client / n,
        "kernel_bytes": used.kernel / n,
        "all_bytes": used.available / n,
    }
    report.find("per connection", "added by the connections").samples.append(sample)
    whole = {"server_bytes": full.server / n, "client_bytes": full.client / n}
    report.find("per connection", "whole processes").samples.append(whole)
    report.targets.append(Target("server process bytes per connection", used.server / n, 256, True, "B"))
    everything = max(used.server + used.client + used.kernel, 1)
    report.notes.append(
        f"the connections took {everything / 2**30:.2f} GiB ({used.available / 2**30:.2f} GiB less are available):"
        f" server {used.server / everything:.0%}, clients {used.client / everything:.0%},"
        f" kernel {used.kernel / everything:.0%};"
        f" the processes without them {(full.server - used.server) / 2**30:.2f} GiB on the server's side"
        f" and {(full.client - used.client) / 2**30:.2f} GiB on the clients'"
    )
