"""The other end of a worker's bus and of a connection that comes over it, played by a test."""

import array
import socket
import struct
from contextlib import ExitStack
from typing import Any

from tests.integration.rig import Rig
from wa._fastpath.session import form
from wa.noise.transport import Transport
from wa.wire import frames

HELLO, ENVELOPE, RECEIPT, HANDOVER = 1, 2, 3, 4
MAGIC, LAYOUT = 0x77610003, 48 | 32 << 8
CLAIMED_FORM: dict[str, Any] = {
    "state": "claimed", "suite": 1, "seq_next": 1, "requests_open": 0, "asked": 0, "outstanding": 0, "address": 0,
    "heard_age_s": 0, "send_key": bytes(32), "recv_key": bytes(32), "send_nonce": 0, "recv_nonce": 0, "intent": 0,
    "hello": bytes(8), "static_key": bytes(32), "family": 0, "peer": bytes(16), "port": 0, "started_age_ms": 0,
}  # fmt: skip


class Stream:
    """A stream to worker 0, as worker 1 opens it."""

    def __init__(
        self, rig: Rig, *, magic: int = MAGIC, worker: int = 1, workers: int = 2, layout: int = LAYOUT
    ) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(rig.path / "bus-0.sock"))
        self.send(HELLO, struct.pack("=4I", magic, worker, workers, layout))

    def send(self, what: int, body: bytes, fd: int | None = None) -> None:
        self.send_together((what, body, fd))

    def send_together(self, *messages: tuple[int, bytes, int | None]) -> None:
        """(kind, body, descriptor), all with one system call, and the descriptors with its first byte."""
        fds = array.array("i", [fd for _, _, fd in messages if fd is not None])
        data = b""
        for k, (what, body, fd) in enumerate(messages):
            data += struct.pack("=IBBBx", len(body), what, fd is not None, 0 if k else len(fds)) + body
        self.sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])

    def is_hung_up_on(self) -> bool:
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def pair(sockets: ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = map(sockets.enter_context, socket.socketpair())
    ours.settimeout(10)
    return ours, theirs


class FarEnd:
    """The client of a connection that some other worker had: a cipher in the middle of its life, and a socket.

    key: one byte, of which its keys are made.  nonce: of the next record in each direction.
    """

    def __init__(self, sockets: ExitStack, key: int, nonce: int = 0) -> None:
        self.ours, self.theirs = pair(sockets)
        self.key, self.nonce = key, nonce
        state = bytes([key]) * 32 + bytes([key + 1]) * 32 + struct.pack("=QQ", nonce, nonce)
        self.transport = Transport(1, state)

    def form(self, **values: Any) -> bytes:
        keys = {"send_key": bytes([self.key + 1]) * 32, "recv_key": bytes([self.key]) * 32}
        return form.write({**CLAIMED_FORM, **keys, "send_nonce": self.nonce, "recv_nonce": self.nonce, **values})

    def hand_over(self, stream: Stream, **values: Any) -> None:
        stream.send(HANDOVER, self.form(**values), self.theirs.fileno())
        self.theirs.close()

    def sealed(self, *items: Any) -> bytes:
        record = self.transport.seal(b"".join(frames.encode(item) for item in items))
        return len(record).to_bytes(4, "big") + record

    def send(self, *items: Any) -> None:
        self.ours.sendall(self.sealed(*items))

    def receive(self) -> list[Any]:
        """The frames of the next record."""
        n = int.from_bytes(self.ours.recv(4, socket.MSG_WAITALL), "big")
        return frames.decode_all(self.transport.open(self.ours.recv(n, socket.MSG_WAITALL)))

    def is_closed(self) -> bool:
        try:
            return self.ours.recv(1) == b""
        except ConnectionResetError:
            return True
