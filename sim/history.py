"""Every event of a run, as text for people, and one hash, by which two runs of a seed are compared."""

import hashlib
from dataclasses import dataclass, field

Event = tuple[int, str, str, tuple[int, int, int] | None, str]
"""(virtual ns, who, what, envelope (sender, recipient, id) or None, detail)"""


def short(address: int) -> str:
    """15551230001 device 1 -> ...0001/1"""
    return f"{(address >> 8) % 10_000:04d}/{address & 0xFF}"


@dataclass
class History:
    events: list[Event] = field(default_factory=list)
    kept: bool = True  # False: a run that is only checked; a failing seed is run again with its history

    def add(
        self, now_ns: int, who: str, what: str, envelope: tuple[int, int, int] | None = None, detail: str = ""
    ) -> None:
        if self.kept:
            self.events.append((now_ns, who, what, envelope, detail))

    def digest(self) -> str:
        """Hex SHA-256 over all events."""
        h = hashlib.sha256()
        for event in self.events:
            h.update(repr(event).encode())
        return h.hexdigest()

    def lines(self, envelope: tuple[int, int, int] | None = None) -> list[str]:
        """All events, or those of one envelope together with what happened to the machines and its two devices."""
        out = []
        parties = {short(envelope[0]), short(envelope[1])} if envelope else set()
        for now_ns, who, what, key, detail in self.events:
            if envelope is not None and key != envelope and (key is not None or not self._bears(who, parties)):
                continue
            name = f"{short(key[0])}->{short(key[1])}#{key[2]}" if key else ""
            out.append(f"{now_ns / 1e9:12.6f}  {who:<8} {what:<16} {name:<20} {detail}".rstrip())
        return out

    @staticmethod
    def _bears(who: str, parties: set[str]) -> bool:
        return who in parties or who.startswith(("worker", "world"))
