"""The client's commands: register, send, listen, chat, and a few small ones."""

import asyncio
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from wa.cli.accounts import (
    PASSPHRASE_ENV,
    choose,
    clean,
    command,
    directory_of,
    fail,
    find_root_key,
    home,
    passphrase_of,
    registered,
)
from wa.client import (
    Client,
    Connected,
    Disconnected,
    Event,
    IdentityChanged,
    Message,
    MessageReceived,
    MessageSynced,
    MessageUnreadable,
    ReceiptChanged,
    State,
)
from wa.errors import LocalError
from wa.ids import device_of, format_number, parse_number

ACCOUNT_HELP = "Your number (+1555…) or an account directory; needed only with several accounts."
ONLINE_WAIT_S = 15.0
DELIVERY_WAIT_S = 2.0  # after ✓, without --wait: an offline recipient may take days
SILENCE_S = 0.3  # after this long a wait says what it waits for

TICKS = {
    State.PENDING: ("…", "dim"),
    State.ACCEPTED: ("✓", "dim"),
    State.FAILED: ("✗", "red"),
    State.DELIVERED: ("✓✓", "dim"),
    State.READ: ("✓✓", "bright_blue"),
}
MEANING = {
    State.PENDING: "in the outbox",
    State.ACCEPTED: "accepted by the server; delivered when their phone is next online",
    State.FAILED: "failed",
    State.DELIVERED: "delivered",
    State.READ: "read",
}
STEPS = (
    (State.ACCEPTED, Message.accepted, "Waiting for the server to accept it …"),
    (State.DELIVERED, Message.delivered, "Accepted by the server; waiting for their phone …"),
    (State.READ, Message.read, "Delivered; waiting for them to read it …"),
)


class Tick(StrEnum):
    """What `wa send --wait` waits for."""

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    READ = "read"


AccountOption = Annotated[str | None, typer.Option("--account", "-a", help=ACCOUNT_HELP, show_default=False)]
NumberArgument = Annotated[str, typer.Argument(metavar="NUMBER", help="With + and country code.")]


def add_client_commands(app: typer.Typer) -> None:
    """Adds the commands of this file to the program."""
    app.command("register")(register)
    app.command("send")(send)
    app.command("listen")(listen)
    app.command("chat")(chat)
    app.command("accounts")(accounts)
    app.command("devices")(devices)
    app.command("safety-number")(safety_number)
    app.command("trust")(trust)


def open_client(account: str | None) -> Client:
    directory = choose(account)
    return Client(directory, passphrase=passphrase_of(directory))


@command
async def register(
    number: NumberArgument,
    *,
    server: Annotated[str, typer.Option(help="host:port of the server.")] = "127.0.0.1:7340",
    root_key: Annotated[
        str | None,
        typer.Option("--root-key", "--root-key-file", help="The server's root key: 64 hex digits, or a file."),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Take the root key from this data directory of a local server."),
    ] = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where to keep the account.", show_default="~/.wa/<number>")
    ] = None,
    code: Annotated[str | None, typer.Option(help="The code, if you have it; else you are asked.")] = None,
    name: Annotated[
        str, typer.Option(help="This device's name, for your other devices.", show_default="the machine's name")
    ] = "",
    add: Annotated[
        bool, typer.Option("--add", help="Keep the number's other devices. Without it they are removed.")
    ] = False,
    wrap: Annotated[
        bool,
        typer.Option("--passphrase", help=f"Wrap the keys on disk under a passphrase: asked for, or {PASSPHRASE_ENV}."),
    ] = False,
) -> None:
    """Make this machine a device of your number.

    The server sends a code to the number; wa serve prints it by default.
    """
    digits = parse_number(number)
    where = directory or directory_of(number)
    key = find_root_key(root_key, data_dir)
    passphrase = _new_passphrase(where) if wrap else passphrase_of(where)
    await Client.register(
        where,
        number,
        server=server,
        root_key=key,
        ask_code=lambda: code if code is not None else _ask_code(format_number(digits)),
        mode="add" if add else "replace",
        name=name or os.uname().nodename[:64],
        passphrase=passphrase,
    )
    typer.secho(f"{format_number(digits)} is registered with {server}", fg=typer.colors.GREEN)
    typer.echo(f"The account is in {where}. Try: wa chat NUMBER")


