"""The reference registry: sorted tables in memory, for tests and for the simulator.

The tables live in a `MemoryDisk` that outlives the registry, as files outlive a process: a simulator closes
or abandons a registry and makes a new one over the same disk.
"""

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

    def set(self, table: str, key: bytes, value: bytes | None) -> bytes | None:
        """Stores or (None) removes; returns what was there."""
        values, keys = self.values[table], self.keys[table]
        before = values.get(key)
        if value is not None:
            if before is None:
                insort(keys, key)
            values[key] = value
        elif before is not None:
            del values[key]
            del keys[bisect_left(keys, key)]
        return before


class _MemoryCursor(Cursor):
    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self.undo: list[tuple[str, bytes, bytes | None]] = []

    def get(self, table: str, key: bytes) -> bytes | None:
        return self._disk.values[table].get(key)

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        keys, values = self._disk.keys[table], self._disk.values[table]
        at = bisect_left(keys, prefix)
        while at < len(keys) and keys[at].startswith(prefix):
            yield keys[at], values[keys[at]]
            at += 1

    def put(self, table: str, key: bytes, value: bytes) -> None:
        self.undo.append((table, key, self._disk.set(table, key, value)))

    def delete(self, table: str, key: bytes) -> bool:
        before = self._disk.set(table, key, None)
        self.undo.append((table, key, before))
        return before is not None

    def rollback(self) -> None:
        for table, key, before in reversed(self.undo):
            self._disk.set(table, key, before)


class MemoryRegistry(Registry):
    """See `registry.py`.  `disk`: what an earlier one left, or None for a new one."""

    def __init__(self, disk: MemoryDisk | None = None) -> None:
        super().__init__()
        self.disk = disk if disk is not None else MemoryDisk()
        self._writing = False
        self._closed = False

    @contextmanager
    def read(self) -> Iterator[View]:
        self._check_open()
        yield View(_MemoryCursor(self.disk), self._report_corrupt)

    @contextmanager
    def write(self) -> Iterator[Change]:
        self._check_open()
        cursor = _MemoryCursor(self.disk)
        self._writing = True
        done = False
        try:
            yield Change(cursor, self._report_corrupt)
            if self.disk.fail_commits > 0:
                self.disk.fail_commits -= 1
                raise RemoteError(Code.STORAGE_FAILED, "the disk is full")
            done = True
        finally:
            self._writing = False
            if not done:
                cursor.rollback()

    def close(self) -> None:
        if self._writing:
            raise LocalError("close the registry outside its transactions")
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError("the registry is closed")
        if self._writing:
            raise LocalError("no transaction inside a write(): the Change is a View too")
