"""Mailbox stores under faults: damaged records, a full map or disk, kill -9, power loss, another format."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from mailbox_child import ROWS, rows

from wa._fastpath.lmdb_store import LmdbMailStore
from wa._fastpath.mailbox import MailStoreBase, Op, Result, What
from wa._fastpath.memory_store import MemoryMailStore
from wa.errors import LocalError

OK, FULL = Result.OK, Result.FULL
CHILD = Path(__file__).with_name("mailbox_child.py")
MAIL_HEAD_BYTES = 25


def lmdb_store(path: Path, map_bytes: int = 1 << 20, map_bytes_max: int = 1 << 30) -> LmdbMailStore:
    store = LmdbMailStore(path, map_bytes=map_bytes, map_bytes_max=map_bytes_max)
    store.start()
    return store


def put(seq: int, body: bytes = b"some body", expires_s: int = 2_000) -> Op:
    return Op(What.PUT, 1, 2, seq, seq, 10, 1, 0, 1_000, expires_s, body)


def delete(op: Op) -> Op:
    return op._replace(what=What.DELETE, body=b"")


def mail_key(op: Op) -> bytes:
    priority = bytes([255 - op.priority])
    return op.recipient.to_bytes(8, "big") + priority + op.seq.to_bytes(8, "big")


def flip(path: Path, table: bytes, key: bytes, at: int) -> None:
    """Flips one bit of a stored value with another build of LMDB (py-lmdb's own)."""
    with lmdb.open(str(path), max_dbs=5) as env, env.begin(write=True) as txn:
        handle = env.open_db(table, txn=txn, create=False)
        value = bytearray(txn.get(key, db=handle) or b"")
        value[at] ^= 0x10
        assert txn.put(key, bytes(value), db=handle)


class Damaged:
    """Three envelopes and two receipts, of which the middle and the first were damaged on disk."""

    rows = (put(1, expires_s=10), put(2, expires_s=11), put(3, expires_s=12))
    receipts = (Op(What.RECEIPT_PUT, 9, 8, 1, kind=0x21), Op(What.RECEIPT_PUT, 9, 8, 2, kind=0x21))
    store: LmdbMailStore | MemoryMailStore

    def __init__(self, kind: str, path: Path, at: int) -> None:
        if kind == "memory":
            self.store = MemoryMailStore()
            self.store.apply([*self.rows, *self.receipts])
            self.store.damage(1, 10, 2)
            self.store.damage_receipt(9, 8, 1)
            return
        before = lmdb_store(path)
        before.apply([*self.rows, *self.receipts])
        before.close()
        flip(path, b"mail", mail_key(self.rows[1]), at)
        flip(path, b"receipts", b"".join(n.to_bytes(8, "big") for n in (9, 8, 1)), at % 11)
        self.store = lmdb_store(path)


# sender, id, accepted, expires, kind, body, checksum
@pytest.fixture(params=["memory", *(f"lmdb byte {at}" for at in (0, 15, 16, 23, 24, MAIL_HEAD_BYTES, -1))])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    kind, *at = request.param.split(" byte ")
    made = Damaged(kind, tmp_path / "mail", int(at[0]) if at else 0)
    request.addfinalizer(made.store.close)
    return made


def test_a_damaged_envelope_is_reported_and_skipped(damaged: Damaged) -> None:
    store, (first, middle, last) = damaged.store, damaged.rows
    assert store.read(1, 10) == [first, last]
    assert store.read(1, 10, after_seq=1) == [last]
    assert store.stats()["corrupt"] == 2, "every meeting counts"
    assert store.corrupt_keys() == [("mail", mail_key(middle))], "and is listed once"
    assert store.contains(1, 2, 2)
    assert store.census() == [(1, 10, 1), (1, 10, 2), (1, 10, 3)]


def test_a_damaged_envelope_that_is_sent_again_is_replaced(damaged: Damaged) -> None:
    again = damaged.rows[1]._replace(seq=9)
    assert damaged.store.apply([again, damaged.rows[0]]).results == [OK, Result.DUPLICATE]
    assert damaged.store.read(1, 10) == [damaged.rows[0], damaged.rows[2], again]


def test_a_damaged_envelope_can_be_deleted(damaged: Damaged) -> None:
    assert damaged.store.apply([delete(damaged.rows[1])]).results == [OK]
    assert damaged.store.census() == [(1, 10, 1), (1, 10, 3)]
    assert not damaged.store.contains(1, 2, 2)


def test_a_damaged_envelope_expires_and_its_sender_is_told(damaged: Damaged) -> None:
    applied = damaged.store.apply([Op(What.SWEEP, accepted_s=12, count_max=9)])
    assert [(op.sender, op.id, op.seq, op.kind) for op in applied.expired] == [(2, n, n, 1) for n in (1, 2, 3)]
    assert damaged.store.census() == []
    assert not damaged.store.contains(1, 2, 2)


def test_a_purge_takes_a_damaged_envelope_along(damaged: Damaged) -> None:
    applied = damaged.store.apply([Op(What.PURGE, 1), Op(What.SWEEP, accepted_s=12, count_max=9)])
    assert [(op.sender, op.seq) for op in applied.expired] == [(2, 1), (0, 2), (2, 3)], "0: not legible"
    assert damaged.store.apply([damaged.rows[1]]).results == [OK]


def test_a_damaged_receipt_is_skipped_and_replaced(damaged: Damaged) -> None:
    first, second = damaged.receipts
    assert damaged.store.read_receipts(9) == [second]
    assert damaged.store.corrupt_keys()[0][0] == "receipts"
    assert damaged.store.apply([first]).results == [OK]
    assert damaged.store.read_receipts(9) == [first, second]


def test_a_damaged_identity_does_not_keep_an_envelope_for_ever(tmp_path: Path) -> None:
    row = put(5)
    store = lmdb_store(tmp_path)
    store.apply([row])
    store.close()
    flip(tmp_path, b"ident", b"".join(n.to_bytes(8, "big") for n in (1, 2, 5)), 8)
    store = lmdb_store(tmp_path)
    assert store.apply([delete(row)]).results == [OK]
    assert store.census() == []
    assert store.apply([Op(What.SWEEP, accepted_s=9_999, count_max=9)]).expired == []
    store.close()


# --- no room ------------------------------------------------------------------------------------------


def test_the_map_grows_under_reads(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path, map_bytes=1 << 16)
    for batch in range(1, 121):
        store.submit(rows(batch))
        found = [row.id for row in store.read(1, 10, count_max=200)]
        assert found == list(range(1, len(found) + 1)), "a read sees whole commits, in order"
    store.settle()
    assert all(applied.status == OK for applied in store.collect())
    assert store.stats()["grown"] >= 4
    store.close()
    store = lmdb_store(tmp_path, map_bytes=1 << 16)
    assert [store.read(box, 10, count_max=200) for box in range(1, ROWS + 1)] == [
        [rows(batch)[box - 1] for batch in range(1, 121)] for box in range(1, ROWS + 1)
    ]
    assert store.apply(rows(121)).status == OK
    store.close()


def test_a_full_map_refuses_keeps_and_recovers(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path, map_bytes=1 << 16, map_bytes_max=1 << 20)
    kept: list[Op] = []
    seq = 0
    while True:
        seq += 1
        applied = store.apply([put(seq, b"x" * 3_000)])
        if applied.status != OK:
            break
        kept.append(put(seq, b"x" * 3_000))
    assert (applied.status, applied.results) == (FULL, [FULL])
    assert store.read(1, 10, count_max=999) == kept
    assert not store.contains(1, 2, seq)
    for victim in kept:
        mixed = store.apply([put(9_999, b"x" * 900_000), delete(victim)])
        assert (mixed.status, mixed.results) == (OK, [FULL, OK]), "a full store can empty itself"
    assert store.census() == []
    assert store.stats()["map_bytes"] == 1 << 20, "the reserve is for deletes only"
    assert store.apply([put(1, b"x" * 3_000)]).results == [OK]
    store.close()


def test_a_full_disk_refuses_keeps_and_recovers(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk: the kernel cuts a write short, then refuses."""
    ran = subprocess.run(
        [sys.executable, str(CHILD), "fill", str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env=child_env(),
    )
    refused, kept, deleted, again = ran.stdout.splitlines()
    count = (int(refused.split()[1]) - 1) * ROWS
    assert refused.endswith("FULL FULL")
    assert count > 100
    assert kept == f"kept {count} {count}"
    assert deleted == "deleted OK OK"
    assert again == "again OK True 0"


def test_the_reference_store_has_a_full_disk_too() -> None:
    store = MemoryMailStore(auto=True)
    store.apply([put(1)])
    store.fail(1)
    assert store.apply([put(2), delete(put(1))]).results == [FULL, FULL]
    store.fail(1, deletes=True)
    assert store.apply([put(2), delete(put(1))]).results == [FULL, OK]
    store.fail(1, Result.FAILED)
    assert store.apply([put(2)]).status == Result.FAILED
    assert store.apply([put(2)]).status == OK
    assert store.census() == [(1, 10, 2)]
    store.close()


# --- kill -9 and power loss -------------------------------------------------------------------------------


def child_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


@pytest.mark.parametrize("after", [1, 2, 7, 30, 31, 100, 250])
def test_kill_9_in_a_stream_of_batches(tmp_path: Path, after: int) -> None:
    """Every batch that was reported is there, and none is there by half."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), "stream", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_env(),
    ) as child:
        assert child.stdout is not None
        for _ in range(after):
            assert child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        reported = after + len(child.stdout.read().split())
    assert child.returncode == -signal.SIGKILL
    store = lmdb_store(tmp_path)
    boxes = [store.read(box, 10, count_max=9_999, arena_bytes=1 << 24) for box in range(1, ROWS + 1)]
    store.close()
    found = [row.id for row in boxes[0]]
    last = found[-1]
    assert last >= reported
    assert found == list(range(max(1, last - 19), last + 1)), "batch n deletes what batch n - 20 put"
    assert boxes == [[rows(batch)[box - 1] for batch in found] for box in range(1, ROWS + 1)]


def test_power_loss_keeps_what_was_committed() -> None:
    store = MemoryMailStore()
    store.apply([put(1)])
    store.submit([put(2)])
    store.power_loss()
    with pytest.raises(OSError, match="shutdown"):
        store.submit([put(3)])
    assert MemoryMailStore(store.disk).read(1, 10) == [put(1)]


def test_power_loss_without_fsync_loses_what_was_reported() -> None:
    """Negative control: a checker that calls this store good checks nothing."""
    store = MemoryMailStore(sync=False)
    assert store.apply([put(1)]).results == [OK]
    store.power_loss()
    assert MemoryMailStore(store.disk).read(1, 10) == []


def test_a_killed_store_keeps_its_commits_even_without_fsync() -> None:
    store = MemoryMailStore(sync=False)
    store.apply([put(1)])
    store.submit([put(2)])
    store.kill()
    assert MemoryMailStore(store.disk).read(1, 10) == [put(1)]


def test_a_torn_batch_is_there_by_half() -> None:
    """Negative control for checkers of atomicity."""
    store = MemoryMailStore()
    store.tear(1)
    store.submit([put(1), put(2)])
    store.settle()
    assert store.collect() == []
    assert MemoryMailStore(store.disk).read(1, 10) == [put(1)]


# --- opening ------------------------------------------------------------------------------------------


def test_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    lmdb_store(tmp_path / "mail").close()
    assert stat.S_IMODE((tmp_path / "mail").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "mail").iterdir()} == {0o600}


def test_another_format_is_refused(tmp_path: Path) -> None:
    lmdb_store(tmp_path).close()
    flip(tmp_path, b"meta", b"format", 3)
    with pytest.raises(LocalError, match="format 17, this version reads 1"):
        LmdbMailStore(tmp_path)
    flip(tmp_path, b"meta", b"format", 3)
    lmdb_store(tmp_path).close()


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not LMDB" * 2_000)
    with pytest.raises(OSError, match="cannot open the mailbox"):
        LmdbMailStore(tmp_path)


def test_misuse_is_named(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="map_bytes"):
        LmdbMailStore(tmp_path / "a", map_bytes=2, map_bytes_max=1)
    store = LmdbMailStore(tmp_path / "b")
    with pytest.raises(LocalError, match="start"):
        store.settle()
    store.start()
    with pytest.raises(LocalError, match="once"):
        store.start()
    store.close()
    store.close()
    with pytest.raises(LocalError, match="closed"):
        store.start()


def test_both_stores_have_one_face() -> None:
    assert issubclass(LmdbMailStore, MailStoreBase)
    assert issubclass(MemoryMailStore, MailStoreBase)
