"""The frame codec in C and its twin in Python: the same bytes, the same frames, the same refusals."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import limits
from wa._fastpath.wire import frames as fast
from wa.errors import Code, LocalError, RemoteError
from wa.wire import frames as wire
from wa.wire.frames import Frame

U64 = st.one_of(
    st.integers(0, wire.U64_MAX),
    st.integers(0, 300),
    st.sampled_from([1 << 63, wire.U64_MAX, 127, 128, 16384]),
)
KIND = st.integers(0, 15)


def bodies(limit: int) -> st.SearchStrategy[bytes]:
    """Mostly short ones, and the lengths around each length of varint and around the limit."""
    edges = [n for n in (0, 1, 127, 128, 16_383, 16_384, limit - 1, limit) if n <= limit]
    return st.one_of(st.binary(max_size=40), st.sampled_from(edges).map(bytes))


BODY = bodies(limits.ENVELOPE_BODY_BYTES_MAX)
MAP = bodies(limits.REQUEST_BODY_BYTES_MAX)
ACK_RANGES = st.builds(wire.AckRange, U64, st.integers(1, limits.DELIVERY_WINDOW_MAX)).filter(
    lambda frame: frame.first_seq + frame.count - 1 <= wire.U64_MAX
)
STORED_RECEIPTS = st.one_of(
    st.builds(wire.StoredReceipt, U64, st.sampled_from([0x20, 0x21, 0x22]), U64, U64),
    st.builds(wire.StoredReceipt, U64, st.just(wire.Level.REFUSED), U64, U64, st.integers(0, 0xFFFF)),
)
SENDS = st.builds(wire.Send, KIND, U64, U64, BODY, st.none() | U64)

FRAMES: st.SearchStrategy[Frame] = st.one_of(
    st.builds(wire.Open, U64, U64),
    st.builds(wire.Ping, U64),
    st.builds(wire.Pong, U64),
    st.builds(wire.Close, U64, U64),
    st.builds(wire.Ready, U64, U64, U64),
    st.builds(wire.Error, U64, bodies(limits.ERROR_TEXT_BYTES_MAX)),
    st.builds(wire.Ticket, U64, st.binary(min_size=33, max_size=32 + limits.TICKET_BYTES_MAX)),
    st.builds(wire.Request, U64, U64, MAP),
    st.builds(wire.Response, U64, U64, MAP),
    st.builds(wire.Notice, U64, MAP),
    st.builds(wire.Accepted, U64, U64),
    st.builds(wire.Delivered, U64, U64),
    st.builds(wire.Read, U64, U64),
    st.builds(wire.Refused, U64, U64, U64),
    STORED_RECEIPTS,
    st.builds(wire.Ack, U64),
    ACK_RANGES,
    st.builds(wire.MarkRead, U64, U64),
    SENDS,
    st.builds(wire.Deliver, KIND, U64, U64, U64, BODY, st.none() | U64),
    st.builds(wire.Extension, st.integers(0x80, 0xFF), BODY),
)


def raw(frame: Frame) -> fast.RawFrame:
    """What wire/frames.pxd says the C struct holds for this frame."""
    base, kind, code, address, id_, number, extra, body = wire.encode(frame)[0], 0, 0, 0, 0, 0, 0, b""
    match frame:
        case wire.Ping(n) | wire.Pong(n):
            number = n
        case wire.Ack(n):
            number, extra = n, 1
        case wire.Open(n, x) | wire.Close(n, x) | wire.AckRange(n, x):
            number, extra = n, x
        case wire.Ready(n, x, a):
            number, extra, address = n, x, a
        case wire.Error(n, b) | wire.Notice(n, b) | wire.Ticket(n, b):
            number, body = n, b
        case wire.Request(n, x, b) | wire.Response(n, x, b):
            number, extra, body = n, x, b
        case wire.Accepted(a, i) | wire.Delivered(a, i) | wire.Read(a, i) | wire.MarkRead(a, i):
            address, id_ = a, i
        case wire.Refused(a, i, n):
            address, id_, number = a, i, n
        case wire.StoredReceipt(n, x, a, i, c):
            number, extra, address, id_, code = n, x, a, i, c
        case wire.Send(k, a, i, b, ttl):
            base, kind, address, id_, body, extra = base & 0xF0, k, a, i, b, ttl or 0
        case wire.Deliver(k, n, a, i, b, at):
            base, kind, number, address, id_, body, extra = base & 0xF0, k, n, a, i, b, at or 0
        case wire.Extension(t, b):
            base, kind, body = 0x80, t & 0x7F, b
    return base, kind, code, address, id_, number, extra, body


Outcome = list[fast.RawFrame] | Code


def outcome_fast(data: bytes) -> Outcome:
    try:
        return fast.parse(data)
    except RemoteError as error:
        return error.code


def outcome_wire(data: bytes) -> Outcome:
    try:
        return [raw(frame) for frame in wire.decode_all(data)]
    except RemoteError as error:
        return error.code


def assert_parses_or_refuses(data: bytes) -> None:
    """Parse it, or raise the remote error, never anything else; what was parsed is written back as it was."""
    outcome = outcome_fast(data)
    assert outcome == outcome_wire(data)
    if isinstance(outcome, Code):
        assert outcome in (Code.FRAME_MALFORMED, Code.UNKNOWN_FRAME)
        return
    assert b"".join(fast.encode(*frame) for frame in outcome) == data
    assert b"".join(wire.encode(frame) for frame in wire.decode_all(data)) == data


@given(st.lists(FRAMES, max_size=4))
def test_round_trip(frames: list[Frame]) -> None:
    data = b"".join(wire.encode(frame) for frame in frames)
    assert wire.decode_all(data) == frames
    assert fast.parse(data) == [raw(frame) for frame in frames]
    assert b"".join(fast.encode(*raw(frame)) for frame in frames) == data


@given(st.binary(max_size=80))
def test_random_bytes(data: bytes) -> None:
    assert_parses_or_refuses(data)


@given(st.integers(0, 255), st.binary(max_size=48))
def test_every_type_with_random_fields(first: int, rest: bytes) -> None:
    assert_parses_or_refuses(bytes([first]) + rest)


@given(st.lists(FRAMES, min_size=1, max_size=3), st.data())
def test_mutated_frames(frames: list[Frame], data: st.DataObject) -> None:
    good = bytearray(b"".join(wire.encode(frame) for frame in frames))
    for _ in range(data.draw(st.integers(1, 3))):
        # the heads are where the rules are, so half of the changes fall there
        last = len(good) - 1
        at = data.draw(st.one_of(st.integers(0, last), st.integers(0, min(last, 24))))
        good[at] = data.draw(st.integers(0, 255))
    assert_parses_or_refuses(bytes(good))


SAMPLES: list[Frame] = [
    wire.Open(1),
    wire.Ping(300),
    wire.Pong(wire.U64_MAX),
    wire.Close(13, 5000),
    wire.Ready(1, 1000, 2**63),
    wire.Error(9, b"text"),
    wire.Ticket(86_400, bytes(33)),
    wire.Request(1, 2, b"\x80"),
    wire.Response(1, 0, b"\x80"),
    wire.Notice(1, b"\x80"),
    wire.Accepted(1, 2),
    wire.Delivered(1, 2),
    wire.Read(1, 2),
    wire.Refused(1, 2, 300),
    wire.StoredReceipt(1, wire.Level.REFUSED, 2, 3, 300),
    wire.Ack(300),
    wire.AckRange(300, 64),
    wire.MarkRead(1, 2),
    wire.Send(1, 2, 3, b"body"),
    wire.Send(1, 2, 3, b"body", 60),
    wire.Deliver(1, 2, 3, 4, b"body"),
    wire.Deliver(1, 2, 3, 4, b"body", 2**31),
    wire.Extension(0xFF, b"payload"),
]


@pytest.mark.parametrize("frame", SAMPLES, ids=lambda frame: f"{type(frame).__name__}")
def test_cut_short_at_every_byte(frame: Frame) -> None:
    data = wire.encode(frame)
    for n in range(1, len(data)):
        assert outcome_fast(data[:n]) == outcome_wire(data[:n]) == Code.FRAME_MALFORMED
        assert outcome_fast(data + data[:n]) == outcome_wire(data + data[:n]) == Code.FRAME_MALFORMED


def test_every_frame_of_the_protocol_has_a_sample() -> None:
    assert {type(frame) for frame in SAMPLES} == set(wire.Frame.__args__)


def test_layout_on_the_wire() -> None:
    """Written out by hand from docs/protocol.md, so that both codecs cannot be wrong together."""
    send = wire.Send(5, 0x0102030405060708, 0x1112131415161718, b"abc")
    assert wire.encode(send) == bytes.fromhex("45 0102030405060708 1112131415161718 03 616263")
    queued = wire.Deliver(8, 300, 1, 2, b"", 1_700_000_000)
    assert wire.encode(queued) == bytes.fromhex("78 ac02 0000000000000001 0000000000000002 80e2cfaa06 00")
    stored = wire.StoredReceipt(1, wire.Level.REFUSED, 3, 4, 46)
    assert wire.encode(stored) == bytes.fromhex("28 01 23 0000000000000003 0000000000000004 2e")
    ready = wire.Ready(1, 2, 0x0102030405060708)
    assert wire.encode(ready) == bytes.fromhex("05 01 02 0102030405060708")


REFUSED = {
    "no shortest varint": ("02 8000", Code.FRAME_MALFORMED),
    "no shortest varint of ten bytes": ("02 80808080808080808000", Code.FRAME_MALFORMED),
    "more than 64 bits": ("02 ffffffffffffffffff02", Code.FRAME_MALFORMED),
    "varint without end": ("02 ffffffffffffffffffffff", Code.FRAME_MALFORMED),
    "ack range of none": ("31 01 00", Code.FRAME_MALFORMED),
    "ack range of 65": ("31 01 41", Code.FRAME_MALFORMED),
    "ack range past the last seq": ("31 ffffffffffffffffff01 02", Code.FRAME_MALFORMED),
    "receipt level below": (f"28 01 1f {'00' * 16} 00", Code.FRAME_MALFORMED),
    "receipt level above": (f"28 01 24 {'00' * 16} 00", Code.FRAME_MALFORMED),
    "code at a level without": (f"28 01 21 {'00' * 16} 01", Code.FRAME_MALFORMED),
    "code over 16 bits": (f"28 01 23 {'00' * 16} 808004", Code.FRAME_MALFORMED),
    "ticket that is a psk only": (f"07 01 20 {'00' * 32}", Code.FRAME_MALFORMED),
    "ticket over its limit": (f"07 01 a002 {'00' * 288}", Code.FRAME_MALFORMED),
    "type zero": ("00", Code.UNKNOWN_FRAME),
    "type between receipts": (f"24 {'00' * 20}", Code.UNKNOWN_FRAME),
    "last type below the envelopes": ("3f", Code.UNKNOWN_FRAME),
    "unknown after a good frame": ("0201 08", Code.UNKNOWN_FRAME),
}


@pytest.mark.parametrize(("text", "code"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(text: str, code: Code) -> None:
    data = bytes.fromhex(text)
    assert outcome_fast(data) == outcome_wire(data) == code


@pytest.mark.parametrize(
    ("head", "limit"),
    [
        (b"\x06\x01", limits.ERROR_TEXT_BYTES_MAX),
        (b"\x10\x01\x01", limits.REQUEST_BODY_BYTES_MAX),
        (b"\x11\x01\x01", limits.REQUEST_BODY_BYTES_MAX),
        (b"\x12\x01", limits.REQUEST_BODY_BYTES_MAX),
        (b"\x4f" + bytes(16), limits.ENVELOPE_BODY_BYTES_MAX),
        (b"\x6f\x01" + bytes(16), limits.ENVELOPE_BODY_BYTES_MAX),
        (b"\x80", limits.ENVELOPE_BODY_BYTES_MAX),
    ],
    ids=["error", "request", "response", "notice", "send", "deliver", "extension"],
)
def test_body_limits(head: bytes, limit: int) -> None:
    at_limit = head + wire.varint(limit) + bytes(limit)
    over = head + wire.varint(limit + 1) + bytes(limit + 1)
    assert len(fast.parse(at_limit)[0][-1]) == limit
    assert outcome_fast(at_limit) == outcome_wire(at_limit)
    assert outcome_fast(over) == outcome_wire(over) == Code.FRAME_MALFORMED


@given(SENDS.filter(lambda frame: frame.ttl_s is None))
def test_framing_cost_of_a_send(frame: wire.Send) -> None:
    cost = len(fast.encode(*raw(frame))) - len(frame.body)
    assert cost <= limits.FRAMING_BYTES_MAX
    assert cost <= 19 or len(frame.body) >= 16_384


@given(FRAMES, st.integers(0, 64))
def test_output_too_small_is_our_own_fault(frame: Frame, missing: int) -> None:
    """At every capacity below the frame's length, above and below the longest header."""
    data = wire.encode(frame)
    if missing == 0:
        assert fast.encode(*raw(frame), capacity=len(data)) == data
        return
    with pytest.raises(LocalError, match="does not fit"):
        fast.encode(*raw(frame), capacity=max(0, len(data) - missing))


