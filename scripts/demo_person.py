"""One person of the demo: a process with one account.  JSON lines on standard input say what to do.

    {"do": "register", "number": "+1555…", "server": "host:port", "root_key": "hex"}
                      answers {"need": "code"}, then takes {"do": "code", "code": "…"}
    {"do": "start"}   {"do": "send", "to": "+1555…", "text": "…"}   {"do": "read", "from": "+1555…"}   {"do": "stop"}

Each event comes back as a JSON line on standard output.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from wa.client import Client, Connected, Disconnected, MessageReceived, ReceiptChanged
from wa.ids import format_number, number_of


def say(**fields: Any) -> None:
    print(json.dumps(fields), flush=True)


class Person:
    def __init__(self, directory: Path, commands: asyncio.StreamReader) -> None:
        self.directory = directory
        self.commands = commands
        self.client: Client | None = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.shown: set[tuple[int, int]] = set()

    async def next_command(self) -> dict[str, Any] | None:
        line = await self.commands.readline()
        return json.loads(line) if line else None

    async def run(self) -> None:
        while (command := await self.next_command()) is not None and command["do"] != "stop":
            await getattr(self, f"do_{command['do']}")(command)
        if self.client is not None:
            for task in self.tasks:
                task.cancel()
            await self.client.__aexit__(None, None, None)

    async def do_register(self, command: dict[str, Any]) -> None:
        await Client.register(
            self.directory,
            command["number"],
            server=command["server"],
            root_key=command["root_key"],
            ask_code=self.ask_code,
            name="demo",
        )
        say(event="registered")

    async def ask_code(self) -> str:
        say(need="code")
        answer = await self.next_command()
        assert answer is not None
        return str(answer["code"])

    async def do_start(self, command: dict[str, Any]) -> None:
        self.client = Client(self.directory, hook=self.on_step)
        await self.client.__aenter__()
        self.tasks.add(asyncio.create_task(self.tell_events(self.client)))

    async def do_send(self, command: dict[str, Any]) -> None:
        assert self.client is not None
        message = await self.client.send(command["to"], command["text"])
        say(event="written", id=message.id, text=command["text"])

    async def do_read(self, command: dict[str, Any]) -> None:
        assert self.client is not None
        await self.client.mark_read(command["from"])

    def on_step(self, step: str) -> None:
        """Shows the ciphertext of each envelope when it is written to the connection."""
        if step != "send:written" or self.client is None:
            return
        for entry in self.client._account.outbox.pending(0, 64):
            if (entry.recipient, entry.id) not in self.shown:
                self.shown.add((entry.recipient, entry.id))
                to = format_number(number_of(entry.recipient))
                say(event="sealed", id=entry.id, to=to, ciphertext=entry.ciphertext.hex())

    async def tell_events(self, client: Client) -> None:
        async for event in client.events():
            if isinstance(event, MessageReceived):
                say(event="message", id=event.id, sender=event.sender, text=event.text)
            elif isinstance(event, ReceiptChanged):
                say(event="receipt", id=event.id, state=event.state.name.lower())
            elif isinstance(event, Connected):
                say(event="connected", queued=event.queued)
            elif isinstance(event, Disconnected):
                say(event="disconnected", reason=event.reason)
            else:
                say(event=type(event).__name__)


async def main() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await Person(Path(sys.argv[1]), reader).run()


asyncio.run(main())
