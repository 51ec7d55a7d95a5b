"""Power loss under the LMDB store, replayed from what it really wrote, and errors of single system calls.

A child runs with io_shim.c between LMDB and the kernel, which journals every write, sync and report.  For a
cut after any of them the disk then holds: everything before the last sync, every write through O_DSYNC, and
of the other writes any part, in units of a page.  From each such disk the store must open with every batch
that was reported by then, and none by half.
"""

import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mailbox_child import FILLER_BOX, FILLER_STAYS, JOURNAL_BATCHES, ROWS, filler, rows

from wa._fastpath.mailbox.contract import Op
from wa._fastpath.mailbox.store import LmdbMailStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="io_shim.c reads /proc/self/fd")

HERE = Path(__file__).parent
PAGE = 4_096
HEAD = struct.Struct("=cqq")
CUTS = 60


@dataclass(frozen=True)
class Event:
    kind: str  # W write, D write through O_DSYNC, S sync, R report
    at: int
    data: bytes


def child(shim: Path, mode: str, directory: Path, journal: Path) -> str:
    environment = os.environ | {
        "PYTHONPATH": str(HERE.parents[1]),
        "LD_PRELOAD": str(shim),
        "WA_IO_JOURNAL": str(journal),
    }
    command = [sys.executable, str(HERE / "mailbox_child.py"), mode, str(directory)]
    return subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def events_of(journal: Path) -> list[Event]:
    raw = journal.read_bytes()
    events, at = [], 0
    while at < len(raw):
        kind, offset, length = HEAD.unpack_from(raw, at)
        at += HEAD.size
        events.append(Event(kind.decode(), offset, raw[at : at + length]))
        at += length
    return events


def disk_after(events: list[Event], chance: random.Random, survivals: tuple[float, ...]) -> bytes:
    """A disk that the power may have left after these events; `survivals`: shares of the unsynced writes."""
    last_sync = max((i for i, event in enumerate(events) if event.kind == "S"), default=-1)
    survival = chance.choice(survivals)
    disk = bytearray()
    for i, event in enumerate(events):
        if event.kind not in "WD":
            continue
        for at in range(0, len(event.data), PAGE):
            if i < last_sync or event.kind == "D" or chance.random() < survival:
                page = event.data[at : at + PAGE]
                start = event.at + at
                disk.extend(bytes(max(0, start + len(page) - len(disk))))
                disk[start : start + len(page)] = page
    return bytes(disk)


def found_on(disk: bytes, directory: Path, filled: list[Op]) -> list[list[Op]]:
    directory.mkdir()
    (directory / "data.mdb").write_bytes(disk)
    store = LmdbMailStore(directory)
    found = [store.read(box, 10, count_max=999) for box in range(1, ROWS + 1)]
    assert store.read(FILLER_BOX, 10, count_max=9_999, arena_bytes=1 << 24) == filled
    store.close()
    return found


def complaint(found: list[list[Op]], reported: int) -> str | None:
    """What is wrong with a store after power loss; batch n puts n and deletes n - 20."""
    last = max((row.id for box in found for row in box), default=0)
    whole = range(max(1, last - 19), last + 1)
    if last < reported:
        return f"batch {reported} was reported and {last} is the last one there"
    if found != [[rows(batch)[box - 1] for batch in whole] for box in range(1, ROWS + 1)]:
        return f"batch {last} or one before it is there by half"
    return None


def complaints(
    events: list[Event],
    directory: Path,
    seed: int,
    survivals: tuple[float, ...] = (0.0, 0.5, 0.9),
    filled: tuple[Op, ...] = (),
) -> Iterator[str]:
    chance = random.Random(seed)
    opened = next(i for i, event in enumerate(events) if event.kind == "R")
    for n, cut in enumerate(sorted(chance.sample(range(opened, len(events) + 1), CUTS))):
        before = events[:cut]
        reported = max((int(event.data) for event in before if event.kind == "R"), default=0)
        try:
            found = found_on(disk_after(before, chance, survivals), directory / str(n), list(filled))
            wrong = complaint(found, reported)
        except OSError as error:
            wrong = f"the store does not open: {error}"
        if wrong:
            yield f"seed {seed}, cut {cut}: {wrong}"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_power_loss_at_any_moment_keeps_what_was_reported(shim: Path, tmp_path: Path, seed: int) -> None:
    child(shim, "journal", tmp_path / "mail", tmp_path / "journal")
    events = events_of(tmp_path / "journal")
    kinds = [event.kind for event in events]
    assert kinds.count("R") == JOURNAL_BATCHES
    assert kinds.count("S") >= JOURNAL_BATCHES, "one fsync for each commit"
    assert list(complaints(events, tmp_path, seed)) == []


def test_power_loss_while_the_log_is_cleaned(shim: Path, tmp_path: Path) -> None:
    child(shim, "cleaning", tmp_path / "mail", tmp_path / "journal")
    stays = tuple(row for row in filler() if row.id % FILLER_STAYS == 0)
    assert list(complaints(events_of(tmp_path / "journal"), tmp_path, 1, filled=stays)) == []


def test_without_fsync_the_same_check_fails(shim: Path, tmp_path: Path) -> None:
    """Negative control.  Nothing unsynced survives here: given a mixture LMDB aborts the process."""
    child(shim, "nosync", tmp_path / "mail", tmp_path / "journal")
    events = events_of(tmp_path / "journal")
    first_report = [event.kind for event in events].index("R")
    assert "S" not in {event.kind for event in events[first_report:]}
    assert any("was reported" in wrong for wrong in complaints(events, tmp_path, 1, (0.0,)))


def test_failed_system_calls_fail_their_batch_and_no_more(shim: Path, tmp_path: Path) -> None:
    """A refused write of LMDB's meta page makes LMDB refuse everything until it is reopened; a refused fsync
    does not.

    The first is what a copy-on-write file system does when it is full.
    """
    steps = child(shim, "errors", tmp_path / "mail", tmp_path / "journal").splitlines()
    assert steps == [
        "fail-meta True FULL 1 0",
        f"kept {ROWS} True reopened 1",
        "fail-sync True FAILED 1 1",
        f"kept {ROWS} True reopened 1",
        f"again OK {3 * ROWS}",
    ]