@given(FRAMES)
def test_longest_header(frame: Frame) -> None:
    """FRAME_HEADER_BYTES_MAX of wire/frames.pxd holds for every frame."""
    *_, body = raw(frame)
    assert len(wire.encode(frame)) - len(body) <= 48


BAD_FRAMES = [
    wire.AckRange(1, 0),
    wire.AckRange(1, 65),
    wire.StoredReceipt(1, 0x24, 1, 1),
    wire.StoredReceipt(1, 0x20, 1, 1, 1),
    wire.Send(1, 2, 3, bytes(limits.ENVELOPE_BODY_BYTES_MAX + 1)),
    wire.Request(1, 2, bytes(limits.REQUEST_BODY_BYTES_MAX + 1)),
    wire.Error(1, bytes(limits.ERROR_TEXT_BYTES_MAX + 1)),
    wire.Ticket(1, bytes(32)),
    wire.Ticket(1, bytes(32 + limits.TICKET_BYTES_MAX + 1)),
]


@pytest.mark.parametrize("frame", BAD_FRAMES, ids=lambda frame: f"{frame!r:.30}")
def test_writers_refuse_what_readers_would(frame: Frame) -> None:
    with pytest.raises(LocalError):
        wire.encode(frame)
    fields: dict[str, Any]
    match frame:
        case wire.AckRange(n, x):
            fields = {"type": 0x31, "number": n, "extra": x}
        case wire.StoredReceipt(n, x, a, i, c):
            fields = {"type": 0x28, "number": n, "extra": x, "address": a, "id": i, "code": c}
        case wire.Send(_, _, _, b):
            fields = {"type": 0x40, "body": b}
        case wire.Request(n, x, b):
            fields = {"type": 0x10, "body": b}
        case wire.Ticket(n, b):
            fields = {"type": 0x07, "number": n, "body": b}
        case wire.Error(n, b):
            fields = {"type": 0x06, "body": b}
    with pytest.raises(LocalError):
        fast.encode(**fields)


