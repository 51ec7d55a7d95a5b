"""Writes a mailbox environment of format 1, as the versions before the log did."""

import zlib
from pathlib import Path

import lmdb

from wa._fastpath.mailbox.contract import Op, What

TABLES = (b"mail", b"ident", b"expiry", b"receipts")


def be(number: int, size: int = 8) -> bytes:
    return number.to_bytes(size, "big")


def mail_key(op: Op) -> bytes:
    return be(op.recipient) + be(255 - op.priority, 1) + be(op.seq)


def rows_of(op: Op) -> list[tuple[bytes, bytes, bytes]]:
    """(table, key, value without its checksum)"""
    identity = be(op.recipient) + be(op.sender) + be(op.id)
    if op.what == What.RECEIPT_PUT:
        return [(b"receipts", identity, be(op.level, 1) + be(op.code, 2) + be(op.accepted_s, 4) + be(op.expires_s, 4))]
    key, expires = mail_key(op), be(op.expires_s, 4)
    rows = [
        (b"mail", key, be(op.sender) + be(op.id) + be(op.accepted_s, 4) + expires + be(op.kind, 1) + op.body),
        (b"ident", identity, be(op.priority, 1) + be(op.seq) + expires),
    ]
    if op.expires_s:
        rows.append((b"expiry", expires + key, be(op.sender) + be(op.id) + be(op.kind, 1)))
    return rows


def write_format_1(path: Path, ops: list[Op]) -> None:
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 28, max_dbs=5, mode=0o600) as env:
        meta = env.open_db(b"meta")
        tables = {name: env.open_db(name) for name in TABLES}
        with env.begin(write=True) as txn:
            txn.put(b"format", be(1, 4), db=meta)
            for op in ops:
                for table, key, value in rows_of(op):
                    txn.put(key, value + be(zlib.crc32(table[:1] + key + value), 4), db=tables[table])
