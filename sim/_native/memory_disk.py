"""The disk of the reference mailbox store: sorted tables whose changes can be taken back to the last sync."""

from bisect import bisect_left, insort
from typing import Any, NamedTuple

Key = tuple[int, ...]


class Row(NamedTuple):
    sender: int
    id: int
    kind: int
    accepted_s: int
    expires_s: int
    body: bytes | int


class Table:
    """A dict with its keys in order and a journal of what each change replaced."""

    def __init__(self, journal: "list[Change]") -> None:
        self.rows: dict[Key, Any] = {}
        self.order: list[Key] = []
        self.journal = journal

    def set(self, key: Key, row: Any) -> None:
        """Stores, or removes with None."""
        self.journal.append((self, key, self.rows.get(key)))
        self.restore(key, row)

    def restore(self, key: Key, row: Any) -> None:
        if row is None:
            if self.rows.pop(key, None) is not None:
                del self.order[bisect_left(self.order, key)]
        else:
            if key not in self.rows:
                insort(self.order, key)
            self.rows[key] = row


Change = tuple[Table, Key, Any]
"""A table, a key, and what was there before."""


class MemoryMailDisk:
    """What is on the disk: it outlives its store, as files outlive a process.

    mail: (recipient, 255 - priority, seq) -> Row; its body is the number of a shared one, or bytes
    bodies: (number,) -> (body, how many envelopes need it)
    ident: (recipient, sender, id) -> (priority, seq)
    expiry: (expires_s, recipient, 255 - priority, seq) -> (sender, id, kind)
    receipts: (owner, peer, id) -> (level, code, accepted_s, expires_s)
    damaged: keys of mail and receipts whose checksum would be wrong
    """

    def __init__(self) -> None:
        self.journal: list[Change] = []  # everything since the last sync
        self.mail = Table(self.journal)
        self.bodies = Table(self.journal)
        self.ident = Table(self.journal)
        self.expiry = Table(self.journal)
        self.receipts = Table(self.journal)
        self.damaged: set[Key] = set()

    def rollback(self, length: int = 0) -> None:
        """Undoes the changes after the first `length` of the journal."""
        for table, key, before in reversed(self.journal[length:]):
            table.restore(key, before)
        del self.journal[length:]

    def sync(self) -> None:
        """Everything up to here survives a power loss."""
        self.journal.clear()

    def drop_mail(self, key: Key) -> bool:
        """Removes the envelope, its expiry and its share of a body; not its identity.  True: it was there."""
        row = self.mail.rows.get(key)
        if row is None:
            return False
        self.damaged.discard(key)
        self.mail.set(key, None)
        if row.expires_s:
            self.expiry.set((row.expires_s, *key), None)
        if isinstance(row.body, int):
            body, needed = self.bodies.rows[row.body,]
            self.bodies.set((row.body,), (body, needed - 1) if needed > 1 else None)
        return True

    def drop_unneeded(self, number: int) -> None:
        """Removes a shared body unless an envelope needs it."""
        if self.bodies.rows.get((number,), (b"", 1))[1] == 0:
            self.bodies.set((number,), None)

    def drop_receipts(self, now_s: int, count_max: int) -> None:
        """Removes receipts whose time is over."""
        expired = [key for key, row in self.receipts.rows.items() if 0 < row[3] <= now_s]
        for key in expired[:count_max]:
            self.damaged.discard(key)
            self.receipts.set(key, None)

    def victims(self, recipient: int, now_s: int) -> list[tuple[Key, Row]]:
        """The intact envelopes of a mailbox in the order in which they make room (contract.pxd, read_victims)."""
        keys = [key for key in prefixed(self.mail.order, (recipient,)) if key not in self.damaged]
        rows = [(key, self.mail.rows[key]) for key in keys]
        return sorted(rows, key=lambda row: (not 0 < row[1].expires_s <= now_s, -row[0][1], row[0][2]))


def prefixed(order: list[Key], prefix: Key) -> list[Key]:
    """The keys of a sorted list that begin with `prefix`, as a list of their own."""
    at = bisect_left(order, prefix)
    out = []
    while at < len(order) and order[at][:len(prefix)] == prefix:
        out.append(order[at])
        at += 1
    return out
