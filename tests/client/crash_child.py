"""A client in its own process that ends itself with SIGKILL at a named persistence step.

    crash_child.py ROLE DIRECTORY NUMBER SERVER ROOT_KEY STEP NTH

ROLE register: registers NUMBER.  send: sends what is not in the history yet and waits until everything is
delivered.  listen: appends received texts to DIRECTORY/shown until "end" has come.
STEP "": does not die.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from tests.client.harness import FAST
from tests.client.peer import CODE
from wa.client import Client, Direction, MessageReceived
from wa.client.account import STEPS

TEXTS = ("one", "two", "three", "end")


class Killer:
    def __init__(self, step: str, nth: int) -> None:
        assert step in ("", *STEPS)
        self._step = step
        self._left = nth

    def __call__(self, step: str) -> None:
        assert step in STEPS
        if step == self._step:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)


async def send(client: Client, to: str) -> None:
    there = [message.text for message in client.history(to) if message.direction is Direction.SENT]
    assert there == list(TEXTS[: len(there)]), there
    for text in TEXTS[len(there) :]:
        message = await client.send(to, text)
        if text in TEXTS[1:]:  # the first two go together
            await message.delivered()
    for message in client.history(to):
        await client.message(message.row).delivered()


async def listen(client: Client, directory: Path) -> None:
    async for event in client.events():
        if isinstance(event, MessageReceived):
            with (directory / "shown").open("a") as out:
                out.write(f"{event.id} {event.text}\n")
            if event.text == "end":
                return


async def main() -> None:
    role, directory, number, server, root_key, step, nth = sys.argv[1:]
    hook = Killer(step, int(nth))
    if role == "register":
        await Client.register(
            directory, number, server=server, root_key=root_key, ask_code=lambda: CODE, timing=FAST, hook=hook
        )
        return
    async with Client(directory, timing=FAST, hook=hook) as client:
        if role == "send":
            await send(client, number)
        else:
            await listen(client, Path(directory))
            await client.connected()


if __name__ == "__main__":
    asyncio.run(main())
