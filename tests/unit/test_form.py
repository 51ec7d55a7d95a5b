"""The serialised form of a connection: what is written is read, what is anything else is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import limits
from wa._fastpath.session import form

U16, U32, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
KEY = st.binary(min_size=32, max_size=32)

CONNECTION = {
    "suite": st.sampled_from([1, 2]),
    "seq_next": st.integers(1, 2**32 - 1),
    "requests_open": st.integers(0, limits.REQUESTS_OPEN_MAX),
    "asked": st.integers(0, 1),
    "outstanding": U16,
    "address": st.integers(0, 2**58 - 1),
    "heard_age_s": U64,
}
CIPHER = {"send_key": KEY, "recv_key": KEY, "send_nonce": U64, "recv_nonce": U64}
PENDING = {
    "intent": st.integers(0, 1),
    "hello": st.binary(min_size=8, max_size=8),
    "static_key": KEY,
    "family": st.sampled_from([0, 4, 6]),
    "peer": st.binary(min_size=16, max_size=16),
    "port": U16,
    "started_age_ms": U64,
}
INPUT = {"input": st.binary(min_size=1, max_size=200)}


def of(state: str, *parts: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    fields = {key: value for part in parts for key, value in part.items()}
    return st.fixed_dictionaries({"state": st.just(state), **fields}, optional=INPUT)


CONNECTIONS = st.one_of(
    of("handshake", CONNECTION, PENDING),
    of("claimed", CONNECTION, CIPHER, PENDING),
    of("registering", CONNECTION, CIPHER, PENDING),
    of("live", CONNECTION, CIPHER),
)

# Version 1, as it was when it was first released: it must be read like this for as long as it may be met.
RECORDED: list[tuple[str, dict[str, Any]]] = [
    (
        "77630104000000cd" "01" "0000001a" "0301" "00" "00" "0000" "00000001" "0000039eecf03101" "0000000000000000"
        "02" "00000050" + "11" * 32 + "22" * 32 + "0000000000000007" "0000000000000009"
        "03" "00000044" "00" "77610d0a01010200" + "33" * 32 + "04" "7f000001" + "00" * 12 + "d431" "00000000000004d2"
        "04" "00000003" "616263",
        {
            "state": "claimed", "suite": 1, "seq_next": 1, "requests_open": 0, "asked": 0, "outstanding": 0,
            "address": 15551230001 << 8 | 1, "heard_age_s": 0, "send_key": b"\x11" * 32, "recv_key": b"\x22" * 32,
            "send_nonce": 7, "recv_nonce": 9, "intent": 0, "hello": b"wa\r\n\x01\x01\x02\x00",
            "static_key": b"\x33" * 32, "family": 4, "peer": b"\x7f\x00\x00\x01" + bytes(12), "port": 54321,
            "started_age_ms": 1234, "input": b"abc",
        },
    ),
    (
        "776301020000007c" "01" "0000001a" "0602" "02" "00" "0003" "00000065" "0000039eecf03101" "000000000000003c"
        "02" "00000050" + "44" * 32 + "55" * 32 + "0000000000010000" "0000000000000100",
        {
            "state": "live", "suite": 2, "seq_next": 101, "requests_open": 2, "asked": 0, "outstanding": 3,
            "address": 15551230001 << 8 | 1, "heard_age_s": 60, "send_key": b"\x44" * 32, "recv_key": b"\x55" * 32,
            "send_nonce": 65536, "recv_nonce": 256,
        },
    ),
]  # fmt: skip


@given(CONNECTIONS)
def test_what_is_written_is_read(values: dict[str, Any]) -> None:
    assert form.read(form.write(values)) == values


@pytest.mark.parametrize(("recorded", "values"), RECORDED)
def test_version_1_is_read_as_it_was_recorded(recorded: str, values: dict[str, Any]) -> None:
    data = bytes.fromhex(recorded)
    assert form.read(data) == values
    assert form.write(values) == data


@given(CONNECTIONS)
def test_what_is_cut_short_or_goes_on_is_refused(values: dict[str, Any]) -> None:
    data = form.write(values)
    for n in range(len(data)):
        with pytest.raises(ValueError, match="length"):
            form.read(data[:n])
    with pytest.raises(ValueError, match="length"):
        form.read(data + b"\0")


@given(CONNECTIONS, st.integers(0, 2**30), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_gives_a_connection(values: dict[str, Any], at: int, change: int) -> None:
    data = bytearray(form.write(values))
    data[at % len(data)] ^= change
    try:
        read = form.read(bytes(data))
    except ValueError as error:
        assert str(error) in {"magic", "version", "length", "section", "value"}
    else:
        assert form.write(read) == bytes(data)


@given(st.binary(max_size=300), st.booleans())
def test_anything_else_is_refused(data: bytes, begins_right: bool) -> None:
    if begins_right:
        data = b"wc\x01" + data[:1] + (len(data) + 7).to_bytes(4, "big") + data[1:]
    try:
        read = form.read(data)
    except ValueError:
        return
    assert form.write(read) == data


def changed(recorded: str, at: int, value: int) -> bytes:
    data = bytearray(bytes.fromhex(recorded))
    data[at] = value
    return bytes(data)


@pytest.mark.parametrize(
    ("at", "value", "why"),
    [
        (0, 0x78, "magic"),
        (2, 2, "version"),
        (3, 3, "length"),  # one section fewer than there are
        (7, 0xCC, "length"),
        (8, 5, "section"),  # unknown
        (39, 1, "section"),  # the first one again
        (12, 0x19, "length"),
        (13, 6, "section"),  # a live connection has no pending part
        (13, 4, "value"),  # admitted: not to be handed over
        (14, 3, "value"),  # no such suite
        (15, 17, "value"),  # more requests than may be open
        (22, 0, "value"),  # delivery numbers begin with 1
        (129, 2, "value"),  # no such intent
        (170, 5, "value"),  # no such address family
    ],
)
def test_each_refusal_has_its_name(at: int, value: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        form.read(changed(RECORDED[0][0], at, value))
