"""Where the time of one message goes: perf samples of the server's workers under the relay load, by area."""

import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.crowd import Crowd
from bench.fleets import Fleet, make_pairs
from bench.generator import start as start_generator
from bench.judging import Judge, sample_of
from bench.relay import WARM_S, WORKERS
from bench.results import Report
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings

FREQUENCY = 4_000
SYMBOLS_SHOWN = 40
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


def area_of(dso: str, symbol: str) -> str:
    if "kernel" in dso or dso.startswith("[k"):
        for area, beginnings in KERNEL_AREAS:
            if symbol.startswith(beginnings):
                return area
        return "kernel: other"
    name = dso.split(".", maxsplit=1)[0]
    if "libsodium" in dso:
        return "libsodium"
    if symbol.startswith("__pyx_f_2wa") or "cpython-311" in dso:
        return f"wa: {name}"
    return f"libraries: {name}"


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
    found = []
    for line in shown.splitlines():
        if line.startswith("#") or line.count(";") < 2:
            continue
        share, dso, symbol = (part.strip() for part in line.split(";", 2))
        name = symbol.split("]", 1)[-1].strip()
        found.append(Share(area_of(dso, name), name, float(share.rstrip("%")) / 100))
    return found


def run(settings: Settings, window: int, other_worker: bool) -> Report:
    report = Report("profile", {"window": window, "other_worker": other_worker, "frequency_hz": FREQUENCY})
    n = settings.pairs
    crowd = Crowd(devices=8 * n, workers=WORKERS, streams=n)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        fleet = Fleet.make(
            running.add(start_generator("generator", crowd, settings.generator_cores)), server, "p", settings
        )
        make_pairs(fleet, crowd, crowd.devices.take(n, 0), crowd.devices.take(n, int(other_worker)))
        judge.take("warm", fleet.load("run", seconds=WARM_S, window=window))
        fleet.tell("run", seconds=settings.seconds + 2.0, window=window)
        shares = record(server.worker_pids(), settings.seconds)
        load = judge.take("relay", fleet.answer())
    judge.judge()
    sample = sample_of(load)
    where = f"{window} outstanding, {'other' if other_worker else 'same'} worker"
    report.find("wa serve", where).samples.append(sample)
    areas: dict[str, float] = {}
    for share in shares:
        areas[share.area] = areas.get(share.area, 0.0) + share.share
    for area, part in sorted(areas.items(), key=lambda item: -item[1]):
        report.find(area, "by area").samples.append({"share": part, "cpu_us": part * sample["cpu_us"]})
    for share in sorted(shares, key=lambda one: -one.share)[:SYMBOLS_SHOWN]:
        cost = {"share": share.share, "cpu_us": share.share * sample["cpu_us"]}
        report.find(f"{share.area}: {share.symbol}", "by symbol").samples.append(cost)
    return report
