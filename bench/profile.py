"""Profile: where the CPU of a message or a login goes; perf samples of the server's workers, by area."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.build import checkout
from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import WARM_S, WORKERS
from bench.results import Report
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings
from bench.storm import fleet_of

FREQUENCY = 4_000
SYMBOLS_SHOWN = 40
LOGINS = 10_000  # more than a core does while samples are taken
LOGINS_S = 120.0
# What the symbols of the kernel belong to, by the beginning of their names; the first that fits counts.
KERNEL_AREAS = (
    ("kernel: epoll", ("ep_", "do_epoll", "__x64_sys_epoll", "epoll", "eventpoll")),
    (
        "kernel: system call entry",
        ("do_syscall", "entry_SYSCALL", "syscall_", "fdget", "__fget", "__sys_", "__x64"),
    ),
    (
        "kernel: scheduler",
        ("finish_task", "schedule", "__schedule", "try_to_wake", "ttwu", "pick_", "dequeue", "enqueue"),
    ),
    (
        "kernel: TCP and IP",
        ("tcp", "__tcp", "ip_", "__ip", "inet", "__inet", "net_", "__net", "nf_", "ipt", "sk_", "__sk"),
    ),
    (
        "kernel: TCP and IP",
        ("sock", "dev_", "__dev", "loopback", "skb", "__skb", "process_backlog", "validate_xmit"),
    ),
    (
        "kernel: memory",
        ("kmem", "kfree", "kmalloc", "__kmalloc", "___slab", "slab", "__slab", "_copy", "rep_movs", "page"),
    ),
)


@dataclass(frozen=True)
class Share:
    """Part of all samples, 0..1."""

    area: str
    symbol: str
    share: float


def ours() -> frozenset[str]:
    """Names of the fast path's modules."""
    return frozenset(path.stem for path in (checkout() / "wa" / "_fastpath").rglob("*.pyx"))


def area_of(dso: str, symbol: str, modules: frozenset[str]) -> str:
    if dso.startswith("[k"):
        for area, beginnings in KERNEL_AREAS:
            if symbol.startswith(beginnings):
                return area
        return "kernel: other"
    name = dso.split(".", maxsplit=1)[0]
    if name in ("libsodium", "libpython3"):
        return name
    return f"wa: {name}" if name in modules else f"libraries: {name}"


def record(pids: list[int], seconds: float) -> list[Share]:
    """Samples these processes.  Raises OSError when perf is missing or not permitted."""
    with tempfile.TemporaryDirectory() as directory:
        data = str(Path(directory) / "perf.data")
        command = ["perf", "record", "-q", "-e", "cpu-clock", "-F", str(FREQUENCY), "-o", data]
        command += ["-p", ",".join(map(str, pids)), "--", "sleep", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise OSError(f"perf record failed (apt-get install linux-perf; root): {done.stderr[-500:]}")
        options = ["--stdio", "--no-children", "-g", "none", "-F", "overhead,dso,symbol", "-t", ";", "-i", data]
        shown = subprocess.run(["perf", "report", *options], capture_output=True, text=True, check=True).stdout
    found, modules = [], ours()
    for line in shown.splitlines():
        if line.startswith("#") or line.count(";") < 2:
            continue
        share, dso, symbol = (part.strip() for part in line.split(";", 2))
        name = symbol.split("]", 1)[-1].strip()
        found.append(Share(area_of(dso, name, modules), name, float(share.rstrip("%")) / 100))
    return found


def run(settings: Settings, window: int, *, other_worker: bool, logins: bool) -> Report:
    """Of the relay load, or of logins."""
    report = Report("profile", {"window": window, "other_worker": other_worker, "frequency_hz": FREQUENCY})
    n = settings.pairs
    crowd = Crowd(devices=8 * n + LOGINS, workers=WORKERS, streams=n)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        generator = running.add(start_generator("generator", crowd, settings.generator_cores))
        if logins:
            fleet = fleet_of(generator, server, crowd, settings, LOGINS)
            where, per = "login, IK", "logins"
            fleet.tell("login", seconds=LOGINS_S, concurrent=64)
        else:
            fleet = Fleet.make(generator, server, "pairs", settings)
            make_pairs(fleet, crowd, crowd.devices.take(n, 0), crowd.devices.take(n, int(other_worker)))
            where = f"{window} outstanding, {'other' if other_worker else 'same'} worker"
            per = "delivered"
            judge.take("warm", fleet.load("run", seconds=WARM_S, window=window))
            fleet.tell("run", seconds=settings.seconds + 2.0, window=window)
        shares = record(server.worker_pids(), settings.seconds)
        load = judge.take(where, fleet.answer())
    judge.judge()
    sample = sample_of(load, per)
    report.find("wa serve", where).samples.append(sample)
    tell(report, shares, sample["cpu_us"])
    return report


def tell(report: Report, shares: list[Share], cpu_us: float) -> None:
    """By area, and the symbols that cost most."""
    areas: dict[str, float] = {}
    for share in shares:
        areas[share.area] = areas.get(share.area, 0.0) + share.share
    for area, part in sorted(areas.items(), key=lambda item: -item[1]):
        report.find(area, "by area").samples.append({"share": part, "cpu_us": part * cpu_us})
    named = [share for share in shares if not share.symbol.startswith("0x")]  # of a library without symbols
    for share in sorted(named, key=lambda one: -one.share)[:SYMBOLS_SHOWN]:
        cost = {"share": share.share, "cpu_us": share.share * cpu_us}
        report.find(f"{share.area}: {share.symbol}", "by symbol").samples.append(cost)
