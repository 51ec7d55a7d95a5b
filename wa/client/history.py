"""The account's messages as the user sees them, and what was read.

No encryption and no network: rows in, rows out.  The caller opens the transaction.
"""

import sqlite3
from dataclasses import dataclass

from wa import limits
from wa.client.events import Direction, State
from wa.client.schema import signed, unsigned
from wa.client.store import Store
from wa.errors import Code
from wa.ids import device_of, format_number


@dataclass(frozen=True)
class StoredMessage:
    """One line of history.  Times are Unix milliseconds; `peer` is the other side's number ("+1555…")."""

    row: int
    peer: str
    sender: int
    id: int
    direction: Direction
    kind: int
    text: str
    state: State
    reason: Code | None
    sent_ms: int
    stored_ms: int
    changed_ms: int

    @property
    def device(self) -> int:
        return device_of(self.sender)


@dataclass(frozen=True)
class Conversation:
    """One line of the list of conversations."""

    peer: str
    last: StoredMessage
    unread: int


_COLUMNS = "row, peer, sender, id, direction, kind, body, state, reason, sent_ms, stored_ms, changed_ms"


def _message(row: tuple[int, ...]) -> StoredMessage:
    number, peer, sender, id_, direction, kind, body, state, reason, sent_ms, stored_ms, changed_ms = row
    return StoredMessage(
        row=number,
        peer=format_number(peer),
        sender=sender,
        id=unsigned(id_),
        direction=Direction(direction),
        kind=kind,
        text=str(body),
        state=State(state),
        reason=Code(reason) if reason else None,
        sent_ms=sent_ms,
        stored_ms=stored_ms,
        changed_ms=changed_ms,
    )


class History:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db

    def add(
        self,
        *,
        peer: int,
        sender: int,
        message_id: int,
        direction: Direction,
        kind: int,
        text: str,
        state: State,
        sent_ms: int,
        seen: bool,
    ) -> int | None:
        """The new row, or None when (sender, id) is there already."""
        now = self._store.clock_ms()
        try:
            cursor = self._db.execute(
                "INSERT INTO messages (peer, sender, id, direction, kind, body, state, sent_ms, stored_ms,"
                " changed_ms, seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (peer, sender, signed(message_id), direction, kind, text, state, sent_ms, now, now, seen),
            )
        except sqlite3.IntegrityError:
            return None
        return cursor.lastrowid

    def is_received(self, sender: int, envelope_id: int) -> bool:
        query = "SELECT 1 FROM received WHERE sender = ? AND id = ?"
        return self._db.execute(query, (sender, signed(envelope_id))).fetchone() is not None

    def set_received(self, sender: int, envelope_id: int) -> None:
        self._db.execute("INSERT INTO received VALUES (?, ?)", (sender, signed(envelope_id)))

    def get(self, row: int) -> StoredMessage:
        found = self._db.execute(f"SELECT {_COLUMNS} FROM messages WHERE row = ?", (row,)).fetchone()
        if found is None:
            raise LookupError(f"no message {row}")
        return _message(found)

    def has(self, row: int) -> bool:
        return self._db.execute("SELECT 1 FROM messages WHERE row = ?", (row,)).fetchone() is not None

    def find(self, sender: int, message_id: int) -> StoredMessage | None:
        found = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE sender = ? AND id = ?", (sender, signed(message_id))
        ).fetchone()
        return None if found is None else _message(found)

    def remove(self, row: int) -> None:
        self._db.execute("DELETE FROM messages WHERE row = ?", (row,))

    def find_id(self, message_id: int) -> list[StoredMessage]:
        """Messages with this id from any sender; ids are unique per sending device only."""
        rows = self._db.execute(f"SELECT {_COLUMNS} FROM messages WHERE id = ?", (signed(message_id),))
        return [_message(row) for row in rows]

    def page(self, peer: int, *, before_row: int | None = None) -> list[StoredMessage]:
        """The newest page of a conversation, or the one before `before_row`; oldest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE peer = ? AND row < ? ORDER BY row DESC LIMIT ?",
            (peer, before_row if before_row is not None else (1 << 63) - 1, limits.CLIENT_PAGE_MESSAGES),
        ).fetchall()
        return [_message(row) for row in reversed(rows)]

    def page_after(self, peer: int, after_row: int) -> list[StoredMessage]:
        """The next page of a conversation behind `after_row`; oldest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE peer = ? AND row > ? ORDER BY row LIMIT ?",
            (peer, after_row, limits.CLIENT_PAGE_MESSAGES),
        )
        return [_message(row) for row in rows]

    def conversations(self) -> list[Conversation]:
        """Newest first."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS}, (SELECT count(*) FROM messages u WHERE u.peer = m.peer AND u.direction = 0"
            f" AND u.state < {State.READ.value}) FROM messages m"
            " WHERE row IN (SELECT max(row) FROM messages GROUP BY peer) ORDER BY row DESC"
        )
        return [Conversation(format_number(row[1]), _message(row[:-1]), row[-1]) for row in rows]

    def raise_state(self, row: int, state: State, reason: int) -> StoredMessage | None:
        """The message when its state rose, None when it did not: states only rise."""
        changed = self._db.execute(
            "UPDATE messages SET state = ?, reason = ?, changed_ms = ? WHERE row = ? AND state < ?",
            (state, reason if state is State.FAILED else 0, self._store.clock_ms(), row, state),
        ).rowcount
        return self.get(row) if changed else None

    # --- events that were not handed out yet ---

    def last_row(self) -> int:
        return int(self._db.execute("SELECT coalesce(max(row), 0) FROM messages").fetchone()[0])

    def arrived(self, above_row: int, up_to_row: int, own: int, *, unseen: bool) -> list[StoredMessage]:
        """A page of what others and our other devices sent, in order of arrival; `own` is our address."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE row > ? AND row <= ? AND sender != ?"
            f" AND (direction = 1 OR state >= {State.DELIVERED.value}) {'AND seen = 0' if unseen else ''}"
            " ORDER BY row LIMIT ?",
            (above_row, up_to_row, own, limits.CLIENT_PAGE_MESSAGES),
        )
        return [_message(row) for row in rows]

    def set_seen(self, rows: list[int]) -> None:
        self._db.executemany("UPDATE messages SET seen = 1 WHERE row = ?", [(row,) for row in rows])

    # --- read receipts we owe ---

    def set_read(self, peer: int, up_to_row: int) -> int:
        """Marks received messages of a conversation as read.  -> how many changed."""
        return self._db.execute(
            # Only delivered messages: a placeholder stays one until its message comes.
            "UPDATE messages SET state = ?, changed_ms = ? WHERE peer = ? AND row <= ? AND direction = 0 AND state = ?",
            (State.READ, self._store.clock_ms(), peer, up_to_row, State.DELIVERED),
        ).rowcount

    def read_untold(self, above_row: int = 0) -> list[StoredMessage]:
        """A page of read messages whose senders may not know it yet."""
        rows = self._db.execute(
            f"SELECT {_COLUMNS} FROM messages WHERE direction = 0 AND state = 4 AND read_told = 0 AND row > ?"
            " ORDER BY row LIMIT ?",
            (above_row, limits.CLIENT_PAGE_MESSAGES),
        )
        return [_message(row) for row in rows]

    def set_read_told(self, rows: list[int]) -> None:
        self._db.executemany("UPDATE messages SET read_told = 1 WHERE row = ?", [(row,) for row in rows])
