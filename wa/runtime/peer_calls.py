"""Requests that another worker must execute: correlation, time-out, and their form on the bus.

A call or a reply is one msgpack array.  Each incarnation of a worker begins its correlation numbers at random, so a
late reply to its predecessor matches nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack

from wa import limits
from wa.errors import LocalError

CALL = 1
REPLY = 2


@dataclass(frozen=True)
class Call:
    """`body` is the request's body, the caller's verified address beside it."""

    correlation: int
    method: int
    caller: int
    body: bytes

    def encode(self) -> bytes:
        return _pack([CALL, self.correlation, self.method, self.caller, self.body])


@dataclass(frozen=True)
class Reply:
    correlation: int
    status: int
    body: bytes

    def encode(self) -> bytes:
        return _pack([REPLY, self.correlation, self.status, self.body])


def decode(data: bytes) -> Call | Reply:
    """Another worker of this server wrote it, so anything malformed is our fault.  Raises LocalError."""
    match msgpack.unpackb(data):
        case [kind, int(correlation), int(method), int(caller), bytes(body)] if kind == CALL:
            return Call(correlation, method, caller, body)
        case [kind, int(correlation), int(status), bytes(body)] if kind == REPLY:
            return Reply(correlation, status, body)
    raise LocalError("a message of another worker is neither a call nor a reply")


@dataclass(frozen=True)
class Waiting:
    """Where the reply goes: a request of one of our connections.

    amend: what this worker adds to the body of a reply without an error.
    """

    conn: int
    request_id: int
    deadline_ms: int
    amend: Callable[[bytes], bytes] | None


class PeerCalls:
    """This worker's calls in flight.  Bounded; oldest first."""

    def __init__(self, first: int, monotonic_ms: Callable[[], int]) -> None:
        self._next, self._monotonic_ms = first, monotonic_ms
        self._waiting: dict[int, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def open(self, conn: int, request_id: int, amend: Callable[[bytes], bytes] | None = None) -> int | None:
        """A correlation number, or None when too many are open."""
        if len(self._waiting) >= limits.PEER_CALLS_OPEN_MAX:
            return None
        correlation = self._next
        self._next += 1
        deadline_ms = self._monotonic_ms() + limits.REQUEST_TIMEOUT_MS
        self._waiting[correlation] = Waiting(conn, request_id, deadline_ms, amend)
        return correlation

    def close(self, correlation: int) -> Waiting | None:
        """None when it had expired."""
        return self._waiting.pop(correlation, None)

    def expired(self) -> list[Waiting]:
        """Takes out the calls that have expired."""
        now_ms = self._monotonic_ms()
        late = []
        for correlation, waiting in self._waiting.items():
            if waiting.deadline_ms > now_ms:
                break  # opened later, due later
            late.append(correlation)
        return [self._waiting.pop(correlation) for correlation in late]


def _pack(message: list[Any]) -> bytes:
    data: bytes = msgpack.packb(message)
    return data
