"""The server's commands: `wa serve`, `wa status` and `wa trace`."""

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

DEFAULT = settings.Config()

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file with settings. Default: wa.toml, if there is one.")
]
DataDir = Annotated[Path | None, typer.Option(help=f"The server's data directory. Default: {DEFAULT.data_dir}.")]


def add_server_commands(app: typer.Typer) -> None:
    app.command()(serve)
    app.command()(status)
    app.command("trace")(show_trace)


def serve(
    *,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    listen: Annotated[
        str | None, typer.Option(help=f"Numeric address and port; port 0 takes any. Default: {DEFAULT.listen}.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Worker processes. Default: 0, one per core.")] = None,
    linger_ms: Annotated[
        int | None,
        typer.Option(
            help=f"Milliseconds a live delivery waits for its ack before it goes to disk. Default: {DEFAULT.linger_ms}."
        ),
    ] = None,
    overflow: Annotated[
        str | None,
        typer.Option(
            help="What a full mailbox does: refuse the newcomer, or prune the lowest priority, oldest first."
            f" Default: {DEFAULT.overflow}."
        ),
    ] = None,
    code_transport: Annotated[
        str | None,
        typer.Option(help=f"Where codes go: console, or file:<path>. Default: {DEFAULT.code_transport}."),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            help="How offline devices are woken: none, file:<path>, or webhook:<https url>."
            f" Default: {DEFAULT.push.kind}."
        ),
    ] = None,
    trace: Annotated[bool | None, typer.Option("--trace", help="Record the stages of envelopes, for wa trace.")] = None,
    log_level: Annotated[
        str | None, typer.Option(help=f"debug, info, warning or error. Default: {DEFAULT.log_level}.")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help=f"text or json. Default: {DEFAULT.log_format}.")] = None,
) -> None:
    """Run the server until SIGTERM or Ctrl-C.

    Each option is also an environment variable (WA_LISTEN=…) and a key of
    wa.toml (listen = "…"). The option wins, then the variable.
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
    workers = "1 worker" if serving.workers == 1 else f"{serving.workers} workers"
    print(f"ready: {serving.endpoint}, {workers}, data in {serving.data_dir}")
    print(f"root key for clients: {serving.root_public.hex()}", flush=True)


def status(
    *,
    config: ConfigFile = None,
    data_dir: DataDir = None,
    metrics: Annotated[bool, typer.Option("--metrics", help="All counters, as Prometheus text.")] = False,
) -> None:
    """Show the processes of the running server."""
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
