"""Moves every stored record to its new owner's environment when the number of workers changed.

Records of the registry move as bytes, so a damaged one stays damaged and its reader finds it.  Only budgets of IP
addresses are decoded: every worker counts its own part of them, so each new worker starts from the highest count of any
old one.  move_mail.py moves the logs of mailboxes.

The numbers of records that left and arrived are compared before the switch.
"""

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import lmdb

from wa._fastpath.os.durable import sync_directory
from wa.errors import LocalError
from wa.routing.shards import worker_of, worker_of_number
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.move_mail import move_mail
from wa.storage.records import IP_SUBJECT_BIT, Budget, CorruptRecord

TARGETS_OPEN_MAX = 32  # three descriptors each, well under the usual limit of 1,024
TXN_BYTES_MAX = 4 << 20  # of one target before it is committed: 32 of them are 128 MiB
MAP_MARGIN_BYTES = 64 << 20
TABLES_MAX = 16


@dataclass(frozen=True)
class Place:
    """The directory of one worker in one generation."""

    path: Path

    @property
    def mail(self) -> Path:
        return self.path / "mail"

    @property
    def registry(self) -> Path:
        return self.path / "registry"


Owner = Callable[[bytes, int], int | None]  # key, workers -> worker; None: every worker


def _by_address(at: int) -> Owner:
    """The address is the u64 at this offset of the key."""
    return lambda key, workers: worker_of(int.from_bytes(key[at : at + 8], "big"), workers)


def _by_number(key: bytes, workers: int) -> int:
    return worker_of_number(int.from_bytes(key[:8], "big"), workers)


def _by_subject(key: bytes, workers: int) -> int | None:
    return None if int.from_bytes(key[:8], "big") & IP_SUBJECT_BIT else _by_number(key, workers)


# Every table (docs/storage.md); one that is not here stops the move.
REGISTRY_TABLES: dict[str, Owner] = {
    "accounts": _by_number,
    "devices": _by_address(0),
    "keys": _by_address(0),
    "one_time": _by_address(0),
    "codes": _by_number,
    "budgets": _by_subject,
    "push": _by_address(0),
}


def move(old: list[Place], new: list[Place], progress: Callable[[str, int, int], None]) -> None:
    """Fills the environments of `new`, which must not exist, from those of `old`, which stay as they are.

    A place of `old` without an environment counts as empty.  On return everything is on disk (fsync).  Raises
    LocalError when there is not enough room, or when what arrived is not what left.
    """
    _check_room(old, new)
    for place in new:
        place.path.mkdir(mode=0o700, parents=True)
        place.path.parent.chmod(0o700)
        LmdbRegistry(place.registry).close()  # makes the tables and writes the format
    old_mail, new_mail = [place.mail for place in old], [place.mail for place in new]
    move_mail(old_mail, new_mail, _map_bytes(old_mail), progress, TARGETS_OPEN_MAX)
    present = [place.registry for place in old if (place.registry / "data.mdb").exists()]
    _check_formats(present)
    _move_registry(present, [place.registry for place in new], progress)
    for place in new:
        sync_directory(place.path)
    sync_directory(new[0].path.parent)


def _check_room(old: list[Place], new: list[Place]) -> None:
    used = sum(_file_bytes(path) for place in old for path in (place.mail, place.registry))
    parent = new[0].path.parent.parent
    free = shutil.disk_usage(parent).free
    if free < used:
        raise LocalError(
            f"another number of workers copies {used >> 20} MiB, and {parent} has only {free >> 20} MiB free; make"
            f" room, or start with {len(old)} workers"
        )


def _file_bytes(environment: Path) -> int:
    file = environment / "data.mdb"
    return file.stat().st_size if file.exists() else 0


def _map_bytes(sources: list[Path]) -> int:
    return 2 * sum(_file_bytes(path) for path in sources) + MAP_MARGIN_BYTES


def _check_formats(paths: list[Path]) -> None:
    """Opens the registry, which checks its format, then refuses tables that this file would not move."""
    for path in paths:
        LmdbRegistry(path).close()
        with _environment(path) as env, env.begin() as txn:
            found = {bytes(key).decode() for key, _ in txn.cursor()}
        if found != {"meta", *REGISTRY_TABLES}:
            raise LocalError(
                f"{path} holds the tables {sorted(found)}, and this version does not know them all: start the version"
                " of wa that wrote it"
            )


