"""The log of a mailbox environment in plain Python: its rows and what of them is left.

The twin of mailbox/layout.pxd and mailbox/replay.pyx, for those who write logs without a store: the upgrade from
format 1 and the move to another number of workers.
"""

import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import lmdb

FORMAT = 2
ENVELOPE, SHARED, BODY, RECEIPT, ENDED = range(1, 6)
CRC_BYTES = 4
HEAD_BYTES = {ENVELOPE: 43, SHARED: 51, BODY: 9, RECEIPT: 36}
WITH_TAIL = (ENVELOPE, BODY)
PLACES_MAX = 1 << 48
TABLES_MAX = 4
TXN_BYTES_MAX = 4 << 20  # of a log that is being written

_ENVELOPE = struct.Struct(">BBBQQQQII")
_RECEIPT = struct.Struct(">BBHQQQII")


def key_of(place: int) -> bytes:
    return place.to_bytes(8, "big")


def place_of(key: bytes) -> int:
    """-1 for what is no place."""
    place = int.from_bytes(key, "big")
    return place if len(key) == 8 and place < PLACES_MAX else -1


def _crc(place: int, head: bytes) -> int:
    return zlib.crc32(head, zlib.crc32(key_of(place)))


def sealed(place: int, head: bytes, body: bytes | None, intact: bool = True) -> bytes:
    """A row with its checksums; one that is not intact has a wrong one over its body."""
    crc = _crc(place, head)
    row = head + crc.to_bytes(4, "big")
    if body is None:
        return row
    tail = zlib.crc32(body, crc)
    return row + body + (tail if intact else tail ^ 0xFFFFFFFF).to_bytes(4, "big")


def envelope_head(
    *, kind: int, priority: int, recipient: int, sender: int, id: int, seq: int, accepted_s: int, expires_s: int
) -> bytes:
    return _ENVELOPE.pack(ENVELOPE, kind, priority, recipient, sender, id, seq, accepted_s, expires_s)


def receipt_head(*, level: int, code: int, owner: int, peer: int, id: int, accepted_s: int, expires_s: int) -> bytes:
    return _RECEIPT.pack(RECEIPT, level, code, owner, peer, id, accepted_s, expires_s)


@dataclass(frozen=True)
class Row:
    """A legible row.  intact: its body is right, too."""

    place: int
    head: bytes
    body: bytes | None
    intact: bool

    @property
    def type(self) -> int:
        return self.head[0]

    @property
    def owner(self) -> int:
        """Whose mailbox it is in: recipient or owner.  Not of a body."""
        at = 4 if self.type == RECEIPT else 3
        return int.from_bytes(self.head[at : at + 8], "big")

    @property
    def number(self) -> int:
        """Of the body that this is, or that this envelope shares."""
        at = 1 if self.type == BODY else 43
        return int.from_bytes(self.head[at : at + 8], "big")

    @property
    def identity(self) -> bytes:
        """What makes two rows the same: the later one counts."""
        if self.type == BODY:
            return self.head[:9]
        return b"r" + self.head[4:28] if self.type == RECEIPT else b"e" + self.head[3:27]

    @property
    def level(self) -> int:
        """Of a receipt."""
        return self.head[1]

    def numbered(self, number: int) -> "Row":
        at = 1 if self.type == BODY else 43
        return Row(self.place, self.head[:at] + key_of(number) + self.head[at + 8 :], self.body, self.intact)

    def at(self, place: int) -> bytes:
        """Its bytes at another place, as damaged as they were."""
        return sealed(place, self.head, self.body, self.intact)


def ended_by(place: int, value: bytes) -> tuple[int, list[int]] | None:
    """(cut, places) of a legible row of type ENDED."""
    if value[:1] != bytes([ENDED]) or len(value) < 13 or (len(value) - 13) % 8:
        return None
    if _crc(place, value[:-4]) != int.from_bytes(value[-4:], "big"):
        return None
    cut, *places = struct.unpack(f">{len(value) // 8}Q", value[1:-4])
    return cut, places


def parsed(place: int, value: bytes) -> Row | None:
    """None when not even its head is legible, or when it is of type ENDED."""
    head_n = HEAD_BYTES.get(value[0] if value else 0, 0)
    if head_n == 0 or place < 0:
        return None
    head, crc, rest = value[:head_n], value[head_n : head_n + 4], value[head_n + 4 :]
    if len(crc) < 4 or int.from_bytes(crc, "big") != _crc(place, head):
        return None
    if head[0] not in WITH_TAIL:
        return None if rest else Row(place, head, None, True)
    if len(rest) < CRC_BYTES:
        return None
    body, tail = rest[:-4], int.from_bytes(rest[-4:], "big")
    return Row(place, head, body, tail == zlib.crc32(body, int.from_bytes(crc, "big")))


class Left:
    """What a log still holds."""

    def __init__(self, rows: Callable[[], Iterable[tuple[bytes, bytes]]]) -> None:
        """rows: gives every (key, value) of the log in order, each time it is called."""
        self._rows = rows
        self._cut = 0
        self._ended: set[int] = set()
        self._last: dict[bytes, int] = {}
        for key, value in rows():
            if found := ended_by(place_of(key), value):
                self._cut = max(self._cut, found[0])
                self._ended.update(found[1])
        for row in self._living():
            if isinstance(row, Row):
                self._last[row.identity] = row.place

    def __iter__(self) -> Iterator[Row | bytes]:
        """Each row that counts; of one of which nothing is legible, its bytes."""
        for row in self._living():
            if isinstance(row, bytes) or self._last[row.identity] == row.place:
                yield row

    def _living(self) -> Iterator[Row | bytes]:
        for key, value in self._rows():
            place = place_of(key)
            if place not in self._ended and not 0 <= place < self._cut and not ended_by(place, value):
                yield parsed(place, value) or value


class Writer:
    """Writes the log of a new environment, which is durable after finish()."""

    def __init__(self, path: Path, map_bytes: int) -> None:
        self._env = lmdb.open(str(path), map_size=map_bytes, max_dbs=TABLES_MAX, sync=False, mode=0o600)
        meta = self._env.open_db(b"meta")
        self._log = self._env.open_db(b"log")
        self._txn = self._env.begin(write=True)
        self._txn.put(b"format", FORMAT.to_bytes(4, "big"), db=meta)
        self._pending_bytes = 0
        self._place = 0

    def append(self, at: Callable[[int], bytes]) -> None:
        """at: gives the bytes of the row for the place that it gets."""
        self._place += 1
        row = at(self._place)
        self._txn.put(key_of(self._place), row, db=self._log, append=True)
        self._pending_bytes += len(row)
        if self._pending_bytes >= TXN_BYTES_MAX:
            self._txn.commit()
            self._txn = self._env.begin(write=True)
            self._pending_bytes = 0

    def finish(self) -> int:
        """Makes it durable.  How many rows there are."""
        self._txn.commit()
        self._env.sync(True)
        with self._env.begin() as txn:
            return int(txn.stat(self._log)["entries"])

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._txn.abort()  # after a commit it does nothing
        self._env.close()
