"""What is measured: `wa serve` as an operator runs it, and the floor."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from bench._load import floor
from bench.addresses import U64, KeyPool, key_index, owners
from bench.build import checkout
from bench.children import Child
from bench.crowd import Crowd
from bench.kernel import children_of, is_gone
from wa._fastpath.os.sockets import listen_tcp
from wa.ids import number_of
from wa.noise import certificate
from wa.runtime.operator_socket import NAME, ask
from wa.storage.layout import open_layout
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.records import Account, Device

READY_S = 120.0
STOP_S = 60.0
BACKLOG = 4_096
RECORDS_PER_WRITE = 50_000
T = TypeVar("T", bound="Measured | Child")


class Measured(Protocol):
    """A server that fleets connect to.  server_public: b"" for a floor."""

    name: str
    port: int
    server_public: bytes

    def pids(self) -> list[int]: ...
    def stop(self) -> None: ...


class Floor:
    """The floor in a process of its own (bench/_load/floor.pyx)."""

    def __init__(self, cores: list[int], *, each: bool = False) -> None:
        self.name = "floor, a record per frame" if each else "floor"
        self.server_public = b""
        listener = listen_tcp("127.0.0.1", 0, BACKLOG, False)
        self.port: int = listener.getsockname()[1]

        def serve(connection: "Connection[Any, Any]") -> None:
            floor.serve(listener.fileno(), each)

        self._child = Child(self.name, serve, cores)
        listener.close()

    def pids(self) -> list[int]:
        return [self._child.pid]

    def stop(self) -> None:
        self._child.stop()


@dataclass(frozen=True)
class Sizing:
    """workers of the server, the cores they are pinned to, and where its data directory is made."""

    workers: int
    cores: list[int]
    where: Path


class WaServe:
    """`wa serve` with nothing switched off; the crowd's devices are in its registry before it starts."""

    def __init__(self, sizing: Sizing, crowd: Crowd) -> None:
        self.name = "wa serve"
        self.workers = sizing.workers
        sizing.where.mkdir(parents=True, exist_ok=True)
        self.data_dir = Path(tempfile.mkdtemp(prefix="wa-", dir=sizing.where))
        fill_registry(self.data_dir, sizing.workers, crowd.devices.all, crowd.pool)
        self._log = (self.data_dir / "log").open("wb")
        self._cores = sizing.cores
        self.port = 0
        self.start()
        self.server_public = public_key_of(self.data_dir)

    def start(self) -> None:
        """Returns once every worker serves; after `kill` on the same data and port."""
        self._process = subprocess.Popen(
            [
                *pinned(self._cores),
                *(sys.executable, "-P", "-m", "wa.cli.main", "serve", "--data-dir", str(self.data_dir)),
                *("--listen", f"127.0.0.1:{self.port}", "--workers", str(self.workers), "--log-level", "warning"),
            ],
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=server_environment(),
        )
        self.port = self._ready()

    def kill(self) -> None:
        """kill -9 of the supervisor and all workers; returns when none is left.  The page cache stays."""
        pids = self.pids()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):  # workers die with their supervisor
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        deadline = time.monotonic() + STOP_S
        while not all(is_gone(pid) for pid in pids):
            if time.monotonic() > deadline:
                raise OSError(f"of {pids} some are left after kill -9")
            time.sleep(0.001)

    def pids(self) -> list[int]:
        """The supervisor and its workers."""
        return [self._process.pid, *children_of(self._process.pid)]

    def worker_pids(self) -> list[int]:
        found = ask(self.data_dir / "run" / NAME, "status")
        return [worker["pid"] for worker in found["workers"]]

    def stats(self) -> dict[str, int]:
        """Counters of all workers added up; at most a second old."""
        total: dict[str, int] = {}
        for worker in ask(self.data_dir / "run" / NAME, "status")["workers"]:
            for name, count in worker["stats"].items():
                total[name] = total.get(name, 0) + count
        return total

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_S)
        finally:
            if self._process.poll() is None:
                self._process.kill()
                self._process.wait()
            self._log.close()
            if self._process.stdout is not None:
                self._process.stdout.close()
            shutil.rmtree(self.data_dir)

    def _ready(self) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("ready: "):
            self._process.kill()
            self._process.wait()
            raise OSError(f"wa serve did not start:\n{(self.data_dir / 'log').read_text()[-2000:]}")
        return int(line.split()[1].rstrip(",").rpartition(":")[2])


def pinned(cores: list[int]) -> list[str]:
    """The prefix that keeps a command on these cores and ends it with us."""
    return [sys.executable, "-P", "-m", "bench.pinned", ",".join(map(str, cores)), str(os.getpid())]


def server_environment() -> dict[str, str]:
    """Ours without the settings of a server that may be in it."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WA_")}


def public_key_of(data_dir: Path) -> bytes:
    """The Noise key that the server's certificate names, verified as a client does."""
    root = bytes.fromhex((data_dir / "keys" / "root.pub").read_text())
    data = (data_dir / "keys" / "certificate").read_bytes()
    return certificate.verify(data, root, data[1:33], int(time.time())).static_public


def fill_registry(data_dir: Path, workers: int, devices: U64, pool: KeyPool) -> None:
    """Registers these devices as register.verify would have done it, each with its key of the pool."""
    layout = open_layout(data_dir, workers)
    now_s = int(time.time())
    owner = owners(devices, workers)
    try:
        for worker in range(workers):
            mine = devices[owner == worker]
            registry = LmdbRegistry(layout.registry(worker))
            for part in np.array_split(mine, max(1, -(-len(mine) // RECORDS_PER_WRITE))):
                keys = key_index(part)
                with registry.write() as change:
                    for address, key in zip(part.tolist(), keys.tolist(), strict=True):
                        number = number_of(address)
                        change.put(Account(number, now_s, (1,), last_device=1))
                        change.put(Device(address, pool.public_of(key), "bench", now_s))
            registry.close()
    finally:
        layout.close()


class Running:
    """Stops whatever was started in its block, last first."""

    def __init__(self) -> None:
        self._started: list[Measured | Child] = []

    def __enter__(self) -> Self:
        return self

    def add(self, started: T) -> T:
        self._started.append(started)
        return started

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._started:
            self._started.pop().stop()


def revision() -> str:
    """The commit that the sources are at, with a mark when they were changed."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=checkout(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"
