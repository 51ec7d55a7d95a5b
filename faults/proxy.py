"""A TCP proxy that does what networks do: cuts in the middle of a record, stalls, dribbles, closes half.

    client --- Incident.up --> server
           <-- Incident.down --

An incident happens after a number of bytes of one direction, so it can hit a record at any byte.
"""

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import dataclass, replace
from enum import Enum

READ_BYTES = 65_536
NARROW_BYTES = 4_096
NARROW_SEGMENT_BYTES = 1_360  # the other end sizes its buffer by their number and by the memory that each takes
OPEN_BYTES_MAX = 600  # of a handshake and the first frames: some incidents hit there


class What(Enum):
    CUT = "cut"  # RST to both ends
    CLOSE = "close"  # FIN to both ends
    HALF_CLOSE = "half-close"  # FIN in this direction only; the other one goes on
    STALL = "stall"  # nothing more in this direction, for a while; as many bytes later a FIN
    DRIBBLE = "dribble"  # byte by byte from the beginning, for a number of bytes; as many bytes later a FIN


@dataclass(frozen=True)
class Incident:
    what: What
    up: bool  # the direction it counts and hits: from client to server
    after_bytes: int
    seconds: float  # of a stall

    def __str__(self) -> str:
        direction = "up" if self.up else "down"
        return f"{self.what.value} {direction} after {self.after_bytes} bytes"


def plan(rng: random.Random) -> Incident:
    after = rng.randrange(OPEN_BYTES_MAX) if rng.random() < 0.3 else rng.randrange(OPEN_BYTES_MAX, 40_000)
    return Incident(rng.choice(list(What)), rng.random() < 0.5, after, rng.uniform(0.2, 3.0))


class Proxy:
    """Each connection gets the next incident of the plan; after the last one connections pass undisturbed.

    narrow: it buffers little, and so do its sockets.  Directly, the sockets of one machine take a megabyte for a client
    that does not read; through a narrow proxy on hold, the server's socket is full after some KB.
    """

    def __init__(self, target_port: int, *, narrow: bool = False) -> None:
        self._target_port, self._narrow = target_port, narrow
        self._held_bytes = NARROW_BYTES if narrow else READ_BYTES
        self.planned: list[Incident] = []
        self.happened: list[Incident] = []
        self._connections: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()

    def hold(self, held: bool) -> None:
        """While on hold, it reads from neither end."""
        if held:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def open(self) -> None:
        sock = self._made(socket.socket())
        sock.bind(("127.0.0.1", 0))  # what it accepts has its buffers
        self._server = await asyncio.start_server(self._on_client, sock=sock, limit=self._held_bytes)

    def _made(self, sock: socket.socket) -> socket.socket:
        if self._narrow:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, NARROW_BYTES)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, NARROW_SEGMENT_BYTES)
        sock.setblocking(False)
        return sock

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _on_client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sock = self._made(socket.socket())
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self._target_port))
            to_reader, to_writer = await asyncio.open_connection(sock=sock, limit=self._held_bytes)
        except OSError:
            sock.close()
            writer.close()
            return
        for each in (writer, to_writer):
            each.transport.set_write_buffer_limits(self._held_bytes)
        incident = self.planned.pop(0) if self.planned else None
        up = _Way(reader, to_writer, self._flowing, incident if incident is not None and incident.up else None)
        down = _Way(to_reader, writer, self._flowing, incident if incident is not None and not incident.up else None)
        ways = [asyncio.create_task(way.run()) for way in (up, down)]
        try:
            # One way may end alone (half-close); a cut ends both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            if not (up.is_over or down.is_over):
                await asyncio.wait(ways)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            if up.hit or down.hit:
                assert incident is not None
                self.happened.append(incident)
                if incident.what is What.CUT:
                    _reset(writer)
                    _reset(to_writer)
            to_writer.close()
            writer.close()


class _Way:
    """One direction.  `is_over`: it has ended the whole connection."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        incident: Incident | None,
    ) -> None:
        self._reader, self._writer, self._flowing, self._incident = reader, writer, flowing, incident
        self._passed = 0
        self.hit = False
        self.is_over = False

    async def run(self) -> None:
        try:
            while data := await self._reader.read(READ_BYTES):
                await self._flowing.wait()
                if not await self._pass(data):
                    return
            self._end()
        except (ConnectionError, TimeoutError):
            self.is_over = True

    def _end(self) -> None:
        """The input of this way has ended, so its output does too."""
        with contextlib.suppress(OSError):
            if self._writer.can_write_eof():
                self._writer.write_eof()

    async def _pass(self, data: bytes) -> bool:
        """False when this direction is over."""
        incident = self._incident
        if incident is None:
            return await self._write(data)
        before = data[: max(incident.after_bytes - self._passed, 0)]
        if incident.what is What.DRIBBLE and before:
            self.hit = True
            await self._dribble(before)
        else:
            await self._write(before)
        rest = data[len(before) :]
        if not rest:
            return True
        self.hit = True
        match incident.what:
            case What.STALL | What.DRIBBLE:
                if incident.what is What.STALL:
                    await asyncio.sleep(incident.seconds)
                self._incident = replace(incident, what=What.CLOSE, after_bytes=2 * incident.after_bytes + 1)
                return await self._pass(rest)
            case What.HALF_CLOSE:
                self._end()
                return False
            case _:
                self.is_over = True
                return False

    async def _write(self, data: bytes) -> bool:
        self._passed += len(data)
        self._writer.write(data)
        await self._writer.drain()
        return True

    async def _dribble(self, data: bytes) -> None:
        """Each byte in a segment of its own."""
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(data)):
            await self._write(data[at : at + 1])
            await asyncio.sleep(0)


def _reset(writer: asyncio.StreamWriter) -> None:
    """RST instead of FIN."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
