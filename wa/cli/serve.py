"""The server's commands: `wa serve` and `wa status`."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from wa import config as settings
from wa.cli.trace import trace as show_trace
from wa.log import Log
from wa.runtime.operator_socket import NAME, ask
from wa.runtime.serve import Serving
from wa.runtime.serve import serve as run_server

ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML file with settings (else wa.toml).")]
DataDir = Annotated[Path | None, typer.Option(help="Where everything is kept.")]


def add_server_commands(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(status)
    app.command("trace")(show_trace)


def serve(
    *,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    listen: Annotated[str | None, typer.Option(help="host:port, a numeric address; port 0 for any.")] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes; 0: one per core.")] = None,
    linger_ms: Annotated[int | None, typer.Option(help="Wait for the recipient before writing.")] = None,
    overflow: Annotated[str | None, typer.Option(help="A full mailbox: refuse, or prune the oldest.")] = None,
    code_transport: Annotated[str | None, typer.Option(help="console, or file:<path>.")] = None,
    push: Annotated[str | None, typer.Option(help="none, file:<path>, or webhook:<https url>.")] = None,
    trace: Annotated[bool | None, typer.Option("--trace", help="Record what `wa trace` shows.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option(help="text or json.")] = None,
) -> None:
    """Run the server until SIGTERM or ^C.

    Every option can also be set in the environment (WA_LISTEN=…) or in wa.toml (listen = "…").
    """
    flags = {
        "data_dir": data_dir,
        "listen": listen,
        "workers": workers,
        "linger_ms": linger_ms,
        "overflow": overflow,
        "code_transport": code_transport,
        "push": push,
        "trace": trace,
        "log_level": log_level,
        "log_format": log_format,
    }
    chosen = settings.load(flags, os.environ, config)
    run_server(chosen, Log("supervisor", chosen.log_level, chosen.log_format), _tell_ready)


def _tell_ready(serving: Serving) -> None:
    print(f"ready: {serving.endpoint}, {serving.workers} workers, data in {serving.data_dir}")
    print(f"root key for clients: {serving.root_public.hex()}", flush=True)


def status(
    *,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="Prometheus text of all counters.")] = False,
) -> None:
    """Show the workers of the running server."""
    chosen = settings.load({"data_dir": data_dir}, os.environ, config)
    path = chosen.data_dir.absolute() / "run" / NAME
    if metrics:
        sys.stdout.write(ask(path, "metrics"))
        return
    Console().print(_table(ask(path, "status")))


COLUMNS = ("connections", "devices", "envelopes_in", "stored")


def _table(found: dict[str, Any]) -> Table:
    state = "ready" if found["ready"] else "starting"
    table = Table(title=f"wa server, pid {found['pid']}, {state}, up {found['uptime_s']} s")
    for column in ("worker", "pid", "state", "restarts", *COLUMNS):
        table.add_column(column.replace("_", " "), justify="right")
    for worker in found["workers"]:
        table.add_row(
            str(worker["worker"]),
            str(worker["pid"]),
            "ready" if worker["ready"] else "starting",
            str(worker["restarts"]),
            *(str(worker["stats"].get(column, 0)) for column in COLUMNS),
        )
    for helper in found["helpers"]:
        state = "ready" if helper["ready"] else "starting" if helper["pid"] else "down"
        table.add_row(helper["helper"], str(helper["pid"] or ""), state, str(helper["restarts"]))
    return table
