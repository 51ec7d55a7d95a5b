"""One client process: an account of the SDK that writes to the others until the command "quiet".

It may be killed at any moment: what must survive is in its store (`account.db`) and its journal.  A text begins with a
unique token: "<name>.<process id>.<count>".  Commands come over the harness's Unix socket, one JSON line each:

    {"do": "go"}  {"do": "quiet"}  {"do": "burst", "to": …, "n": …, "size": …}  {"do": "peers", "numbers": […]}
    {"do": "stop"}
"""

import asyncio
import json
import os
import random
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faults.early_ack import acknowledge_early
from faults.journal import NAME, Journal
from wa.client import (
    Client,
    Connected,
    Disconnected,
    Event,
    IdentityChanged,
    MessageReceived,
    MessageSynced,
    MessageUnreadable,
    ReceiptChanged,
    Timing,
)
from wa.client.account import STEPS, Account
from wa.errors import LocalError, RemoteError
from wa.wire.methods import Kind

# Shorter than a phone's, so that a minute has many rounds.  The protocol leaves these to the client.
TIMING = Timing(
    resend_after_ms=2_000,
    request_ms=8_000,
    connect_ms=5_000,
    backoff_ms_min=40,
    backoff_ms_max=400,
    refused_backoff_ms_min=50,
    refused_backoff_ms_max=800,
)
UNANSWERED_MAX = 150  # with this backlog nothing new is written for a while
SIZES = (0, 20, 20, 80, 80, 300, 300, 2_000, 12_000, 60_000 - 64)
WEIGHTS = (4, 20, 20, 20, 20, 8, 4, 2, 1, 1)
KINDS = (Kind.TEXT, Kind.TEXT, Kind.TEXT, Kind.VOICE, Kind.STATUS)
READ_CHANCE = 0.1


@dataclass(frozen=True)
class Settings:
    """As it comes in JSON.  die_at: [step of `wa.client.account.STEPS`, how often it is passed before]."""

    name: str
    directory: str
    number: str
    mode: str
    server: str
    root_key: str
    codes: str
    control: str
    seed: str
    peers: list[str]
    pause_s: float = 0.15
    die_at: tuple[str, int] | None = None
    early_ack: bool = False


class Person:
    def __init__(self, settings: Settings, reader: asyncio.StreamReader) -> None:
        self.settings = settings
        self.commands = reader
        self.random = random.Random(settings.seed)
        directory = Path(settings.directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(directory / NAME)
        self.going = asyncio.Event()
        self.peers = settings.peers
        self.count = 0
        self.passed = 0

    # --- dying ---

    def on_step(self, step: str) -> None:
        assert step in STEPS, step
        if self.settings.die_at is not None and step == self.settings.die_at[0]:
            if self.passed == self.settings.die_at[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            self.passed += 1

    # --- life ---

    async def run(self) -> None:
        client = await self._opened()
        async with client, asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._listen(client)), group.create_task(self._write(client))]
            await self._obey(client)
            for task in tasks:
                task.cancel()

    async def _opened(self) -> Client:
        """Registers if needed, again and again while the server is down."""
        s = self.settings
        while not _is_registered(Path(s.directory)):
            try:
                await Client.register(
                    s.directory,
                    s.number,
                    server=s.server,
                    root_key=s.root_key,
                    ask_code=self._code,
                    mode=s.mode,
                    name=s.name,
                    timing=TIMING,
                    hook=self.on_step,
                )
            except (ConnectionError, RemoteError, TimeoutError) as error:
                self.journal.tell("not registered", reason=str(error))
                await asyncio.sleep(self.random.uniform(0.1, 0.5))
        self.journal.tell("registered")
        return Client(s.directory, timing=TIMING, hook=self.on_step)

    def _code(self) -> str:
        lines = Path(self.settings.codes).read_text().splitlines()
        return next(line.split()[1] for line in reversed(lines) if line.startswith(self.settings.number))

    async def _obey(self, client: Client) -> None:
        """Until "stop", or the harness is gone."""
        while line := await self.commands.readline():
            command = json.loads(line)
            match command["do"]:
                case "go":
                    self.going.set()
                case "quiet":
                    self.going.clear()
                case "burst":
                    for _ in range(command["n"]):
                        await client.send(command["to"], self._text(command["size"]))
                        await asyncio.sleep(0)
                case "peers":
                    self.peers = command["numbers"]
                case "stop":
                    return
                case unknown:
                    raise AssertionError(unknown)

    # --- writing ---

    def _text(self, size: int) -> str:
        self.count += 1
        token = f"{self.settings.name}.{os.getpid()}.{self.count}"
        return f"{token} {'x' * size}"

    async def _write(self, client: Client) -> None:
        while True:
            await self.going.wait()
            await asyncio.sleep(self.random.expovariate(1 / self.settings.pause_s))
            if not self.going.is_set() or _unanswered(client) > UNANSWERED_MAX:
                continue
            for _ in range(self.random.choice((1, 1, 1, 2, 5))):
                (size,) = self.random.choices(SIZES, WEIGHTS)
                kind = self.random.choice(KINDS)
                await client.send(self.random.choice(self.peers), self._text(size), kind=kind)

    # --- what we are told ---

    async def _listen(self, client: Client) -> None:
        async for event in client.events():
            self._tell(event)
            if isinstance(event, MessageReceived) and self.random.random() < READ_CHANCE:
                await client.mark_read(event.id)

    def _tell(self, event: Event) -> None:
        tell = self.journal.tell
        match event:
            case MessageReceived():
                tell("shown", token=token_of(event.text), row=event.row, id=event.id)
            case MessageSynced():
                tell("synced", token=token_of(event.text), row=event.row, id=event.id)
            case ReceiptChanged():
                reason = event.reason.name if event.reason is not None else None
                tell("receipt", id=event.id, state=int(event.state), reason=reason)
            case Connected():
                tell("connected", queued=event.queued)
            case Disconnected():
                tell("disconnected", reason=event.reason)
            case MessageUnreadable():
                tell("unreadable", sender=event.sender, id=event.id, reason=event.reason)
            case IdentityChanged():
                tell("identity changed", number=event.number, device=event.device, new=event.new_device)
            case _:
                tell(type(event).__name__)


def token_of(text: str) -> str:
    return text.partition(" ")[0]


def _unanswered(client: Client) -> int:
    """Messages that are written and not accepted."""
    db = client._account.store.db
    (waiting,) = db.execute("SELECT (SELECT count(*) FROM drafts) + count(*) FROM outbox WHERE state = 0").fetchone()
    return int(waiting)


def _is_registered(directory: Path) -> bool:
    """Whether `Client.register` finished, prekeys and all."""
    try:
        account = Account(directory)
    except LocalError:
        return False
    try:
        return account.uploaded_signed_id is not None
    finally:
        account.close()


async def live(raw: dict[str, Any]) -> None:
    settings = Settings(**raw)
    if settings.early_ack:
        acknowledge_early(random.Random(settings.seed))
    reader, writer = await asyncio.open_unix_connection(settings.control)
    writer.write(json.dumps({"name": settings.name, "pid": os.getpid()}).encode() + b"\n")
    try:
        await Person(settings, reader).run()
    finally:
        writer.close()
