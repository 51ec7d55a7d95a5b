"""The bus between real loops when the process runs out of descriptors."""

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.integration.bus_peer import HANDOVER, FarEnd, Stream
from tests.integration.rig import WAIT_S, Phone, Rig, running, until
from wa.routing.shards import worker_of
from wa.wire.frames import Ack, Deliver, Delivered, Ping, Pong, Send

NUMBERS = range(15551230001, 15551230041)
ALICE, BOB, *OTHERS = (number << 8 | 1 for number in NUMBERS)
BOB = next(a for a in (BOB, *OTHERS) if worker_of(a, 2) != worker_of(ALICE, 2))
OTHERS = [a for a in OTHERS if a != BOB]


@contextmanager
def none_from(limit: int) -> Iterator[None]:
    """No descriptor of this number or above can be made; those that are open stay so."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def chat(alice: Phone, bob: Phone, id_: int) -> None:
    """One message each way, across the bus."""
    for sender, recipient in ((alice, bob), (bob, alice)):
        sender.send(Send(1, recipient.address, id_, b"still there?"))
        delivery = recipient.expect(Deliver)
        assert (delivery.id, delivery.sender) == (id_, sender.address)
        recipient.send(Ack(delivery.seq))
        assert sender.expect(Delivered).id == id_


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 2, linger_ms=5_000)
    for number in NUMBERS:
        rig.add_device(number, known=True)
    with running(rig):
        yield rig


def half_a_hello(rig: Rig) -> socket.socket:
    """A connection that is accepted, and whose handshake is still to come."""
    accepted = rig.stat("accepts")
    sock = socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S)
    sock.sendall(b"wa\r\n")
    until(lambda: rig.stat("accepts") > accepted)
    return sock


def test_out_of_descriptors_a_hand_over_is_lost_and_nothing_else(rig: Rig) -> None:
    alice, bob = rig.phone(ALICE), rig.phone(BOB)
    chat(alice, bob, 1)
    half = [(address, half_a_hello(rig)) for address in OTHERS[:24]]
    before = {name: rig.stat(name) for name in ("hand_overs_out", "hand_overs_in", "handshakes")}
    with none_from(3):  # what the workers close meanwhile makes no room
        for address, sock in half:
            sock.sendall(rig.first_flight(address)[4:])
        until(lambda: rig.stat("handshakes") == before["handshakes"] + len(half))
        sent = rig.stat("hand_overs_out") - before["hand_overs_out"]
        assert 0 < sent < len(half), "the kernel gives connections to both workers"
        until(lambda: rig.stat("bus_fds_lost") == sent)
        chat(alice, bob, 2)
    assert rig.stat("hand_overs_in") == before["hand_overs_in"]
    assert rig.stat("bus_lost") == 0
    chat(alice, bob, 3)
    until(lambda: rig.stat("half_open") == len(half) - sent)
    for address, sock in half:
        sock.close()
        rig.phone(address)  # comes back, whichever worker accepts it
    assert rig.stat("bus_lost") == 0


@pytest.mark.parametrize("room", range(4))
@pytest.mark.parametrize("together", [3, 64])
def test_every_descriptor_that_arrives_is_of_its_own_connection(tmp_path: Path, room: int, together: int) -> None:
    """Of two calls' worth of hand-overs the first loses all but `room`; each other client talks under its own keys."""
    rig = Rig(tmp_path, 2)
    rig.add_device(ALICE >> 8)
    assert worker_of(ALICE, 2) == 0
    rig.start(run=False)
    loop = rig.loops[0]
    with ExitStack() as sockets:
        sockets.callback(rig.stop)
        stream = Stream(rig)
        sockets.enter_context(stream.sock)
        for _ in range(3):  # the stream is accepted, and its hello read
            loop.turn()
        ends = [FarEnd(sockets, key=2 * k) for k in range(together + 2)]
        messages = [(HANDOVER, end.form(address=ALICE), end.theirs.fileno()) for end in ends]
        stream.send_together(*messages[:together])
        stream.send_together(*messages[together:])
        for end in ends:
            end.theirs.close()
        holes = [os.open("/", os.O_RDONLY) for _ in range(room)]  # the lowest numbers that are free
        guard = os.open("/", os.O_RDONLY)  # every number below it is taken
        for fd in (*holes, guard):
            os.close(fd)
        with none_from(guard):
            loop.turn()
        lost = together - min(room, together)
        assert loop.stats()["bus_fds_lost"] == lost
        for _ in range(3):
            loop.turn()
        assert loop.stats()["hand_overs_in"] == len(ends) - lost
        assert loop.stats()["bus_fds_lost"] == lost
        for token, end in enumerate(ends):
            if together - lost <= token < together:
                assert end.is_closed()
                continue
            end.send(Ping(token))
            loop.turn()
            loop.turn()
            assert end.receive() == [Pong(token)]
