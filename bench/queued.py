"""Queued: full mailboxes in one worker; its memory for them, and how soon it serves after kill -9."""

import time
from dataclasses import dataclass

from bench.addresses import U64
from bench.children import Child
from bench.crowd import Crowd
from bench.fleets import Fleet
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.kernel import Memory, cpu_of
from bench.results import Report, Sample, Target
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings
from wa import limits

SERVER = "wa serve"
STORE, DRAIN = "store (accepted after fsync)", "drain (logins, deliveries, receipts)"
MEMORY, QUEUED, AGAIN = "growth of the worker", "with the queue", "with the queue, started anew"
KILL, LOGIN = "kill -9 and start", "first login"
WORKERS = 1
SENDERS = 50
EACH = limits.MAILBOX_ENVELOPES_MAX
FILL_S = 600.0
QUIET_S = 1.5  # buffers of the filling are given back by then
GROWTH_MIB_MAX = 64.0  # for 1,000,000 messages; for fewer it may be as much less
FIXED_MIB = 8.0  # buffers that any queue needs
SERVED_S_MAX = 2.0


def run(settings: Settings, recipients: int = 1_000) -> Report:
    """As many kills as rounds, each followed by the login and the drain of one device; the others drain at the end."""
    count = SENDERS * max(1, recipients // SENDERS)
    report = Report("queued", {"recipients": count, "messages_each": EACH, "kills": settings.rounds})
    crowd = Crowd(devices=SENDERS + count, workers=WORKERS, streams=count)
    judge = Judge(report, crowd)
    with Running() as running, settings.progress("queued", settings.rounds + 2) as step:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        queue = Queue(report, settings, judge, server, generator, crowd.devices.take(count))
        fresh = queue.memory()
        step("store")
        queue.fill(crowd)
        report.find(MEMORY, QUEUED).samples.append(growth(queue.memory() - fresh, count * EACH))
        for k in range(settings.rounds):
            step("kill -9")
            queue.kill_and_start(k, fresh)
        step("drain")
        queue.drain(settings.rounds)
        report.parameters["server_stats"] = server.stats()
    judge.judge()
    report.parameters["data_on"] = str(settings.where)
    report.notes.append(
        "own: anonymous memory of the worker; PSS: the same, shared pages divided; mapped: pages of the mailbox file, "
        "which the kernel takes back when it needs them"
    )
    report.notes.append(
        "ready, first login: from exec of the server (and of the wrapper that pins it) to 'ready' and to the login of "
        "a device with a full mailbox; what was written before the kill is still in the page cache; "
        "beside it the CPU that this took"
    )
    set_targets(report, max(FIXED_MIB, GROWTH_MIB_MAX * count * EACH / 1e6))
    return report


@dataclass
class Queue:
    """away: the devices whose mailboxes are filled."""

    report: Report
    settings: Settings
    judge: Judge
    server: WaServe
    generator: Child
    away: U64

    def memory(self) -> Memory:
        (worker,) = self.server.worker_pids()
        return Memory.of(worker)

    def fleet(self, name: str) -> Fleet:
        return Fleet.make(self.generator, self.server, name, self.settings)

    def fill(self, crowd: Crowd) -> None:
        """The senders are gone when it returns, so after the kill only the recipients come back."""
        fleet = self.fleet("fill")
        fleet.add(crowd.devices.take(SENDERS))
        fleet.login()
        streams = crowd.streams.take(len(self.away))
        for k in range(SENDERS):
            fleet.send_to(k, self.away[k::SENDERS], streams[k::SENDERS])
        quota = len(self.away) // SENDERS * EACH
        load = fleet.load("run", seconds=FILL_S, window=64, per_sender=quota, one_tick=True)
        self.judge.take("store", load)
        if load.counts["accepted"] != quota * SENDERS:
            self.report.faults.append(f"{load.counts['accepted']} of {quota * SENDERS} accepted")
        self.report.find(SERVER, STORE).samples.append(sample_of(load, "accepted", times=False))
        self.generator.call("drop", fleet=fleet.name)
        time.sleep(QUIET_S)

    def kill_and_start(self, k: int, fresh: Memory) -> None:
        """Device k then logs in, and has everything before the next kill."""
        fleet = self.fleet(f"first {k}")
        fleet.add(self.away[k : k + 1])
        self.server.kill()
        began = time.perf_counter()
        self.server.start()
        ready_s = time.perf_counter() - began
        self.judge.take(LOGIN, fleet.login())
        served_s = time.perf_counter() - began
        cpu_s = cpu_of(self.server.pids()).total  # of processes that are all new
        self.report.find(KILL, LOGIN).samples.append({"ready_s": ready_s, "served_s": served_s, "start_cpu_s": cpu_s})
        left = (len(self.away) - k) * EACH
        self.report.find(MEMORY, AGAIN).samples.append(growth(self.memory() - fresh, left))
        self.judge.take("its mailbox", fleet.load("wait_for", received=EACH, delivered=0))
        self.generator.call("drop", fleet=fleet.name)

    def drain(self, done: int) -> None:
        """Everyone but the first `done`, who have theirs."""
        rest = self.fleet("rest")
        rest.add(self.away[done:])
        load = rest.load("wait_for", received=(len(self.away) - done) * EACH, delivered=0)
        self.judge.take("drain", load)
        self.report.find(SERVER, DRAIN).samples.append(sample_of(load, "received", times=False))


def growth(memory: Memory, messages: int) -> Sample:
    return {
        "memory_mib": memory.rss_anon / 2**20,
        "pss_mib": memory.pss_anon / 2**20,
        "mapped_mib": memory.pss_file / 2**20,
        "each_bytes": memory.rss_anon / messages,
    }


def set_targets(report: Report, growth_mib_max: float) -> None:
    for label, load, metric, bound, unit in (
        (MEMORY, QUEUED, "memory_mib", growth_mib_max, "MiB"),
        (MEMORY, AGAIN, "memory_mib", growth_mib_max, "MiB"),
        (KILL, LOGIN, "served_s", SERVED_S_MAX, "s"),
    ):
        series = report.find(label, load)
        low, high = series.spread(metric)
        report.targets.append(Target(f"{label}: {load}", series.median(metric), bound, True, unit, low, high))
