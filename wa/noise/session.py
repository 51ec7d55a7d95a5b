"""Sans-I/O sessions of the record layer, docs/protocol.md section 1: bytes in, events out.

Theory of operation.  A session owns no socket, clock or thread.  The caller hands what it read to `receive`, acts on
the events, and writes what `bytes_to_send` returns.  Each state expects certain kinds of handshake record: the two
tables below list them all.  Random bytes come from the caller too, so a run can be replayed.

However the bytes are cut, they parse or raise RemoteError, nothing else.  Events before a fault are returned first; the
fault is then in `fault`, and every later `receive` raises it.  The caller knows what a frame means, sends the close
frame and keeps all deadlines.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import certificate as certificates
from wa.noise import records
from wa.noise.backend import DEFAULT, Backend, HandshakeLike, TransportLike
from wa.noise.patterns import Pattern, Suite
from wa.noise.primitives import preferred_suite
from wa.noise.records import Intent, Kind, Login, Refused, Ticket


class State(Enum):
    """Named after what the session waits for."""

    HELLO = "hello"
    XX_FIRST = "first message of XX"
    IK_FIRST = "first message of IK"
    TICKET_FIRST = "ticket"
    XX_REPLY = "reply of XX"
    IK_REPLY = "reply of IK"
    TICKET_REPLY = "reply to a ticket"
    LAST = "last message"
    RECORD = "transport record"
    ENDED = "nothing"


# (state, kind of handshake record) -> method.  Anything else breaks the protocol.
CLIENT_TABLE: Final[Mapping[tuple[State, int], str]] = {
    (State.XX_REPLY, Kind.MESSAGE): "_on_certified_reply",
    (State.XX_REPLY, Kind.REFUSAL): "_on_refusal",
    (State.IK_REPLY, Kind.MESSAGE): "_on_ik_reply",
    (State.IK_REPLY, Kind.FALLBACK): "_on_fallback",
    (State.IK_REPLY, Kind.REFUSAL): "_on_refusal",
    (State.TICKET_REPLY, Kind.MESSAGE): "_on_resumed",
    (State.TICKET_REPLY, Kind.TICKET_REFUSED): "_on_ticket_refused",
    (State.TICKET_REPLY, Kind.REFUSAL): "_on_refusal",
}
SERVER_TABLE: Final[Mapping[tuple[State, int], str]] = {
    (State.XX_FIRST, Kind.MESSAGE): "_on_xx_first",
    (State.IK_FIRST, Kind.MESSAGE): "_on_ik_first",
    (State.TICKET_FIRST, Kind.TICKET): "_on_ticket",
    (State.LAST, Kind.MESSAGE): "_on_last",
}
_CLIENT_AWAITS: Final = {
    Pattern.XX: State.XX_REPLY,
    Pattern.IK: State.IK_REPLY,
    Pattern.NNPSK0: State.TICKET_REPLY,
}
_SERVER_AWAITS: Final = {
    Pattern.XX: State.XX_FIRST,
    Pattern.IK: State.IK_FIRST,
    Pattern.NNPSK0: State.TICKET_FIRST,
}


@dataclass(frozen=True)
class HandshakeDone:
    """Client: the server holds the key that the root certified.  Store the certificate for the next IK.

    resumed: the proof is another one: the server opened the ticket that the holder of that key once gave.
    """

    server_static: bytes
    certificate: bytes
    used_fallback: bool
    resumed: bool = False


@dataclass(frozen=True)
class LoginReceived:
    """Server: who the client is.  It must have no effect before the first RecordPlain: it may be a replay.

    client_static: None when a ticket says who the client is.
    """

    client_static: bytes | None
    login: Login
    used_fallback: bool


@dataclass(frozen=True)
class RecordPlain:
    """The plaintext of one transport record: one or more whole frames."""

    data: bytes


Event = HandshakeDone | LoginReceived | RecordPlain | Refused


class _Session:
    """What both sides share: buffers, the transport phase, faults."""

    _table: Mapping[tuple[State, int], str]

    def __init__(self, state: State, backend: Backend | None, random_bytes: Callable[[int], bytes]) -> None:
        self.state = state
        self.fault: RemoteError | None = None
        self._backend = backend or DEFAULT
        self._random_bytes = random_bytes
        self._in = records.RecordBuffer()
        self._out = bytearray()
        self._events: list[Event] = []
        self._transport: TransportLike | None = None
        self._handshake: HandshakeLike | None = None
        self._used_fallback = False

    # --- the caller's side ----------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """The events that data completes.  Raises RemoteError; after a refusal everything is ignored."""
        if self.fault is not None:
            raise self.fault
        self._in.feed(data)
        try:
            while self._advance():
                pass
        except RemoteError as fault:
            self._fail(fault)
            if not self._events:
                raise
        if self.state is State.ENDED:
            self._in.clear()
        events, self._events = self._events, []
        return events

    def end_of_stream(self) -> None:
        """The peer's direction ended.  Raises RemoteError(PROTOCOL_ERROR) inside a record or the handshake.

        Between transport records it returns: the caller knows whether a close frame came.
        """
        if self.fault is not None:
            raise self.fault
        if self.state is State.ENDED or (self.state is State.RECORD and not self._in):
            return
        self._fail(RemoteError(Code.PROTOCOL_ERROR, f"the connection ended; awaited: {self.state.value}"))
        assert self.fault is not None
        raise self.fault

    def bytes_to_send(self) -> bytes:
        """Everything to write now; a second call returns nothing."""
        out = bytes(self._out)
        self._out.clear()
        return out

    def send_record(self, plain: bytes) -> None:
        """Seals whole frames, 1 to limits.RECORD_PLAIN_BYTES_MAX bytes, as one record.  Raises LocalError."""
        if self._transport is None:
            raise LocalError("there is no transport: the handshake is not done, or the session has ended")
        if not 1 <= len(plain) <= limits.RECORD_PLAIN_BYTES_MAX:
            raise LocalError(f"a record holds 1 to {limits.RECORD_PLAIN_BYTES_MAX} bytes, not {len(plain)}")
        self._out += records.record(self._transport.seal(plain))

    # --- the machine ----------------------------------------------------------------------------------

    def _advance(self) -> bool:
        """Takes one unit of input.  False when there is none whole, or nothing more is wanted."""
        if self.state is State.ENDED:
            return False
        if self.state is State.RECORD:
            sealed = self._in.take_record(records.TRANSPORT_BOUNDS)
            if sealed is None:
                return False
            assert self._transport is not None
            self._events.append(RecordPlain(self._transport.open(sealed)))
            return True
        content = self._in.take_record(records.HANDSHAKE_BOUNDS)
        if content is None:
            return False
        handler = self._table.get((self.state, content[0]))
        if handler is None:
            raise RemoteError(
                Code.PROTOCOL_ERROR, f"handshake record {content[0]}; awaited: {self.state.value}"
            )
        getattr(self, handler)(content[1:])
        return True

    def _fail(self, fault: RemoteError) -> None:
        self.fault = fault
        self._end()

    def _end(self) -> None:
        self.state = State.ENDED
        self._handshake = None
        self._transport = None
        self._in.clear()

    @property
    def _hs(self) -> HandshakeLike:
        assert self._handshake is not None
        return self._handshake

    def _write(self, kind: Kind, payload: bytes) -> None:
        """The next handshake message.  Each draws 32 random bytes, needed or not, so that a replay stays aligned."""
        message = self._hs.write(payload, ephemeral=self._random_bytes(32))
        self._out += records.handshake_record(kind, message)

    def _establish(self) -> bytes:
        """Splits; returns the peer's static key."""
        peer = self._hs.remote_static
        assert peer is not None, "XX, IK and XXfallback send or know both static keys"
        self._split()
        return peer

    def _split(self) -> None:
        self._transport = self._hs.split()
        self._handshake = None
        self.state = State.RECORD


