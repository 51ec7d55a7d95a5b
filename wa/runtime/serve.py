"""From settings to a running server: lock, data directory, keys, sockets, then the supervisor.

All of it happens before the first fork.  The supervisor holds the lock and the sockets for as long as it lives; each
worker inherits what it needs of them.
"""

import errno
import fcntl
import os
import secrets
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from wa import limits
from wa._fastpath.os.sockets import listen_tcp
from wa.config import Config, Endpoint, usable_cores
from wa.errors import LocalError
from wa.log import Log
from wa.metrics import exposition
from wa.runtime import keys
from wa.runtime.helpers import Helper
from wa.runtime.operator_socket import NAME, SOCKET_PATH_BYTES_MAX, OperatorSocket
from wa.runtime.process import keep_heap_small
from wa.runtime.supervisor import Supervisor
from wa.runtime.worker import Plan, run_worker, server_version
from wa.storage.layout import Layout, open_layout

POLL_S = 0.05


@dataclass(frozen=True)
class Serving:
    """What a ready server tells its operator."""

    endpoint: Endpoint  # with the real port when 0 was asked for
    root_public: bytes
    data_dir: Path
    workers: int


def serve(config: Config, log: Log, on_ready: Callable[[Serving], None]) -> None:
    """Serves until SIGTERM or SIGINT.  Raises LocalError when it cannot start or can no longer go on."""
    os.umask(0o077)
    keep_heap_small()
    config = config.resolved()
    data_dir = config.data_dir.absolute()
    run_dir = data_dir / "run"
    if len(str(run_dir / NAME).encode()) > SOCKET_PATH_BYTES_MAX:
        raise LocalError(f"{data_dir} is too long for Unix sockets in it: use a data directory with a shorter path")
    _wait_for_lock(data_dir / "lock", log)
    layout = open_layout(data_dir, config.workers, _progress(log))
    server_keys = keys.load(layout.keys, int(time.time()), log)
    server_version()  # cached before the fork: finding out loads 1.7 MB
    ticket_key = secrets.token_bytes(32)  # never on disk: its tickets are void once the server stops
    listeners = _listen(config)
    endpoint = Endpoint(config.listen.host, listeners[0].getsockname()[1])
    serving = Serving(endpoint, server_keys.root_public, data_dir, config.workers)

    def start_worker(worker: int, channel: socket.socket) -> None:
        for other in range(config.workers):
            if other != worker:
                listeners[other].close()
        plan = _plan(worker, config, layout, server_keys, ticket_key)
        run_worker(plan, listeners[worker], channel, log.named(f"worker-{worker}"))

    def start_push_gateway(channel: socket.socket) -> None:
        for listener in listeners:
            listener.close()
        # Loaded here: it brings an HTTP client, which no other process needs.
        gateway = import_module("wa.runtime.push_gateway")
        gateway.run_push_gateway(config.push, run_dir, config.workers, channel, log.named("push"))

    supervisor = Supervisor(
        config.workers,
        start_worker,
        helpers=[Helper("push", start_push_gateway)] if config.push.kind != "none" else [],
        on_ready=lambda: on_ready(serving),
        log=log,
    )
    operator = OperatorSocket(
        run_dir / NAME,
        supervisor.selector,
        {"status": supervisor.status, "metrics": lambda: exposition(supervisor.stats())},
        log,
    )
    log.info("listening", endpoint=str(endpoint), root=server_keys.root_public.hex()[:16])
    try:
        supervisor.run()
    finally:
        operator.close()
        for listener in listeners:
            listener.close()
        layout.close()


def _plan(
    worker: int, config: Config, layout: Layout, server_keys: keys.ServerKeys, ticket_key: bytes
) -> Plan:
    cores = usable_cores()
    return Plan(
        worker=worker,
        config=config,
        keys=server_keys,
        ticket_key=ticket_key,
        registry_path=layout.registry(worker),
        mailbox_path=layout.mail(worker),
        run_dir=layout.run,
        core=cores[worker % len(cores)],
    )


def _progress(log: Log) -> Callable[[str, int, int], None]:
    return lambda what, done, total: log.info("data_directory", doing=what, done=done, total=total)


def _listen(config: Config) -> list[socket.socket]:
    """One listening socket per worker, all on one port."""
    host, port = config.listen.host, config.listen.port
    try:
        if port:
            # With SO_REUSEPORT another server of this user could share the port and get half of the clients.
            # A socket without that option finds such a server.
            listen_tcp(host, port, 1, False).close()
        first = listen_tcp(host, port, limits.LISTEN_BACKLOG, True)
        port = first.getsockname()[1]
        return [first] + [
            listen_tcp(host, port, limits.LISTEN_BACKLOG, True) for _ in range(config.workers - 1)
        ]
    except OSError as error:
        reason = (
            "it is in use; stop the other server, or choose another port with --listen"
            if error.errno == errno.EADDRINUSE
            else error.strerror
        )
        raise LocalError(f"cannot listen on {config.listen}: {reason}") from None


def _wait_for_lock(path: Path, log: Log) -> None:
    """Waits up to LOCK_WAIT_MS_MAX for the workers of a killed server to end: they hold the lock too.

    It does not take the lock; `open_layout` does.
    """
    if not path.exists():
        return
    deadline = time.monotonic() + limits.LOCK_WAIT_MS_MAX / 1_000
    told = False
    with path.open("rb") as file:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if not told:
                    log.info("waiting_for_lock", path=str(path))
                    told = True
                time.sleep(POLL_S)
