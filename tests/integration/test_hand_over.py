"""A connection goes to its device's owner, with what its client sent ahead."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import WAIT_S, Rig, key_of, until
from wa.noise.records import Intent
from wa.noise.records import Login as LoginPayload
from wa.noise.session import ClientSession, HandshakeDone, RecordPlain
from wa.routing.shards import worker_of
from wa.wire import frames
from wa.wire.frames import Open, Ping, Pong, Ready

A = next(address for number in range(15551230001, 15551230099) if worker_of(address := number << 8 | 1, 2) == 0)
PINGS = 3_600  # with their records more than one Noise message holds


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def turn_until(rig: Rig, condition: Any) -> None:
    def turned() -> bool:
        for loop in rig.loops:
            loop.turn()
        return bool(condition())

    until(turned)


def accepted_elsewhere(rig: Rig, stack: ExitStack) -> socket.socket:
    """A connection that the worker which does not own A accepted."""
    other = rig.loops[1]
    for _ in range(64):  # the kernel's choice
        before, all_before = other.stats()["accepts"], rig.stat("accepts")
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
        turn_until(rig, lambda seen=all_before: rig.stat("accepts") > seen)
        if other.stats()["accepts"] > before:
            return sock
    raise AssertionError("64 connections, and all of them to one worker")


def received(rig: Rig, sock: socket.socket, session: ClientSession, enough: Any) -> list[Any]:
    """What the server says, while its loops turn, until it is enough."""
    events: list[Any] = []
    sock.setblocking(False)

    def some() -> bool:
        try:
            events.extend(session.receive(sock.recv(65536)))
        except BlockingIOError:
            return False
        return bool(enough(events))

    turn_until(rig, some)
    sock.settimeout(WAIT_S)
    return events


def frames_of(events: list[Any]) -> list[Any]:
    return [frame for event in events if isinstance(event, RecordPlain) for frame in frames.decode_all(event.data)]


@pytest.mark.parametrize("known", [True, False])
def test_what_was_sent_ahead_goes_along(tmp_path: Path, stack: ExitStack, known: bool) -> None:
    """known: the owner admits it; otherwise the bytes wait there for the cold path's word."""
    rig = Rig(tmp_path, 2)
    rig.add_device(A >> 8, known=known)
    rig.start(run=False)
    stack.callback(rig.stop)
    for listener in rig.listeners:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # room for all of it before it is read
    session = ClientSession(
        static_private=key_of(A),
        login=LoginPayload(Intent.LOG_IN, A),
        root_public=rig.root,
        now_s=int(time.time()),
        certificate=None,
        suite=None,
    )
    sock = accepted_elsewhere(rig, stack)
    sock.sendall(session.bytes_to_send())
    received(rig, sock, session, lambda events: any(isinstance(event, HandshakeDone) for event in events))
    session.send_record(frames.encode(Open(1)))
    for token in range(PINGS):
        session.send_record(frames.encode(Ping(token)))
    flight = session.bytes_to_send()
    assert 65_536 < len(flight) < 120_000
    sock.sendall(flight)
    events = received(rig, sock, session, lambda events: Pong(PINGS - 1) in frames_of(events)[-4:])
    ready, *others = frames_of(events)
    assert isinstance(ready, Ready)
    assert [frame.token for frame in others if isinstance(frame, Pong)] == list(range(PINGS))
    assert rig.loops[1].stats()["hand_overs_out"] == rig.loops[0].stats()["hand_overs_in"] == 1
    assert rig.stat("hand_overs_refused") == 0
