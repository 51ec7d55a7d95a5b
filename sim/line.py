"""The wire of one client connection: Noise and records, over a simulated stream."""

from __future__ import annotations

from typing import Any

import sim.quick  # noqa: F401  before the Noise layer
from sim._native.net import SimNet
from wa._fastpath.noise.noise import IK, XX, Handshake
from wa._fastpath.wire import frames

MAGIC = b"wa\r\n"
REFUSAL_BYTES = 7  # kind, code, retry_after_ms, no text


class Broken(Exception):
    """The connection is over: reset, ended, or refused in the clear; then it has a code."""


class Line:
    """`frames_in()` returns what has come; `send` seals and writes what the stream takes.  Its owner times it out."""

    def __init__(
        self,
        net: SimNet,
        handle: int,
        *,
        suite: int,
        pattern: int,
        static_private: bytes,
        server_static: bytes,
        login: bytes,
        ephemeral: bytes,
    ) -> None:
        self.net = net
        self.handle = handle
        self.open = False  # the handshake is done
        self.refusal = 0
        self._in = b""
        self._out = b""
        self._login = login
        self._ephemeral = ephemeral
        self._transport: Any = None
        hello = MAGIC + bytes([1, suite, pattern, 0])
        self._hs: Any = Handshake(
            pattern,
            suite,
            initiator=True,
            prologue=hello,
            static_private=static_private,
            remote_static=server_static if pattern == IK else None,
        )
        first = self._hs.write(login if pattern == IK else b"", ephemeral=ephemeral)
        self._out = hello + self._handshake_record(first)
        self._pattern = pattern
        self.flush()

    @staticmethod
    def _handshake_record(message: bytes) -> bytes:
        return (len(message) + 1).to_bytes(4, "big") + b"\x01" + message

    def flush(self) -> None:
        while self._out:
            try:
                sent = self.net.send(self.handle, self._out)
            except ConnectionResetError:
                raise Broken from None
            if not sent:
                return
            self._out = self._out[sent:]

    def send(self, plain: bytes) -> None:
        """One record of whole frames."""
        cipher = self._transport.seal(plain)
        self._out += len(cipher).to_bytes(4, "big") + cipher
        self.flush()

    @property
    def backed_up(self) -> bool:
        return bool(self._out)

    def frames_in(self) -> list[frames.RawFrame]:
        """Raises Broken when the connection has ended and everything before was handed out."""
        out: list[frames.RawFrame] = []
        while True:
            try:
                data = self.net.recv(self.handle)
            except ConnectionResetError:
                data = b""
            if data is None:
                return out
            if not data:
                if out:
                    return out
                raise Broken
            self._in += data
            self._records(out)

    def _records(self, out: list[frames.RawFrame]) -> None:
        at = 0
        while len(self._in) - at >= 4:
            n = int.from_bytes(self._in[at : at + 4], "big")
            if len(self._in) - at < 4 + n:
                break
            record = self._in[at + 4 : at + 4 + n]
            at += 4 + n
            if self._transport is None:
                self._handshake(record)
            elif n == REFUSAL_BYTES and record[0] == 3:
                # Too short for a transport record: the server gave up waiting for our last handshake message.
                self.refusal = int.from_bytes(record[1:3], "big")
                raise Broken
            else:
                out.extend(frames.parse(self._transport.open(record)))
        self._in = self._in[at:]

    def _handshake(self, record: bytes) -> None:
        if record[0] == 3:
            self.refusal = int.from_bytes(record[1:3], "big")
            raise Broken
        self._hs.read(record[1:])
        if self._pattern == XX:
            self._out += self._handshake_record(self._hs.write(self._login, ephemeral=self._ephemeral))
        self._transport = self._hs.split()
        self._hs = None
        self.open = True
        self.flush()

    def close(self) -> None:
        self.net.close(self.handle)
