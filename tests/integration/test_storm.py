"""A storm turn by turn: how much of it one turn of the loop does, whoever else waits for that turn."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import WAIT_S, Rig, until
from wa import limits
from wa.noise.records import Kind
from wa.routing.shards import worker_of

ALICE = 15551230001
A = ALICE << 8 | 1
CLIENTS = 20
TURNS_MAX = 500
TICKETS_PER_TURN = 2  # each is half of what IK costs in a turn: two multiplications, one of them of the base point
PASSED_ON_PER_TURN = 5  # nothing is multiplied for them


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


@contextmanager
def turning(rig: Rig) -> Iterator[None]:
    """All loops turn meanwhile, in another thread."""
    done = threading.Event()

    def turn() -> None:
        while not done.is_set():
            for loop in rig.loops:
                loop.turn()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(WAIT_S)
    assert not thread.is_alive()


def flights_with_tickets(rig: Rig, addresses: list[int]) -> list[bytes]:
    """Of devices that were connected and are gone again."""
    flights = []
    with turning(rig):
        for address in addresses:
            phone = rig.phone(address)
            phone.ping()
            flights.append(rig.first_flight(address, phone.tickets[0]))
            phone.close()
        until(lambda: not any(loop.is_connected(address) for loop in rig.loops for address in addresses))
    return flights


def turns(rig: Rig, enough: Any) -> list[dict[str, int]]:
    """The figures of the first loop before its first turn and after each, until one of them is what is waited for."""
    loop = rig.loops[0]
    seen = [loop.stats()]
    while not enough(seen[-1]):
        assert len(seen) < TURNS_MAX, seen[-1]
        loop.turn()
        seen.append(loop.stats())
    return seen


def test_a_turn_does_half_a_handshake_and_accepts_one_while_others_wait(
    tmp_path: Path, sockets: ExitStack
) -> None:
    rig = rig_of(tmp_path)
    waiting = [client(rig, sockets, rig.first_flight(A)) for _ in range(CLIENTS)]
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


def with_tickets(path: Path, workers: int) -> tuple[Rig, list[bytes]]:
    """All devices belong to the last worker."""
    rig = Rig(path, workers, ticket_key=bytes(32))
    numbers = (ALICE + k for k in itertools.count() if worker_of((ALICE + k) << 8 | 1, workers) == workers - 1)
    addresses = [rig.add_device(number, known=True) for number in itertools.islice(numbers, 2 * CLIENTS)]
    rig.start(run=False)
    return rig, flights_with_tickets(rig, addresses)


def readable(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


def per_turn(seen: list[dict[str, int]], name: str) -> list[int]:
    return [after[name] - before[name] for before, after in itertools.pairwise(seen)]


def test_a_turn_takes_two_tickets(tmp_path: Path, sockets: ExitStack) -> None:
    rig, flights = with_tickets(tmp_path, 1)
    before = rig.stat("handshakes")
    waiting = [client(rig, sockets, flight) for flight in flights]
    seen = turns(rig, lambda stats: stats["handshakes"] == before + len(flights))
    assert max(per_turn(seen, "handshakes")) == TICKETS_PER_TURN
    for sock in waiting:
        assert sock.recv(5)[4] == Kind.MESSAGE
    rig.stop()


def test_nobody_is_passed_over(tmp_path: Path, sockets: ExitStack) -> None:
    """Behind a ticket there is room for another in the same turn, and none for IK, which came before that other."""
    rig, flights = with_tickets(tmp_path, 1)
    flights[1::2] = [rig.first_flight(address) for address in list(rig.devices)[1::2]]
    waiting = [client(rig, sockets, flight) for flight in flights]
    for sock in waiting:
        sock.setblocking(False)
    order: list[int] = []
    (loop,) = rig.loops
    for _ in range(TURNS_MAX):
        loop.turn()
        order += [k for k, sock in enumerate(waiting) if k not in order and readable(sock)]
    assert order == list(range(len(waiting)))
    rig.stop()


def test_tickets_for_another_worker_leave_together(tmp_path: Path, sockets: ExitStack) -> None:
    rig, flights = with_tickets(tmp_path, 2)
    for flight in flights:
        client(rig, sockets, flight)
    end = rig.loops[0].stats()["turns"] + TURNS_MAX // 2
    seen = turns(rig, lambda stats: stats["turns"] >= end)
    passed_on = per_turn(seen, "hand_overs_out")
    assert max(passed_on) == PASSED_ON_PER_TURN
    assert sum(passed_on) == seen[-1]["accepts"] - seen[0]["accepts"]
    rig.stop()
