"""The log of a mailbox store is cleaned while it is used: it stays small, and nothing is lost or comes back."""

import errno
import random
from collections import deque
from pathlib import Path

import lmdb
import pytest
from mailbox_cases import OK, Colliding, Lmdb, body, delete, kill_child, put, receipt, shared, sweep

from wa._fastpath.mailbox import store as lmdb_store
from wa._fastpath.mailbox.contract import Op, What
from wa._fastpath.mailbox.store import LmdbMailStore

FLOOR_BYTES = 8 << 20
BODY = b"x" * 1_000
BATCH = 256


def log_of(path: Path) -> list[tuple[int, int]]:
    """(place, bytes) of every row."""
    with lmdb.open(str(path), max_dbs=4) as env, env.begin() as txn:
        table = env.open_db(b"log", txn=txn, create=False)
        return [(int.from_bytes(key, "big"), len(value)) for key, value in txn.cursor(table)]


@pytest.mark.parametrize("backend_class", [Lmdb, Colliding])
def test_what_lives_stays_and_what_died_goes(tmp_path: Path, backend_class: type[Lmdb]) -> None:
    """Every 64th envelope stays for ever, with receipts and a shared body; a few hundred are in flight."""
    backend = backend_class(tmp_path / "mail")
    store = backend.open()
    kept = [shared(put(1, recipient=3), 7), receipt(0x21, 5, expires_s=0)]
    assert store.apply([body(7, b"y" * 3_000), *kept]).results == [OK] * 3
    stay: list[Op] = []
    flying: deque[Op] = deque()
    seq = 1
    rounds = 200 if backend_class is Lmdb else 80
    for turn in range(rounds):
        ops = []
        for _ in range(BATCH):
            seq += 1
            row = put(seq, recipient=1 + seq % 2, body=BODY)
            ops.append(row)
            (stay if seq % 64 == 0 else flying).append(row)
        while len(flying) > 512:
            ops.append(delete(flying.popleft()))
        assert set(store.apply(ops).results) == {OK}
        if turn % 50 == 39:
            store.close()
            store = backend.open()
    written = seq * 1_100
    stats = store.stats()
    assert written > 2 * FLOOR_BYTES
    assert stats["cleaned"] > 0
    assert stats["used_bytes"] < 3 * FLOOR_BYTES, "LMDB uses the pages again"
    for opened in range(2):
        for recipient in (1, 2):
            rows = store.read(recipient, 10, count_max=9_999, arena_bytes=1 << 24)
            mine = [row for row in [*stay, *flying] if row.recipient == recipient]
            assert rows == sorted(mine, key=lambda row: row.seq)
        assert [row.body for row in store.read(3, 10)] == [b"y" * 3_000]
        assert store.read_receipts(9) == kept[1:]
        store.close()
        if opened == 0:
            store = backend.open()
    rows = log_of(tmp_path / "mail")
    assert sum(size for _, size in rows) < FLOOR_BYTES + 2 * (len(stay) + 512) * 1_100
    assert rows[0][0] > 1


def test_no_more_is_moved_than_died(tmp_path: Path) -> None:
    """The bound on write amplification, with random deletions: the hardest case for a cleaner that goes by age."""
    store = Lmdb(tmp_path).open()
    chance = random.Random(5)
    alive: list[Op] = []
    died = seq = 0
    for _ in range(300):
        ops = []
        for _ in range(BATCH):
            seq += 1
            alive.append(put(seq, recipient=seq % 50, body=BODY))
            ops.append(alive[-1])
        while len(alive) > 8_000:
            at = chance.randrange(len(alive))
            alive[at], alive[-1] = alive[-1], alive[at]
            ops.append(delete(alive.pop()))
            died += 1
        assert set(store.apply(ops).results) == {OK}
    stats = store.stats()
    assert died > 5 * len(alive)
    assert 0 < stats["moved"] <= died
    assert store.census() == sorted((row.recipient, 10, row.seq) for row in alive)
    store.close()
    size = sum(size for _, size in log_of(tmp_path))
    assert size < 2.5 * len(alive) * 1_055


