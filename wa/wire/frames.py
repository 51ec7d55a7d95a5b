"""The frames of a transport record as typed values (docs/protocol.md, section 2).

One dataclass per frame; `encode` writes one, `decode_all` reads a whole plaintext, `pack` fills records.  It is the
client's codec and the twin of `wa/_fastpath/wire/frames.pyx`: both accept exactly the same bytes.

It does not decide what a number or an id means, nor who may send which frame when.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, NamedTuple

from wa import limits
from wa.errors import Code, LocalError, RemoteError

U64_MAX = 2**64 - 1
PSK_BYTES = 32  # at the start of a ticket's secret


class Level(IntEnum):
    """How far an envelope has come; the type bytes of the receipt frames, in rising order."""

    ACCEPTED = 0x20
    DELIVERED = 0x21
    READ = 0x22
    REFUSED = 0x23


@dataclass(frozen=True, slots=True)
class Open:
    client_version: int
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Ping:
    token: int


@dataclass(frozen=True, slots=True)
class Pong:
    token: int


@dataclass(frozen=True, slots=True)
class Close:
    code: int
    retry_after_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ready:
    server_version: int
    queued: int  # envelopes that wait in the mailbox
    server_time_ms: int  # Unix time


@dataclass(frozen=True, slots=True)
class Error:
    code: int
    text: bytes  # UTF-8 by the protocol, but nobody has checked that


@dataclass(frozen=True, slots=True)
class Ticket:
    lifetime_s: int
    secret: bytes = field(repr=False)  # psk 32, then what the server wants to see again


@dataclass(frozen=True, slots=True)
class Request:
    request_id: int
    method: int
    body: bytes  # a msgpack map


@dataclass(frozen=True, slots=True)
class Response:
    request_id: int
    status: int  # 0 or an error code
    body: bytes  # a msgpack map


@dataclass(frozen=True, slots=True)
class Notice:
    notice: int
    body: bytes  # a msgpack map


@dataclass(frozen=True, slots=True)
class Accepted:
    recipient: int
    id: int


@dataclass(frozen=True, slots=True)
class Delivered:
    recipient: int
    id: int


@dataclass(frozen=True, slots=True)
class Read:
    recipient: int
    id: int


@dataclass(frozen=True, slots=True)
class Refused:
    recipient: int
    id: int
    code: int


@dataclass(frozen=True, slots=True)
class StoredReceipt:
    seq: int
    level: int  # a Level
    recipient: int
    id: int
    code: int = 0  # not 0 only at level REFUSED


@dataclass(frozen=True, slots=True)
class Ack:
    seq: int


@dataclass(frozen=True, slots=True)
class AckRange:
    first_seq: int
    count: int  # 1..64


@dataclass(frozen=True, slots=True)
class MarkRead:
    sender: int
    id: int


@dataclass(frozen=True, slots=True)
class Send:
    kind: int  # 0..15
    recipient: int
    id: int
    body: bytes
    ttl_s: int | None = None  # None: as long as the kind allows


@dataclass(frozen=True, slots=True)
class Deliver:
    kind: int  # 0..15
    seq: int
    sender: int
    id: int
    body: bytes
    accepted_at_s: int | None = None  # Unix seconds; None: it was not queued


@dataclass(frozen=True, slots=True)
class Extension:
    type: int  # 0x80..0xff
    payload: bytes


Frame = (
    Open
    | Ping
    | Pong
    | Close
    | Ready
    | Error
    | Ticket
    | Request
    | Response
    | Notice
    | Accepted
    | Delivered
    | Read
    | Refused
    | StoredReceipt
    | Ack
    | AckRange
    | MarkRead
    | Send
    | Deliver
    | Extension
)


class Form(NamedTuple):
    """How a field stands on the wire, in the words of docs/protocol.md."""

    name: str
    least: int  # of the number, or of the number of bytes
    greatest: int


VARINT = Form("varint", 0, U64_MAX)
U8 = Form("u8", 0, 0xFF)
U64 = Form("u64", 0, U64_MAX)
SECRET = Form("bytes", PSK_BYTES + 1, PSK_BYTES + limits.TICKET_BYTES_MAX)
TEXT = Form("bytes", 0, limits.ERROR_TEXT_BYTES_MAX)
MAP = Form("bytes", 0, limits.REQUEST_BODY_BYTES_MAX)
BODY = Form("bytes", 0, limits.ENVELOPE_BODY_BYTES_MAX)


class Rule(Enum):
    """What must hold between the fields of one frame, see `_fault`."""

    ANY = 0
    ONE = 1  # in C it fills in the count, which is not on the wire
    RANGE = 2
    RECEIPT = 3


ANY, ONE, RANGE, RECEIPT = Rule


class Layout(NamedTuple):
    frame: type[Any]
    kind_bits: int  # of the type byte; the others are the base type
    rule: Rule
    fields: dict[str, Form]  # in wire order


def _row(frame: type[Any], kind_bits: int, rule: Rule, **fields: Form) -> Layout:
    return Layout(frame, kind_bits, rule, fields)


# The same rows in the same order as F_LAYOUT of _fastpath/wire/frames.pyx; a test compares them.  By base type.
# fmt: off
F_LAYOUT: dict[int, Layout] = {
    0x01: _row(Open,          0x00, ANY,     client_version=VARINT, flags=VARINT),
    0x02: _row(Ping,          0x00, ANY,     token=VARINT),
    0x03: _row(Pong,          0x00, ANY,     token=VARINT),
    0x04: _row(Close,         0x00, ANY,     code=VARINT, retry_after_ms=VARINT),
    0x05: _row(Ready,         0x00, ANY,     server_version=VARINT, queued=VARINT, server_time_ms=U64),
    0x06: _row(Error,         0x00, ANY,     code=VARINT, text=TEXT),
    0x07: _row(Ticket,        0x00, ANY,     lifetime_s=VARINT, secret=SECRET),
    0x10: _row(Request,       0x00, ANY,     request_id=VARINT, method=VARINT, body=MAP),
    0x11: _row(Response,      0x00, ANY,     request_id=VARINT, status=VARINT, body=MAP),
    0x12: _row(Notice,        0x00, ANY,     notice=VARINT, body=MAP),
    0x20: _row(Accepted,      0x00, ANY,     recipient=U64, id=U64),
    0x21: _row(Delivered,     0x00, ANY,     recipient=U64, id=U64),
    0x22: _row(Read,          0x00, ANY,     recipient=U64, id=U64),
    0x23: _row(Refused,       0x00, ANY,     recipient=U64, id=U64, code=VARINT),
    0x28: _row(StoredReceipt, 0x00, RECEIPT, seq=VARINT, level=U8, recipient=U64, id=U64, code=VARINT),
    0x30: _row(Ack,           0x00, ONE,     seq=VARINT),
    0x31: _row(AckRange,      0x00, RANGE,   first_seq=VARINT, count=VARINT),
    0x32: _row(MarkRead,      0x00, ANY,     sender=U64, id=U64),
    0x40: _row(Send,          0x0F, ANY,     recipient=U64, id=U64, body=BODY),
    0x50: _row(Send,          0x0F, ANY,     recipient=U64, id=U64, ttl_s=VARINT, body=BODY),
    0x60: _row(Deliver,       0x0F, ANY,     seq=VARINT, sender=U64, id=U64, body=BODY),
    0x70: _row(Deliver,       0x0F, ANY,     seq=VARINT, sender=U64, id=U64, accepted_at_s=VARINT, body=BODY),
    0x80: _row(Extension,     0x7F, ANY,     payload=BODY),
}
# fmt: on
_BY_TYPE = {base | kind: row for base, row in F_LAYOUT.items() for kind in range(row.kind_bits + 1)}
_TYPE_OF: dict[type[Any], int] = {row.frame: base for base, row in reversed(F_LAYOUT.items())}
_EXTENSIONS = range(0x80, 0x100)


def varint(value: int) -> bytes:
    """Unsigned LEB128 in its shortest form; 0 <= value < 2**64."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _malformed(detail: str) -> RemoteError:
    return RemoteError(Code.FRAME_MALFORMED, detail)