@pytest.mark.parametrize(
    "frame",
    [wire.Send(16, 1, 1, b""), wire.Deliver(-1, 1, 1, 1, b""), wire.Extension(0x7F, b""), wire.Ping(2**64)],
)
def test_twin_refuses_values_that_the_struct_cannot_hold(frame: Frame) -> None:
    with pytest.raises(LocalError):
        wire.encode(frame)


@pytest.mark.parametrize(
    "fields", [{"type": 0x40, "kind": 16}, {"type": 0x80, "kind": 128}, {"type": 0x45}, {"type": 8}]
)
def test_fast_writer_refuses_wrong_types_and_kinds(fields: dict[str, Any]) -> None:
    with pytest.raises(LocalError):
        fast.encode(**fields)


def test_fast_writer_refuses_a_body_where_there_is_none() -> None:
    with pytest.raises(LocalError):
        fast.encode(0x02, number=1, body=b"x")


@given(st.lists(SENDS, max_size=12))
def test_pack_fills_records_with_whole_frames_in_order(frames: list[Frame]) -> None:
    records = list(wire.pack(frames))
    assert [frame for record in records for frame in wire.decode_all(record)] == frames
    assert all(0 < len(record) <= limits.RECORD_PLAIN_BYTES_MAX for record in records)
    for first, second in pairwise(records):
        head = wire.encode(wire.decode(second)[0])
        assert len(first) + len(head) > limits.RECORD_PLAIN_BYTES_MAX


