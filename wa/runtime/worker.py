"""One worker: store, registry, loop, cold path and push sender, and how they are joined.

A worker is an object; no module holds state of it.  It has three threads: the loop (the one that calls `run`, on a core
of its own), the mailbox store's commit thread, and the registry's thread.
"""

import faulthandler
import json
import mmap
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wa._fastpath.loop.loop import Loop
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.config import Config
from wa.log import Log
from wa.routing.shards import owners_of, shard_of
from wa.runtime.cold import ColdPath
from wa.runtime.keys import ServerKeys
from wa.runtime.process import open_descriptor_table, pin_this_thread
from wa.runtime.push_sender import PushSender
from wa.runtime.registry_thread import RegistryThread
from wa.runtime.supervisor import GO, STARTED
from wa.runtime.trace import create_ring
from wa.services.base import Site
from wa.services.code_transport import CodeTransport, ConsoleTransport, FileTransport
from wa.storage.lmdb_registry import LmdbRegistry

# Python's default is 5 ms: so long the registry's thread could keep the GIL from the loop.
SWITCH_INTERVAL_S = 0.0005
Report = Callable[[dict[str, int]], None]


@dataclass(frozen=True)
class Plan:
    """What a worker is made of.

    config: resolved.  ticket_key: the supervisor's, so tickets outlive a worker and die with the server.  The paths are
    this worker's.  core: where its loop stays, None for anywhere.
    """

    worker: int
    config: Config
    keys: ServerKeys
    ticket_key: bytes
    registry_path: Path
    mailbox_path: Path
    run_dir: Path
    core: int | None


class Worker:
    """report: called by the loop's thread, with all counters, once it serves and then about once a second."""

    def __init__(self, plan: Plan, report: Report, log: Log) -> None:
        config, keys = plan.config, plan.keys
        workers = config.workers
        self._plan, self._report, self._log = plan, report, log
        self._registry = LmdbRegistry(plan.registry_path)
        self._store = LmdbMailStore(plan.mailbox_path)
        self._store.start()
        self._corrupt_told = 0
        owners = owners_of(workers)  # one table for the fast path and the cold one
        site = Site(secrets.randbelow, secrets.token_bytes, keys.pepper, workers, server_version())
        push = config.push.kind != "none"
        self._push = PushSender(plan.run_dir, plan.worker, secrets.token_bytes) if push else None
        self._cold = ColdPath(
            plan.worker,
            self._registry,
            site,
            owner=lambda number: owners[shard_of(number)],
            now_ms=wall_ms,
            monotonic_ms=monotonic_ms,
            report=self._on_tick,
            log=log,
            push=self._push,
        )
        self.loop = Loop(
            worker=plan.worker,
            workers=workers,
            store=self._store,
            sink=self._cold,
            static_private=keys.static_private,
            certificate=keys.certificate,
            run_dir=str(plan.run_dir),
            ticket_key=plan.ticket_key,
            overrides={"linger_ms": config.linger_ms, "overflow_prune": int(config.overflow == "prune")},
            trace=self._ring() if config.trace else None,
            owners=owners,
        )
        self._changes = RegistryThread(
            self._registry, site, code_transport(config), wake=self.loop.wake, now_ms=wall_ms, log=log
        )
        self._cold.attach(self.loop, self._changes)
        with self._registry.read() as view:
            for device in view.devices():
                self.loop.add_device(device.address, device.static_key)
        self.loop.start()

    def _ring(self) -> mmap.mmap | None:
        """None without room on the disk: tracing must not stop messages."""
        try:
            return create_ring(self._plan.run_dir, self._plan.worker)
        except OSError as error:
            self._log.warning("not_traced", reason=error.strerror)
            return None

    def run(self, listener: int) -> None:
        """Serves clients of the listening socket `listener` until `loop.stop()`, then commits what is
        pending.
        """
        self.loop.listen(listener)
        if self._plan.core is not None:
            pin_this_thread(self._plan.core)
        self._on_tick(self._cold.stats())
        self.loop.run()
        self._changes.close()
        self._store.close()
        self._registry.close()
        if self._push is not None:
            self._push.close()

    def _on_tick(self, stats: dict[str, int]) -> None:
        mailbox = self._store.stats()
        if mailbox["corrupt"] > self._corrupt_told:
            self._corrupt_told = mailbox["corrupt"]
            self._log.error("mailbox_corrupt", met=self._corrupt_told)
        self._report(stats | {f"mailbox_{name}": count for name, count in mailbox.items()})


def run_worker(plan: Plan, listener: socket.socket, channel: socket.socket, log: Log) -> None:
    """The life of a worker process, until SIGTERM.  `channel`: see `supervisor.Child`."""
    faulthandler.enable()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    open_descriptor_table()

    def report(stats: dict[str, int]) -> None:
        try:
            channel.send(json.dumps(stats).encode())
        except (BlockingIOError, ConnectionError):
            log.debug("report_skipped")  # the supervisor is behind, or gone, and then the kernel kills us

    worker = Worker(plan, report, log)
    if not _let_go(channel):
        return
    signal.signal(signal.SIGTERM, lambda number, frame: worker.loop.stop())
    worker.run(listener.fileno())


def _let_go(channel: socket.socket) -> bool:
    """Says that this worker has started, and waits for the others.  False: the supervisor is gone."""
    channel.setblocking(True)
    try:
        channel.send(STARTED)
        answer = channel.recv(len(GO))
    except ConnectionError:
        return False
    channel.setblocking(False)
    return answer == GO


def code_transport(config: Config) -> CodeTransport:
    path = config.code_transport.path
    return ConsoleTransport(sys.stdout) if path is None else FileTransport(path)


@cache
def server_version() -> str:
    try:
        return version("wa")
    except PackageNotFoundError:
        return "unreleased"  # run from a checkout


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
