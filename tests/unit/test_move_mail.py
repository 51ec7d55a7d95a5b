"""Mailboxes move between workers: what several rows say together, and what is not where it belongs."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb
import pytest

from wa import ids
from wa._fastpath.mailbox.contract import Op, Result, What, body_number
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.mailbox.twin import Left, Row
from wa.routing.shards import worker_of
from wa.storage.layout import Layout, open_layout

ADDRESSES = [ids.address_of(15_551_230_000 + n, 1) for n in range(40)]
ACCEPTED, DELIVERED, READ, REFUSED = 0x20, 0x21, 0x22, 0x23


@contextmanager
def stores_of(data_dir: Path, workers: int) -> Iterator[list[LmdbMailStore]]:
    layout: Layout = open_layout(data_dir, workers)
    stores = [LmdbMailStore(layout.mail(worker)) for worker in range(workers)]
    for store in stores:
        store.start()
    yield stores
    for store in stores:
        store.close()
    layout.close()


def shared(recipient: int, seq: int, number: int) -> Op:
    return Op(What.PUT_SHARED, recipient, 7, seq, seq, 10, 1, 0, 1, 0, body_number(number))


def receipt(owner: int, level: int, id: int = 1) -> Op:
    return Op(What.RECEIPT_PUT, owner, 8, id, level=level, code=level)


@pytest.mark.parametrize("steps", [(3, 1, 7), (2, 64), (1, 2)])
def test_shared_bodies_go_where_they_are_needed(tmp_path: Path, steps: tuple[int, ...]) -> None:
    bodies: dict[int, bytes] = {}
    with stores_of(tmp_path, steps[0]) as stores:
        for worker, store in enumerate(stores):
            body = b"body of %d " % worker * 900
            mine = [address for address in ADDRESSES if worker_of(address, steps[0]) == worker]
            rows = [shared(address, seq, 5) for seq, address in enumerate(mine, 1)]  # all have a body 5
            assert set(store.apply([Op(What.BODY, id=5, body=body), *rows]).results) == {Result.OK}
            bodies |= dict.fromkeys(mine, body)
    for workers in steps[1:]:
        with stores_of(tmp_path, workers) as stores:
            for address in ADDRESSES:
                (row,) = stores[worker_of(address, workers)].read(address, 10)
                assert row.body == bodies[address]
    with stores_of(tmp_path, steps[-1]) as stores:
        for address in ADDRESSES:
            (row,) = stores[worker_of(address, steps[-1])].read(address, 10)
            gone = row._replace(what=What.DELETE, body=b"")
            assert stores[worker_of(address, steps[-1])].apply([gone]).results == [Result.OK]
    for path in tmp_path.glob("g*/w*/mail"):
        assert rows_left(path) == []


def rows_left(path: Path) -> list[Row | bytes]:
    with lmdb.open(str(path), max_dbs=4) as env, env.begin() as txn:
        table = env.open_db(b"log", txn=txn, create=False)
        return list(Left(lambda: txn.cursor(table)))


def test_a_receipt_comes_home_and_the_higher_one_is_kept(tmp_path: Path) -> None:
    with stores_of(tmp_path, 4) as stores:
        for owner in ADDRESSES:
            home = worker_of(owner, 4)
            stores[home].apply([receipt(owner, READ), receipt(owner, REFUSED, 2)])
            stores[(home + 1) % 4].apply([receipt(owner, DELIVERED), receipt(owner, REFUSED, 3)])
            stores[(home + 2) % 4].apply([receipt(owner, READ, 2), receipt(owner, ACCEPTED, 3)])
    for workers in (3, 1):
        with stores_of(tmp_path, workers) as stores:
            for owner in ADDRESSES:
                assert stores[worker_of(owner, workers)].read_receipts(owner) == [
                    receipt(owner, READ),
                    receipt(owner, READ, 2),
                    receipt(owner, REFUSED, 3),
                ]
            assert sum(len(store.receipt_census()) for store in stores) == 3 * len(ADDRESSES)


def test_what_was_ended_does_not_move(tmp_path: Path) -> None:
    row = Op(What.PUT, ADDRESSES[0], 7, 1, 1, 10, 1, 0, 1, 0, b"body")
    with stores_of(tmp_path, 1) as stores:
        stores[0].apply([row, receipt(ADDRESSES[0], ACCEPTED)])
        stores[0].apply([row._replace(what=What.DELETE, body=b""), receipt(ADDRESSES[0], READ)])
    with stores_of(tmp_path, 2) as stores:
        store = stores[worker_of(ADDRESSES[0], 2)]
        assert store.census() == []
        assert store.read_receipts(ADDRESSES[0]) == [receipt(ADDRESSES[0], READ)]
