"""The reference registry: sorted tables in memory, for tests and for the simulator.

The tables live in a `MemoryDisk`, which outlives the registry as files outlive a process: a simulator abandons a
registry and makes a new one over the same disk.
"""

import threading
from bisect import bisect_left, insort
from collections.abc import Iterator
from contextlib import contextmanager

from wa.errors import Code, LocalError, RemoteError
from wa.storage.records import TABLES
from wa.storage.registry import Change, Cursor, Registry, View


class MemoryDisk:
    """What is durable.  `fail_commits`: the next n commits find the disk full."""

    def __init__(self) -> None:
        self.values: dict[str, dict[bytes, bytes]] = {table: {} for table in TABLES}
        self.keys: dict[str, list[bytes]] = {table: [] for table in TABLES}
        self.fail_commits = 0

    def set(self, table: str, key: bytes, value: bytes | None) -> None:
        """Stores or (None) removes."""
        values, keys = self.values[table], self.keys[table]
        before = values.get(key)
        if value is not None:
            if before is None:
                insort(keys, key)
            values[key] = value
        elif before is not None:
            del values[key]
            del keys[bisect_left(keys, key)]


class _MemoryView(Cursor):
    """What is committed."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._disk.values[table].get(key)

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys, values = self._disk.keys[table], self._disk.values[table]
        at = bisect_left(keys, prefix)
        while at < len(keys) and keys[at].startswith(prefix):
            yield keys[at], values[keys[at]]
            at += 1

    def put(self, table: str, key: bytes, value: bytes) -> None:
        raise LocalError("a View does not write")

    def delete(self, table: str, key: bytes) -> bool:
        raise LocalError("a View does not write")


class _MemoryChange(_MemoryView):
    """What is committed with a transaction's changes (None: deleted) laid over it."""

    def __init__(self, disk: MemoryDisk) -> None:
        super().__init__(disk)
        self.changes: dict[tuple[str, bytes], bytes | None] = {}

    def get(self, table: str, key: bytes) -> bytes | None:
        if (table, key) in self.changes:
            return self.changes[table, key]
        return super().get(table, key)

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        rows: dict[bytes, bytes | None] = dict(super().scan(table, prefix))
        for (changed, key), row in self.changes.items():
            if changed == table and key.startswith(prefix):
                rows[key] = row
        for key, row in sorted(rows.items()):
            if row is not None:
                yield key, row

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.changes[table, key] = value

    def delete(self, table: str, key: bytes) -> bool:
        before = self.get(table, key)
        self.changes[table, key] = None
        return before is not None

    def commit(self) -> None:
        for (table, key), value in self.changes.items():
            self._disk.set(table, key, value)


class MemoryRegistry(Registry):
    """See `registry.py`.  `disk`: what an earlier one left, or None for a new one."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        super().__init__()
        self.disk = disk if disk is not None else MemoryDisk()
        self._committed = threading.RLock()  # a view never sees half a commit
        self._writer: int | None = None  # the thread inside write()
        self._closed = False

    @contextmanager
    def read(self) -> Iterator[View]:
        self._check_open()
        with self._committed:
            yield View(_MemoryView(self.disk), self._report_corrupt)

    @contextmanager
    def write(self) -> Iterator[Change]:
        self._check_open()
        cursor = _MemoryChange(self.disk)
        self._writer = threading.get_ident()
        try:
            yield Change(cursor, self._report_corrupt)
        finally:
            self._writer = None
        if self.disk.fail_commits > 0:
            self.disk.fail_commits -= 1
            raise RemoteError(Code.STORAGE_FAILED, "the disk is full")
        with self._committed:
            cursor.commit()

    def close(self) -> None:
        if self._writer is not None:
            raise LocalError("close the registry outside its transactions")
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError("the registry is closed")
        if self._writer == threading.get_ident():
            raise LocalError("no transaction inside a write(): the Change is a View too")
