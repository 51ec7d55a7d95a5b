"""The kernel's figures: CPU time and memory of processes, its own memory, limits and settings.  Linux only."""

import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cpu:
    """CPU seconds.  `total` comes from the scheduler's own nanoseconds, user and system from its ticks."""

    total: float = 0.0
    user: float = 0.0
    system: float = 0.0

    def __add__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.total + other.total, self.user + other.user, self.system + other.system)

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu(self.total - other.total, self.user - other.user, self.system - other.system)


def cpu_of(pids: Iterable[int]) -> Cpu:
    """Of these processes with all their threads, since they started."""
    total = Cpu()
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        user, system = int(fields[11]) * TICK_S, int(fields[12]) * TICK_S
        exact = 0.0
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends just now
                exact += int((task / "schedstat").read_text().split()[0]) / 1e9
        total += Cpu(exact or user + system, user, system)
    return total


def stolen_s() -> float:
    """Seconds in which the hypervisor kept a virtual core that had work; 0 for ever on a real machine."""
    return int(Path("/proc/stat").read_text().split(maxsplit=9)[8]) * TICK_S


@dataclass(frozen=True)
class Displaced:
    """Time in which workers were ready to run and another program had their core.

    workers: process ids; others: processes of the same server; cores: theirs.  When a worker waits while threads of
    its own server run, or the kernel's network work for it, that is the server's own doing: all they ran is subtracted,
    whether anybody waited for it or not.
    """

    workers: list[int]
    others: list[int]
    cores: list[int]

    def seconds(self) -> float:
        """So far; only differences have a meaning, and one below zero means none."""
        waited = own = 0
        network = [pid for core in self.cores for pid in named(f"ksoftirqd/{core}")]
        for pid in {*self.workers, *self.others, *network}:
            for task in Path(f"/proc/{pid}/task").iterdir():
                with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that ends just now
                    ran, ready = (int(word) for word in (task / "schedstat").read_text().split()[:2])
                    if pid in self.workers and int(task.name) == pid:
                        waited += ready
                    else:
                        own += ran
        return (waited - own) / 1e9


def named(name: str) -> list[int]:
    """Processes of this name."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_text().strip() == name:
                found.append(int(path.parent.name))
    return found


@dataclass(frozen=True)
class Memory:
    """Bytes in use by one process.  rss_anon: memory of its own, whoever else may read it; the parts of the
    proportional set size: pss_anon the same with shared pages divided, pss_file pages of mapped files."""

    rss_anon: int
    pss_anon: int
    pss_file: int

    @classmethod
    def of(cls, pid: int) -> "Memory":
        kib = {}
        for name in ("status", "smaps_rollup"):
            for line in Path(f"/proc/{pid}/{name}").read_text().splitlines():
                if line.endswith(" kB"):
                    key, value = line.removesuffix(" kB").split(":")
                    kib[key] = int(value)
        return cls(*(kib[key] * 1024 for key in ("RssAnon", "Pss_Anon", "Pss_File")))

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(
            self.rss_anon - other.rss_anon, self.pss_anon - other.pss_anon, self.pss_file - other.pss_file
        )


def memory_of(pids: Iterable[int]) -> int:
    """Proportional set size of these processes together, in bytes, of anonymous memory alone."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss_Anon:"):
                total += int(line.split()[1]) * 1024
    return total


def meminfo() -> dict[str, int]:
    """/proc/meminfo in bytes."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, value = line.split(":")
        found[name] = int(value.split()[0]) * 1024
    return found


def looked_at_bytes() -> int:
    """Bytes of the kernel's cache of entries below /proc that were looked at; with a watcher on the machine that is one
    per descriptor of each process.  They come back when memory is needed.  0 without access to slabinfo.
    """
    with contextlib.suppress(PermissionError, FileNotFoundError):
        for line in Path("/proc/slabinfo").read_text().splitlines():
            if line.startswith("proc_inode_cache "):
                words = line.split()
                return int(words[words.index("slabdata") + 2]) * int(words[5]) * os.sysconf("SC_PAGESIZE")
    return 0


def kernel_memory() -> int:
    """Bytes that the kernel itself holds: slabs, page tables, stacks, per-CPU areas and network buffers."""
    info = meminfo()
    sockets = 0
    for line in Path("/proc/net/sockstat").read_text().splitlines():
        words = line.split()
        if words[0] == "TCP:":
            sockets = int(words[words.index("mem") + 1]) * os.sysconf("SC_PAGESIZE")
    parts = ("Slab", "PageTables", "KernelStack", "Percpu", "VmallocUsed")
    return sum(info.get(part, 0) for part in parts) + sockets - looked_at_bytes()


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


def descriptors_of(pids: Iterable[int]) -> int:
    """How many these processes have open now."""
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def is_gone(pid: int) -> bool:
    """Whether it has ended; a zombie holds nothing any more."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def descriptor_limit() -> int:
    """How many descriptors a process may have; raises the soft limit to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def setting(name: str) -> str | None:
    """A sysctl by its dotted name; None where this kernel has none."""
    path = Path("/proc/sys") / name.replace(".", "/")
    return path.read_text().strip() if path.exists() else None


@dataclass(frozen=True)
class Need:
    """A setting that is too low, and the command that raises it."""

    name: str
    have: str
    want: str

    @property
    def command(self) -> str:
        return f'sysctl -w {self.name}="{self.want}"'


def needs(connections: int, processes: int, per_source: int) -> list[Need]:
    """Settings that must change before both ends of so many connections fit; per_source: of them from one address."""
    wanted = {
        "fs.file-max": 2 * connections + 64 * processes + 65_536,
        "fs.epoll.max_user_watches": 2 * connections + 64 * processes,
        "net.core.somaxconn": 1_024,
        "net.ipv4.tcp_max_syn_backlog": 1_024,
        "kernel.pid_max": 8 * processes + 4_096,
        "kernel.threads-max": 16 * processes + 4_096,
    }
    # The table matters only where something tracks connections: without rules the count stays 0.
    if int(setting("net.netfilter.nf_conntrack_count") or 0):
        wanted["net.netfilter.nf_conntrack_max"] = 2 * connections
    short = []
    for name, least in wanted.items():
        have = setting(name)
        if have is not None and int(have) < least:
            short.append(Need(name, have, str(least)))
    ports = setting("net.ipv4.ip_local_port_range")
    if ports is not None:
        low, high = (int(word) for word in ports.split())
        if (high - low + 1) // 2 < per_source * 1.05 + 256:  # the even ones: see population.PER_SOURCE
            short.append(Need("net.ipv4.ip_local_port_range", ports.replace("\t", " "), "10000 65000"))
    return short


def machine() -> dict[str, str]:
    """The machine that a figure comes from, for its reader."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    uname = os.uname()
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory_gib": f"{meminfo()['MemTotal'] / 2**30:.1f}",
        "kernel": f"{uname.sysname} {uname.release} {uname.machine}",
    }