def test_pack_refuses_a_frame_longer_than_a_record() -> None:
    with pytest.raises(LocalError, match="does not fit"):
        list(wire.pack([wire.Send(1, 2, 3, bytes(100))], plain_max=99))


def test_the_codes_of_the_fast_path_are_those_of_everybody() -> None:
    source = (Path(fast.__file__).parents[1] / "base/codes.pxd").read_text()
    numbers = {name: int(number) for name, number in re.findall(r"CODE_(\w+) = (\d+)", source)}
    assert len(numbers) > 20
    assert numbers == {name: Code[name].value for name in numbers}


# --- the two tables -------------------------------------------------------------------------------------------


def rows_of_the_twin() -> dict[int, fast.Row]:
    """wire.F_LAYOUT as fast.layout() shows its own, with the wire form alone for each field."""
    rows = {}
    for base, row in wire.F_LAYOUT.items():
        forms = list(row.fields.values())
        (body,) = [form for form in forms if form.name == "bytes"] or [wire.Form("none", 0, 0)]
        for kind in range(row.kind_bits + 1):
            names = [form.name for form in forms]
            rows[base | kind] = row.kind_bits, row.rule.name, names, body.least, body.greatest
    return rows


def test_the_two_tables_are_one() -> None:
    """The same rows in the same order; which member of Frame holds which field is what the round trips test."""
    rows = {
        type_byte: (kind_bits, rule, [field.split()[0] for field in fields], least, greatest)
        for type_byte, (kind_bits, rule, fields, least, greatest) in fast.layout().items()
    }
    assert list(rows.items()) == list(rows_of_the_twin().items())


def test_no_two_fields_of_a_frame_are_one_member() -> None:
    for type_byte, (_, _, fields, _, _) in fast.layout().items():
        members = [field.split()[1] for field in fields]
        assert len(set(members)) == len(members), f"0x{type_byte:02x}"
        assert "body" not in members[:-1], "a body is the last field"
