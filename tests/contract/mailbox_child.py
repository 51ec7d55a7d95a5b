"""Child process of test_mailbox_faults.py: writes to a store until it is killed, or until the disk refuses.

usage: mailbox_child.py MODE DIRECTORY
  stream   submits batches for ever; prints the number of each batch once its result was collected as OK
  fill     has a limit on the size of files; prints one line per step, see `fill`
  journal  40 batches, each reported (to a file that io_shim.c watches) once its result was collected as OK
  cleaning the same with a log that is mostly dead, so that each batch cleans some of it
  nosync   as journal, without fsync
  clean    100 envelopes that stay; batch n puts 200 and deletes those of batch n - 1; reported as by stream
  errors   lets io_shim.c fail a write of the meta page and an fsync; prints one line per step, see `errors`
"""

import os
import resource
import sys
from pathlib import Path

from wa._fastpath.mailbox.contract import Op, Result, What
from wa._fastpath.mailbox.store import LmdbMailStore

ROWS = 7  # envelopes per batch, one per mailbox
MAP_BYTES = 1 << 18
JOURNAL_BATCHES = 40
FILLER_BOX = 99
FILLER_ROWS = 14_000
FILLER_STAYS = 10  # one in so many


def rows(batch: int) -> list[Op]:
    """The envelopes of one batch: sizes from nothing to several pages."""
    return [
        Op(
            What.PUT,
            box,
            1,
            batch,
            batch,
            10,
            1,
            0,
            1_000,
            9_000,
            bytes([batch % 256]) * (batch * 37 * box % 9_000),
        )
        for box in range(1, ROWS + 1)
    ]


def ops(batch: int) -> list[Op]:
    """Batch n puts n and deletes n - 20, so that pages are reused while it runs."""
    gone = [row._replace(what=What.DELETE, body=b"") for row in rows(batch - 20)] if batch > 20 else []
    return rows(batch) + gone


def stream(directory: Path) -> None:
    store = LmdbMailStore(directory, map_bytes=MAP_BYTES)
    store.start()
    batch = done = 0
    while True:
        for _ in range(batch % 4 + 1):
            batch += 1
            store.submit(ops(batch))
        if batch % 3 == 0:
            store.settle()
        for applied in store.collect():
            done += 1
            assert applied.status == Result.OK, applied
            print(done, flush=True)


def fill(directory: Path) -> None:
    store = LmdbMailStore(directory, map_bytes=MAP_BYTES)
    store.start()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, hard))
    batch = 0
    result = Result.OK
    while result == Result.OK:
        batch += 1
        applied = store.apply(rows(batch))
        result = applied.status
    print("refused", batch, applied.status.name, *{r.name for r in applied.results})
    print(
        "kept",
        len(store.census()),
        sum(len(store.read(box, 10, count_max=9_999)) for box in range(1, ROWS + 1)),
    )
    gone = store.apply([row._replace(what=What.DELETE, body=b"") for row in rows(1)])
    print("deleted", gone.status.name, *{r.name for r in gone.results})
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = store.apply(rows(batch + 1))
    print("again", again.status.name, store.stats()["full"] > 0, store.stats()["failed"])
    store.close()


def filler() -> list[Op]:
    return [
        Op(What.PUT, FILLER_BOX, 1, n, n, 10, 1, 0, 1_000, 0, n.to_bytes(4, "big") * 250)
        for n in range(1, FILLER_ROWS + 1)
    ]


def journal(directory: Path, sync: bool = True, filled: bool = False) -> None:
    store = LmdbMailStore(directory, map_bytes=MAP_BYTES, sync=sync)
    store.start()
    if filled:
        store.apply(filler())
        store.apply([row._replace(what=What.DELETE) for row in filler() if row.id % FILLER_STAYS])
    reported = os.open(directory / "reported", os.O_WRONLY | os.O_CREAT)
    for batch in range(1, JOURNAL_BATCHES + 1):
        assert store.apply(ops(batch)).status == Result.OK
        os.pwrite(reported, b"%d" % batch, 0)
    assert not filled or (store.stats()["moved"] > 300 and store.stats()["cleaned"] > 3_000)
    os._exit(0)  # closing would sync


def clean(directory: Path) -> None:
    store = LmdbMailStore(directory)
    store.start()

    def puts(first: int, n: int, box: int) -> list[Op]:
        return [Op(What.PUT, box, 1, seq, seq, 10, 1, 0, 1, 0, b"x" * 1_000) for seq in range(first, first + n)]

    store.apply(puts(1, 100, 1))
    before: list[Op] = []
    batch = 0
    while True:
        batch += 1
        rows_now = puts(1_000 + 200 * batch, 200, 2)
        gone = [row._replace(what=What.DELETE, body=b"") for row in before]
        assert store.apply([*rows_now, *gone]).status == Result.OK
        print(batch, flush=True)
        before = rows_now


def errors(directory: Path) -> None:
    store = LmdbMailStore(directory, map_bytes=MAP_BYTES)
    store.start()
    store.apply(rows(1))
    for batch, fault in enumerate(("fail-meta", "fail-sync"), 2):
        (directory / fault).touch()
        applied = store.apply(rows(batch))
        stats = store.stats()
        print(fault, not (directory / fault).exists(), applied.status.name, stats["full"], stats["failed"])
        print("kept", len(store.census()), store.read(1, 10) == rows(1)[:1], "reopened", stats["reopened"])
    print("again", store.apply([*rows(2), *rows(3)]).status.name, len(store.census()))
    store.close()


if __name__ == "__main__":
    modes = {
        "stream": stream,
        "fill": fill,
        "journal": journal,
        "cleaning": lambda directory: journal(directory, filled=True),
        "nosync": lambda directory: journal(directory, sync=False),
        "clean": clean,
        "errors": errors,
    }
    modes[sys.argv[1]](Path(sys.argv[2]))
