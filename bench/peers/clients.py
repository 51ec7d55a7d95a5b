"""Clients of the other servers, in a process of their own.  They are Python, so their cost is reported too."""

import select
import socket
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any

from bench.children import Child, serve_calls
from bench.generator import Load
from bench.kernel import Cpu, cpu_of
from bench.peers.protocols import Speaks

READ_BYTES = 65536
POLL_S = 0.1
STALL_S = 20.0


@dataclass
class Client:
    sock: socket.socket
    user: int
    other: int
    is_sender: bool
    rest: bytes = b""
    sent: int = 0  # number of the last message sent (sender) or heard (recipient)
    heard: int = 0
    counts: dict[str, int] = field(default_factory=dict)


class Clients:
    """In the child: pairs (2k writes to 2k + 1), or one writer to a room."""

    def __init__(self, speaks: Speaks, port: int, pids: list[int]) -> None:
        self._speaks, self._port, self._pids = speaks, port, pids
        self._clients: dict[int, Client] = {}
        self._epoll = select.epoll()
        self._counts: dict[str, int] = {}

    # --- commands ---

    def login(self, users: range) -> float:
        """Logs these users in and out; server CPU in ms of one login."""
        before = cpu_of(self._pids)
        for user in users:
            self._speaks.login(self._port, user).close()
        return (cpu_of(self._pids) - before).total / len(users) * 1e3

    def hold(self, users: range) -> int:
        """Logs these users in and keeps them; returns how many are held."""
        for user in users:
            self._add(user, user, False)
        return len(self._clients)

    def pairs(self, count: int) -> None:
        self._speaks.register(self._port, range(2 * count))
        for k in range(count):
            self._add(2 * k, 2 * k + 1, True)
            self._add(2 * k + 1, 2 * k, False)

    def room(self, users: range) -> None:
        """The first one writes."""
        self._speaks.register(self._port, users)
        for user in users:
            client = self._add(user, user, user == users.start)
            self._speaks.join(client.sock, user)

    def leave(self) -> None:
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        self._epoll.close()
        self._epoll = select.epoll()

    def run(self, seconds: float, window: int) -> Load:
        """Every sender keeps `window` messages under way; waits for the last receipt."""
        self._counts = dict.fromkeys(("sent", "delivered", "received", "gaps", "bytes_in", "bytes_out"), 0)
        cpu, own, began = cpu_of(self._pids), time.process_time(), time.perf_counter()
        for client in self._clients.values():
            if client.is_sender:
                self._write(client, window)
        while time.perf_counter() - began < seconds:
            self._turn(True)
        took, moved = time.perf_counter() - began, time.perf_counter()
        while self._counts["delivered"] < self._counts["sent"] and time.perf_counter() - moved < STALL_S:
            if self._turn(False):
                moved = time.perf_counter()
        spent = time.process_time() - own
        return Load(
            seconds=took,
            wall_s=time.perf_counter() - began,
            drained=self._counts["delivered"] == self._counts["sent"],
            counts=dict(self._counts, records_in=0, records_out=0, accepted=0),
            server_cpu=cpu_of(self._pids) - cpu,
            generator_cpu=Cpu(spent, spent, 0.0),
        )

    def run_room(self, seconds: float) -> Load:
        """Sends one message after the other to the room, each when all have heard the one before."""
        self._counts = dict.fromkeys(("sent", "delivered", "received", "gaps", "bytes_in", "bytes_out"), 0)
        cpu, own, began = cpu_of(self._pids), time.process_time(), time.perf_counter()
        members = len(self._clients)
        writer = next(client for client in self._clients.values() if client.is_sender)
        while time.perf_counter() - began < seconds:
            writer.sent += 1
            self._send(writer, self._speaks.to_room(writer.sent))
            self._counts["sent"] += 1
            moved = time.perf_counter()
            while self._counts["received"] < self._counts["sent"] * members:
                self._read_room(writer.sent)
                if time.perf_counter() - moved > STALL_S:
                    raise OSError(f"a room of {members} heard {self._counts}")
        spent = time.process_time() - own
        return Load(
            wall_s=time.perf_counter() - began,
            counts=dict(self._counts, records_in=0, records_out=0, accepted=0),
            server_cpu=cpu_of(self._pids) - cpu,
            generator_cpu=Cpu(spent, spent, 0.0),
        )

    # --- parts ---

    def _add(self, user: int, other: int, is_sender: bool) -> Client:
        sock = self._speaks.login(self._port, user)
        client = self._clients[sock.fileno()] = Client(sock, user, other, is_sender)
        self._epoll.register(sock, select.EPOLLIN)
        return client

    def _send(self, client: Client, data: bytes) -> None:
        client.sock.sendall(data)
        self._counts["bytes_out"] += len(data)

    def _write(self, client: Client, count: int) -> None:
        first = client.sent + 1
        client.sent += count
        self._counts["sent"] += count
        message, other = self._speaks.message, client.other
        self._send(client, b"".join([message(other, number) for number in range(first, first + count)]))

    def _take(self, client: Client) -> list[int]:
        data = client.sock.recv(READ_BYTES, socket.MSG_DONTWAIT)
        if not data:
            raise OSError("the server closed a connection")
        self._counts["bytes_in"] += len(data)
        numbers, client.rest = self._speaks.take(client.rest + data)
        return numbers

    def _turn(self, topping: bool) -> bool:
        events = self._epoll.poll(POLL_S)
        for fd, _ in events:
            client = self._clients[fd]
            numbers = self._take(client)
            if not numbers:
                continue
            if numbers != list(range(client.heard + 1, client.heard + 1 + len(numbers))):
                self._counts["gaps"] += 1
            client.heard = numbers[-1]
            if client.is_sender:
                self._counts["delivered"] += len(numbers)
                if topping:
                    self._write(client, len(numbers))
            else:
                self._counts["received"] += len(numbers)
                receipt, other = self._speaks.receipt, client.other
                self._send(client, b"".join([receipt(other, number) for number in numbers]))
        return bool(events)

    def _read_room(self, number: int) -> None:
        for fd, _ in self._epoll.poll(POLL_S):
            client = self._clients[fd]
            for heard in self._take(client):
                if heard == number:
                    self._counts["received"] += 1
                    self._counts["delivered"] += 1
                else:
                    self._counts["gaps"] += 1


def start(speaks: Speaks, port: int, pids: list[int], cores: list[int]) -> Child:
    """A process whose commands are the methods of Clients."""

    def serve(connection: "Connection[Any, Any]") -> None:
        serve_calls(connection, Clients(speaks, port, pids), lambda: connection.poll(None))

    return Child(f"clients of {speaks.name}", serve, cores)
