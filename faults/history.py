"""All that was recorded, read back into one value for the checkers.

A client's store says what it sent and showed.  Its journal says what it was told, in order, over all its lives.
"""

import sqlite3
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from faults import journal
from faults.people import Person
from wa.client.events import Direction, State
from wa.client.schema import unsigned
from wa.ids import format_number, number_of

Address = int


@dataclass(frozen=True)
class Row:
    """One line of a client's history: sent by it, received, or sent by its sister device."""

    row: int
    peer: str
    sender: Address
    id: int
    direction: Direction
    kind: int
    text: str
    state: State
    reason: int
    sent_ms: int

    @property
    def token(self) -> str:
        return self.text.partition(" ")[0]


@dataclass(frozen=True)
class Envelope:
    """One line of a client's outbox.  message: `Row.row`; None: it is no message (a request to encrypt anew)."""

    seq: int
    message: int | None
    recipient: Address
    id: int
    kind: int
    own: bool
    state: State
    reason: int


@dataclass(frozen=True)
class Told:
    """One entry of a journal, in order.  at_us: Unix microseconds."""

    at_us: int
    life: int
    what: str
    fields: dict[str, Any]


@dataclass
class Device:
    name: str
    address: Address
    rows: list[Row] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    drafts: int = 0
    parked: int = 0
    told: list[Told] = field(default_factory=list)

    @property
    def number(self) -> str:
        return format_number(number_of(self.address))

    @cached_property
    def sent(self) -> dict[int, Row]:
        """Its own messages, by row."""
        return {row.row: row for row in self.rows if row.sender == self.address}

    @cached_property
    def shown(self) -> list[Row]:
        """What others and its sister devices wrote, in order of arrival."""
        return [row for row in self.rows if row.sender != self.address]

    @cached_property
    def shown_by_token(self) -> dict[str, list[Row]]:
        found: dict[str, list[Row]] = {}
        for row in self.shown:
            found.setdefault(row.token, []).append(row)
        return found

    @cached_property
    def told_states(self) -> dict[int, list[State]]:
        """Message id -> its states as they were told, in order, over all lives."""
        found: dict[int, list[State]] = {}
        for told in self.told:
            if told.what == "receipt":
                found.setdefault(told.fields["id"], []).append(State(told.fields["state"]))
        return found


@dataclass
class History:
    devices: dict[Address, Device] = field(default_factory=dict)

    def of_number(self, number: str) -> list[Device]:
        return [device for device in self.devices.values() if device.number == number]


def read(persons: list[Person]) -> History:
    """Raises LookupError for a client that was never registered."""
    history = History()
    for person in persons:
        device = _device(person)
        history.devices[device.address] = device
    return history


def _device(person: Person) -> Device:
    db = sqlite3.connect(f"file:{person.database}?mode=ro", uri=True)
    try:
        found = db.execute("SELECT value FROM settings WHERE name = 'address'").fetchone()
        if found is None:
            raise LookupError(f"{person.name} is not registered")
        device = Device(person.name, int.from_bytes(found[0], "big"))
        device.rows = [
            Row(
                row=row,
                peer=format_number(peer),
                sender=sender,
                id=unsigned(id_),
                direction=Direction(direction),
                kind=kind,
                text=str(body),
                state=State(state),
                reason=reason,
                sent_ms=sent_ms,
            )
            for row, peer, sender, id_, direction, kind, body, state, reason, sent_ms in db.execute(
                "SELECT row, peer, sender, id, direction, kind, body, state, reason, sent_ms FROM messages ORDER BY row"
            )
        ]
        device.envelopes = [
            Envelope(seq, message, recipient, unsigned(id_), kind, bool(own), State(state), reason)
            for seq, message, recipient, id_, kind, own, state, reason in db.execute(
                "SELECT seq, message, recipient, id, kind, own, state, reason FROM outbox ORDER BY seq"
            )
        ]
        (device.drafts,) = db.execute("SELECT count(*) FROM drafts").fetchone()
        (device.parked,) = db.execute("SELECT count(*) FROM parked").fetchone()
    finally:
        db.close()
    device.told = _told(person.directory / journal.NAME)
    return device


def _told(path: Path) -> list[Told]:
    return [Told(entry.pop("at_us"), life, entry.pop("what"), entry) for life, entry in journal.read(path)]