def test_damaged_rows_in_the_way_of_the_cleaner(tmp_path: Path) -> None:
    """What is damaged but legible is moved as it is; what is illegible goes."""
    store = Lmdb(tmp_path).open()
    store.apply([put(seq, body=BODY) for seq in range(1, 4)])
    store.close()
    with lmdb.open(str(tmp_path), max_dbs=4) as env, env.begin(write=True) as txn:
        table = env.open_db(b"log", txn=txn, create=False)
        for place, at in ((1, 100), (2, 10)):  # in its body; in its recipient
            value = bytearray(txn.get(place.to_bytes(8, "big"), db=table) or b"")
            value[at] ^= 1
            txn.put(place.to_bytes(8, "big"), bytes(value), db=table)
    store = Lmdb(tmp_path).open()
    illegible = [("log", (2).to_bytes(8, "big"))]
    assert store.corrupt_keys() == illegible
    for turn in range(100):
        rows = [put(10 + turn * BATCH + n, recipient=2, body=BODY) for n in range(BATCH)]
        store.apply(rows)
        store.apply([delete(row) for row in rows])
    store.close()
    assert log_of(tmp_path)[0][0] > 3
    store = Lmdb(tmp_path).open()
    assert store.corrupt_keys() == [], "the illegible one is gone"
    assert [row.seq for row in store.read(1, 10)] == [3]
    assert store.corrupt_keys() == [("mail", bytes([0] * 7 + [1, 245] + [0] * 7 + [1]))]
    gone = store.apply([Op(What.SWEEP, accepted_s=2_000, count_max=9)]).expired
    assert [(op.sender, op.id) for op in gone] == [(2, 1), (2, 3)]
    store.close()


def test_a_mostly_free_file_is_made_smaller_at_a_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mail"
    store = Lmdb(path).open()
    rows = [put(seq, recipient=seq % 5, body=b"z" * 30_000) for seq in range(1, 6_001)]
    for at in range(0, 6_000, 500):
        store.apply(rows[at : at + 500])
    for at in range(0, 6_000, 50):
        store.apply([delete(row) for row in rows[at + 1 : at + 50]])
    for _ in range(400):  # the cleaner goes step by step
        store.apply([put(9_999), delete(put(9_999))])
    store.close()
    before = (path / "data.mdb").stat().st_size
    assert before > 150 << 20

    def no_room(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(lmdb_store, "replace_environment", no_room)
        store = Lmdb(path).open()
    assert store.stats()["last_error"] == errno.ENOSPC
    for size_max in (before, before // 4):
        assert (path / "data.mdb").stat().st_size <= size_max
        assert (path / "data.mdb").stat().st_mode & 0o777 == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == ["mail"]
        assert store.census() == sorted((row.recipient, 10, row.seq) for row in rows[::50])
        mine = [row for row in rows[::50] if row.recipient == 1]
        assert store.read(1, 10, count_max=999, arena_bytes=1 << 26) == mine
        store.close()
        store = Lmdb(path).open()
    assert store.apply([put(10_000)]).results == [OK]
    store.close()


def test_reads_while_rows_are_moved(tmp_path: Path) -> None:
    """Nothing that is stored is ever missed, wherever the cleaner has it just now."""
    store = Lmdb(tmp_path).open()
    stay = [put(seq, recipient=1, body=BODY) for seq in range(1, 2_001)]
    store.apply([body(3, BODY), *stay, shared(put(5_000, recipient=4), 3)])
    seq = 10_000
    reads = 0
    while store.stats()["moved"] < 4_000 and reads < 20_000:
        flying = [put(seq + n, recipient=2, body=BODY) for n in range(128)]
        seq += 128
        store.submit(flying)
        store.submit([delete(row) for row in flying])
        for _ in range(4):
            at = reads * 97 % 2_000
            reads += 1
            assert store.read(1, 10, at, count_max=20) == stay[at : at + 20]
            assert store.contains(1, 2, at + 1)
            assert [row.body for row in store.read(4, 10)] == [BODY]
        store.collect()
    assert store.stats()["moved"] >= 4_000
    assert store.stats()["corrupt"] == 0
    store.settle()
    store.collect()
    store.close()


@pytest.mark.parametrize("after", [90, 150, 230])
def test_kill_9_while_the_log_is_cleaned(tmp_path: Path, after: int) -> None:
    reported = kill_child("clean", tmp_path, after)
    for _ in range(2):
        store = LmdbMailStore(tmp_path)
        assert store.census()[:100] == [(1, 10, seq) for seq in range(1, 101)]
        flying = [key[2] for key in store.census()[100:]]
        store.close()
        last = (max(flying) - 1_000) // 200 if flying else reported
        assert last >= reported
        assert flying == list(range(1_000 + last * 200, 1_200 + last * 200))
    assert log_of(tmp_path)[0][0] > 100, "it was cleaned"


def test_an_empty_index_gives_its_memory_back(tmp_path: Path) -> None:
    store = Lmdb(tmp_path / "mail").open()
    for first in (1, 5_001):
        rows = [put(seq, recipient=seq) for seq in range(first, first + 2_000)]
        assert set(store.apply(rows).results) == {OK}
        assert store.stats()["index_bytes"] >= 2_000 * 96
        assert set(store.apply([*(delete(row) for row in rows[1:]), sweep(0)]).results[:-1]) == {OK}
        assert store.stats()["index_bytes"] >= 2_000 * 96, "the one that is left may be anywhere in it"
        assert store.read(first, 10) == rows[:1]
        assert store.apply([delete(rows[0]), sweep(0)]).results[0] == OK
        assert store.stats()["index_bytes"] == 0
        assert store.census() == []
    store.close()
