"""Mailbox format 1 into a log (format 2).  It had tables that were changed in place (docs/storage.md, Upgrades).

    mail      recipient 8, 255 - priority 1, seq 8 -> sender 8, id 8, accepted_s 4, expires_s 4, kind 1, body, crc 4
    ident     recipient 8, sender 8, id 8 -> priority 1, seq 8, expires_s 4, crc 4
    expiry    expires_s 4, the key in mail 17 -> sender 8, id 8, kind 1, crc 4
    receipts  owner 8, peer 8, id 8 -> level 1, code 2, accepted_s 4, expires_s 4, crc 4

A crc is over the first letter of the table, key and value.
"""

import zlib
from pathlib import Path

import lmdb

from wa._fastpath.mailbox.twin import Writer, envelope_head, receipt_head, sealed

TABLES_MAX = 8
MARGIN_BYTES = 64 << 20


def upgrade(path: Path, beside: Path) -> None:
    """Writes everything in the environment `path` into a new one, which is durable then.

    A damaged envelope stays damaged; whose it is comes from its other rows.  One of which nothing is known, and a
    damaged receipt, become rows that are not legible: they are reported when the log is opened.
    """
    size = (path / "data.mdb").stat().st_size
    with (
        lmdb.open(str(path), readonly=True, max_dbs=TABLES_MAX) as old,
        old.begin() as txn,
        Writer(beside, 2 * size + MARGIN_BYTES) as writer,
    ):
        _Upgrade(old, txn, writer).run()
        writer.finish()


class _Upgrade:
    def __init__(self, old: lmdb.Environment, txn: lmdb.Transaction, writer: Writer) -> None:
        self._txn = txn
        self._writer = writer
        names = (b"mail", b"ident", b"expiry", b"receipts")
        self._tables = {name: old.open_db(name, txn=txn, create=False) for name in names}

    def run(self) -> None:
        for key, value in self._txn.cursor(self._tables[b"mail"]):
            self._mail(bytes(key), bytes(value))
        for key, value in self._txn.cursor(self._tables[b"receipts"]):
            self._receipt(bytes(key), bytes(value))

    def _mail(self, key: bytes, value: bytes) -> None:
        intact = _intact(b"m", key, value) and len(value) >= 29
        found = value[:25] if intact else self._elsewhere(key)
        fields = found or bytes(25)
        head = envelope_head(
            kind=fields[24],
            priority=255 - key[8],
            recipient=_n(key[:8]),
            sender=_n(fields[:8]),
            id=_n(fields[8:16]),
            seq=_n(key[9:]),
            accepted_s=_n(fields[16:20]),
            expires_s=_n(fields[20:24]),
        )
        if found is None:
            self._writer.append(lambda place: _broken(sealed(place, head, b"")))
        else:
            self._writer.append(lambda place: sealed(place, head, value[25:-4], intact))

    def _elsewhere(self, key: bytes) -> bytes | None:
        """sender, id, accepted_s, expires_s, kind of a damaged envelope as the other tables have them."""
        cursor = self._txn.cursor(self._tables[b"ident"])
        found = cursor.set_range(key[:8])
        while found and cursor.key()[:8] == key[:8]:
            ident, value = map(bytes, cursor.item())
            if value[:9] == bytes([255 - key[8]]) + key[9:] and _intact(b"i", ident, value):
                due = value[9:13] + key
                told = bytes(self._txn.get(due, db=self._tables[b"expiry"]) or b"")
                return ident[8:] + bytes(4) + due[:4] + (told[16:17] if _intact(b"e", due, told) else b"\0")
            found = cursor.next()
        for row in self._txn.cursor(self._tables[b"expiry"]):
            due, told = map(bytes, row)
            if due[4:] == key and _intact(b"e", due, told):
                return told[:16] + bytes(4) + due[:4] + told[16:17]
        return None

    def _receipt(self, key: bytes, value: bytes) -> None:
        intact = _intact(b"r", key, value) and len(value) == 15
        fields = value if intact else bytes(15)
        head = receipt_head(
            level=fields[0],
            code=_n(fields[1:3]),
            owner=_n(key[:8]),
            peer=_n(key[8:16]),
            id=_n(key[16:24]),
            accepted_s=_n(fields[3:7]),
            expires_s=_n(fields[7:11]),
        )
        if intact:
            self._writer.append(lambda place: sealed(place, head, None))
        else:
            self._writer.append(lambda place: _broken(sealed(place, head, None)))


def _n(field: bytes) -> int:
    return int.from_bytes(field, "big")


def _intact(letter: bytes, key: bytes, value: bytes) -> bool:
    return len(value) > 4 and zlib.crc32(letter + key + value[:-4]) == _n(value[-4:])


def _broken(row: bytes) -> bytes:
    """Its type is that of no row."""
    return bytes([row[0] | 0x80]) + row[1:]
