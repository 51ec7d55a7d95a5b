"""The bus over Unix sockets, spoken to by something that is no worker of ours."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.bus_peer import CLAIMED_FORM, ENVELOPE, HANDOVER, HELLO, LAYOUT, RECEIPT, Stream, pair
from tests.integration.rig import Rig, running, until
from wa._fastpath.session import form
from wa.routing.shards import worker_of, worker_of_number
from wa.wire.frames import Ack, Deliver, Delivered, Send

ALICE = 15551230001
BOB = next(n for n in range(ALICE + 1, ALICE + 99) if worker_of_number(n, 2) == 1)
A, B = ALICE << 8 | 1, BOB << 8 | 1
CLAIMED = {**CLAIMED_FORM, "address": A + 1}
HANDSHAKE = {**CLAIMED, "state": "handshake", "hello": b"wa\r\n\x01\x01\x03\x00"}
HANDSHAKE["input"] = (49).to_bytes(4, "big") + b"\1" + bytes(48)  # a first message of XX or IK


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 2)
    for number in (ALICE, BOB):
        rig.add_device(number)
    assert worker_of(A, 2) == 0 != worker_of(B, 2)
    with running(rig):
        yield rig


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def stream_to(rig: Rig, sockets: ExitStack, **other: int) -> Stream:
    stream = Stream(rig, **other)
    sockets.enter_context(stream.sock)
    return stream


def chat(rig: Rig) -> None:
    """The bus carries messages both ways."""
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 7, b"hello"))
    assert bob.expect(Deliver).body == b"hello"
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    alice.close()
    bob.close()


@pytest.mark.parametrize(
    "other", [{"magic": 0x77610002}, {"worker": 2}, {"workers": 3}, {"layout": LAYOUT + 1}, {"layout": 0}]
)
def test_a_worker_of_another_build_is_hung_up_on(rig: Rig, sockets: ExitStack, other: dict[str, int]) -> None:
    assert stream_to(rig, sockets, **other).is_hung_up_on()
    chat(rig)


@pytest.mark.parametrize(
    ("what", "body"), [(HELLO, bytes(16)), (99, b""), (RECEIPT, bytes(31)), (ENVELOPE, bytes(49)), (HANDOVER, b"")]
)
def test_what_no_worker_sends_ends_the_stream_alone(rig: Rig, sockets: ExitStack, what: int, body: bytes) -> None:
    stream = stream_to(rig, sockets)
    stream.send(what, body)
    assert stream.is_hung_up_on()
    chat(rig)


def test_a_descriptor_that_nothing_asks_for_is_closed(rig: Rig, sockets: ExitStack) -> None:
    ours, theirs = pair(sockets)
    stream = stream_to(rig, sockets)
    stream.send(RECEIPT, bytes(32), theirs.fileno())
    theirs.close()
    assert ours.recv(1) == b""
    assert stream.is_hung_up_on()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        form.write(CLAIMED)[:-1],
        form.write({**CLAIMED, "address": B}),  # of a device that is another worker's
        form.write(HANDSHAKE).replace(b"wa\r\n\x01\x01\x03", b"wa\r\n\x01\x01\x09"),
    ],
)
def test_a_form_that_is_refused_costs_one_connection(rig: Rig, sockets: ExitStack, data: bytes) -> None:
    ours, theirs = pair(sockets)
    stream = stream_to(rig, sockets)
    stream.send(HANDOVER, data, theirs.fileno())
    theirs.close()
    assert ours.recv(1) == b""
    until(lambda: rig.stat("hand_overs_refused") == 1)
    # The stream goes on: the next one on it is taken, and then waits for the registry's word.
    before = rig.stat("hand_overs_in")
    _, other = pair(sockets)
    stream.send(HANDOVER, form.write(CLAIMED), other.fileno())
    until(lambda: rig.stat("hand_overs_in") == before + 1)
    chat(rig)
