"""Devices whose key the loop remembers: they come in without the cold path, and nobody else does."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysodium
import pytest

from sim._native.memory_store import MemoryMailStore
from tests.integration.rig import WAIT_S, Closed, OpenDoor, Rig, key_of, until
from wa._fastpath.loop.loop import Login, Loop
from wa.errors import Code, LocalError
from wa.noise.records import Intent
from wa.noise.records import Login as LoginPayload
from wa.noise.session import ClientSession, HandshakeDone, RecordPlain
from wa.routing.shards import worker_of
from wa.wire import frames
from wa.wire.frames import Ack, Deliver, Delivered, Open, Ping, Pong, Ready, Send

ALICE, BOB = 15551230001, 15551230002
A, B = ALICE << 8 | 1, BOB << 8 | 1
OTHER = pysodium.crypto_generichash(b"another key", outlen=32)
OTHER_PUBLIC = pysodium.crypto_scalarmult_curve25519_base(OTHER)


@pytest.fixture(params=[1, 3])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, request.param, ticket_key=bytes(32))
    for number in (ALICE, BOB):
        rig.add_device(number, known=True)
    rig.start()
    for door in rig.doors:
        door.keys = {A: OTHER_PUBLIC, B: OTHER_PUBLIC}  # whatever the door decides is a refusal of the right key
    yield rig
    rig.stop()


def logins(rig: Rig) -> list[Any]:
    return [event for door in rig.doors for event in door.events if isinstance(event, Login)]


def on_the_loop(rig: Rig, address: int, do: Any) -> None:
    owner = worker_of(address, rig.workers)
    done: list[bool] = []
    rig.doors[owner].asked.append(lambda: (do(rig.loops[owner]), done.append(True)))
    rig.loops[owner].wake()
    until(lambda: bool(done))


def test_the_remembered_key_is_let_in_without_python(rig: Rig) -> None:
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 7, b"hello"))
    assert bob.expect(Deliver).body == b"hello"
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    for _ in range(4):  # whichever worker accepts
        rig.phone(A).ping()
    assert logins(rig) == []
    assert rig.stat("logins") == 6


def test_another_key_is_for_the_cold_path_to_judge(rig: Rig) -> None:
    alice = rig.phone(A)
    for door in rig.doors:
        door.keys = {A: bytes(32)}
    mallory = rig.phone(A, key=OTHER, open=False)
    assert mallory.closed_with() == Code.DEVICE_UNKNOWN
    (event,) = logins(rig)
    assert (event.address, event.static_key) == (A, OTHER_PUBLIC)
    alice.ping()


def test_an_unknown_device_and_a_registration_are_too(rig: Rig) -> None:
    for address, intent in ((ALICE << 8 | 2, Intent.LOG_IN), (ALICE << 8, Intent.REGISTER)):
        rig.phone(address, key=key_of(A), intent=intent, open=False).send(Ping(1))
        until(lambda address=address: any(event.address == address for event in logins(rig)))


def test_what_came_behind_the_handshake_is_read(rig: Rig) -> None:
    """XX: OPEN is in the same flight as the last handshake message, and goes with it to the owner."""
    for _ in range(6):
        session = ClientSession(
            static_private=key_of(A),
            login=LoginPayload(Intent.LOG_IN, A),
            root_public=rig.root,
            now_s=int(time.time()),
            certificate=None,
            suite=None,
        )
        with socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S) as sock:
            sock.sendall(session.bytes_to_send())
            events: list[Any] = []
            while not any(isinstance(event, HandshakeDone) for event in events):
                events += session.receive(sock.recv(65536))
            session.send_record(frames.encode(Open(1)))
            sock.sendall(session.bytes_to_send())
            while not any(isinstance(event, RecordPlain) for event in events):
                events += session.receive(sock.recv(65536))
            assert isinstance(frames.decode_all(events[-1].data)[0], Ready)
    assert logins(rig) == []


def test_a_forgotten_key_is_asked_for(rig: Rig) -> None:
    rig.phone(A)
    on_the_loop(rig, A, lambda loop: loop.add_device(A))
    for door in rig.doors:
        door.keys = {}
    rig.phone(A).ping()
    assert len(logins(rig)) == 1


def test_a_device_is_bound_anew(rig: Rig) -> None:
    on_the_loop(rig, A, lambda loop: (loop.remove_device(A, Code.REPLACED), loop.add_device(A, OTHER_PUBLIC)))
    assert rig.phone(A, open=False).closed_with() == Code.DEVICE_UNKNOWN
    assert len(logins(rig)) == 1
    rig.phone(A, key=OTHER).ping()
    assert len(logins(rig)) == 1


@pytest.mark.parametrize("by_ticket", [False, True])
@pytest.mark.parametrize("first", ["open", "ping"])
def test_bound_anew_between_handshake_and_first_record(rig: Rig, by_ticket: bool, first: str) -> None:
    """The admission was for the key of then: it opens nothing that belongs to the device of now."""
    more = {}
    if by_ticket:
        phone = rig.phone(A)
        phone.ping()
        more = {"ticket": phone.tickets[0], "known": rig.certificate}
    waiting = rig.phone(A, open=False, **more)
    assert waiting.resumed == by_ticket
    if first == "ping":  # a record, but not yet the one that makes it the device
        waiting.send(Ping(1))
        waiting.expect(Pong)
    on_the_loop(rig, A, lambda loop: (loop.remove_device(A, Code.REPLACED), loop.add_device(A, OTHER_PUBLIC)))
    waiting.send(Open(1))
    expected = Code.TICKET_VOID if by_ticket and first == "open" else Code.DEVICE_UNKNOWN
    assert waiting.closed_with() == expected
    rig.phone(A, key=OTHER).ping()


def test_a_key_of_another_length_is_a_mistake(tmp_path: Path) -> None:
    loop = Loop(
        worker=0,
        workers=1,
        store=MemoryMailStore(),
        sink=OpenDoor(),
        static_private=bytes(32),
        certificate=bytes(113),
        run_dir=str(tmp_path),
    )
    with pytest.raises(LocalError):
        loop.add_device(A, bytes(31))
    assert loop.stats()["devices"] == 0


def test_a_refusal_of_the_door_still_counts(rig: Rig) -> None:
    """The fixture's door refuses the right key: without the loop's memory nobody would get in here."""
    on_the_loop(rig, B, lambda loop: loop.add_device(B))
    with pytest.raises(Closed) as end:
        rig.phone(B)
    assert end.value.args[0] == Code.DEVICE_UNKNOWN
