"""Storage: the cost of a durable commit in each layout that a mailbox store could have, and in the real store.

Each layout keeps the same envelopes for 1,000 random mailboxes and does the same commit in turn, round after round.
docs/storage.md draws the conclusion.  `queued` fills the real store and reports its memory and the time of a start.
"""

import os
import random
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lmdb
from rich.table import Table

from bench.results import Report, Target
from bench.settings import Settings
from wa import ids
from wa._fastpath.mailbox.contract import Op, Result, What
from wa._fastpath.mailbox.store import LmdbMailStore

SIZES = (1, 8, 64, 256, 2_048)  # envelopes of one commit
ROUNDS = 40
MAILBOXES = 1_000
BODY_BYTES = 129
FILL = (12, 4_096)  # commits before the first round, and envelopes in each: an empty disk is not measured
MAP_BYTES = 4 << 30
RETENTION_S = 30 * 86_400
QUEUED = (1_000, 1_000)  # mailboxes, envelopes in each
QUEUED_BATCH = 8_000
QUEUED_GROWTH_MIB_MAX = 64
OPEN_MS_MAX = 500


class Layout(Protocol):
    def commit(self, n: int) -> float:
        """Makes n more envelopes durable; how long that took, in ms."""


class Tables:
    """Format 1: an envelope in three tables, by mailbox, by identity and by expiry."""

    def __init__(self, path: Path, chance: random.Random, *, sync: bool = True) -> None:
        self._env = lmdb.open(
            str(path), map_size=MAP_BYTES, max_dbs=4, readahead=False, sync=sync, writemap=not sync
        )
        self._mail, self._ident, self._expiry = (self._env.open_db(name) for name in (b"mail", b"ident", b"expiry"))
        self._chance, self._seq = chance, 0
        self._mailboxes = [chance.getrandbits(58) for _ in range(MAILBOXES)]
        self._body = chance.randbytes(BODY_BYTES)

    def commit(self, n: int) -> float:
        begin = time.perf_counter()
        with self._env.begin(write=True) as txn:
            for _ in range(n):
                self._seq += 1
                owner = self._chance.choice(self._mailboxes)
                key = struct.pack(">QBQ", owner, 245, self._seq)
                txn.put(key, self._body, db=self._mail)
                txn.put(struct.pack(">QQQ", owner, owner ^ 1, self._seq), self._body[:17], db=self._ident)
                due = struct.pack(">I", 1_000 + self._seq // 5_000)
                txn.put(due + key, self._body[:21], db=self._expiry)
        return (time.perf_counter() - begin) * 1_000


class Appended:
    """Ascending keys in one table of LMDB."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._env = lmdb.open(str(path), map_size=MAP_BYTES, max_dbs=4, readahead=False)
        self._log = self._env.open_db(b"log")
        self._row, self._seq = chance.randbytes(BODY_BYTES + 17), 0

    def commit(self, n: int) -> float:
        begin = time.perf_counter()
        with self._env.begin(write=True) as txn:
            for _ in range(n):
                self._seq += 1
                txn.put(struct.pack(">Q", self._seq), self._row, db=self._log, append=True)
        return (time.perf_counter() - begin) * 1_000


class AppendedWithIndex:
    """The same, and the three tables as an index that is never synced."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._log = Appended(path, chance)
        self._index = Tables(path.with_name(path.name + "-index"), chance, sync=False)

    def commit(self, n: int) -> float:
        return self._log.commit(n) + self._index.commit(n)


class PlainFile:
    """A file that is as long as it will be from the beginning: what the disk can do."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        rows = FILL[0] * FILL[1] + ROUNDS * sum(SIZES)
        os.posix_fallocate(self._fd, 0, rows * (BODY_BYTES + 25))
        self._row, self._at = chance.randbytes(BODY_BYTES + 17), 0

    def commit(self, n: int) -> float:
        begin = time.perf_counter()
        data = b"".join(struct.pack(">Q", k) + self._row for k in range(n))
        self._at += os.pwrite(self._fd, data, self._at)
        os.fdatasync(self._fd)
        return (time.perf_counter() - begin) * 1_000


class Store:
    """The mailbox store itself, from when the batch is handed over to when it is done."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self._store = LmdbMailStore(path)
        self._store.start()
        self._chance, self._seq = chance, 0
        self._mailboxes = [chance.getrandbits(58) for _ in range(MAILBOXES)]
        self._body = chance.randbytes(BODY_BYTES)

    def commit(self, n: int) -> float:
        ops = []
        for _ in range(n):
            self._seq += 1
            ops.append(envelope(self._chance.choice(self._mailboxes), self._seq, self._body))
        self._store.submit(ops)
        begin = time.perf_counter()
        self._store.settle()
        took = time.perf_counter() - begin
        (applied,) = self._store.collect()
        if applied.status != Result.OK:
            raise ValueError(f"a commit came back as {applied.status.name}")
        return took * 1_000


LAYOUTS: dict[str, Callable[[Path, random.Random], Layout]] = {
    "three tables, random keys (format 1)": Tables,
    "ascending keys, appended": Appended,
    "ascending keys and an unsynced index": AppendedWithIndex,
    "plain preallocated file": PlainFile,
    "the store (format 2)": Store,
}


def envelope(recipient: int, seq: int, body: bytes) -> Op:
    return Op(What.PUT, recipient, recipient ^ 1, seq, seq, 10, 1, 0, 1_000, 1_000 + RETENTION_S + seq // 5_000, body)


def run(settings: Settings) -> Report:
    report = Report("storage", {"mailboxes": MAILBOXES, "body_bytes": BODY_BYTES, "rounds": ROUNDS})
    directory = settings.where / "layouts"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    layouts = {
        name: make(directory / str(at), random.Random(1)) for at, (name, make) in enumerate(LAYOUTS.items())
    }
    with settings.progress("storage", len(SIZES) + 1) as step:
        step("filling")
        for layout in layouts.values():
            for _ in range(FILL[0]):
                layout.commit(FILL[1])
        for n in SIZES:
            step(f"{n} envelopes")
            for _ in range(ROUNDS):
                for name, layout in layouts.items():
                    report.find(name, f"{n} envelopes").samples.append({"commit_ms": layout.commit(n)})
    report.notes.append("CPU of Python is part of all but the last one; what an fsync costs is the disk's")
    report.parameters["data_on"] = str(settings.where)
    shutil.rmtree(directory)
    return report


def table_of(report: Report) -> Table:
    table = Table(title="storage: ms for one durable commit, medians", title_justify="left")
    table.add_column("layout")
    for n in SIZES:
        table.add_column(f"{n:,}", justify="right")
    for name in LAYOUTS:
        medians = [report.find(name, f"{n} envelopes").median("commit_ms") for n in SIZES]
        table.add_row(name, *(f"{median:.2f}" for median in medians))
    return table


# --- a full store -----------------------------------------------------------------------------------------


def anonymous_bytes() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise ValueError("/proc/self/status has no RssAnon")


def queued(settings: Settings) -> Report:
    """1,000 envelopes in each of 1,000 mailboxes: what the process grows by, and how long a start takes."""
    mailboxes, each = QUEUED
    report = Report("storage-queued", {"mailboxes": mailboxes, "each": each, "body_bytes": BODY_BYTES})
    path = settings.where / "queued"
    shutil.rmtree(path, ignore_errors=True)
    owners = [ids.address_of(15_550_000_000 + n, 1) for n in range(mailboxes)]
    body = os.urandom(BODY_BYTES)
    store = LmdbMailStore(path)
    store.start()
    warm = [envelope(owners[0], seq, body) for seq in range(1, QUEUED_BATCH + 1)]
    store.apply(warm)
    store.apply([op._replace(what=What.DELETE, body=b"") for op in warm])
    del warm
    before = anonymous_bytes()
    with settings.progress("storage", mailboxes * each // QUEUED_BATCH) as step:
        for at in range(0, mailboxes * each, QUEUED_BATCH):
            step("filling")
            seqs = range(QUEUED_BATCH + 1 + at, QUEUED_BATCH + 1 + at + QUEUED_BATCH)
            store.apply([envelope(owners[seq % mailboxes], seq, body) for seq in seqs])
    grown = anonymous_bytes() - before
    store.close()
    del store
    sample = {"grown_mib": grown / (1 << 20), "file_mib": (path / "data.mdb").stat().st_size / (1 << 20)}
    opens = []
    for _ in range(5):
        begin = time.perf_counter()
        again = LmdbMailStore(path)
        opens.append((time.perf_counter() - begin) * 1_000)
        if len(again.read(owners[0], 10, count_max=each)) != each:
            report.faults.append("a start did not find what was stored")
        again.close()
        del again
    sample["open_ms"] = sorted(opens)[len(opens) // 2]
    report.find("the store (format 2)", f"{mailboxes * each:,} queued").samples.append(sample)
    report.targets += [
        Target("growth of RssAnon", sample["grown_mib"], QUEUED_GROWTH_MIB_MAX, True, "MiB"),
        Target("a start", sample["open_ms"], OPEN_MS_MAX, True, "ms"),
    ]
    shutil.rmtree(path)
    return report
