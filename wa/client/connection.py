"""One connection: TCP, Noise, frames, requests, pings.  It always ends with ConnectionLost.

    conn = await Connection.open(endpoint, timing)   handshake done, certificate checked against the root key
    ready = await conn.login()                       F_OPEN -> F_READY
    frames = await conn.receive()                    for ever; responses and pongs are settled inside

There is one reader and any number of writers.  Frames queued in one turn of the event loop leave together, in as few
records as possible.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from wa import limits
from wa.client.outbox_table import Entry
from wa.client.timing import Timing
from wa.errors import EXPLANATION, Code, LocalError, RemoteError
from wa.noise.records import Intent, Login, Refused, Ticket
from wa.noise.session import ClientSession, HandshakeDone, RecordPlain
from wa.wire import frames, methods
from wa.wire.frames import Frame
from wa.wire.methods import Method

READ_BYTES = 262_144


class ConnectionLost(ConnectionError):
    """Why a connection ended, or was not made.

    `authentic`: the server said so inside the encrypted connection.  What comes in the clear, or from the network, must
    not change stored state.
    """

    def __init__(
        self, reason: str, *, code: Code | None = None, retry_after_ms: int = 0, authentic: bool = False
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.retry_after_ms = retry_after_ms
        self.authentic = authentic


@dataclass(frozen=True)
class Endpoint:
    """Whom to connect to, and as whom.  `certificate` is the last one seen; with it the handshake is IK.

    take_ticket: called once the server is reached; the ticket it returns is used up, even if the login fails.
    """

    host: str
    port: int
    root_key: bytes
    static_private: bytes
    intent: Intent
    address: int
    certificate: bytes | None = None
    take_ticket: Callable[[], Ticket | None] = lambda: None


def parse_server(text: str) -> tuple[str, int]:
    """ "host", "host:port" or "[v6]:port".  Raises LocalError."""
    host, colon, port = text.rpartition(":")
    if not colon or host.endswith(":") or (":" in host and not host.startswith("[")):
        host, port = text, str(limits.PORT_DEFAULT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise LocalError(f"a server is written host or host:port, not {text!r}")
    return host, int(port)


def code_of(number: int) -> Code | None:
    """None for a code of a newer server."""
    try:
        return Code(number)
    except ValueError:
        return None


class Connection:
    """Made by `open`."""

    def __init__(
        self,
        session: ClientSession,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        timing: Timing,
    ) -> None:
        self._session = session
        self._reader = reader
        self._writer = writer
        self._timing = timing
        self._loop = asyncio.get_running_loop()
        self._lost: ConnectionLost | None = None
        self._pending: list[Frame] = []
        self._unsent: list[Frame] = []
        self._flush: asyncio.Handle | None = None
        self._ids = itertools.count(1)
        self._requests: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._request_slots = asyncio.Semaphore(limits.CLIENT_REQUESTS_OPEN_MAX)
        self._pings: dict[int, asyncio.Future[None]] = {}
        self.certificate = b""
        self.used_fallback = False
        self.resumed = False

    @classmethod
    async def open(cls, endpoint: Endpoint, timing: Timing) -> "Connection":
        """Raises ConnectionLost; RemoteError(HANDSHAKE_FAILED) when the server is not the pinned one."""
        try:
            async with asyncio.timeout(timing.connect_ms / 1_000):
                reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, limit=READ_BYTES)
        except TimeoutError:
            raise ConnectionLost(f"no answer from {endpoint.host}:{endpoint.port}") from None
        except OSError as error:
            why = error.strerror or str(error)
            raise ConnectionLost(f"cannot reach {endpoint.host}:{endpoint.port}: {why}") from None
        session = ClientSession(
            static_private=endpoint.static_private,
            login=Login(endpoint.intent, endpoint.address),
            root_public=endpoint.root_key,
            now_s=int(time.time()),
            certificate=endpoint.certificate,
            ticket=endpoint.take_ticket(),
        )
        connection = cls(session, reader, writer, timing)
        try:
            async with asyncio.timeout(limits.HANDSHAKE_STEP_MS_MAX / 1_000):
                await connection._handshake()
        except TimeoutError:
            connection.abort()
            raise ConnectionLost("the server did not finish the handshake", code=Code.HANDSHAKE_TIMEOUT) from None
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _handshake(self) -> None:
        self._writer.write(self._session.bytes_to_send())
        while True:
            data = await self._read()
            for event in self._session.receive(data):
                if isinstance(event, HandshakeDone):
                    self.certificate = event.certificate
                    self.used_fallback = event.used_fallback
                    self.resumed = event.resumed
                elif isinstance(event, Refused):
                    raise _refused(event)
                elif isinstance(event, RecordPlain):
                    self._pending += frames.decode_all(event.data)
            self._write_session()
            if self.certificate:
                return

    async def login(self) -> frames.Ready:
        """Opens the connection.  Raises ConnectionLost with the server's reason when it refuses."""
        self.send([frames.Open(limits.PROTOCOL_VERSION, 0)])
        try:
            async with asyncio.timeout(limits.AUTHENTICATE_MS_MAX / 1_000):
                return await self._ready()
        except TimeoutError:
            raise ConnectionLost("the server did not answer the login") from None

    async def _ready(self) -> frames.Ready:
        while True:
            batch = await self.receive()
            for index, frame in enumerate(batch):
                if isinstance(frame, frames.Ready):
                    self._pending = [*batch[index + 1 :], *self._pending]
                    return frame

    # --- reading ---

    async def receive(self) -> list[Frame]:
        """The next frames that are not answers to requests and pings.  Raises ConnectionLost, RemoteError."""
        while True:
            if self._pending:
                batch, self._pending = self._pending, []
            else:
                if self._lost is not None:
                    raise self._lost
                batch = []
                for event in self._session.receive(await self._read()):
                    assert isinstance(event, RecordPlain), "the handshake is done"
                    batch += frames.decode_all(event.data)
            kept = [frame for frame in batch if not self._settle(frame)]
            if kept or self._lost is not None:
                if not kept:
                    assert self._lost is not None
                    raise self._lost
                return kept

    def _settle(self, frame: Frame) -> bool:
        """True when the frame was this layer's."""
        match frame:
            case frames.Response(request_id, status, body):
                future = self._requests.pop(request_id, None)
                if future is not None and not future.done():
                    _answer(future, status, body)
            case frames.Pong(token):
                waiter = self._pings.pop(token, None)
                if waiter is not None and not waiter.done():
                    waiter.set_result(None)
            case frames.Ping(token):
                self.send([frames.Pong(token)])
            case frames.Close(number, retry_after_ms):
                code = code_of(number)
                reason = EXPLANATION[code] if code is not None else f"the server closed with code {number}"
                self._lost = ConnectionLost(reason, code=code, retry_after_ms=retry_after_ms, authentic=True)
            case _:
                return False
        return True

    async def _read(self) -> bytes:
        try:
            data = await self._reader.read(READ_BYTES)
        except OSError as error:
            raise ConnectionLost(f"the connection broke: {error.strerror or error}") from None
        if not data:
            raise ConnectionLost("the connection was cut")
        return data

    # --- writing ---

    def send(self, batch: Sequence[Frame]) -> None:
        """Queues frames; they leave together at the end of this turn of the loop."""
        self._unsent += batch
        if self._flush is None:
            self._flush = self._loop.call_soon(self.flush)

    def send_entries(self, entries: Sequence[Entry]) -> None:
        self.send([frames.Send(entry.kind, entry.recipient, entry.id, entry.ciphertext) for entry in entries])
        self.flush()

    def acknowledge(self, seqs: Sequence[int]) -> None:
        """Acknowledges committed deliveries; consecutive numbers share a frame."""
        self.send(ack_frames(seqs))
        self.flush()

    def flush(self) -> None:
        """Hands everything that was queued to the socket now."""
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        unsent, self._unsent = self._unsent, []
        if not unsent or self._writer.is_closing():
            return
        for record in frames.pack(unsent):
            self._session.send_record(record)
        self._write_session()

    def _write_session(self) -> None:
        data = self._session.bytes_to_send()
        if data:
            self._writer.write(data)

    async def request(self, method: Method, parameters: dict[str, Any]) -> dict[str, Any]:
        """The response.  Raises RemoteError when it failed, ConnectionLost when the connection ends first."""
        async with self._request_slots:
            if self._lost is not None:
                raise self._lost
            request_id = next(self._ids)
            future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
            self._requests[request_id] = future
            self.send([frames.Request(request_id, method, methods.pack(parameters))])
            try:
                async with asyncio.timeout(self._timing.request_ms / 1_000):
                    return await future
            except TimeoutError:
                raise RemoteError(Code.REQUEST_TIMEOUT, f"{method.name.lower()}: no response") from None
            finally:
                self._requests.pop(request_id, None)

    async def ping(self) -> None:
        """Returns when the server has processed everything written so far."""
        token = next(self._ids)
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._pings[token] = waiter
        self.send([frames.Ping(token)])
        try:
            async with asyncio.timeout(self._timing.request_ms / 1_000):
                await waiter
        except TimeoutError:
            raise ConnectionLost("the server does not answer pings") from None
        finally:
            self._pings.pop(token, None)

    async def keep_alive(self) -> None:
        """Pings for ever.  Raises ConnectionLost when one is not answered."""
        while True:
            await asyncio.sleep(self._timing.ping_interval_ms / 1_000)
            await self.ping()

    # --- the end ---

    async def close(self) -> None:
        """Sends a close frame and waits until it has left, so that the server need not guess."""
        with contextlib.suppress(OSError, TimeoutError):
            self.send([frames.Close(0, 0)])
            self.flush()
            async with asyncio.timeout(limits.CLOSE_FLUSH_MS_MAX / 1_000):
                self._writer.close()
                await self._writer.wait_closed()
        self.abort()

    def abort(self) -> None:
        """Ends at once; open requests fail with ConnectionLost."""
        lost = self._lost or ConnectionLost("the connection is closed")
        self._lost = lost
        if self._flush is not None:
            self._flush.cancel()
            self._flush = None
        for request in self._requests.values():
            if not request.done():
                request.set_exception(lost)
        for waiter in self._pings.values():
            if not waiter.done():
                waiter.set_exception(lost)
        self._writer.transport.abort()


