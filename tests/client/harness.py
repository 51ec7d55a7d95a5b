"""A server that speaks the protocol, accounts on it, and a way to run a scenario."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.client.peer import CODE, Server
from wa.client import Client, MessageReceived, Timing
from wa.client.store import now_ms

ALICE = "+15551230001"
BOB = "+15551230002"

FAST = Timing(
    resend_after_ms=50,
    backoff_ms_min=5,
    backoff_ms_max=50,
    refused_backoff_ms_min=5,
    refused_backoff_ms_max=50,
)
"""Intervals so short that a test never waits for one; nothing depends on how long they are."""


class World:
    """A server and account directories.  `clock` is a wall clock that `clock_step_ms` moves."""

    def __init__(self, server: Server, root: Path) -> None:
        self.server = server
        self.root = root
        self.clock_step_ms = 0

    def clock(self) -> int:
        return now_ms() + self.clock_step_ms

    async def register(self, number: str, name: str | None = None, **options: Any) -> Client:
        defaults = {
            "server": self.server.address,
            "root_key": self.server.root_key,
            "ask_code": lambda: CODE,
            "timing": FAST,
        }
        return await Client.register(self.root / (name or number), number, **{**defaults, **options})

    def client(self, name: str, **options: Any) -> Client:
        return Client(self.root / name, **{"timing": FAST, **options})

    async def visit(self, name: str, **options: Any) -> None:
        """Connects once, and stays until the ticket for the next time is there."""
        async with self.client(name, **options) as client:
            await client.connected()
            await self.until(lambda: has_ticket(client))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Lets everybody run until the condition holds; the test's own timeout ends it otherwise."""
        while not condition():
            await asyncio.sleep(0.001)


def run(root: Path, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Runs a scenario; afterwards no client may have broken the protocol."""

    async def main() -> None:
        async with Server() as server:
            await scenario(World(server, root))
            assert server.violations == []

    asyncio.run(main())


def has_ticket(client: Client) -> bool:
    """It has what it needs to resume the next time."""
    return client._opened is not None and client._opened.store.get("ticket") is not None


async def texts(client: Client, count: int) -> list[str]:
    """The next `count` received messages."""
    found: list[str] = []
    async for event in client.events():
        if isinstance(event, MessageReceived):
            found.append(event.text)
            if len(found) == count:
                break
    return found
