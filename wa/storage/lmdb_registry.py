"""The registry over py-lmdb: one environment per worker, one named database per table.

Layout: docs/storage.md, section "Registry".  Every commit fsyncs.  The map cannot grow under an open transaction, so
each write checks the room before it begins.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from wa._fastpath.os.durable import make_environment
from wa.errors import Code, LocalError, RemoteError
from wa.storage.records import TABLES
from wa.storage.registry import Change, Cursor, Registry, View

FORMAT = 1
MAP_BYTES = 64 << 20  # address space at the start; the file holds only what is used
MAP_BYTES_MAX = 64 << 30
MAP_ROOM_BYTES = 16 << 20  # before each write; over ten times what one registration or upload can touch
_META = b"meta"
_FORMAT_KEY = b"format"
_OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _failed(error: lmdb.Error) -> RemoteError:
    full = isinstance(error, lmdb.MapFullError) or error.code in _OUT_OF_SPACE
    return RemoteError(Code.STORAGE_FAILED, "the disk is full" if full else f"{type(error).__name__}")


class _LmdbCursor(Cursor):
    def __init__(self, txn: lmdb.Transaction[bytes], tables: dict[str, lmdb._Database]) -> None:
        self._txn = txn
        self._tables = tables

    def get(self, table: str, key: bytes) -> bytes | None:
        value: bytes | None = self._txn.get(key, db=self._tables[table])
        return value

    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._txn.cursor(self._tables[table]) as cursor:
            if not cursor.set_range(prefix):
                return
            for key, value in cursor.iternext(keys=True, values=True):
                if not key.startswith(prefix):
                    return
                yield key, value

    def put(self, table: str, key: bytes, value: bytes) -> None:
        try:
            self._txn.put(key, value, db=self._tables[table])
        except lmdb.Error as error:
            raise _failed(error) from error

    def delete(self, table: str, key: bytes) -> bool:
        try:
            return self._txn.delete(key, db=self._tables[table])
        except lmdb.Error as error:
            raise _failed(error) from error


class LmdbRegistry(Registry):
    """See `registry.py`.

    path: the environment's directory, made (0700, files 0600) when missing; open it once per process.
    sync=False leaves the fsync out, only for the negative control of the power-loss test.
    Raises LocalError when the directory holds another format.
    """

    def __init__(
        self,
        path: Path,
        *,
        sync: bool = True,
        map_bytes: int = MAP_BYTES,
        map_bytes_max: int = MAP_BYTES_MAX,
        map_room_bytes: int = MAP_ROOM_BYTES,
    ) -> None:
        super().__init__()
        self._path = path
        self._sync = sync
        self._map_bytes = map_bytes
        self._map_bytes_max = map_bytes_max
        self._map_room_bytes = map_room_bytes
        self._lock = threading.Lock()  # guards _env and _views: the map moves only without open views
        self._views = 0
        self._writer: int | None = None  # the thread inside write()
        self._panicked = False  # then LMDB refuses everything until it is reopened
        self._env: lmdb.Environment | None = None
        self._tables: dict[str, lmdb._Database] = {}
        make_environment(path, self._make)
        self._open(path)

    def _make(self, beside: Path) -> None:
        self._open(beside)
        self.close()

    def _open(self, path: Path) -> None:
        # LMDB never makes the map smaller than the file.
        self._env = lmdb.open(
            str(path),
            map_size=self._map_bytes,
            mode=0o600,
            readahead=False,
            sync=self._sync,
            metasync=self._sync,
            max_dbs=len(TABLES) + 1,
            max_spare_txns=1,
        )
        env = self._env
        meta = env.open_db(_META)
        with env.begin(db=meta, write=True) as txn:
            found = txn.get(_FORMAT_KEY)
            if found is None:
                txn.put(_FORMAT_KEY, b"%d" % FORMAT)
        if found is not None and found != b"%d" % FORMAT:
            self.close()
            raise LocalError(
                f"{path} holds registry format {found.decode(errors='replace')}, this version reads"
                f" {FORMAT}: start the version of wa that wrote it, or follow docs/storage.md, Upgrades"
            )
        self._tables = {table: env.open_db(table.encode()) for table in TABLES}

    @contextmanager
    def read(self) -> Iterator[View]:
        with self._lock:
            self._mend()
            env, tables = self._checked(), self._tables
            self._views += 1
        try:
            with self._begin(env, write=False) as txn:
                yield View(_LmdbCursor(txn, tables), self._report_corrupt)
        finally:
            with self._lock:
                self._views -= 1

    @contextmanager
    def write(self) -> Iterator[Change]:
        with self._lock:
            self._checked()
            self._mend()
            env = self._checked()
            self._make_room(env)
            self._writer = threading.get_ident()
        try:
            txn = self._begin(env, write=True)
            done = False
            try:
                yield Change(_LmdbCursor(txn, self._tables), self._report_corrupt)
                done = True
            finally:
                if not done:
                    txn.abort()
            self._commit(env, txn)
        finally:
            with self._lock:
                self._writer = None
                self._mend()

    def _begin(self, env: lmdb.Environment, *, write: bool) -> lmdb.Transaction[bytes]:
        try:
            return env.begin(write=write)
        except lmdb.Error as error:
            raise _failed(error) from error

    def _commit(self, env: lmdb.Environment, txn: lmdb.Transaction[bytes]) -> None:
        """A failed write of its meta page makes LMDB refuse all further work, reads too: see `_mend`."""
        try:
            txn.commit()
        except lmdb.Error as error:
            try:
                env.begin().abort()
            except lmdb.PanicError:
                self._panicked = True
            raise _failed(error) from error

    def _mend(self) -> None:
        """Reopens a panicked environment once no view is open.  Call it with the lock held."""
        if self._panicked and not self._views and self._writer is None and self._env is not None:
            self._env.close()
            self._open(self._path)
            self._panicked = False

    def close(self) -> None:
        if self._writer is not None or self._views:
            raise LocalError("close the registry outside its transactions")
        if self._env is not None:
            self._env.close()
            self._env = None

    def _checked(self) -> lmdb.Environment:
        if self._env is None:
            raise LocalError("the registry is closed")
        if self._writer == threading.get_ident():
            raise LocalError("no transaction inside a write(): the Change is a View too")
        return self._env

    def _make_room(self, env: lmdb.Environment) -> None:
        if self._views:
            return  # the map must not move under an open view; the next write checks again
        info = env.info()
        used = (info["last_pgno"] + 1) * env.stat()["psize"]
        size = info["map_size"]
        if used + self._map_room_bytes > size and size < self._map_bytes_max:
            env.set_mapsize(min(max(2 * size, used + self._map_room_bytes), self._map_bytes_max))
