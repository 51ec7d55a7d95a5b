"""Mailbox stores under faults: damaged records, a full map or disk, kill -9, power loss, another format."""

import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from mailbox_cases import CHILD, child_env, kill_child
from mailbox_child import ROWS, rows

from sim._native.memory_store import MemoryMailStore
from wa._fastpath.mailbox.contract import MailStoreBase, Op, Result, What, body_number
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.errors import LocalError

OK, FULL = Result.OK, Result.FULL
BODY_AT = 47  # of a stored envelope: type, kind, priority, recipient, sender, id, seq, accepted, expires, checksum


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


def place(n: int) -> bytes:
    return n.to_bytes(8, "big")


class Damaged:
    """Three envelopes and two receipts, of which the middle and the first were damaged on disk."""

    rows = (put(1, expires_s=10), put(2, expires_s=11), put(3, expires_s=12))
    receipts = (Op(What.RECEIPT_PUT, 9, 8, 1, level=0x21), Op(What.RECEIPT_PUT, 9, 8, 2, level=0x21))
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
        flip(path, b"log", place(2), at)
        flip(path, b"log", place(4), at % 40)
        self.store = lmdb_store(path)


# the first and the last byte of the body, and the checksum
@pytest.fixture(params=["memory", *(f"lmdb byte {at}" for at in (BODY_AT, -5, -1))])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    kind, *at = request.param.split(" byte ")
    made = Damaged(kind, tmp_path / "mail", int(at[0]) if at else 0)
    request.addfinalizer(made.store.close)
    return made


# type, kind, priority, recipient, sender, id, seq, accepted, expires, checksum of these
@pytest.fixture(params=(0, 1, 2, 10, 18, 26, 34, 38, 42, 46))
def illegible(request: pytest.FixtureRequest, tmp_path: Path) -> Damaged:
    made = Damaged("lmdb", tmp_path / "mail", request.param)
    request.addfinalizer(made.store.close)
    return made


def test_a_damaged_envelope_is_reported_and_skipped(damaged: Damaged) -> None:
    store, (first, middle, last) = damaged.store, damaged.rows
    assert store.read(1, 10) == [first, last]
    assert store.read(1, 10, after_seq=1) == [last]
    found = [key for key in store.corrupt_keys() if key[0] != "log"]
    assert store.stats()["corrupt"] == 2 + len(store.corrupt_keys()) - len(found), "every meeting counts"
    assert found == [("mail", mail_key(middle))], "and is listed once"
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
    assert [op.seq for op in applied.expired] == [1, 2, 3]
    senders = [op.sender for op in applied.expired]
    assert senders == [2, 0 if isinstance(damaged.store, MemoryMailStore) else 2, 2], "0: not legible"
    assert damaged.store.apply([damaged.rows[1]]).results == [OK]


def test_a_damaged_receipt_is_skipped_and_replaced(damaged: Damaged) -> None:
    first, second = damaged.receipts
    assert damaged.store.read_receipts(9) == [second]
    assert damaged.store.corrupt_keys()[0][0] in ("receipts", "log")
    assert damaged.store.apply([first]).results == [OK]
    assert damaged.store.read_receipts(9) == [first, second]


def test_a_damaged_envelope_that_makes_room_leaves_its_sender_a_receipt(damaged: Damaged) -> None:
    cause = damaged.rows[1]._replace(what=What.DROP, body=b"", code=7)
    assert [(op.sender, op.id) for op in damaged.store.apply([cause]).expired] == [(2, 2)]
    assert [(r.sender, r.id, r.code) for r in damaged.store.read_receipts(2)] == [(1, 2, 7)]


def test_a_damaged_envelope_is_no_victim(damaged: Damaged) -> None:
    assert [row.seq for row in damaged.store.read_victims(1, 0)] == [1, 3]


def test_of_an_illegible_row_its_place_is_reported(illegible: Damaged) -> None:
    store, (first, _, last) = illegible.store, illegible.rows
    assert store.corrupt_keys() == [("log", place(2)), ("log", place(4))]
    assert store.stats()["corrupt"] == 2
    assert store.read(1, 10) == [first, last]
    assert store.census() == [(1, 10, 1), (1, 10, 3)]
    assert not store.contains(1, 2, 2)
    assert store.read_receipts(9) == [illegible.receipts[1]]
    assert store.stats()["corrupt"] == 2, "it is met at the start only"