async def _ask_code(number: str) -> str:
    return await asyncio.to_thread(typer.prompt, f"Code sent to {number} (wa serve prints it by default)")


def _new_passphrase(directory: Path) -> str:
    given = os.environ.get(PASSPHRASE_ENV)
    if given:
        return given
    if (directory / "account.db").exists():
        return str(typer.prompt("Passphrase", hide_input=True))
    return str(typer.prompt("New passphrase", hide_input=True, confirmation_prompt=True))


@command
async def send(
    number: NumberArgument,
    text: Annotated[str, typer.Argument(help="The message; - reads it from standard input.")],
    account: AccountOption = None,
    wait: Annotated[
        Tick | None, typer.Option(help="Fail unless the message gets this far in time.", show_default=False)
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for --wait, or for ✓ without it.")] = 30.0,
) -> None:
    """Send one message and show how far it got.

    ✓ the server has it safe. ✓✓ their phone has it. Without --wait, ✓ is enough.

    A message without ✓ stays in the outbox: the next wa send, listen or chat
    sends it.
    """
    body = sys.stdin.read().removesuffix("\n") if text == "-" else text
    wanted = State.ACCEPTED if wait is None else State[wait.name]
    async with open_client(account) as client:
        message = await client.send(number, body)
        try:
            async with asyncio.timeout(0 if client.is_held(number) else timeout):  # held: the user must act first
                await _reach(message, wanted)
            if wait is None:
                await _look_for_delivery(message)
        except TimeoutError:
            raise LocalError(_why_not(client, message, wanted, timeout)) from None
        finally:
            Console().print(_line(message), soft_wrap=True)


async def _reach(message: Message, wanted: State) -> None:
    """One tick after the other.  Raises SendFailed."""
    for state, reached, what in STEPS:
        if state <= wanted:
            with _waiting(what) if message.state < state else nullcontext():
                await reached(message)


async def _look_for_delivery(message: Message) -> None:
    with suppress(TimeoutError):  # it is accepted: the server delivers it when the recipient comes
        async with asyncio.timeout(DELIVERY_WAIT_S):
            await _reach(message, State.DELIVERED)


@contextmanager
def _waiting(what: str) -> Iterator[None]:
    """Says on stderr what is waited for when it takes long: a spinner on a terminal, a line elsewhere."""
    console = Console(stderr=True)
    spinner = console.status(what)
    say = spinner.start if console.is_interactive else partial(console.print, what, soft_wrap=True)
    timer = asyncio.get_running_loop().call_later(SILENCE_S, say)
    try:
        yield
    finally:
        timer.cancel()
        spinner.stop()


def _line(message: Message) -> Text:
    state = message.state
    ticks, style = TICKS[state]
    return Text.assemble((f"{ticks:<2}", style), f" {message.recipient}  {MEANING[state]}")


def _why_not(client: Client, message: Message, wanted: State, timeout: float) -> str:
    if message.state >= State.ACCEPTED:
        return f"not {wanted.name.lower()} within {timeout:g} s"
    if client.is_held(message.recipient):
        return (
            f"the identity of {message.recipient} changed, so nothing is sent to it; compare the safety number "
            f"(wa safety-number {message.recipient}), then: wa trust {message.recipient}"
        )
    status = client.status
    why = f"; {status.reason}" if isinstance(status, Disconnected) else ""
    return (
        f"not accepted within {timeout:g} s{why}. The message stays in the outbox; the next wa send, listen or chat"
        " sends it"
    )


@command
async def listen(
    account: AccountOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per event and line.")] = False,
    count: Annotated[int | None, typer.Option(help="Stop after this many messages.")] = None,
    read: Annotated[bool, typer.Option("--read", help="Tell the senders that you have read them (blue ✓✓).")] = False,
) -> None:
    """Print messages as they come, unseen ones first. Ctrl-C stops it."""
    left = count
    async with open_client(account) as client:
        async for event in client.events():
            is_message = isinstance(event, MessageReceived | MessageSynced)
            line = _json_line(event) if as_json else _plain_line(event)
            if line:
                typer.echo(line, err=not is_message and not as_json)
            if isinstance(event, MessageReceived) and read:
                await client.mark_read(event.id)
            if isinstance(event, Disconnected) and event.retry_in is None:
                raise fail(event.reason)
            if is_message and left is not None:
                left -= 1
            if left is not None and left <= 0:
                return


def _json_line(event: Event) -> str:
    body = {"event": type(event).__name__, **vars(event)}
    for key, value in body.items():
        if isinstance(value, State) or (key in ("reason", "code") and hasattr(value, "name")):
            body[key] = value.name.lower()
    return json.dumps(body, ensure_ascii=False)


def _plain_line(event: Event) -> str:
    match event:
        case MessageReceived(text, sender, _, time_ms):
            return f"{_clock(time_ms)} {sender}: {clean(text)}"
        case MessageSynced(text, recipient, time_ms):
            return f"{_clock(time_ms)} you to {recipient}: {clean(text)}"
        case MessageUnreadable(sender):
            return f"a message from {sender} could not be decrypted; it was asked for again"
        case IdentityChanged(number):
            return (
                f"the identity of {number} changed, so nothing is sent to it; compare the safety number "
                f"(wa safety-number {number}), then: wa trust {number}"
            )
        case Connected(queued):
            return f"connected, {queued} waiting" if queued else "connected"
        case Disconnected(reason, _, retry_in) if retry_in is not None:
            return f"not connected: {reason}; retry in {retry_in:.0f} s"
        case ReceiptChanged(_, recipient, State.FAILED, reason):
            return f"a message to {recipient} failed: {reason.name.lower() if reason else ''}"
        case _:
            return ""


def _clock(time_ms: int) -> str:
    try:
        return datetime.fromtimestamp(time_ms / 1_000).strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError, OSError):
        return "????-??-?? ??:??"  # the sender's clock is outside datetime's range