def _answer(future: asyncio.Future[dict[str, Any]], status: int, body: bytes) -> None:
    try:
        answer = methods.unpack(body)
        if status == 0:
            future.set_result(answer)
            return
        code = code_of(status)
        retry = answer.get("retry_after_ms", 0)
        raise RemoteError(
            code if code is not None else Code.PROTOCOL_ERROR,
            str(answer.get("detail", ""))[:200],
            retry_after_ms=retry if isinstance(retry, int) and 0 <= retry < 1 << 32 else 0,
        )
    except RemoteError as error:
        future.set_exception(error)


def _refused(event: Refused) -> ConnectionLost:
    code = code_of(event.code)
    text = EXPLANATION[code] if code is not None else f"refused with code {event.code}"
    return ConnectionLost(text, code=code, retry_after_ms=event.retry_after_ms)


def ack_frames(seqs: Sequence[int]) -> list[Frame]:
    """The fewest frames for these sequence numbers."""
    result: list[Frame] = []
    run: list[int] = []
    for seq in sorted(set(seqs)):
        if run and (seq != run[-1] + 1 or len(run) == limits.DELIVERY_WINDOW_MAX):
            result.append(_ack(run))
            run = []
        run.append(seq)
    if run:
        result.append(_ack(run))
    return result


def _ack(run: list[int]) -> Frame:
    return frames.Ack(run[0]) if len(run) == 1 else frames.AckRange(run[0], len(run))