@contextmanager
def _environment(path: Path, map_bytes: int = 0) -> Iterator[lmdb.Environment]:
    # A map smaller than the file grows to it by itself.  Targets are synced once, at the end.
    env = lmdb.open(
        str(path),
        map_size=max(map_bytes, 1 << 20),
        max_dbs=TABLES_MAX,
        readahead=True,
        sync=False,
        mode=0o600,
    )
    try:
        yield env
    finally:
        env.close()


class _Target:
    """One environment being filled: commits when enough is pending."""

    def __init__(self, env: lmdb.Environment) -> None:
        self._env = env
        self._handles = {table: env.open_db(table.encode(), create=False) for table in REGISTRY_TABLES}
        self._txn = env.begin(write=True)
        self._pending_bytes = 0

    def put(self, table: str, key: bytes, value: bytes) -> None:
        handle = self._handles[table]
        if table == "budgets":
            stored = self._txn.get(key, db=handle)
            value = value if stored is None else _merged(key, stored, value)
        self._txn.put(key, value, db=handle)
        self._pending_bytes += len(key) + len(value)
        if self._pending_bytes >= TXN_BYTES_MAX:
            self._txn.commit()
            self._txn = self._env.begin(write=True)
            self._pending_bytes = 0

    def finish(self) -> Counter[str]:
        """Commits, syncs, and counts what is there."""
        self._txn.commit()
        self._env.sync(True)
        with self._env.begin() as txn:
            return Counter({table: txn.stat(handle)["entries"] for table, handle in self._handles.items()})

    def abort(self) -> None:
        self._txn.abort()  # after a commit it does nothing


def _merged(key: bytes, one: bytes, other: bytes) -> bytes:
    """Of two counts of one IP address: the latest window and the highest count, so that no use is forgotten."""
    try:
        a, b = Budget.decode(key, one), Budget.decode(key, other)
    except CorruptRecord:
        return one
    window_start_s, count = max(a.window_start_s, b.window_start_s), max(a.count, b.count)
    return Budget(a.subject, a.name, window_start_s, count).encode()


def _move_registry(sources: list[Path], targets: list[Path], progress: Callable[[str, int, int], None]) -> None:
    """All tables, a bounded number of targets at a time."""
    what = "moving accounts"
    map_bytes = _map_bytes(sources)
    workers = range(len(targets))
    groups = [workers[at : at + TARGETS_OPEN_MAX] for at in workers[::TARGETS_OPEN_MAX]]
    total = len(groups) * len(sources)
    sent: Counter[str] = Counter()
    arrived: Counter[str] = Counter()
    progress(what, 0, total)
    for g, group in enumerate(groups):
        with ExitStack() as stack:
            filling: dict[int, _Target] = {}
            for worker in group:
                env = stack.enter_context(_environment(targets[worker], map_bytes))
                filling[worker] = _Target(env)
                stack.callback(filling[worker].abort)
            for s, source in enumerate(sources):
                sent += _send(source, filling, len(targets))
                progress(what, g * len(sources) + s + 1, total)
            for target in filling.values():
                arrived += target.finish()
    shared = {"budgets"}  # budgets of IP addresses go to every worker, and are merged
    if {t: n for t, n in sent.items() if t not in shared} != {t: n for t, n in arrived.items() if t not in shared}:
        raise LocalError(f"{what}: {dict(sent)} left and {dict(arrived)} arrived; nothing was changed")


def _mine(filling: dict[int, _Target], worker: int) -> list[_Target]:
    target = filling.get(worker)
    return [] if target is None else [target]


def _send(source: Path, filling: dict[int, _Target], workers: int) -> Counter[str]:
    """Sends what belongs to one of `filling`.  -> how many records of each table."""
    sent: Counter[str] = Counter()
    with _environment(source) as env, env.begin() as txn:
        for table, owner in REGISTRY_TABLES.items():
            handle = env.open_db(table.encode(), txn=txn, create=False)
            for key, value in txn.cursor(handle):
                worker = owner(key, workers)
                for target in filling.values() if worker is None else _mine(filling, worker):
                    target.put(table, key, value)
                    sent[table] += 1
    return sent
