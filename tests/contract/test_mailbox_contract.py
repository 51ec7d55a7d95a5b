"""The contract of mailbox stores (wa/_fastpath/mailbox/contract.pxd), one suite over LMDB and the reference in
memory."""

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailbox_cases import (
    ACCEPTED,
    DELIVERED,
    DUPLICATE,
    FAILED,
    MISSING,
    OK,
    RANK,
    READ,
    REFUSED,
    Colliding,
    Lmdb,
    Memory,
    Store,
    body,
    delete,
    drop,
    expired,
    put,
    receipt,
    refused,
    shared,
    sweep,
)

from wa._fastpath.mailbox.contract import Op, What, live_batches


@pytest.fixture(params=[Lmdb, Colliding, Memory])
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


# --- what is taken out leaves a receipt -----------------------------------------------------------------


def test_a_sweep_with_a_code_leaves_receipts(store: Store) -> None:
    rows = [put(1, expires_s=10), put(2, expires_s=10, sender=5)]
    cause = sweep(10, code=7, expires_s=99)
    store.apply([*rows, put(3, expires_s=11)])
    applied = store.apply([cause])
    assert applied.expired == [expired(row, 7) for row in rows]
    assert store.read_receipts(2) == [refused(rows[0], cause)]
    assert store.read_receipts(5) == [refused(rows[1], cause)]
    assert store.census() == [(1, 10, 3)]


def test_a_purge_with_a_code_leaves_receipts_but_none_for_the_removed(store: Store) -> None:
    mine, own = put(1), put(2, sender=1)
    cause = Op(What.PURGE, 1, code=7, accepted_s=50, expires_s=99)
    store.apply([mine, own, receipt(READ, owner=1)])
    assert store.apply([cause]).expired == [expired(mine, 7), expired(own, 7)]
    assert store.read_receipts(2) == [refused(mine, cause)]
    assert store.receipt_census() == [(2, REFUSED, 0)]


def test_a_dropped_envelope_is_reported_and_leaves_a_receipt(store: Store) -> None:
    row, other = put(1), put(2)
    cause = drop(row, seq=77, priority=3, code=7, accepted_s=50, expires_s=9_999)
    store.apply([row, other])
    applied = store.apply([cause, cause])
    assert (applied.results, applied.expired) == ([OK, MISSING], [expired(row, 7)])
    assert store.read_receipts(2) == [refused(row, cause)]
    assert store.read(1, 10) == [other]
    assert store.apply([sweep(5_000)]).expired == [expired(other)], "without a code there is no receipt"
    assert len(store.read_receipts(2)) == 1


def test_a_receipt_that_is_left_only_rises(store: Store) -> None:
    row = put(1)
    store.apply([row, receipt(DELIVERED, 1, 2, 1, code=3)])
    store.apply([drop(row, code=7)])
    assert store.read_receipts(2) == [receipt(DELIVERED, 1, 2, 1, code=3)]


def test_what_is_left_stays_after_reopening(backend: Lmdb | Memory) -> None:
    row = put(1)
    opened = backend.open()
    opened.apply([row, put(2), drop(row, code=7)])
    opened.close()
    again = backend.open()
    assert again.census() == [(1, 10, 2)]
    assert again.read_receipts(2) == [refused(row, drop(row, code=7))]
    again.close()


def test_receipts_expire_without_a_word(store: Store) -> None:
    store.apply([receipt(READ, n, expires_s=n * 10) for n in range(4)])
    assert store.apply([sweep(20)]).expired == []
    assert [row.id for row in store.read_receipts(9)] == [0, 3], "0 is never"
    store.apply([receipt(READ, n, expires_s=5) for n in range(10, 20)])
    store.apply([sweep(20, 4)])
    assert len(store.read_receipts(9)) == 8


# --- victims --------------------------------------------------------------------------------------------


def test_victims_come_in_the_order_in_which_they_make_room(store: Store) -> None:
    a, b, c = put(1, priority=100, expires_s=40), put(2, expires_s=90), put(3, priority=5, expires_s=0)
    d, e = put(4, priority=5, expires_s=90), put(5, priority=100, expires_s=50)
    store.apply([e, d, c, b, a, put(6, recipient=2)])
    bare = [row._replace(body=b"") for row in (a, b, c, d, e)]
    assert store.read_victims(1, 39) == [bare[i] for i in (2, 3, 1, 0, 4)]
    assert store.read_victims(1, 50) == [bare[i] for i in (0, 4, 2, 3, 1)]
    assert store.read_victims(1, 50, count_max=3) == [bare[i] for i in (0, 4, 2)]
    assert store.read_victims(3, 50) == []


# --- shared bodies --------------------------------------------------------------------------------------


def test_a_shared_body_is_read_by_all_who_need_it(backend: Lmdb | Memory) -> None:
    rows = [put(seq, recipient=seq, body=b"x" * 9_000) for seq in range(1, 4)]
    opened = backend.open()
    results = opened.apply([body(70, b"x" * 9_000), *(shared(row, 70) for row in rows)]).results
    assert results == [OK] * 4
    assert opened.apply([shared(rows[0], 70)]).results == [DUPLICATE]
    assert [opened.read(row.recipient, 10) for row in rows] == [[row] for row in rows]
    opened.close()
    again = backend.open()
    assert [again.read(row.recipient, 10) for row in rows] == [[row] for row in rows]
    late = put(4, body=b"x" * 9_000)
    assert again.apply([delete(rows[0]), shared(late, 70)]).results == [OK, OK]
    assert again.read(1, 10) == [late]
    again.apply([delete(rows[1]), drop(rows[2], code=1), sweep(5_000)])
    assert again.census() == []
    assert again.apply([shared(put(5), 70)]).results == [MISSING], "it went with the last one"
    again.close()


def test_a_body_that_nobody_needs_is_not_kept(store: Store) -> None:
    assert store.apply([body(1), shared(put(1), 2), body(1)]).results == [OK, MISSING, FAILED]
    assert store.apply([shared(put(1), 1)]).results == [MISSING]
    row = put(2, body=b"shared")
    assert store.apply([body(1), shared(row, 1), delete(row), shared(row, 1)]).results == [OK, OK, OK, MISSING]
    assert store.apply([body(1), shared(row, 1)]).results == [OK, OK]
    assert store.read(1, 10) == [row]


def test_a_shared_row_stops_where_the_arena_ends(store: Store) -> None:
    store.apply([body(1, b"x" * 100), shared(put(1), 1), shared(put(2), 1)])
    assert [row.seq for row in store.read(1, 10, arena_bytes=199)] == [1]
    assert [row.body for row in store.read(1, 10, arena_bytes=200)] == [b"x" * 100] * 2


# --- receipts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", sorted(RANK))
@pytest.mark.parametrize("after", sorted(RANK))
def test_a_receipt_only_rises(store: Store, before: int, after: int) -> None:
    results = store.apply([receipt(before, code=before), receipt(after, code=after)]).results
    assert results == [OK, DUPLICATE]
    (stored,) = store.read_receipts(9)
    assert stored.level == stored.code == max(before, after, key=lambda level: RANK[level])


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