class ClientSession(_Session):
    """The client's side of one connection, from hello on.

    static_private: the device's Noise key.  root_public: the pinned Ed25519 key.  now_s: Unix seconds.
    certificate: the one of an earlier HandshakeDone; while it is valid the session offers IK, else XX.
    ticket: tried before IK, while the certificate is valid.  It is used up even if the login fails.
    suite: preferred_suite() of this machine when not given.
    """

    _table = CLIENT_TABLE

    def __init__(
        self,
        *,
        static_private: bytes,
        login: Login,
        root_public: bytes,
        now_s: int,
        certificate: bytes | None = None,
        ticket: Ticket | None = None,
        suite: Suite | None = None,
        backend: Backend | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(State.XX_REPLY, backend, random_bytes)
        self._suite = suite or preferred_suite()
        self._static_private = static_private
        self._login = records.login_payload(login)
        self._root_public = root_public
        self._now_s = now_s
        self._certificate = certificate
        self._server_static = _still_valid(certificate, root_public, now_s)
        if self._server_static is None:
            self._begin(Pattern.XX)
        elif ticket is None:
            self._begin(Pattern.IK)
        else:
            self._begin(Pattern.NNPSK0, ticket)

    def _begin(self, pattern: Pattern, ticket: Ticket | None = None) -> None:
        """Hello and first message."""
        self.state = _CLIENT_AWAITS[pattern]
        self._hello = records.hello(self._suite, pattern)
        self._handshake = self._backend.start(
            pattern,
            self._suite,
            initiator=True,
            prologue=self._hello,
            static_private=self._static_private if ticket is None else None,
            remote_static=self._server_static if pattern is Pattern.IK else None,
            psk=None if ticket is None else ticket.psk,
        )
        self._out += self._hello
        if ticket is None:
            self._write(Kind.MESSAGE, b"" if pattern is Pattern.XX else self._login)
        else:
            message = self._hs.write(self._login, ephemeral=self._random_bytes(32))
            self._out += records.handshake_record(Kind.TICKET, records.ticket_content(ticket.sealed, message))

    def _on_certified_reply(self, message: bytes) -> None:
        certificate = self._hs.read(message)
        server_static = self._hs.remote_static
        assert server_static is not None
        certificates.verify(certificate, self._root_public, server_static, self._now_s)
        self._write(Kind.MESSAGE, self._login)
        self._events.append(HandshakeDone(self._establish(), certificate, self._used_fallback))

    def _on_ik_reply(self, message: bytes) -> None:
        if self._hs.read(message):
            raise RemoteError(Code.PROTOCOL_ERROR, "the reply of IK carries a payload")
        assert self._certificate is not None
        self._events.append(HandshakeDone(self._establish(), self._certificate, False))

    def _on_resumed(self, message: bytes) -> None:
        if self._hs.read(message):
            raise RemoteError(Code.PROTOCOL_ERROR, "the reply to a ticket carries a payload")
        assert self._certificate is not None
        assert self._server_static is not None
        self._split()
        self._events.append(HandshakeDone(self._server_static, self._certificate, False, resumed=True))

    def _on_ticket_refused(self, content: bytes) -> None:
        """Nobody has authenticated this refusal.  That is harmless: the stronger handshake follows."""
        if content:
            raise RemoteError(Code.PROTOCOL_ERROR, "a refused ticket says nothing more")
        self._begin(Pattern.IK)

    def _on_fallback(self, message: bytes) -> None:
        self._hs.fallback(self._hello)
        self._used_fallback = True
        self._on_certified_reply(message)

    def _on_refusal(self, content: bytes) -> None:
        self._events.append(records.parse_refusal(content))
        self._end()


def _still_valid(certificate: bytes | None, root_public: bytes, now_s: int) -> bytes | None:
    """The key of a stored certificate that this root signed and that is valid now."""
    if certificate is None:
        return None
    try:
        found = certificates.parse(certificate, root_public)
    except RemoteError:  # another root's, or damaged on disk: XX brings a new one
        return None
    return found.static_public if found.not_before <= now_s < found.not_after else None


OpenTicket = Callable[[bytes], tuple[bytes, int] | None]
"""(psk, address) of a ticket that is still good, or None."""


class ServerSession(_Session):
    """The server's side of one connection, for tests, tools and as an explanation of the compiled one.

    certificate: of static_private's public key.  suites: those that a hello may name, by default all here.
    open_ticket: without it every ticket is refused.
    A fault before the transport leaves a refusal to be sent.
    """

    _table = SERVER_TABLE

    def __init__(
        self,
        *,
        static_private: bytes,
        certificate: bytes,
        suites: tuple[Suite, ...] | None = None,
        open_ticket: OpenTicket | None = None,
        backend: Backend | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        super().__init__(State.HELLO, backend, random_bytes)
        self._static_private = static_private
        self._certificate = certificate
        self._suites = suites or self._backend.suites
        self._open_ticket = open_ticket
        self._ticket_refused = False
        self._hello = b""

    def refuse(self, code: Code, *, retry_after_ms: int = 0, text: str = "") -> None:
        """Ends a session that has no transport yet, telling the client why.  Raises LocalError."""
        if self.state in (State.RECORD, State.ENDED):
            raise LocalError("only a handshake can be refused; send a close frame")
        self._out += records.refusal(code, retry_after_ms, text)
        self._end()

    def _advance(self) -> bool:
        if self.state is not State.HELLO:
            return super()._advance()
        data = self._in.take(limits.HELLO_BYTES)
        if data is None:
            return False
        suite, pattern = records.parse_hello(data)
        if suite not in self._suites:
            raise RemoteError(Code.SUITE_UNSUPPORTED, f"suite {suite}")
        if pattern is Pattern.NNPSK0 and self._ticket_refused:
            raise RemoteError(Code.PATTERN_UNSUPPORTED, "a second ticket on one connection")
        self._hello, self._suite = data, suite
        if pattern is not Pattern.NNPSK0:
            self._handshake = self._backend.start(
                pattern, suite, initiator=False, prologue=data, static_private=self._static_private
            )
        self.state = _SERVER_AWAITS[pattern]
        return True

    def _fail(self, fault: RemoteError) -> None:
        if self.state is not State.RECORD:
            self._out += records.refusal(fault.code, fault.retry_after_ms, "")
        super()._fail(fault)

    def _on_xx_first(self, message: bytes) -> None:
        if self._hs.read(message):
            raise RemoteError(Code.PROTOCOL_ERROR, "the first message of XX carries a payload")
        self._write(Kind.MESSAGE, self._certificate)
        self.state = State.LAST

    def _on_ik_first(self, message: bytes) -> None:
        try:
            payload = self._hs.read(message)
        except RemoteError:
            if not self._hs.can_fall_back:
                raise
            self._hs.fallback(self._hello)
            self._used_fallback = True
            self._write(Kind.FALLBACK, self._certificate)
            self.state = State.LAST
            return
        login = records.parse_login(payload)
        self._write(Kind.MESSAGE, b"")
        self._events.append(LoginReceived(self._establish(), login, False))

    def _on_ticket(self, content: bytes) -> None:
        sealed, message = records.parse_ticket(content)
        login = self._ticket_login(sealed, message)
        if login is None:
            self._ticket_refused = True
            self._handshake = None
            self._out += records.handshake_record(Kind.TICKET_REFUSED, b"")
            self.state = State.HELLO
            return
        self._write(Kind.MESSAGE, b"")
        self._split()
        self._events.append(LoginReceived(None, login, False))

    def _ticket_login(self, sealed: bytes, message: bytes) -> Login | None:
        """None unless the ticket is good and the message comes from its holder, for its device."""
        found = None if self._open_ticket is None else self._open_ticket(sealed)
        if found is None:
            return None
        psk, address = found
        self._handshake = self._backend.start(
            Pattern.NNPSK0, self._suite, initiator=False, prologue=self._hello, psk=psk
        )
        try:
            payload = self._hs.read(message)
        except RemoteError:
            return None
        login = Login(Intent.LOG_IN, address)
        return login if payload == records.login_payload(login) else None

    def _on_last(self, message: bytes) -> None:
        login = records.parse_login(self._hs.read(message))
        self._events.append(LoginReceived(self._establish(), login, self._used_fallback))
