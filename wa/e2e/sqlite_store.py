"""The session store in SQLite, inside a connection and a transaction that belong to the caller.

Nothing here begins, commits or rolls back: open the connection with `isolation_level=None`, and put BEGIN IMMEDIATE …
COMMIT around one event.  With a passphrase, values are wrapped (`passphrase.Vault.wrap` and `.unwrap`) and bound to
their table and key, so that a row cannot be moved.
"""

import sqlite3
from collections.abc import Callable

from wa.e2e.errors import InvalidState
from wa.e2e.stores import Table

_AFTER_ANY_KEY = b"\xff" * 64  # the longest key is 36 bytes

Wrap = Callable[[bytes, bytes], bytes]
"""`wrap(value, label)`; `unwrap` is its inverse and raises InvalidState when value and label do not fit."""


def create_tables(connection: sqlite3.Connection) -> None:
    """Creates the e2e_* tables where they are missing, in the caller's transaction."""
    for table in Table:
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS e2e_{table} (key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL)"
        )


class SqliteStore:
    """A `SessionStore`.  `wrap` and `unwrap` are given together or not at all."""

    def __init__(
        self, connection: sqlite3.Connection, *, wrap: Wrap | None = None, unwrap: Wrap | None = None
    ) -> None:
        if (wrap is None) != (unwrap is None):
            raise ValueError("give wrap and unwrap together")
        self._connection = connection
        self._wrap = wrap
        self._unwrap = unwrap

    def get(self, table: Table, key: bytes) -> bytes | None:
        """Raises InvalidState when the stored value does not unwrap."""
        row = self._connection.execute(f"SELECT value FROM e2e_{table} WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value = row[0]
        if not isinstance(value, bytes):
            raise InvalidState(f"a row of e2e_{table} does not hold bytes")
        return value if self._unwrap is None else self._unwrap(value, _label(table, key))

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        stored = value if self._wrap is None else self._wrap(value, _label(table, key))
        self._connection.execute(
            f"INSERT INTO e2e_{table} (key, value) VALUES (?, ?) "
            "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
            (key, stored),
        )

    def delete(self, table: Table, key: bytes) -> None:
        self._connection.execute(f"DELETE FROM e2e_{table} WHERE key = ?", (key,))

    def keys(self, table: Table, prefix: bytes = b"") -> list[bytes]:
        rows = self._connection.execute(
            f"SELECT key FROM e2e_{table} WHERE key BETWEEN ? AND ? ORDER BY key",
            (prefix, prefix + _AFTER_ANY_KEY),
        )
        return [row[0] for row in rows]


def _label(table: Table, key: bytes) -> bytes:
    return f"e2e_{table}/".encode() + key
