"""A storm turn by turn: how much of it one turn of the loop does, whoever else waits for that turn."""


import itertools
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import WAIT_S, Rig, key_of
from wa import limits
from wa.noise.patterns import Suite
from wa.noise.records import Intent, Kind, Login
from wa.noise.session import ClientSession

ALICE = 15551230001
A = ALICE << 8 | 1
CLIENTS = 20
TURNS_MAX = 500


@pytest.fixture
def sockets() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def rig_of(path: Path, **overrides: int) -> Rig:
    rig = Rig(path, 1, **overrides)
    rig.add_device(ALICE, known=True)
    rig.start(run=False)
    return rig


def client(rig: Rig, sockets: ExitStack, data: bytes = b"") -> socket.socket:
    sock = sockets.enter_context(socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S))
    sock.sendall(data)
    return sock


def first_flight(rig: Rig) -> bytes:
    """Hello and the first message of IK."""
    login = Login(Intent.LOG_IN, A)
    session = ClientSession(
        static_private=key_of(A),
        login=login,
        root_public=rig.root,
        now_s=int(time.time()),
        certificate=rig.certificate,
        suite=Suite.CHACHA,
    )
    return session.bytes_to_send()


def turns(rig: Rig, until: Any) -> list[dict[str, int]]:
    """The figures before the first turn and after each, until one of them is what is waited for."""
    (loop,) = rig.loops
    seen = [loop.stats()]
    while not until(seen[-1]):
        assert len(seen) < TURNS_MAX, seen[-1]
        loop.turn()
        seen.append(loop.stats())
    return seen


def test_a_turn_does_half_a_handshake_and_accepts_one_while_others_wait(
    tmp_path: Path, sockets: ExitStack
) -> None:
    rig = rig_of(tmp_path)
    waiting = [client(rig, sockets, first_flight(rig)) for _ in range(CLIENTS)]
    seen = turns(rig, lambda stats: stats["handshakes"] == CLIENTS)
    steps = list(itertools.pairwise(seen))
    for before, after in steps:
        most = 1 if before["handshakes_waiting"] else limits.ACCEPTS_PER_TURN_MAX
        assert after["accepts"] - before["accepts"] <= most
    done = [at for at, (before, after) in enumerate(steps) if after["handshakes"] > before["handshakes"]]
    assert len(done) == CLIENTS, "two in one turn"
    assert all(later - earlier >= 2 for earlier, later in itertools.pairwise(done))
    assert seen[-1]["accepts"] == CLIENTS
    for sock in waiting:
        assert sock.recv(5)[4] == Kind.MESSAGE
    rig.stop()


def test_a_turn_sheds_one(tmp_path: Path, sockets: ExitStack) -> None:
    rig = rig_of(tmp_path, half_open_max=3)
    for _ in range(CLIENTS):
        client(rig, sockets)
    seen = turns(rig, lambda stats: stats["accepts"] == CLIENTS)
    assert seen[-1]["sheds"] == CLIENTS - 3
    assert all(after["sheds"] - before["sheds"] <= 1 for before, after in itertools.pairwise(seen))
    rig.stop()
