"""The datagrams between workers and push gateway, over Unix sockets in `run/`.

    worker k  -- push.sock -->    gateway     wake-ups, each with an id of its own
    worker k  <-- push-k.sock --  gateway     what became of them

Best effort: the sender learns of a full or absent receiver, and deals with it.  A report carries the incarnation of the
gateway: a new one tells the worker that its wake-ups in flight are lost.
"""

import contextlib
import errno
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import msgpack

from wa import limits
from wa.errors import LocalError

ID_BYTES = 16
_PER_WAKE_BYTES = 64  # more than what msgpack and the fields of fixed length take
_PER_OUTCOME_BYTES = 20


class Outcome(IntEnum):
    DONE = 1  # handed to the push service, or joined with a wake-up of the same device
    LOST = 2  # given up: the device was not woken
    GONE = 3  # the push service does not know the token any more


@dataclass(frozen=True)
class Wake:
    """id: random, 16 bytes; it stays the same when the wake-up is repeated."""

    id: bytes
    address: int
    platform: str
    token: str = field(repr=False)

    @property
    def size(self) -> int:
        """Bytes in a datagram, at most."""
        return _PER_WAKE_BYTES + len(self.platform.encode()) + len(self.token.encode())


@dataclass(frozen=True)
class Wakes:
    worker: int
    wakes: tuple[Wake, ...]

    def encode(self) -> bytes:
        rows = [[wake.id, wake.address, wake.platform, wake.token] for wake in self.wakes]
        return _pack([self.worker, rows])

    @classmethod
    def decode(cls, data: bytes) -> "Wakes":
        """Another process of this server wrote it, so anything malformed is our fault.  Raises LocalError."""
        match _unpack(data):
            case [int(worker), list(rows)]:
                return cls(worker, tuple(_wake(row) for row in rows))
        raise LocalError("a datagram to the push gateway holds no wake-ups")


@dataclass(frozen=True)
class Report:
    """outcomes: (id, outcome) of wake-ups of the worker that it is sent to."""

    incarnation: bytes
    outcomes: tuple[tuple[bytes, Outcome], ...]

    def encode(self) -> bytes:
        return _pack([self.incarnation, [[id_, int(outcome)] for id_, outcome in self.outcomes]])

    @classmethod
    def decode(cls, data: bytes) -> "Report":
        match _unpack(data):
            case [bytes(incarnation), list(rows)]:
                return cls(incarnation, tuple(_outcome(row) for row in rows))
        raise LocalError("a datagram of the push gateway is no report")


_FULL = frozenset({errno.EAGAIN, errno.ENOBUFS})  # Linux says the one, FreeBSD the other
# The last two: something that is no such socket lies there.
_ABSENT = frozenset({errno.ENOENT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOTSOCK, errno.EPROTOTYPE})
OUTCOMES_MAX = (limits.PUSH_DATAGRAM_BYTES_MAX - _PER_WAKE_BYTES) // _PER_OUTCOME_BYTES  # in one report


def gateway_path(run_dir: Path) -> Path:
    return run_dir / "push.sock"


def worker_path(run_dir: Path, worker: int) -> Path:
    return run_dir / f"push-{worker}.sock"


def bind(path: Path) -> socket.socket:
    """A datagram socket at `path`, non-blocking.

    It replaces an earlier incarnation's: the supervisor starts a process only after its predecessor ended.
    Raises OSError.
    """
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, limits.PUSH_SOCKET_BYTES)
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError:
        sock.close()
        raise
    return sock


class Sent(IntEnum):
    YES = 1
    FULL = 2  # try again later
    ABSENT = 3  # nobody is there


def send(sock: socket.socket, data: bytes, path: Path) -> Sent:
    """Raises OSError for what is neither a full nor an absent receiver."""
    try:
        sock.sendto(data, str(path))
    except OSError as error:
        if error.errno in _FULL:
            return Sent.FULL
        if error.errno in _ABSENT:
            return Sent.ABSENT
        raise
    return Sent.YES


def received(sock: socket.socket) -> Iterator[bytes]:
    """What waits at a bound socket."""
    with contextlib.suppress(BlockingIOError):
        while True:
            yield sock.recv(limits.PUSH_DATAGRAM_BYTES_MAX)


def fitting(wakes: Iterable[Wake]) -> tuple[Wake, ...]:
    """As many of `wakes`, from the first, as one datagram takes."""
    room, found = limits.PUSH_DATAGRAM_BYTES_MAX - _PER_WAKE_BYTES, []
    for wake in wakes:
        room -= wake.size
        if room < 0:
            break
        found.append(wake)
    return tuple(found)


def _wake(row: object) -> Wake:
    match row:
        case [bytes(id_), int(address), str(platform), str(token)]:
            return Wake(id_, address, platform, token)
    raise LocalError("a wake-up has an id, an address, a platform and a token")


def _outcome(row: object) -> tuple[bytes, Outcome]:
    match row:
        case [bytes(id_), int(outcome)]:
            return id_, Outcome(outcome)
    raise LocalError("what became of a wake-up is its id and an outcome")


def _pack(message: list[object]) -> bytes:
    data: bytes = msgpack.packb(message)
    return data


def _unpack(data: bytes) -> object:
    message: object = msgpack.unpackb(data)
    return message
