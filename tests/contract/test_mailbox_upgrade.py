"""A mailbox of format 1 becomes a log, completely or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest
from format_1 import be, mail_key, write_format_1

from wa._fastpath.mailbox import store as lmdb_store
from wa._fastpath.mailbox.contract import Op, Result, What
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.os import durable
from wa.ids import address_of
from wa.routing.shards import worker_of
from wa.storage.layout import open_layout


def put(seq: int, recipient: int = 1, **more: object) -> Op:
    op = Op(What.PUT, recipient, 2, seq, seq, 10, 1, 0, 1_000, 2_000, b"body %d" % seq)
    return op._replace(**more)  # type: ignore[arg-type]


MAIL = [put(seq, seq % 3, priority=(5, 10)[seq % 2], expires_s=seq % 5) for seq in range(1, 200)]
MAIL.append(put(200, body=b"long" * 9_000))
RECEIPTS = [Op(What.RECEIPT_PUT, 9, 8, n, level=0x23, code=n, accepted_s=5, expires_s=n) for n in range(1, 20)]


def everything(store: LmdbMailStore) -> list[Op]:
    boxes = dict.fromkeys((recipient, priority) for recipient, priority, _ in store.census())
    rows = [row for box in boxes for row in store.read(*box, count_max=999)]
    return rows + [row for owner in {key[0] for key in store.receipt_census()} for row in store.read_receipts(owner)]


def by_text(rows: list[Op]) -> list[Op]:
    return sorted(rows, key=repr)


def flip(path: Path, table: bytes, key: bytes, at: int) -> None:
    with lmdb.open(str(path), max_dbs=5) as env, env.begin(write=True) as txn:
        handle = env.open_db(table, txn=txn, create=False)
        value = bytearray(txn.get(key, db=handle) or b"")
        value[at] ^= 0x10
        txn.put(key, bytes(value), db=handle)


def test_everything_is_there_after_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "mail"
    write_format_1(path, MAIL + RECEIPTS)
    for _ in range(2):
        store = LmdbMailStore(path)
        assert by_text(everything(store)) == by_text(MAIL + RECEIPTS)
        assert store.stats()["corrupt"] == 0
        store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["mail"]
    assert {entry.stat().st_mode & 0o777 for entry in path.iterdir()} == {0o600}
    store = LmdbMailStore(path)
    store.start()
    assert store.apply([MAIL[0], put(999)]).results == [Result.DUPLICATE, Result.OK]
    gone = store.apply([Op(What.SWEEP, accepted_s=2, count_max=999)]).expired
    assert sorted(op.seq for op in gone) == [op.seq for op in MAIL if op.expires_s in (1, 2)]
    store.close()


@pytest.mark.parametrize("also", [(), (b"ident",), (b"expiry",), (b"ident", b"expiry")])
def test_a_damaged_envelope_stays_damaged(tmp_path: Path, also: tuple[bytes, ...]) -> None:
    row = put(2)
    write_format_1(tmp_path, [put(1), row, put(3)])
    flip(tmp_path, b"mail", mail_key(row), 26)
    for table in also:
        flip(tmp_path, table, be(1) + be(2) + be(2) if table == b"ident" else be(2_000, 4) + mail_key(row), 3)
    store = LmdbMailStore(tmp_path)
    store.start()
    assert store.read(1, 10) == [put(1), put(3)]
    if len(also) == 2:
        assert store.corrupt_keys() == [("log", be(2))], "nothing says whose it is"
    else:
        assert store.corrupt_keys() == [("mail", mail_key(row))]
        gone = store.apply([Op(What.SWEEP, accepted_s=2_000, count_max=9)]).expired
        assert [(op.sender, op.id, op.kind) for op in gone][1] == (2, 2, 0 if b"expiry" in also else 1)
    store.close()


def test_a_damaged_receipt_is_reported(tmp_path: Path) -> None:
    write_format_1(tmp_path, RECEIPTS[:2])
    flip(tmp_path, b"receipts", be(9) + be(8) + be(1), 0)
    store = LmdbMailStore(tmp_path)
    assert store.read_receipts(9) == [RECEIPTS[1]]
    assert store.corrupt_keys() == [("log", be(1))]
    store.close()


class Cut(Exception):
    """Stands for a power cut."""


@pytest.mark.parametrize("step", ["upgrade", "fsync", "rename", "sync_directory", "rmtree"])
def test_a_cut_at_any_step_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    path = tmp_path / "mail"
    write_format_1(path, MAIL + RECEIPTS)

    def cut(*_: object, **__: object) -> None:
        raise Cut

    with monkeypatch.context() as patch:
        match step:
            case "upgrade":
                patch.setattr(lmdb_store, "upgrade", cut)
            case "fsync":
                patch.setattr(durable.os, "fsync", cut)
            case "rename":
                patch.setattr(Path, "rename", cut)
            case "sync_directory":
                patch.setattr(durable, "sync_directory", cut)
            case "rmtree":
                patch.setattr(durable.shutil, "rmtree", cut)
        with pytest.raises(Cut):
            LmdbMailStore(path)
    store = LmdbMailStore(path)
    assert by_text(everything(store)) == by_text(MAIL + RECEIPTS)
    store.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["mail"]


@pytest.mark.parametrize("rows_written", [0, 1, 100, 218])
def test_kill_9_in_an_upgrade_loses_nothing(tmp_path: Path, rows_written: int) -> None:
    path = tmp_path / "mail"
    write_format_1(path, MAIL + RECEIPTS)
    code = f"""
import os, signal
from wa._fastpath.mailbox import twin as mail_log
from wa._fastpath.mailbox.store import LmdbMailStore
real = mail_log.Writer.append
def append(self, at):
    if self._place == {rows_written}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(self, at)
mail_log.Writer.append = append
LmdbMailStore({str(path)!r})
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
    assert ran.returncode == -signal.SIGKILL
    store = LmdbMailStore(path)
    assert by_text(everything(store)) == by_text(MAIL + RECEIPTS)
    store.close()


def test_a_directory_of_format_1_moves_to_more_workers(tmp_path: Path) -> None:
    open_layout(tmp_path, 1).close()
    owners = [address_of(15_551_230_000 + n, 1) for n in range(30)]
    rows = [put(seq, owner) for seq, owner in enumerate(owners, 1)]
    receipts = [Op(What.RECEIPT_PUT, owner, 8, 1, level=0x21) for owner in owners]
    write_format_1(tmp_path / "g0/w0/mail", rows + receipts)
    layout = open_layout(tmp_path, 3)
    for worker in range(3):
        store = LmdbMailStore(layout.mail(worker))
        mine = [op for op in rows + receipts if worker_of(op.recipient, 3) == worker]
        assert by_text(everything(store)) == by_text(mine)
        store.close()
    layout.close()
