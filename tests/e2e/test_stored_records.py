"""Every stored record is versioned and read strictly: whole, or InvalidState."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import limits
from wa.e2e.errors import InvalidState
from wa.e2e.records import SessionRecord
from wa.e2e.sessions import Sessions
from wa.e2e.stores import Table

from .world import ALICE, BOB, Device, established, exchange

PEER_KEY = ALICE.to_bytes(8, "big")


def full_record() -> bytes:
    """Several sessions, pending ones and dead ones among them, with skipped keys."""
    alice, bob = established()
    for _ in range(3):
        bob.sessions.start_session(alice.bundle(one_time=False))
        alice.sessions.encrypt(BOB, b"skipped")
        exchange(alice, bob)
    data = bob.store.get(Table.SESSIONS, PEER_KEY)
    assert data is not None
    return data


def test_the_session_record_is_canonical() -> None:
    data = full_record()
    record = SessionRecord.decode(data)
    assert len(record.sessions) == 4
    assert {session.pending for session in record.sessions} == {True, False}
    assert record.encode() == data


@settings(max_examples=60, deadline=None)
@given(flips=st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(1, 255)), min_size=1, max_size=3))
def test_a_damaged_session_record_is_parsed_whole_or_refused(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(full_record())
    for at, mask in flips:
        raw[at % len(raw)] ^= mask
    try:
        record = SessionRecord.decode(bytes(raw))
    except InvalidState:
        return
    assert record.encode() == raw


def test_a_cut_session_record_is_refused() -> None:
    data = full_record()
    for end in range(len(data)):
        with pytest.raises(InvalidState):
            SessionRecord.decode(data[:end])
    with pytest.raises(InvalidState):
        SessionRecord.decode(data + b"\0")


def test_sessions_per_peer_are_bounded_and_dead_ones_go_first() -> None:
    alice, bob = established()
    for _ in range(2 * limits.SESSIONS_PER_PEER_MAX):
        alice.sessions.start_session(bob.bundle())
        exchange(alice, bob)
    record = SessionRecord.decode(bob.store.get(Table.SESSIONS, PEER_KEY))
    assert len(record.sessions) == limits.SESSIONS_PER_PEER_MAX
    exchange(bob, alice)
    exchange(alice, bob)


def encrypt(sessions: Sessions) -> object:
    return sessions.encrypt(ALICE, b"text")


def upload(sessions: Sessions) -> object:
    return sessions.prekey_upload(stock_on_server=0)


def decrypt_initial(device: Device) -> Callable[[Sessions], object]:
    carol = Device(BOB + 1, device.clock)
    carol.sessions.start_session(device.bundle())
    body = carol.sessions.encrypt(device.address, b"hi")
    return lambda sessions: sessions.decrypt(carol.address, body)


@pytest.mark.parametrize(
    ("table", "key", "use"),
    [
        (Table.IDENTITY, b"", "identity"),
        (Table.SESSIONS, PEER_KEY, "encrypt"),
        (Table.PEERS, PEER_KEY, "encrypt"),
        (Table.SIGNED_PREKEYS, None, "upload"),
        (Table.COUNTERS, b"next_one_time_prekey", "upload"),
        (Table.COUNTERS, b"generation", "reset"),
        (Table.ONE_TIME_PREKEYS, None, "decrypt"),
    ],
)
def test_a_damaged_row_is_named_and_never_used(table: Table, key: bytes | None, use: str) -> None:
    _, bob = established()
    decrypt = decrypt_initial(bob)
    uses: dict[str, Callable[[Sessions], object]] = {
        "identity": lambda sessions: sessions.identity_key(),
        "encrypt": encrypt,
        "upload": upload,
        "reset": lambda sessions: sessions.reset_all_sessions(),
        "decrypt": decrypt,
    }
    keys = bob.store.keys(table) if key is None else [key]
    for row in keys:
        bob.store.put(table, row, (bob.store.get(table, row) or bytes(4)) + b"\0")
    with pytest.raises(InvalidState):
        uses[use](bob.reopened())
    for row in keys:
        bob.store.put(table, row, b"\xff" * 3)
    with pytest.raises(InvalidState):
        uses[use](bob.reopened())
