"""Parse it, or raise the remote error, never anything else: whole and byte by byte."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_harness import BACKENDS, PATTERNS, Backend, client_session, converse, server_session

from wa.errors import Code, RemoteError
from wa.noise.patterns import Pattern, Suite
from wa.noise.records import Refused
from wa.noise.session import ClientSession, Event, ServerSession

Session = ClientSession | ServerSession
SAYS = [b"one", b"second record", b"3" * 300]
# (pattern, which side) -> a fresh session, and the bytes that a whole conversation brings it.
SIDES = [(pattern, side) for pattern in PATTERNS for side in ("client", "server")]


def fresh(pattern: Pattern, side: str, backend: Backend) -> Session:
    return client_session(pattern, backend=backend) if side == "client" else server_session(backend)


def recorded(pattern: Pattern, side: str) -> bytes:
    """Fixed keys and random bytes: fresh sessions take these bytes again and again."""
    talk = converse(client_session(pattern), server_session(), SAYS, SAYS)
    return talk.to_client if side == "client" else talk.to_server


RECORDED = {key: recorded(*key) for key in SIDES}


def feed(session: Session, pieces: list[bytes]) -> tuple[list[Event], Code | None]:
    events: list[Event] = []
    try:
        for piece in pieces:
            events += session.receive(piece)
        if session.fault is not None:
            session.receive(b"")
    except RemoteError as error:
        return events, error.code
    return events, None


GENUINE = {key: feed(fresh(*key, BACKENDS["twin"]), [RECORDED[key]])[0] for key in SIDES}


def bytewise(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


def both_ways(make: Callable[[], Session], data: bytes) -> tuple[list[Event], Code | None]:
    """However the bytes are cut, the same comes of them, down to what is sent back."""
    whole, cut = make(), make()
    result = feed(whole, [data])
    assert feed(cut, bytewise(data)) == result
    assert whole.bytes_to_send() == cut.bytes_to_send()
    assert whole.state is cut.state
    return result


@pytest.mark.parametrize(("pattern", "side"), SIDES)
def test_the_recorded_conversation(backend: Backend, pattern: Pattern, side: str) -> None:
    events, fault = both_ways(lambda: fresh(pattern, side, backend), RECORDED[pattern, side])
    assert fault is None
    assert len(events) == 1 + len(SAYS)


@pytest.mark.parametrize(("pattern", "side"), SIDES)
@given(data=st.data())
@settings(max_examples=60)
def test_changed_conversation(pattern: Pattern, side: str, data: st.DataObject) -> None:
    """Some bytes changed, taken out, put in or repeated."""
    stream = bytearray(RECORDED[pattern, side])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(stream) - 1, 0)))
        what = data.draw(st.sampled_from(["flip", "cut", "put", "repeat"]))
        if what == "flip" and stream:
            stream[at] ^= data.draw(st.integers(1, 255))
        elif what == "cut":
            del stream[at : at + data.draw(st.integers(1, 40))]
        elif what == "put":
            stream[at:at] = data.draw(st.binary(min_size=1, max_size=40))
        else:
            stream += stream[at:]
    backend = BACKENDS[data.draw(st.sampled_from(sorted(BACKENDS)))]
    events, _ = both_ways(lambda: fresh(pattern, side, backend), bytes(stream))
    if events and isinstance(events[-1], Refused):  # the one thing that anybody on the way can say
        assert side == "client"
        events.pop()
    assert events == GENUINE[pattern, side][: len(events)]


@pytest.mark.parametrize(("pattern", "side"), SIDES)
@given(data=st.binary(max_size=400))
@settings(max_examples=60)
def test_anything(pattern: Pattern, side: str, data: bytes) -> None:
    for backend in BACKENDS.values():
        both_ways(lambda backend=backend: fresh(pattern, side, backend), data)  # type: ignore[misc]


@given(records=st.lists(st.tuples(st.integers(0, 5), st.binary(max_size=200)), max_size=4))
@settings(max_examples=100)
def test_well_framed_nonsense(records: list[tuple[int, bytes]]) -> None:
    """Right lengths and kinds, so that it is the handshake that must refuse."""
    framed = b"".join((len(c) + 1).to_bytes(4, "big") + bytes((kind,)) + c for kind, c in records)
    for pattern in (Pattern.XX, Pattern.IK):
        hello = client_session(pattern, Suite.CHACHA).bytes_to_send()[:8]
        for backend in BACKENDS.values():
            both_ways(lambda b=backend, p=pattern: fresh(p, "client", b), framed)  # type: ignore[misc]
            both_ways(lambda b=backend: server_session(b), hello + framed)  # type: ignore[misc]