def read_varint(data: bytes, offset: int) -> tuple[int, int]:
    """(value, offset behind it).  Raises RemoteError(FRAME_MALFORMED), also when a shorter form exists."""
    value = 0
    for n, byte in enumerate(data[offset : offset + 10]):
        value |= (byte & 0x7F) << 7 * n
        if byte < 0x80:
            if n > 0 and byte == 0:
                raise _malformed("a varint is not in its shortest form")
            if value > U64_MAX:
                raise _malformed("a varint has more than 64 bits")
            return value, offset + n + 1
    raise _malformed("a varint is cut short or too long")


def _take(data: bytes, offset: int, n: int) -> tuple[bytes, int]:
    if n > len(data) - offset:
        raise _malformed("the frame is cut short")
    return data[offset : offset + n], offset + n


def _read_field(form: Form, data: bytes, offset: int) -> tuple[int | bytes, int]:
    if form is VARINT:
        return read_varint(data, offset)
    if form is U8 or form is U64:
        raw, offset = _take(data, offset, 1 if form is U8 else 8)
        return int.from_bytes(raw, "big"), offset
    n, offset = read_varint(data, offset)
    if not form.least <= n <= form.greatest:
        raise _malformed(f"{n} bytes are not {form.least}..{form.greatest}")
    return _take(data, offset, n)


