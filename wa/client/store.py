"""The account's database: one SQLite file, opened, migrated and written in transactions.

What must be true together is one transaction of this one connection: ratchet state (`wa.e2e.sqlite_store` has its
tables here too), plaintext, ciphertext and message id.  `durable=False` saves the fsync: it survives `kill -9`, not a
power cut, and is for what can be told again (live receipts, "seen" marks).

Message ids: bits 62..22 are Unix milliseconds since 2025, bits 21..0 are random, and each id is above the last one.  So
ids of a device are unique for ever, also after an old backup was restored with its counter, and they sort by age.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from wa.client.schema import STEPS
from wa.errors import LocalError

ID_EPOCH_MS = 1_735_689_600_000  # 2025-01-01T00:00:00Z
ID_RANDOM_BITS = 22
_LAST_ID = "last_message_id"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Store:
    """Raises LocalError when the file is missing (`create` is false), newer than this program, or no
    database.
    """

    def __init__(self, directory: Path, *, create: bool = False, clock_ms: Callable[[], int] = now_ms) -> None:
        self.path = directory / "account.db"
        self.clock_ms = clock_ms
        if not create and not self.path.exists():
            raise LocalError(f"no account in {directory}; register first: wa register +15551230001")
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self.db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=True)
        try:
            self._prepare()
        except sqlite3.DatabaseError as error:
            self.db.close()
            raise LocalError(f"{self.path} is not a readable account database: {error}") from None
        except LocalError:
            self.db.close()
            raise

    def _prepare(self) -> None:
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute("PRAGMA secure_delete = ON")
        (version,) = self.db.execute("PRAGMA user_version").fetchone()
        if version > len(STEPS):
            raise LocalError(f"{self.path} was written by a newer version of wa; upgrade wa")
        for number in range(version, len(STEPS)):
            with self.transaction():
                for statement in _statements(STEPS[number]):
                    self.db.execute(statement)
                self.db.execute(f"PRAGMA user_version = {number + 1}")

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing; `durable` also waits for the disk.  Does not nest."""
        if not durable:
            self.db.execute("PRAGMA synchronous = NORMAL")
        try:
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                if self.db.in_transaction:  # on a full disk SQLite has rolled back by itself
                    self.db.execute("ROLLBACK")
                raise
        finally:
            if not durable:
                self.db.execute("PRAGMA synchronous = FULL")

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """A part of a transaction that can be undone alone."""
        self.db.execute("SAVEPOINT part")
        try:
            yield
        except BaseException:
            if self.db.in_transaction:
                self.db.execute("ROLLBACK TO part")
                self.db.execute("RELEASE part")
            raise
        self.db.execute("RELEASE part")

    def get(self, name: str) -> bytes | None:
        row = self.db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def get_text(self, name: str) -> str | None:
        value = self.get(name)
        return None if value is None else value.decode()

    def get_int(self, name: str) -> int | None:
        value = self.get(name)
        return None if value is None else int.from_bytes(value, "big")

    def put(self, name: str, value: bytes | str | int | None) -> None:
        """None deletes.  Call it inside a transaction when it belongs to one."""
        if value is None:
            self.db.execute("DELETE FROM settings WHERE name = ?", (name,))
            return
        if isinstance(value, str):
            value = value.encode()
        elif isinstance(value, int):
            value = value.to_bytes(8, "big")
        self.db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def new_id(self) -> int:
        """The next message id; call it inside the transaction that uses it."""
        fresh = max(self.clock_ms() - ID_EPOCH_MS, 0) << ID_RANDOM_BITS | secrets.randbits(ID_RANDOM_BITS)
        value = max(fresh, (self.get_int(_LAST_ID) or 0) + 1)
        self.put(_LAST_ID, value)
        return value

    def close(self) -> None:
        self.db.close()


def _statements(script: str) -> Iterator[str]:
    """One by one, since `executescript` would commit the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    assert not statement.strip(), "a schema step ends with a semicolon"
