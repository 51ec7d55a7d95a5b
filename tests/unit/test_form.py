"""The serialised form of a connection: what is written is read, what is anything else is refused by name."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import ids, limits
from wa._fastpath.session import form
from wa.noise.backend import FAST, TWIN
from wa.noise.patterns import Pattern

U16, U64 = st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1)
KEY, NONCE = st.binary(min_size=32, max_size=32), st.integers(0, 2**64 - 2)
SUITES = [int(suite) for suite in (FAST or TWIN).suites]
NUMBERS, DEVICES = st.integers(1, ids.NUMBER_MAX), st.integers(1, ids.DEVICE_MAX)
PARTS = {"handshake": (False, True), "claimed": (True, True), "registering": (True, True), "live": (True, False)}


@st.composite
def connections(draw: st.DrawFn) -> dict[str, Any]:
    """Any connection that has a form."""
    state = draw(st.sampled_from(list(PARTS)))
    has_cipher, is_pending = PARTS[state]
    suite = draw(st.sampled_from(SUITES))
    intent = {"registering": 1, "claimed": draw(st.integers(0, 1))}.get(state, 0)
    values = {
        "state": state,
        "suite": suite,
        "address": draw(NUMBERS) << 8 | (0 if intent else draw(DEVICES)),
        "heard_age_s": draw(U64),
        "asked": draw(st.integers(0, 1)) if state == "registering" else 0,
        "requests_open": draw(st.integers(0, limits.REQUESTS_OPEN_MAX)) if state in ("registering", "live") else 0,
        "outstanding": draw(U16) if state == "live" else 0,
        "seq_next": draw(st.integers(1, 2**32 - 1)) if state == "live" else 1,
    }
    if has_cipher:
        values |= {"send_key": draw(KEY), "recv_key": draw(KEY), "send_nonce": draw(NONCE), "recv_nonce": draw(NONCE)}
    if is_pending:
        hello = b"wa\r\n" + bytes([limits.PROTOCOL_VERSION, suite, Pattern.NNPSK0, 0])
        values |= {
            "intent": intent,
            "hello": hello if state == "handshake" else draw(st.binary(min_size=8, max_size=8)),
            "static_key": draw(KEY),
            "family": draw(st.sampled_from([0, 4, 6])),
            "peer": draw(st.binary(min_size=16, max_size=16)),
            "port": draw(U16),
            "started_age_ms": draw(U64),
        }
    rest = draw(st.binary(max_size=200))
    return values | ({"input": rest} if rest else {})


CONNECTIONS = connections()

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
READABLE = [one for one in RECORDED if one[1]["suite"] in SUITES]  # without AES instructions not all of them


@given(CONNECTIONS)
def test_what_is_written_is_read(values: dict[str, Any]) -> None:
    assert form.read(form.write(values)) == values


@given(CONNECTIONS)
def test_a_connection_that_was_handed_over_has_the_same_form(values: dict[str, Any]) -> None:
    """As if no time had passed."""
    values["heard_age_s"] %= 10**9
    if "started_age_ms" in values:
        values["started_age_ms"] %= 10**12
    again = form.read(form.written_again(form.write(values)))
    assert again == {name: value for name, value in values.items() if name != "input"}


@pytest.mark.parametrize(("recorded", "values"), READABLE)
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


@pytest.mark.parametrize(("recorded", "values"), READABLE)
def test_every_single_byte_may_be_anything(recorded: str, values: dict[str, Any]) -> None:
    data = bytearray.fromhex(recorded)
    taken = 0
    for at, kept in enumerate(bytes(data)):
        for value in range(256):
            data[at] = value
            try:
                read = form.read(bytes(data))
            except ValueError:
                continue
            assert form.write(read) == bytes(data)
            taken += 1
        data[at] = kept
    assert taken > 2 * 40 * 256, "keys and counters may have any value"


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


CLAIMED, LIVE = ({**values, "suite": 1} for _, values in RECORDED)
REGISTERING = {**CLAIMED, "state": "registering", "intent": 1, "address": 15551230001 << 8}
HANDSHAKE = {**CLAIMED, "state": "handshake", "hello": b"wa\r\n\x01\x01\x03\x00"}


def with_value(values: dict[str, Any], name: str, value: Any) -> bytes:
    """`form.write` asserts its values, so this changes the bytes."""
    data = bytearray(form.write(values))
    has_cipher, is_pending = PARTS[values["state"]]
    fields = {"suite": (14, 1), "requests_open": (15, 1), "asked": (16, 1), "outstanding": (17, 2), "seq_next": (19, 4)}
    fields |= {"address": (23, 8), "send_nonce": (108, 8), "recv_nonce": (116, 8)}
    pending = 129 if has_cipher else 44
    if is_pending:
        fields |= {"intent": (pending, 1), "hello": (pending + 1, 8)}
    at, size = fields[name]
    data[at : at + size] = value if isinstance(value, bytes) else value.to_bytes(size, "big")
    return bytes(data)


@pytest.mark.parametrize(
    ("values", "name", "value"),
    [
        (CLAIMED, "suite", 0),
        (CLAIMED, "address", 15551230001 << 8),  # of no device, and it does not register
        (CLAIMED, "address", 7),  # of no number
        (CLAIMED, "address", 10**15 << 8 | 1),
        (CLAIMED, "intent", 1),
        (CLAIMED, "asked", 1),
        (CLAIMED, "requests_open", 1),
        (CLAIMED, "outstanding", 1),
        (CLAIMED, "seq_next", 2),
        (CLAIMED, "send_nonce", 2**64 - 1),
        (CLAIMED, "recv_nonce", 2**64 - 1),
        (REGISTERING, "intent", 0),
        (REGISTERING, "asked", 2),
        (REGISTERING, "requests_open", 17),
        (REGISTERING, "address", 15551230001 << 8 | 1),
        (LIVE, "asked", 1),
        (LIVE, "address", 15551230001 << 8),
        (LIVE, "seq_next", 0),
        (HANDSHAKE, "intent", 1),
        (HANDSHAKE, "suite", 2),
        (HANDSHAKE, "hello", bytes(8)),
        (HANDSHAKE, "hello", b"wa\r\n\x01\x01\x09\x00"),  # a pattern that there is not
        (HANDSHAKE, "hello", b"wa\r\n\x01\x01\x02\x00"),  # one of which nothing is handed over before it is done
        (HANDSHAKE, "hello", b"wa\r\n\x02\x01\x03\x00"),
        (HANDSHAKE, "hello", b"wa\r\n\x01\x01\x03\x01"),
        (HANDSHAKE, "hello", b"wa\n\r\x01\x01\x03\x00"),
    ],
)
def test_values_are_judged_beside_one_another(values: dict[str, Any], name: str, value: Any) -> None:
    assert form.read(with_value(values, name, form.read(form.write(values))[name]))[name] == values[name]
    with pytest.raises(ValueError, match="value"):
        form.read(with_value(values, name, value))
