"""Fleets, as a scenario handles them: clients of one generator process on one server or floor."""

from dataclasses import dataclass
from typing import Any

from bench.addresses import FIRST_SOURCE, U32, U64
from bench.children import Child
from bench.crowd import Crowd
from bench.generator import Load
from bench.servers import Measured
from bench.settings import Settings

LOGIN_S = 120.0
CONCURRENT = 256


@dataclass
class Fleet:
    name: str
    server: Measured
    generator: Child

    @classmethod
    def make(
        cls,
        generator: Child,
        server: Measured,
        name: str,
        settings: Settings,
        suite: int | None = None,
        *,
        tickets: bool = False,
    ) -> "Fleet":
        """tickets: who was logged in comes back with the ticket it got."""
        generator.call(
            "make",
            fleet=name,
            port=server.port,
            suite=settings.suite if suite is None else suite,
            server_public=server.server_public,
            body_bytes=settings.body_bytes,
            tickets=tickets,
        )
        return cls(name, server, generator)

    def add(self, addresses: U64, source: int = FIRST_SOURCE) -> int:
        """Returns the index of the first new line."""
        first: int = self.generator.call("add", fleet=self.name, addresses=addresses, source=source)
        return first

    def send_to(self, line: int, targets: U64, streams: U32) -> None:
        self.generator.call("send_to", fleet=self.name, line=line, targets=targets, streams=streams)

    def tell(self, command: str, **arguments: Any) -> None:
        """Begins a load; `answer` waits for it."""
        self.generator.tell(command, fleet=self.name, pids=self.server.pids(), **arguments)

    def answer(self) -> Load:
        load: Load = self.generator.answer()
        return load

    def load(self, command: str, **arguments: Any) -> Load:
        self.tell(command, **arguments)
        return self.answer()

    def login(self, concurrent: int = CONCURRENT, seconds: float = LOGIN_S) -> Load:
        """Everyone; raises OSError when somebody could not."""
        load = self.load("login", seconds=seconds, concurrent=concurrent)
        if not load.drained:
            counts = self.counts()
            raise OSError(f"{counts['lines'] - counts['live']} of {counts['lines']} could not log in: {counts}")
        return load

    def down(self, first: int, n: int) -> None:
        self.generator.call("down", fleet=self.name, first=first, n=n)

    def mute(self, first: int, n: int) -> None:
        """These lines acknowledge nothing until they are told to speak."""
        self.generator.call("mute", fleet=self.name, first=first, n=n)

    def speak(self, first: int, n: int) -> None:
        self.generator.call("speak", fleet=self.name, first=first, n=n)

    def counts(self) -> dict[str, int]:
        counts: dict[str, int] = self.generator.call("counts", fleet=self.name)
        return counts


def make_pairs(fleet: Fleet, crowd: Crowd, senders: U64, recipients: U64) -> None:
    """One line per device, everyone logged in; sender k writes to recipient k."""
    first = fleet.add(senders)
    fleet.add(recipients)
    fleet.login()
    streams = crowd.streams.take(len(senders))
    for k in range(len(senders)):
        fleet.send_to(first + k, recipients[k : k + 1], streams[k : k + 1])


def make_group(fleet: Fleet, crowd: Crowd, sender: U64, recipients: U64) -> None:
    """One sender that writes to each recipient in turn; everyone logged in."""
    first = fleet.add(sender)
    fleet.add(recipients)
    fleet.login()
    fleet.send_to(first, recipients, crowd.streams.take(len(recipients)))
