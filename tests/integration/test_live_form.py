"""A connection that another worker had goes on: its client hears nothing of the change and goes on talking."""

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bus_peer import RECEIPT, FarEnd, Stream
from tests.integration.rig import Rig, running, until
from wa._fastpath.loop.loop import Gone, Request
from wa.errors import Code
from wa.routing.shards import worker_of, worker_of_number
from wa.wire.frames import Accepted, Ack, Close, Deliver, Delivered, Ping, Pong, Send
from wa.wire.frames import Request as RequestFrame
from wa.wire.frames import Response as ResponseFrame

ALICE = 15551230001
BOB = next(n for n in range(ALICE + 1, ALICE + 99) if worker_of_number(n, 2) == 1)
A, B = ALICE << 8 | 1, BOB << 8 | 1
REKEY = 65_536


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 2, sender_window_max=4)
    for number in (ALICE, BOB):
        rig.add_device(number, known=True)
    assert worker_of(A, 2) == 0 != worker_of(B, 2)
    with running(rig):
        yield rig


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def stream(rig: Rig, sockets: ExitStack) -> Stream:
    stream = Stream(rig)
    sockets.enter_context(stream.sock)
    return stream


def live(sockets: ExitStack, stream: Stream, nonce: int = 7, **values: Any) -> FarEnd:
    alice = FarEnd(sockets, key=0x41, nonce=nonce)
    alice.hand_over(stream, **{"state": "live", "address": A, "seq_next": 101, **values})
    return alice


@pytest.mark.parametrize("nonce", [0, 7, REKEY - 1, REKEY * 3 - 2, 2**40])
def test_a_live_connection_goes_on_talking(rig: Rig, sockets: ExitStack, stream: Stream, nonce: int) -> None:
    alice, bob = live(sockets, stream, nonce), rig.phone(B)
    for token in range(3):
        alice.send(Ping(token))
        assert alice.receive() == [Pong(token)], "and nothing before it"
    bob.send(Send(1, A, 9, b"goes on"))
    (delivery,) = alice.receive()
    assert (delivery.seq, delivery.body) == (101, b"goes on")
    alice.send(Ack(101), Send(1, B, 5, b"and back"))
    assert bob.expect(Delivered) == Delivered(A, 9)
    assert bob.expect(Deliver).body == b"and back"
    bob.send(Ack(1))
    told = alice.receive()
    assert (told if told != [Accepted(B, 5)] else alice.receive()) == [Delivered(B, 5)]
    assert rig.loops[0].is_connected(A)
    stats = rig.loops[0].stats()
    assert (stats["hand_overs_in"], stats["hand_overs_refused"], stats["half_open"]) == (1, 0, 0)


def test_half_a_record_that_was_read_goes_along(rig: Rig, sockets: ExitStack, stream: Stream) -> None:
    alice = FarEnd(sockets, key=0x41)
    records = alice.sealed(Ping(1)) + alice.sealed(Ping(2))
    alice.hand_over(stream, state="live", address=A, input=records[:-5])
    assert alice.receive() == [Pong(1)]
    alice.ours.sendall(records[-5:])
    assert alice.receive() == [Pong(2)]


def test_an_older_connection_is_replaced_and_what_waits_is_drained(
    rig: Rig, sockets: ExitStack, stream: Stream
) -> None:
    rig.phone(A).close()
    until(lambda: not rig.loops[0].is_connected(A))
    bob = rig.phone(B)
    bob.send(Send(1, A, 3, b"waits"))
    assert bob.expect(Accepted) == Accepted(A, 3)
    alice = live(sockets, stream)
    (delivery,) = alice.receive()
    assert (delivery.seq, delivery.body) == (101, b"waits")
    alice.send(Ack(101))
    assert bob.expect(Delivered) == Delivered(A, 3)
    rig.phone(A)
    (close,) = alice.receive()
    assert isinstance(close, Close)
    assert close.code == Code.REPLACED


def test_one_whose_window_is_full_is_not_read_until_half_is_answered(
    rig: Rig, sockets: ExitStack, stream: Stream
) -> None:
    alice = live(sockets, stream, outstanding=4)
    alice.send(Ping(1))
    alice.ours.settimeout(0.1)
    with pytest.raises(TimeoutError):
        alice.ours.recv(1)
    alice.ours.settimeout(10)
    for id_ in (5, 6):
        stream.send(RECEIPT, struct.pack("=QQQHBBI", A, B, id_, 0, 0x21, True, 0))
    told = []
    while len(told) < 3:
        told += alice.receive()
    assert told == [Delivered(B, 5), Delivered(B, 6), Pong(1)]


def test_a_nonce_that_is_not_the_next_ends_that_connection_alone(rig: Rig, sockets: ExitStack, stream: Stream) -> None:
    bob = rig.phone(B)
    alice = live(sockets, stream, recv_nonce=8)
    alice.send(Ping(1))
    (close,) = alice.receive()
    assert close.code == Code.DECRYPT_FAILED
    assert alice.is_closed()
    until(lambda: any(isinstance(event, Gone) for event in rig.doors[0].events))
    bob.ping()
    assert rig.stat("bus_lost") == 0


def test_a_device_that_is_not_known_any_more_is_told_so(rig: Rig, sockets: ExitStack, stream: Stream) -> None:
    alice = live(sockets, stream, address=A + 1)
    (close,) = alice.receive()
    assert close.code == Code.DEVICE_UNKNOWN
    assert alice.is_closed()
    until(lambda: rig.stat("connections") == 0)
    assert rig.stat("half_open") == 0


@pytest.mark.parametrize("asked", [0, 1])
def test_a_registering_client_goes_on_asking(rig: Rig, sockets: ExitStack, stream: Stream, asked: int) -> None:
    client = FarEnd(sockets, key=0x61, nonce=2)
    values = {"intent": 1, "address": ALICE << 8, "static_key": b"k" * 32, "asked": asked, "requests_open": asked}
    client.hand_over(stream, state="registering", **values)
    client.send(RequestFrame(4, 1, b"\x80"))
    assert client.receive() == [ResponseFrame(4, 0, b"\x80")]
    (request,) = [event for event in rig.doors[0].events if isinstance(event, Request)]
    assert (request.address, request.static_key) == (ALICE << 8, b"k" * 32)
    assert rig.stat("half_open") == 1
