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


class _Form(Enum):
    VARINT = 1
    U8 = 2
    U64 = 3
    # byte strings: the value is the greatest length
    SECRET = PSK_BYTES + limits.TICKET_BYTES_MAX
    TEXT = limits.ERROR_TEXT_BYTES_MAX
    MAP = limits.REQUEST_BODY_BYTES_MAX
    BODY = limits.ENVELOPE_BODY_BYTES_MAX


class _Layout(NamedTuple):
    frame: type[Any]
    fields: tuple[tuple[str, _Form], ...]


def _layout(frame: type[Any], **fields: _Form) -> _Layout:
    return _Layout(frame, tuple(fields.items()))


_RECEIPT = {"recipient": _Form.U64, "id": _Form.U64}
_DELIVER = {"seq": _Form.VARINT, "sender": _Form.U64, "id": _Form.U64}

# Fields in wire order.  SEND and DELIVER families stand here with kind 0, extensions with their lowest type.
_LAYOUTS: dict[int, _Layout] = {
    0x01: _layout(Open, client_version=_Form.VARINT, flags=_Form.VARINT),
    0x02: _layout(Ping, token=_Form.VARINT),
    0x03: _layout(Pong, token=_Form.VARINT),
    0x04: _layout(Close, code=_Form.VARINT, retry_after_ms=_Form.VARINT),
    0x05: _layout(Ready, server_version=_Form.VARINT, queued=_Form.VARINT, server_time_ms=_Form.U64),
    0x06: _layout(Error, code=_Form.VARINT, text=_Form.TEXT),
    0x07: _layout(Ticket, lifetime_s=_Form.VARINT, secret=_Form.SECRET),
    0x10: _layout(Request, request_id=_Form.VARINT, method=_Form.VARINT, body=_Form.MAP),
    0x11: _layout(Response, request_id=_Form.VARINT, status=_Form.VARINT, body=_Form.MAP),
    0x12: _layout(Notice, notice=_Form.VARINT, body=_Form.MAP),
    0x20: _layout(Accepted, **_RECEIPT),
    0x21: _layout(Delivered, **_RECEIPT),
    0x22: _layout(Read, **_RECEIPT),
    0x23: _layout(Refused, **_RECEIPT, code=_Form.VARINT),
    0x28: _layout(StoredReceipt, seq=_Form.VARINT, level=_Form.U8, **_RECEIPT, code=_Form.VARINT),
    0x30: _layout(Ack, seq=_Form.VARINT),
    0x31: _layout(AckRange, first_seq=_Form.VARINT, count=_Form.VARINT),
    0x32: _layout(MarkRead, sender=_Form.U64, id=_Form.U64),
    0x40: _layout(Send, **_RECEIPT, body=_Form.BODY),
    0x50: _layout(Send, **_RECEIPT, ttl_s=_Form.VARINT, body=_Form.BODY),
    0x60: _layout(Deliver, **_DELIVER, body=_Form.BODY),
    0x70: _layout(Deliver, **_DELIVER, accepted_at_s=_Form.VARINT, body=_Form.BODY),
    0x80: _layout(Extension, payload=_Form.BODY),
}
_TYPE_OF: dict[type[Any], int] = {layout.frame: base for base, layout in reversed(_LAYOUTS.items())}
_FAMILIES = range(0x40, 0x80)
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


def _read_field(form: _Form, data: bytes, offset: int) -> tuple[int | bytes, int]:
    if form is _Form.VARINT:
        return read_varint(data, offset)
    if form in (_Form.U8, _Form.U64):
        raw, offset = _take(data, offset, 1 if form is _Form.U8 else 8)
        return int.from_bytes(raw, "big"), offset
    n, offset = read_varint(data, offset)
    if n > form.value:
        raise _malformed(f"{n} bytes are over the limit of {form.value}")
    return _take(data, offset, n)


def _fault(frame: Frame) -> str:
    """What is wrong with fields that depend on each other, or ""."""
    match frame:
        case AckRange(first_seq, count):
            if not 1 <= count <= limits.DELIVERY_WINDOW_MAX or first_seq + count - 1 > U64_MAX:
                return f"an acknowledgement of {count} deliveries from {first_seq}"
        case StoredReceipt(level=level, code=code):
            if not Level.ACCEPTED <= level <= Level.REFUSED:
                return f"there is no receipt level 0x{level:02x}"
            if code > (0xFFFF if level == Level.REFUSED else 0):
                return f"code {code} at receipt level 0x{level:02x}"
        case Ticket(secret=secret) if len(secret) <= PSK_BYTES:
            return f"a ticket of {len(secret)} bytes, secret included"
        case _:
            pass
    return ""


def decode(data: bytes, offset: int = 0) -> tuple[Frame, int]:
    """The frame at `offset`, the offset behind it.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME)."""
    if offset >= len(data):
        raise _malformed("there is no frame")
    type_byte = data[offset]
    extra: dict[str, int] = {}
    base = type_byte
    if type_byte in _EXTENSIONS:
        base, extra = 0x80, {"type": type_byte}
    elif type_byte in _FAMILIES:
        base, extra = type_byte & 0xF0, {"kind": type_byte & 0x0F}
    layout = _LAYOUTS.get(base)
    if layout is None:
        raise RemoteError(Code.UNKNOWN_FRAME, f"type 0x{type_byte:02x}")
    values: dict[str, int | bytes] = dict(extra)
    offset += 1
    for name, form in layout.fields:
        values[name], offset = _read_field(form, data, offset)
    frame: Frame = layout.frame(**values)
    if fault := _fault(frame):
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


def _write_field(frame: Frame, name: str, form: _Form) -> bytes:
    value = getattr(frame, name)
    if isinstance(value, bytes):
        if len(value) > form.value:
            raise LocalError(f"{name} of {frame!r:.100} is over its limit of {form.value} bytes")
        return varint(len(value)) + value
    if not 0 <= value <= (0xFF if form is _Form.U8 else U64_MAX):
        raise LocalError(f"{name} of {frame!r:.100} is out of range")
    if form is _Form.VARINT:
        return varint(value)
    return int(value).to_bytes(1 if form is _Form.U8 else 8, "big")


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
    if fault := _fault(frame):
        raise LocalError(fault)
    type_byte = _type_byte(frame)
    base = min(type_byte & 0xF0, 0x80) if type_byte >= 0x40 else type_byte
    fields = _LAYOUTS[base].fields
    return bytes([type_byte]) + b"".join(_write_field(frame, name, form) for name, form in fields)


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