def test_what_was_illegible_is_taken_in_when_it_is_sent_again(illegible: Damaged) -> None:
    store, (first, middle, last) = illegible.store, illegible.rows
    again = middle._replace(seq=9)
    assert store.apply([delete(middle), again, *illegible.receipts]).results == [
        Result.MISSING,
        OK,
        OK,
        Result.DUPLICATE,
    ]
    assert store.read(1, 10) == [first, last, again]
    assert store.read_receipts(9) == list(illegible.receipts)


def test_an_illegible_row_that_was_ended_is_nothing_to_report(tmp_path: Path) -> None:
    store = lmdb_store(tmp_path)
    store.apply([put(1), put(2)])
    store.apply([delete(put(1))])
    store.close()
    flip(tmp_path, b"log", place(1), 20)
    store = lmdb_store(tmp_path)
    assert store.corrupt_keys() == []
    assert store.census() == [(1, 10, 2)]
    store.close()


@pytest.mark.parametrize("at", [0, 1, 8, 9, 16, -1])
def test_what_a_damaged_row_ended_comes_back_and_can_be_ended_again(tmp_path: Path, at: int) -> None:
    store = lmdb_store(tmp_path)
    store.apply([put(1), put(2)])
    store.apply([delete(put(1))])
    store.close()
    flip(tmp_path, b"log", place(3), at)
    for gone in (False, True):
        store = lmdb_store(tmp_path)
        assert store.corrupt_keys() == [("log", place(3))]
        assert store.read(1, 10) == [put(1), put(2)][gone:]
        store.apply([delete(put(1))])
        store.close()


def test_of_two_rows_that_say_the_same_the_later_counts(tmp_path: Path) -> None:
    """A row that ended others is damaged after they were stored anew."""
    store = lmdb_store(tmp_path)
    shared = [Op(What.BODY, id=7, body=b"one"), put(3)._replace(what=What.PUT_SHARED, body=body_number(7))]
    receipts = [Op(What.RECEIPT_PUT, 9, 8, 1, level=kind) for kind in (0x20, 0x21)]
    store.apply([put(1), receipts[0], *shared])  # places 1 to 4
    store.apply([delete(put(1)), delete(put(3)), receipts[1]])  # 5, and 6 ends 1 to 4
    shared[0] = shared[0]._replace(body=b"two")
    store.apply([put(5)._replace(id=1), *shared])
    expected = [put(3, b"two"), put(5)._replace(id=1)]
    assert store.read(1, 10) == expected
    store.close()
    flip(tmp_path, b"log", place(6), 9)
    for _ in range(2):
        store = lmdb_store(tmp_path)
        assert store.read(1, 10) == expected
        assert store.read_receipts(9) == [receipts[1]]
        store.apply([put(9), delete(put(9))])  # what the start found replaced is ended with the next commit
        store.close()
    store = lmdb_store(tmp_path)
    store.apply([delete(op) for op in expected])
    store.close()
    store = lmdb_store(tmp_path)
    assert store.census() == []
    store.close()


@pytest.mark.parametrize("at", [0, 5, 20, -1])
def test_a_damaged_shared_body_is_reported_skipped_and_replaced(tmp_path: Path, at: int) -> None:
    store = lmdb_store(tmp_path)
    rows = [put(1), put(2)]
    shares = [row._replace(what=What.PUT_SHARED, body=body_number(7)) for row in rows]
    store.apply([Op(What.BODY, id=7, body=b"some body"), *shares, put(3)])
    store.close()
    flip(tmp_path, b"log", place(1), at)
    store = lmdb_store(tmp_path)
    assert store.read(1, 10) == [put(3)]
    assert ("bodies", place(7)) in store.corrupt_keys()
    assert store.census() == [(1, 10, 1), (1, 10, 2), (1, 10, 3)]
    assert store.apply([rows[0]._replace(seq=8), delete(rows[1])]).results == [OK, OK]
    assert store.read(1, 10) == [put(3), rows[0]._replace(seq=8)]
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


@pytest.mark.parametrize("after", [1, 2, 7, 30, 31, 100, 250])
def test_kill_9_in_a_stream_of_batches(tmp_path: Path, after: int) -> None:
    """Every batch that was reported is there, and none is there by half."""
    reported = kill_child("stream", tmp_path, after)
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
    with pytest.raises(LocalError, match="format 18, this version reads 2"):
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
