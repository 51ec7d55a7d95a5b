"""Drafts (plaintexts that wait to be encrypted) and the outbox (envelopes that wait for a receipt).

A state only rises.  A ciphertext stays the same, byte for byte, until the server has accepted it.  Rows in, rows out;
the caller opens the transaction.
"""

from dataclasses import dataclass

from wa import limits
from wa.client.events import State
from wa.client.schema import signed, unsigned
from wa.client.store import Store
from wa.errors import Code
from wa.ids import number_of
from wa.wire.methods import PRIORITY, Kind

KINDS_OF = {
    priority: tuple(kind for kind in Kind if PRIORITY[kind] == priority) for priority in sorted(set(PRIORITY.values()))
}


@dataclass(frozen=True)
class Draft:
    """`device` 0: for every device of `number`, with copies to our own other devices."""

    seq: int
    message: int | None
    number: int
    device: int
    id: int
    kind: int
    content: bytes


@dataclass(frozen=True)
class Entry:
    """One envelope of the outbox."""

    seq: int
    recipient: int
    id: int
    kind: int
    ciphertext: bytes


@dataclass(frozen=True)
class Change:
    """What a receipt did: `entry_rose` to its envelope, `message` is the row that it belongs to."""

    message: int | None
    own: bool


class OutboxTable:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    # --- drafts ---

    def add_draft(
        self, *, message: int | None, number: int, device: int, message_id: int, kind: int, content: bytes
    ) -> None:
        self._db.execute(
            "INSERT INTO drafts (message, number, device, id, kind, content) VALUES (?, ?, ?, ?, ?, ?)",
            (message, number, device, signed(message_id), kind, content),
        )

    def draft_numbers(self) -> list[int]:
        """Numbers with drafts, the longest waiting first."""
        rows = self._db.execute("SELECT number FROM drafts GROUP BY number ORDER BY min(seq)")
        return [row[0] for row in rows]

    def drafts(self, number: int) -> list[Draft]:
        """A page, in order."""
        rows = self._db.execute(
            "SELECT seq, message, number, device, id, kind, content FROM drafts WHERE number = ? ORDER BY seq LIMIT ?",
            (number, limits.CLIENT_PAGE_MESSAGES),
        )
        return [Draft(row[0], row[1], row[2], row[3], unsigned(row[4]), row[5], row[6]) for row in rows]

    def has_drafts(self, number: int) -> bool:
        return self._db.execute("SELECT 1 FROM drafts WHERE number = ? LIMIT 1", (number,)).fetchone() is not None

    def count_drafts(self, number: int) -> int:
        query = "SELECT count(*) FROM drafts WHERE number = ?"
        return int(self._db.execute(query, (number,)).fetchone()[0])

    def has_draft_of(self, message: int) -> bool:
        return self._db.execute("SELECT 1 FROM drafts WHERE message = ? LIMIT 1", (message,)).fetchone() is not None

    def remove_draft(self, seq: int) -> None:
        self._db.execute("DELETE FROM drafts WHERE seq = ?", (seq,))

    # --- envelopes ---

    def add(
        self,
        *,
        message: int | None,
        recipient: int,
        envelope_id: int,
        kind: int,
        own: bool,
        ciphertext: bytes,
    ) -> None:
        self._db.execute(
            "INSERT INTO outbox (message, recipient, id, kind, own, ciphertext, state, changed_ms)"
            " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
            (message, recipient, signed(envelope_id), kind, own, ciphertext, self._store.clock_ms()),
        )

    def has(self, recipient: int, envelope_id: int) -> bool:
        query = "SELECT 1 FROM outbox WHERE recipient = ? AND id = ?"
        return self._db.execute(query, (recipient, signed(envelope_id))).fetchone() is not None

    def count_to(self, message: int, recipient: int) -> int:
        """How many envelopes carried this message to this device so far."""
        query = "SELECT count(*) FROM outbox WHERE message = ? AND recipient = ?"
        return int(self._db.execute(query, (message, recipient)).fetchone()[0])

    def message_of(self, recipient: int, envelope_id: int) -> int | None:
        query = "SELECT message FROM outbox WHERE recipient = ? AND id = ?"
        row = self._db.execute(query, (recipient, signed(envelope_id))).fetchone()
        return None if row is None else row[0]

    def pending(self, above_seq: int, count: int) -> list[Entry]:
        """The next envelopes without a receipt, in order of sending."""
        rows = self._db.execute(
            "SELECT seq, recipient, id, kind, ciphertext FROM outbox WHERE state = 0 AND seq > ? ORDER BY seq LIMIT ?",
            (above_seq, count),
        )
        return [Entry(row[0], row[1], unsigned(row[2]), row[3], row[4]) for row in rows]

    def waiting(self, above_seq: int, count: int) -> list[tuple[int, int, int]]:
        """(seq, recipient, kind) of the next envelopes without a receipt, in order of sending."""
        return self._db.execute(
            "SELECT seq, recipient, kind FROM outbox WHERE state = 0 AND seq > ? ORDER BY seq LIMIT ?",
            (above_seq, count),
        ).fetchall()

    def next_to(self, recipient: int, priority: int) -> Entry | None:
        """The oldest envelope of this priority to this device without a receipt."""
        kinds = KINDS_OF[priority]
        row = self._db.execute(
            "SELECT seq, recipient, id, kind, ciphertext FROM outbox WHERE state = 0 AND recipient = ?"
            f" AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY seq LIMIT 1",
            (recipient, *kinds),
        ).fetchone()
        return None if row is None else Entry(row[0], row[1], unsigned(row[2]), row[3], row[4])

    def accepted_by_number(self) -> dict[int, list[tuple[int, int, int, int]]]:
        """(recipient, id, kind, accepted at) of accepted envelopes that are not known to be delivered."""
        rows = self._db.execute("SELECT recipient, id, kind, changed_ms FROM outbox WHERE state = 1 ORDER BY seq")
        found: dict[int, list[tuple[int, int, int, int]]] = {}
        for recipient, envelope_id, kind, changed_ms in rows:
            found.setdefault(number_of(recipient), []).append((recipient, unsigned(envelope_id), kind, changed_ms))
        return found

    def raise_state(self, recipient: int, envelope_id: int, state: State, reason: int = 0) -> Change | None:
        """None when the envelope is not ours, or its state did not rise."""
        rows = self._db.execute(
            "UPDATE outbox SET state = ?, reason = ?, ciphertext = NULL, changed_ms = ?"
            " WHERE recipient = ? AND id = ? AND state < ? RETURNING message, own",
            (state, reason, self._store.clock_ms(), recipient, signed(envelope_id), state),
        ).fetchall()
        return Change(rows[0][0], bool(rows[0][1])) if rows else None

    def state_of_message(self, message: int) -> tuple[State, int]:
        """The state of a message, from its envelopes to the recipient, and the code if it failed.

        Read or delivered: once one envelope is.  Accepted: once all are answered and the server keeps one.  Failed:
        once all have; the reason is that of a device which still exists, if there is one.
        """
        rows = self._db.execute(
            "SELECT state, reason, recipient FROM outbox WHERE message = ? AND own = 0 ORDER BY seq",
            (message,),
        ).fetchall()
        latest = {recipient: (State(state), reason) for state, reason, recipient in rows}
        states = list(latest.values())
        best = max((state for state, _ in states), default=State.PENDING)
        if best >= State.DELIVERED:
            return best, 0
        if not states or any(state is State.PENDING for state, _ in states):
            return State.PENDING, 0
        if any(state is State.ACCEPTED for state, _ in states):
            return State.ACCEPTED, 0
        reasons = [reason for _, reason in states]
        return State.FAILED, next((r for r in reasons if r != Code.ADDRESS_UNKNOWN), reasons[-1])