@command
async def chat(number: NumberArgument, account: AccountOption = None) -> None:
    """Chat with a number, full screen."""
    from wa.cli.chat import ChatApp  # noqa: PLC0415  Textual takes long to import

    format_number(parse_number(number))
    async with open_client(account) as client:
        await ChatApp(client, number).run_async()


def accounts() -> None:
    """List the accounts on this machine."""
    found = registered()
    if not found:
        typer.echo(f"There is no account in {home()} yet. Begin with: wa register +15551230001")
    for directory in found:
        typer.echo(f"+{directory.name}  {directory}")


@command
async def devices(
    account: AccountOption = None,
    remove: Annotated[int | None, typer.Option(help="Remove this device, by its number in the list.")] = None,
) -> None:
    """List the devices of your number, or remove one."""
    async with open_client(account) as client:
        await _online(client)
        if remove is not None:
            await client.remove_device(remove)
        own = device_of(client.address)
        for device in await client.devices():
            mark = "  (this one)" if device.get("device") == own else ""
            typer.echo(f"{device.get('device')}  {clean(str(device.get('name') or ''))}{mark}")


async def _online(client: Client) -> None:
    try:
        with _waiting(f"Connecting to {client.server} …"):
            async with asyncio.timeout(ONLINE_WAIT_S):
                await client.connected()
    except TimeoutError:
        why = client.status.reason if isinstance(client.status, Disconnected) else "no answer"
        raise LocalError(f"not connected to {client.server} within {ONLINE_WAIT_S:g} s: {why}") from None


@command
async def safety_number(number: NumberArgument, account: AccountOption = None) -> None:
    """Show the safety number. The same on both phones: nobody is in between."""
    directory = choose(account)
    async with Client(directory, passphrase=passphrase_of(directory)) as client:
        groups = client.safety_number(number).split()
    for row in range(0, len(groups), 4):
        typer.echo(" ".join(groups[row : row + 4]))


@command
async def trust(number: NumberArgument, account: AccountOption = None) -> None:
    """Accept a number's changed identity. Compare the safety number first."""
    async with open_client(account) as client:
        if not client.is_held(number):
            typer.echo(f"The identity of {number} has not changed. There is nothing to do.")
            return
        await client.acknowledge_identity(number)
    typer.echo(f"The identity of {number} is accepted.")
