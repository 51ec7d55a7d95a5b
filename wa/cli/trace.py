"""`wa trace`: where is my message?"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from wa.errors import LocalError
from wa.ids import redact
from wa.runtime.trace import steps


def trace(
    message_id: Annotated[
        int, typer.Argument(help="The envelope's id: Message.id in the SDK, id in `wa listen --json`.")
    ],
    data_dir: Annotated[
        Path, typer.Option(envvar="WA_DATA_DIR", help="The server's data directory.")
    ] = Path("wa-data"),
    full_numbers: Annotated[bool, typer.Option("--full-numbers", help="Do not shorten phone numbers.")] = False,
) -> None:
    """Show the stages of an envelope: received, custody, sent, acknowledged, expired, …

    The server must run with --trace. Content is never shown: the server has none.
    """
    found = steps(data_dir / "run", message_id)
    if not found:
        raise LocalError(
            f"nothing is recorded of envelope {message_id}: it never came to this server, or later envelopes have"
            " overwritten it; check the id and --data-dir"
        )
    show = (lambda address: f"+{address >> 8}/{address & 0xFF}") if full_numbers else redact
    table = Table(title=f"Envelope {message_id}", title_justify="left")
    for column in ("time (UTC)", "after ms", "worker", "from → to", "stage", ""):
        table.add_column(column, justify="right" if column == "after ms" else "left")
    for step in found:
        moment = datetime.fromtimestamp(step.time_us / 1e6, UTC)
        table.add_row(
            f"{moment:%H:%M:%S.%f}"[:-3],
            f"{(step.time_us - found[0].time_us) / 1000:.2f}",
            str(step.worker),
            f"{show(step.sender)} → {show(step.recipient)}",
            step.stage,
            step.detail,
        )
    Console().print(table)