def _fault(rule: Rule, frame: Any) -> str:
    """What is wrong with fields that depend on each other, or ""."""
    if rule is RANGE:
        if not 1 <= frame.count <= limits.DELIVERY_WINDOW_MAX or frame.first_seq + frame.count - 1 > U64_MAX:
            return f"an acknowledgement of {frame.count} deliveries from {frame.first_seq}"
    elif rule is RECEIPT:
        if not Level.ACCEPTED <= frame.level <= Level.REFUSED:
            return f"there is no receipt level 0x{frame.level:02x}"
        if frame.code > (0xFFFF if frame.level == Level.REFUSED else 0):
            return f"code {frame.code} at receipt level 0x{frame.level:02x}"
    return ""


def decode(data: bytes, offset: int = 0) -> tuple[Frame, int]:
    """The frame at `offset`, the offset behind it.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME)."""
    if offset >= len(data):
        raise _malformed("there is no frame")
    type_byte = data[offset]
    row = _BY_TYPE.get(type_byte)
    if row is None:
        raise RemoteError(Code.UNKNOWN_FRAME, f"type 0x{type_byte:02x}")
    values: dict[str, int | bytes] = {}
    if row.frame is Extension:
        values["type"] = type_byte
    elif row.kind_bits:
        values["kind"] = type_byte & row.kind_bits
    offset += 1
    for name, form in row.fields.items():
        values[name], offset = _read_field(form, data, offset)
    frame: Frame = row.frame(**values)
    if fault := _fault(row.rule, frame):
        raise _malformed(fault)
    return frame, offset


def decode_all(data: bytes) -> list[Frame]:
    """All frames of one plaintext.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME)."""
    frames = []
    offset = 0
    while offset < len(data):
        frame, offset = decode(data, offset)
        frames.append(frame)
    return frames


def _write_field(frame: Frame, name: str, form: Form) -> bytes:
    value = getattr(frame, name)
    n = len(value) if isinstance(value, bytes) else value
    if not form.least <= n <= form.greatest:
        raise LocalError(f"{name} of {frame!r:.100} is outside its range of {form.least}..{form.greatest}")
    if isinstance(value, bytes):
        return varint(n) + value
    if form is VARINT:
        return varint(value)
    return int(value).to_bytes(1 if form is U8 else 8, "big")


def _type_byte(frame: Frame) -> int:
    match frame:
        case Send(kind=kind, ttl_s=seconds) | Deliver(kind=kind, accepted_at_s=seconds):
            if not 0 <= kind <= 0x0F:
                raise LocalError(f"an envelope kind is 0..15, not {kind}")
            return _TYPE_OF[type(frame)] + (0 if seconds is None else 0x10) + kind
        case Extension(type=number):
            if number not in _EXTENSIONS:
                raise LocalError(f"an extension type is 0x80..0xff, not {number:#x}")
            return number
        case _:
            return _TYPE_OF[type(frame)]


def encode(frame: Frame) -> bytes:
    """The bytes of one frame.  Raises LocalError for a field outside its range."""
    type_byte = _type_byte(frame)
    row = _BY_TYPE[type_byte]
    if fault := _fault(row.rule, frame):
        raise LocalError(fault)
    return bytes([type_byte]) + b"".join(_write_field(frame, name, form) for name, form in row.fields.items())


def pack(frames: Iterable[Frame], plain_max: int = limits.RECORD_PLAIN_BYTES_MAX) -> Iterator[bytes]:
    """Record plaintexts of at most `plain_max` bytes with whole frames, in order and as few as that allows.

    Raises LocalError for a frame that is longer than a record or has a field outside its range.
    """
    record = bytearray()
    for frame in frames:
        data = encode(frame)
        if len(data) > plain_max:
            raise LocalError(f"a frame of {len(data)} bytes does not fit a record of {plain_max}")
        if len(record) + len(data) > plain_max:
            yield bytes(record)
            record.clear()
        record += data
    if record:
        yield bytes(record)
