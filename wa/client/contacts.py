"""Which devices a number has, and which of them the user trusts.

At first contact, until its device list was fetched once, all devices of a number are trusted.  A later device, or a
known device with another identity key, makes the number *held* until the user accepts it: nothing is sent to the
number, and envelopes of that device are parked.  Otherwise the server could add a device to any account and read along.

Rows in, rows out; the caller opens the transaction.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wa import limits
from wa.client.schema import signed, unsigned
from wa.client.store import Store
from wa.ids import number_of


@dataclass(frozen=True)
class Parked:
    """An envelope that waits until the user accepts its sender."""

    seq: int
    sender: int
    id: int
    kind: int
    body: bytes


class Contacts:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    def is_listed(self, number: int) -> bool:
        """True once the device list was fetched; until then every device is trusted."""
        query = "SELECT 1 FROM contacts WHERE number = ? AND devices_ms IS NOT NULL"
        return self._db.execute(query, (number,)).fetchone() is not None

    def is_held(self, number: int) -> bool:
        row = self._db.execute("SELECT held FROM contacts WHERE number = ?", (number,)).fetchone()
        return row is not None and bool(row[0])

    def held(self) -> list[int]:
        return [row[0] for row in self._db.execute("SELECT number FROM contacts WHERE held = 1")]

    def is_fresh(self, number: int) -> bool:
        """True while the device list need not be fetched again."""
        row = self._db.execute("SELECT devices_ms FROM contacts WHERE number = ?", (number,)).fetchone()
        if row is None or row[0] is None:
            return False
        age_ms = self._store.clock_ms() - int(row[0])
        return 0 <= age_ms < limits.CLIENT_DEVICES_FRESH_S * 1_000

    def set_stale(self, number: int) -> None:
        self._db.execute("UPDATE contacts SET devices_ms = 0 WHERE number = ?", (number,))

    def hold(self, number: int) -> bool:
        """True when the number was not held before."""
        query = "UPDATE contacts SET held = 1 WHERE number = ? AND held = 0"
        return self._db.execute(query, (number,)).rowcount > 0

    def devices(self, number: int) -> list[int]:
        """Addresses the user trusts, by device number."""
        query = "SELECT address FROM devices WHERE number = ? AND known = 1 ORDER BY address"
        return [row[0] for row in self._db.execute(query, (number,))]

    def unknown_devices(self, number: int) -> list[int]:
        query = "SELECT address FROM devices WHERE number = ? AND known = 0 ORDER BY address"
        return [row[0] for row in self._db.execute(query, (number,))]

    def is_device_known(self, address: int) -> bool:
        row = self._db.execute("SELECT known FROM devices WHERE address = ?", (address,)).fetchone()
        return row is not None and bool(row[0])

    def set_devices(self, number: int, addresses: Sequence[int]) -> list[int]:
        """Stores a fetched device list.  -> devices that are new to a known contact, which is now held."""
        first = not self.is_listed(number)
        self._db.execute(
            "INSERT INTO contacts (number, devices_ms) VALUES (?, ?)"
            " ON CONFLICT (number) DO UPDATE SET devices_ms = excluded.devices_ms",
            (number, self._store.clock_ms()),
        )
        there = {row[0] for row in self._db.execute("SELECT address FROM devices WHERE number = ?", (number,))}
        gone = there - set(addresses)
        self._db.executemany("DELETE FROM devices WHERE address = ?", [(address,) for address in gone])
        fresh = sorted(set(addresses) - there)
        self._db.executemany(
            "INSERT INTO devices (address, number, known) VALUES (?, ?, ?)",
            [(address, number, first) for address in fresh],
        )
        if first or not fresh:
            return []
        self.hold(number)
        return fresh

    def meet(self, address: int) -> bool:
        """An envelope of this device arrived.  True when it is trusted: known, or the first contact."""
        if self.is_device_known(address):
            return True
        number = number_of(address)
        first = not self.is_listed(number)
        self._db.execute("INSERT OR IGNORE INTO contacts (number) VALUES (?)", (number,))
        self._db.execute(
            "INSERT OR IGNORE INTO devices (address, number, known) VALUES (?, ?, ?)",
            (address, number, first),
        )
        if not first:
            self.hold(number)
        return first

    def accept(self, number: int) -> list[int]:
        """The user accepts every device of the number.  -> the addresses that were not known."""
        unknown = self.unknown_devices(number)
        self._db.execute("UPDATE devices SET known = 1 WHERE number = ?", (number,))
        self._db.execute("UPDATE contacts SET held = 0 WHERE number = ?", (number,))
        return unknown

    # --- sessions that must be started anew ---

    def set_renew(self, address: int, renew: bool) -> None:
        self._db.execute("UPDATE devices SET renew = ? WHERE address = ?", (renew, address))

    def must_renew(self, address: int) -> bool:
        row = self._db.execute("SELECT renew FROM devices WHERE address = ?", (address,)).fetchone()
        return row is not None and bool(row[0])

    # --- parked envelopes ---

    def park(self, sender: int, envelope_id: int, kind: int, body: bytes) -> None:
        self._db.execute(
            "INSERT INTO parked (sender, number, id, kind, body) VALUES (?, ?, ?, ?, ?)",
            (sender, number_of(sender), signed(envelope_id), kind, body),
        )

    def parked(self, number: int) -> list[Parked]:
        rows = self._db.execute(
            "SELECT seq, sender, id, kind, body FROM parked WHERE number = ? ORDER BY seq LIMIT ?",
            (number, limits.CLIENT_PAGE_MESSAGES),
        )
        return [Parked(row[0], row[1], unsigned(row[2]), row[3], row[4]) for row in rows]

    def unpark(self, seq: int) -> None:
        self._db.execute("DELETE FROM parked WHERE seq = ?", (seq,))
