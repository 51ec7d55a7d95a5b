"""The contract of mailbox stores (wa/_fastpath/mailbox.pxd), one suite over LMDB and the reference in
memory."""

import errno
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from wa._fastpath.lmdb_store import LmdbMailStore
from wa._fastpath.mailbox import Op, Result, What, live_batches
from wa._fastpath.memory_store import MemoryMailStore

ACCEPTED, DELIVERED, READ, REFUSED = 0x20, 0x21, 0x22, 0x23
RANK = {ACCEPTED: 0, REFUSED: 1, DELIVERED: 2, READ: 3}
OK, DUPLICATE, MISSING, FULL, FAILED = (
    Result.OK,
    Result.DUPLICATE,
    Result.MISSING,
    Result.FULL,
    Result.FAILED,
)
Store = LmdbMailStore | MemoryMailStore


class Lmdb:
    """Opens and reopens the LMDB store over one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> LmdbMailStore:
        store = LmdbMailStore(self.path, map_bytes=1 << 20)
        store.start()
        return store


class Memory:
    def __init__(self, path: Path) -> None:
        self.store: MemoryMailStore | None = None

    def open(self) -> MemoryMailStore:
        self.store = MemoryMailStore(self.store.disk if self.store else None)
        return self.store


@pytest.fixture(params=[Lmdb, Memory])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Lmdb | Memory:
    made: Lmdb | Memory = request.param(tmp_path / "mail")
    return made


@pytest.fixture
def store(backend: Lmdb | Memory) -> Iterator[Store]:
    live = live_batches()
    opened = backend.open()
    yield opened
    opened.close()
    assert opened.collect() == []
    assert live_batches() == live, "a batch was not freed"


def put(seq: int, recipient: int = 1, sender: int = 2, **more: Any) -> Op:
    """An envelope whose id is its seq unless said otherwise."""
    fields: dict[str, Any] = {
        "id": seq,
        "priority": 10,
        "kind": 1,
        "accepted_s": 1_000,
        "expires_s": 2_000,
        "body": b"body",
    }
    return Op(What.PUT, recipient, sender, seq=seq, **(fields | more))


def delete(op: Op) -> Op:
    return op._replace(what=What.DELETE, body=b"", kind=0, accepted_s=0, expires_s=0)


def receipt(level: int, id: int = 1, owner: int = 9, peer: int = 8, **more: Any) -> Op:
    return Op(What.RECEIPT_PUT, owner, peer, id, kind=level, **more)


def sweep(now_s: int, count_max: int = 1_000) -> Op:
    return Op(What.SWEEP, accepted_s=now_s, count_max=count_max)


# --- envelopes ----------------------------------------------------------------------------------------


def test_what_was_put_is_read_back_byte_for_byte(store: Store) -> None:
    rows = [put(1, body=b""), put(2, body=bytes(range(256)) * 255), put(3, kind=15, expires_s=0)]
    assert store.apply(rows).results == [OK, OK, OK]
    assert store.read(1, 10) == rows


def test_extreme_values_survive(store: Store) -> None:
    top = 2**64 - 1
    row = put(top, top, top, id=top, priority=255, kind=255, accepted_s=2**32 - 1, expires_s=2**32 - 1)
    assert store.apply([row, row._replace(priority=0, id=0)]).results == [OK, OK]
    assert store.read(top, 255, top - 1) == [row]
    assert store.read(top, 255, top) == []
    assert store.census() == [(top, 255, top), (top, 0, top)]


def test_one_priority_is_read_oldest_first_whatever_the_order_of_arrival(store: Store) -> None:
    store.apply([put(300), put(5, priority=100), put(2), put(70_000), put(1, recipient=3)])
    assert [row.seq for row in store.read(1, 10)] == [2, 300, 70_000]
    assert [row.seq for row in store.read(1, 10, after_seq=2)] == [300, 70_000]
    assert [row.seq for row in store.read(1, 10, after_seq=299, count_max=1)] == [300]
    assert [row.seq for row in store.read(1, 100)] == [5]
    assert store.read(1, 11) == []


def test_a_read_stops_where_the_arena_ends(store: Store) -> None:
    store.apply([put(1, body=b"x" * 100), put(2, body=b"y" * 100), put(3, body=b"z" * 100)])
    assert [row.seq for row in store.read(1, 10, arena_bytes=299)] == [1, 2]
    with pytest.raises(OSError) as caught:
        store.read(1, 10, arena_bytes=99)
    assert caught.value.errno == errno.EMSGSIZE


def test_census_is_in_drain_order(store: Store) -> None:
    store.apply([put(9, priority=5), put(2), put(3, priority=100), put(1), put(4, recipient=0)])
    assert store.census() == [(0, 10, 4), (1, 100, 3), (1, 10, 1), (1, 10, 2), (1, 5, 9)]


def test_an_envelope_is_itself_whatever_its_seq_and_priority(store: Store) -> None:
    first = put(1, id=77)
    assert store.apply([first, put(2, id=77, body=b"again")]).results == [OK, DUPLICATE]
    assert store.apply([put(3, id=77, priority=50)]).results == [DUPLICATE]
    assert store.apply([put(4, id=77, sender=3), put(5, id=77, recipient=3)]).results == [OK, OK]
    assert store.contains(1, 2, 77)
    assert not store.contains(2, 1, 77)
    assert store.read(1, 10, count_max=1) == [first]
    assert store.apply([delete(put(2, id=77))]).results == [OK]
    assert not store.contains(1, 2, 77)


def test_two_envelopes_never_share_a_seq(store: Store) -> None:
    first = put(1, id=1)
    assert store.apply([first, put(1, id=2), put(2, id=3)]).results == [OK, FAILED, OK]
    assert store.read(1, 10, count_max=1) == [first]
    assert not store.contains(1, 2, 2)


def test_order_inside_a_batch_holds(store: Store) -> None:
    a, b = put(1), put(2)
    results = store.apply([a, delete(a), delete(a), b, a, delete(b), put(3, id=1)]).results
    assert results == [OK, OK, MISSING, OK, OK, OK, DUPLICATE]
    assert store.read(1, 10) == [a]


def test_batches_come_back_in_order(store: Store) -> None:
    for seq in range(1, 6):
        store.submit([put(seq), delete(put(seq - 1))])
    store.submit([])
    store.settle()
    assert [applied.results for applied in store.collect()] == [[OK, MISSING]] + [[OK, OK]] * 4 + [[]]
    assert store.collect() == []
    assert [row.seq for row in store.read(1, 10)] == [5]


def test_the_poller_is_woken_once_for_what_is_done(store: Store) -> None:
    store.count_wakes()
    store.apply([put(1)])
    assert store.wakes() == 1
    store.apply([put(2)])
    assert store.wakes() == 2


def test_a_closed_store_takes_nothing(backend: Lmdb | Memory) -> None:
    opened = backend.open()
    opened.submit([put(1)])
    opened.close()
    assert [applied.results for applied in opened.collect()] == [[OK]]
    for use in (lambda: opened.submit([put(2)]), lambda: opened.read(1, 10), opened.census):
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == errno.ESHUTDOWN
    again = backend.open()
    assert again.census() == [(1, 10, 1)], "close commits what is queued"
    again.close()


# --- expiry and purge ---------------------------------------------------------------------------------


def test_sweep_expires_the_oldest_first_and_reports_each(store: Store) -> None:
    rows = [
        put(1, expires_s=30),
        put(2, expires_s=10, sender=5, priority=50),
        put(3, expires_s=20, recipient=7),
    ]
    store.apply([*rows, put(4, expires_s=31), put(5, expires_s=0)])
    applied = store.apply([sweep(30, count_max=2)])
    assert applied.results == [OK]
    assert applied.expired == [expired(rows[1]), expired(rows[2])]
    assert store.apply([sweep(30)]).expired == [expired(rows[0])]
    assert store.apply([sweep(30)]).expired == []
    assert [row.seq for row in store.read(1, 10)] == [4, 5]
    assert not store.contains(1, 5, 2)


def expired(row: Op) -> Op:
    return row._replace(what=What.EXPIRED, body=b"")


def test_what_was_deleted_does_not_expire(store: Store) -> None:
    row = put(1, expires_s=10)
    assert store.apply([row, delete(row), sweep(10)]).expired == []


def test_many_expire_in_one_batch(store: Store) -> None:
    store.apply([put(seq, expires_s=seq) for seq in range(1, 201)])
    applied = store.apply([sweep(50, 10), sweep(50, 100), Op(What.PURGE, 1)])
    assert [op.seq for op in applied.expired] == list(range(1, 201))


def test_purge_empties_one_mailbox(store: Store) -> None:
    mine, other = put(1, expires_s=0), put(2, recipient=2)
    store.apply([mine, put(3), other, receipt(READ, owner=1), receipt(READ, owner=2)])
    assert [op.seq for op in store.apply([Op(What.PURGE, 1)]).expired] == [1, 3]
    assert store.census() == [(2, 10, 2)]
    assert store.receipt_census() == [(2, READ, 0)]
    assert not store.contains(1, 2, 1)
    assert store.apply([sweep(5_000)]).expired == [expired(other)]


# --- receipts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", sorted(RANK))
@pytest.mark.parametrize("after", sorted(RANK))
def test_a_receipt_only_rises(store: Store, before: int, after: int) -> None:
    results = store.apply([receipt(before, code=before), receipt(after, code=after)]).results
    assert results == [OK, DUPLICATE]
    (stored,) = store.read_receipts(9)
    assert stored.kind == stored.code == max(before, after, key=lambda level: RANK[level])


@pytest.mark.parametrize("stored", sorted(RANK))
@pytest.mark.parametrize("acknowledged", sorted(RANK))
def test_a_receipt_that_rose_meanwhile_is_kept(store: Store, stored: int, acknowledged: int) -> None:
    store.apply([receipt(stored)])
    kept = RANK[stored] > RANK[acknowledged]
    results = store.apply([receipt(acknowledged)._replace(what=What.RECEIPT_DELETE)]).results
    assert results == [DUPLICATE if kept else OK]
    assert len(store.read_receipts(9)) == kept


def test_receipts_are_read_in_pages_by_peer_and_id(store: Store) -> None:
    keys = [(0, 0), (1, 5), (1, 2**64 - 1), (2, 0), (2**64 - 1, 1)]
    store.apply([receipt(ACCEPTED, id, peer=peer) for peer, id in reversed(keys)])
    store.apply([receipt(ACCEPTED, owner=8), receipt(ACCEPTED, owner=10)])
    assert [(r.sender, r.id) for r in store.read_receipts(9)] == keys[1:], "(0, 0) is the start, not a receipt"
    assert [(r.sender, r.id) for r in store.read_receipts(9, 1, 5, count_max=2)] == keys[2:4]
    assert store.read_receipts(9, *keys[-1]) == []
    missing = receipt(READ, 6, peer=1)._replace(what=What.RECEIPT_DELETE)
    assert store.apply([missing]).results == [MISSING]


def test_a_receipt_keeps_code_and_times(store: Store) -> None:
    stored = receipt(REFUSED, code=65_535, accepted_s=7, expires_s=2**32 - 1)
    store.apply([stored])
    assert store.read_receipts(9) == [stored]


# --- everything at once, against a dict -----------------------------------------------------------------

SMALL = st.integers(1, 3)
PRIORITIES = (5, 10, 100)
PUTS = st.tuples(
    SMALL,
    SMALL,
    SMALL,
    st.sampled_from(PRIORITIES),
    st.integers(0, 8),
    st.binary(max_size=20) | st.just(b"x" * 9_000),
)
OPS = st.one_of(
    PUTS,
    st.tuples(st.just(What.DELETE), SMALL, SMALL, SMALL),
    st.tuples(st.just(What.RECEIPT_PUT), SMALL, SMALL, SMALL, st.sampled_from(sorted(RANK))),
    st.tuples(st.just(What.RECEIPT_DELETE), SMALL, SMALL, SMALL, st.sampled_from(sorted(RANK))),
    st.tuples(st.just(What.SWEEP), st.integers(0, 8), st.integers(0, 4)),
    st.tuples(st.just(What.PURGE), SMALL),
)


class Model:
    """What a store must do, as plainly as possible."""

    def __init__(self) -> None:
        self.mail: dict[tuple[int, int, int], Op] = {}
        self.receipts: dict[tuple[int, int, int], int] = {}
        self.seq = 0

    def op(self, drawn: tuple[Any, ...]) -> Op:
        """Turns what hypothesis drew into an operation."""
        match drawn:
            case (What.DELETE, recipient, sender, id):
                stored = self.mail.get((recipient, sender, id))
                return delete(stored) if stored else Op(What.DELETE, recipient, sender, id, priority=10, seq=1)
            case (What.RECEIPT_PUT | What.RECEIPT_DELETE as what, owner, peer, id, level):
                return Op(what, owner, peer, id, kind=level)
            case (What.SWEEP, now_s, count_max):
                return sweep(now_s, count_max)
            case (What.PURGE, recipient):
                return Op(What.PURGE, recipient)
            case (recipient, sender, id, priority, expires_s, body):
                self.seq += 1
                more = {"id": id, "priority": priority, "expires_s": expires_s, "body": body}
                return put(self.seq, recipient, sender, **more)
        raise AssertionError(drawn)

    def apply(self, op: Op) -> tuple[Result, list[Op]]:
        ident = (op.recipient, op.sender, op.id)
        match op.what:
            case What.PUT:
                return (DUPLICATE if self.mail.setdefault(ident, op) is not op else OK), []
            case What.DELETE:
                return (OK if self.mail.pop(ident, None) else MISSING), []
            case What.RECEIPT_PUT:
                there = self.receipts.get(ident)
                self.receipts[ident] = op.kind if there is None else max(there, op.kind, key=RANK.__getitem__)
                return (OK if there is None else DUPLICATE), []
            case What.RECEIPT_DELETE:
                there = self.receipts.get(ident)
                if there is None or RANK[there] > RANK[op.kind]:
                    return (MISSING if there is None else DUPLICATE), []
                del self.receipts[ident]
                return OK, []
            case What.SWEEP:
                due = [row for row in self.mail.values() if 0 < row.expires_s <= op.accepted_s]
                due.sort(key=lambda row: (row.expires_s, row.recipient, -row.priority, row.seq))
                due = due[: op.count_max]
            case What.PURGE:
                due = self.drain(op.recipient)
                self.receipts = {key: level for key, level in self.receipts.items() if key[0] != op.recipient}
        for row in due:
            del self.mail[row.recipient, row.sender, row.id]
        return OK, [expired(row) for row in due]

    def drain(self, recipient: int) -> list[Op]:
        mine = [row for row in self.mail.values() if row.recipient == recipient]
        return sorted(mine, key=lambda row: (-row.priority, row.seq))


class Machine(RuleBasedStateMachine):
    backend_class: type[Lmdb] | type[Memory]

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.backend = self.backend_class(Path(self.directory.name) / "mail")
        self.store: Store = self.backend.open()
        self.model = Model()
        self.under_way: list[tuple[list[Result], list[Op]]] = []

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    @rule(drawn=st.lists(OPS, max_size=12))
    def submit(self, drawn: list[tuple[Any, ...]]) -> None:
        ops, results, gone = [], [], []
        for item in drawn:
            op = self.model.op(item)
            result, expired_now = self.model.apply(op)
            ops.append(op)
            results.append(result)
            gone.extend(expired_now)
        self.store.submit(ops)
        self.under_way.append((results, gone))

    @rule()
    @precondition(lambda self: self.under_way)
    def collect(self) -> None:
        self.store.settle()
        done = self.store.collect()
        assert [(applied.results, applied.expired) for applied in done] == self.under_way
        assert all(applied.status == OK for applied in done)
        self.under_way.clear()

    @rule()
    @precondition(lambda self: not self.under_way)
    def reopen(self) -> None:
        self.store.close()
        self.store = self.backend.open()

    @invariant()
    @precondition(lambda self: not self.under_way)
    def holds_what_the_model_holds(self) -> None:
        boxes = {recipient: self.model.drain(recipient) for recipient in (1, 2, 3)}
        for recipient, rows in boxes.items():
            found = [row for priority in reversed(PRIORITIES) for row in self.store.read(recipient, priority)]
            assert found == rows
            levels = [(r.sender, r.id, r.kind) for r in self.store.read_receipts(recipient)]
            mine = sorted((key, level) for key, level in self.model.receipts.items() if key[0] == recipient)
            assert levels == [(peer, id, level) for (_, peer, id), level in mine]
        rows = [row for box in boxes.values() for row in box]
        assert self.store.census() == [(row.recipient, row.priority, row.seq) for row in rows]
        for recipient, sender, id in self.model.mail:
            assert self.store.contains(recipient, sender, id)


class LmdbMachine(Machine):
    backend_class = Lmdb


class MemoryMachine(Machine):
    backend_class = Memory


TestLmdbAgainstModel = LmdbMachine.TestCase
TestMemoryAgainstModel = MemoryMachine.TestCase
TestLmdbAgainstModel.settings = TestMemoryAgainstModel.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
