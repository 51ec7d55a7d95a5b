"""Moves the logs of mailboxes to new workers; redistribute.py says when and what follows.

Only live rows of a log move: an envelope to its recipient's worker, a receipt to its owner's, a shared body to every
worker that needs it, under a number that is free there.  A row that is damaged beyond reading has no owner; worker 0
gets it, and reports it again.

A receipt may be a stray: it waits with the worker that gave up the envelope, not with its owner's.  The move brings it
home; of two with one identity the higher one is kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lmdb

from wa._fastpath.mailbox.contract import rank_of
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.mailbox.twin import BODY, RECEIPT, SHARED, TABLES_MAX, Left, Row, Writer
from wa._fastpath.os.durable import sync_directory
from wa.errors import LocalError
from wa.routing.shards import worker_of

WHAT = "moving mailboxes"
TABLES = {"meta", "log"}
NUMBERS = 1 << 64


class Target:
    """The log of one new worker."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._numbers: dict[tuple[int, int], int] = {}
        self._taken: set[int] = set()

    def put(self, source: int, row: Row) -> None:
        """source: the old worker whose numbers of shared bodies these are."""
        if row.type in (SHARED, BODY):
            row = row.numbered(self._number(source, row.number))
        self._writer.append(row.at)

    def put_illegible(self, row: bytes) -> None:
        self._writer.append(lambda place: row)

    def _number(self, source: int, number: int) -> int:
        key = source, number
        if key not in self._numbers:
            while number in self._taken:
                number = (number + 1) % NUMBERS
            self._numbers[key] = number
            self._taken.add(number)
        return self._numbers[key]

    def finish(self) -> int:
        return self._writer.finish()


class Source:
    """The log of one old worker, read again each time it is asked."""

    def __init__(self, path: Path, worker: int) -> None:
        self.path = path
        self.worker = worker

    def check(self) -> None:
        """Opens the store, which checks and upgrades its format, then refuses tables that this file would not move."""
        LmdbMailStore(self.path).close()
        with lmdb.open(str(self.path), max_dbs=TABLES_MAX) as env, env.begin() as txn:
            found = {bytes(key).decode() for key, _ in txn.cursor()}
        if found != TABLES:
            raise LocalError(
                f"{self.path} holds the tables {sorted(found)}, and this version does not know them all: start the"
                " version of wa that wrote it"
            )

    @contextmanager
    def rows(self) -> Iterator[Left]:
        with lmdb.open(str(self.path), max_dbs=TABLES_MAX, readahead=True) as env, env.begin() as txn:
            table = env.open_db(b"log", txn=txn, create=False)
            yield Left(lambda: txn.cursor(table))


class Strays:
    """Receipts outside their owner's worker, and which of them a receipt at home outdoes."""

    def __init__(self, sources: list[Source], workers: int) -> None:
        self._workers = workers
        self._found: dict[bytes, Row] = {}
        for source in sources if workers > 1 else []:
            with source.rows() as left:
                for row in left:
                    if isinstance(row, Row) and self.is_stray(source, row):
                        self._found[row.identity] = max(self._found.get(row.identity, row), row, key=_rank)

    def is_stray(self, source: Source, row: Row) -> bool:
        return row.type == RECEIPT and worker_of(row.owner, self._workers) != source.worker

    def outdone_by(self, row: Row) -> bool:
        """Whether a receipt at home is kept; then a stray with its identity is not."""
        if row.identity in self._found:
            if _rank(self._found[row.identity]) > _rank(row):
                return False
            del self._found[row.identity]
        return True

    def __iter__(self) -> Iterator[Row]:
        return iter(self._found.values())


def _rank(row: Row) -> int:
    return rank_of(row.level)


def move_mail(
    old: list[Path], new: list[Path], map_bytes: int, progress: Callable[[str, int, int], None], open_max: int
) -> None:
    """Fills the environments of `new`, whose directories are made, at most open_max at a time.

    Raises LocalError when what arrived is not what left.
    """
    sources = [Source(path, worker) for worker, path in enumerate(old) if (path / "data.mdb").exists()]
    for source in sources:
        source.check()
    strays = Strays(sources, len(old))
    groups = [range(at, min(at + open_max, len(new))) for at in range(0, len(new), open_max)]
    steps = len(groups) * len(sources)
    sent = arrived = done = 0
    progress(WHAT, 0, steps)
    for group in groups:
        with ExitStack() as stack:
            filling: dict[int, Target] = {}
            for worker in group:
                new[worker].mkdir(mode=0o700)
                filling[worker] = Target(stack.enter_context(Writer(new[worker], map_bytes)))
            for source in sources:
                sent += _send(source, strays, filling, len(new))
                done += 1
                progress(WHAT, done, steps)
            for row in strays:
                if (worker := worker_of(row.owner, len(new))) in filling:
                    filling[worker].put(0, row)
                    sent += 1
            arrived += sum(target.finish() for target in filling.values())
    if sent != arrived:
        raise LocalError(f"{WHAT}: {sent} rows left and {arrived} arrived; nothing was changed")
    for path in new:
        sync_directory(path)


def _send(source: Source, strays: Strays, filling: dict[int, Target], workers: int) -> int:
    """Everything in `source` that belongs to one of `filling`; how many rows that were."""
    sent = 0
    needed: dict[int, set[int]] = defaultdict(set)
    with source.rows() as left:
        for row in left:
            if isinstance(row, Row) and row.type == SHARED:
                needed[row.number].add(worker_of(row.owner, workers))
        for row in left:
            if isinstance(row, bytes):
                if 0 in filling:
                    filling[0].put_illegible(row)
                    sent += 1
                continue
            owners = needed[row.number] if row.type == BODY else {worker_of(row.owner, workers)}
            for worker in owners & filling.keys():
                if row.type != RECEIPT or (not strays.is_stray(source, row) and strays.outdone_by(row)):
                    filling[worker].put(source.worker, row)
                    sent += 1
    return sent
