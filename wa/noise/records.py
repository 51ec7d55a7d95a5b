"""The byte forms of docs/protocol.md section 1: hello, records, login, ticket, refusal.  No keys, no state machine.

A function that reads raises RemoteError for bytes that break the protocol, and never LocalError.
"""

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise.patterns import Pattern, Suite

MAGIC: Final = b"wa\r\n"
_HELLO: Final = struct.Struct(">4sBBBB")
_LENGTH: Final = struct.Struct(">I")
_LOGIN: Final = struct.Struct(">BQ")
_REFUSAL: Final = struct.Struct(">HI")
_TICKET_LENGTH: Final = struct.Struct(">H")
assert _HELLO.size == limits.HELLO_BYTES
assert _LENGTH.size == limits.RECORD_PREFIX_BYTES

HANDSHAKE_BOUNDS: Final = (1, limits.HANDSHAKE_RECORD_BYTES_MAX)
TRANSPORT_BOUNDS: Final = (limits.NOISE_TAG_BYTES + 1, limits.NOISE_MESSAGE_BYTES_MAX)
TICKET_MESSAGE_BYTES: Final = 32 + _LOGIN.size + limits.NOISE_TAG_BYTES
OFFERED: Final = (Pattern.XX, Pattern.IK, Pattern.NNPSK0)
REFUSAL_TEXT_BYTES_MAX: Final = limits.HANDSHAKE_RECORD_BYTES_MAX - 1 - _REFUSAL.size


class Kind(IntEnum):
    """First byte of a handshake record."""

    MESSAGE = 1
    FALLBACK = 2
    REFUSAL = 3
    TICKET = 4
    TICKET_REFUSED = 5


class Intent(IntEnum):
    """First byte of the login payload."""

    LOG_IN = 0
    REGISTER = 1


@dataclass(frozen=True)
class Login:
    """What the client says in its first encrypted payload; address is the u64 of section 3."""

    intent: Intent
    address: int


@dataclass(frozen=True)
class Ticket:
    """What a server gave this device for one later login: the sealed form, and the secret inside."""

    sealed: bytes
    psk: bytes = field(repr=False)


@dataclass(frozen=True)
class Refused:
    """A refusal in the clear.  Nobody has authenticated it, so it is a hint: stored state must not change.

    code: a wa.errors.Code number, or one of a newer server.  text may hold anything: escape it to show it.
    """

    code: int
    retry_after_ms: int
    text: str


# --- hello --------------------------------------------------------------------------------------------


def hello(suite: int, pattern: int) -> bytes:
    """The client's first 8 bytes, which are the Noise prologue too."""
    return _HELLO.pack(MAGIC, limits.PROTOCOL_VERSION, suite, pattern, 0)


def parse_hello(data: bytes) -> tuple[Suite, Pattern]:
    """What a hello of 8 bytes offers.  The error's code says which of its fields is wrong."""
    magic, version, suite, pattern, reserved = _HELLO.unpack(data)
    if magic != MAGIC:
        raise RemoteError(Code.PROTOCOL_ERROR, "this is not a wa client")
    if version != limits.PROTOCOL_VERSION:
        raise RemoteError(Code.VERSION_UNSUPPORTED, f"protocol version {version}")
    if suite not in (Suite.CHACHA, Suite.AESGCM):
        raise RemoteError(Code.SUITE_UNSUPPORTED, f"suite {suite}")
    if pattern not in OFFERED:
        raise RemoteError(Code.PATTERN_UNSUPPORTED, f"pattern {pattern}")
    if reserved != 0:
        raise RemoteError(Code.PROTOCOL_ERROR, "the reserved byte of the hello is not zero")
    return Suite(suite), Pattern(pattern)


# --- records ------------------------------------------------------------------------------------------


def record(content: bytes) -> bytes:
    """Length prefix and content."""
    return _LENGTH.pack(len(content)) + content


def handshake_record(kind: Kind, content: bytes) -> bytes:
    return record(bytes((kind,)) + content)


class RecordBuffer:
    """Received bytes that are not yet a whole hello or record; less than one record between feeds."""

    def __init__(self) -> None:
        self._data = bytearray()

    def __len__(self) -> int:
        return len(self._data)

    def feed(self, data: bytes) -> None:
        self._data += data

    def take(self, n: int) -> bytes | None:
        """The next n bytes, or None while there are fewer."""
        if len(self._data) < n:
            return None
        taken = bytes(self._data[:n])
        del self._data[:n]
        return taken

    def take_record(self, bounds: tuple[int, int]) -> bytes | None:
        """The next record's content, or None while it is not whole.

        Raises RemoteError(RECORD_TOO_LARGE) as soon as a length outside bounds, both inclusive, is there.
        """
        if len(self._data) < _LENGTH.size:
            return None
        (n,) = _LENGTH.unpack_from(self._data)
        least, most = bounds
        if not least <= n <= most:
            raise RemoteError(
                Code.RECORD_TOO_LARGE, f"a record of {n} bytes where {least} to {most} may come"
            )
        whole = self.take(_LENGTH.size + n)
        return None if whole is None else whole[_LENGTH.size :]

    def clear(self) -> None:
        self._data.clear()


# --- payloads -----------------------------------------------------------------------------------------


def login_payload(login: Login) -> bytes:
    """9 bytes.  Raises LocalError when the address is not a u64."""
    if not 0 <= login.address < 1 << 64:
        raise LocalError("an address is an unsigned 64-bit number")
    return _LOGIN.pack(login.intent, login.address)


def parse_login(payload: bytes) -> Login:
    if len(payload) != _LOGIN.size:
        raise RemoteError(Code.PROTOCOL_ERROR, f"a login is {_LOGIN.size} bytes, not {len(payload)}")
    intent, address = _LOGIN.unpack(payload)
    if intent not in (Intent.LOG_IN, Intent.REGISTER):
        raise RemoteError(Code.PROTOCOL_ERROR, f"login intent {intent}")
    return Login(Intent(intent), address)


def ticket_content(sealed: bytes, message: bytes) -> bytes:
    """The content of a ticket record: the ticket and the first message of NNpsk0.  Raises LocalError."""
    if not 1 <= len(sealed) <= limits.TICKET_BYTES_MAX:
        raise LocalError(f"a ticket is 1 to {limits.TICKET_BYTES_MAX} bytes, not {len(sealed)}")
    return _TICKET_LENGTH.pack(len(sealed)) + sealed + message


def parse_ticket(content: bytes) -> tuple[bytes, bytes]:
    """(ticket, message)"""
    if len(content) < _TICKET_LENGTH.size:
        raise RemoteError(Code.PROTOCOL_ERROR, "a ticket record is cut short")
    (n,) = _TICKET_LENGTH.unpack_from(content)
    at = _TICKET_LENGTH.size + n
    if not 1 <= n <= limits.TICKET_BYTES_MAX or len(content) != at + TICKET_MESSAGE_BYTES:
        raise RemoteError(Code.PROTOCOL_ERROR, f"a ticket record of {len(content)} bytes with {n} of ticket")
    return content[_TICKET_LENGTH.size : at], content[at:]


def refusal(code: int, retry_after_ms: int, text: str) -> bytes:
    """The whole record.  Raises LocalError when a field is out of range."""
    encoded = text.encode()
    if not (0 <= code < 1 << 16 and 0 <= retry_after_ms < 1 << 32 and len(encoded) <= REFUSAL_TEXT_BYTES_MAX):
        raise LocalError(
            f"a refusal is a u16 code, u32 milliseconds and at most {REFUSAL_TEXT_BYTES_MAX} bytes"
        )
    return handshake_record(Kind.REFUSAL, _REFUSAL.pack(code, retry_after_ms) + encoded)


def parse_refusal(content: bytes) -> Refused:
    if len(content) < _REFUSAL.size:
        raise RemoteError(Code.PROTOCOL_ERROR, "a refusal is cut short")
    code, retry_after_ms = _REFUSAL.unpack_from(content)
    try:
        text = content[_REFUSAL.size :].decode()
    except UnicodeDecodeError:
        raise RemoteError(Code.PROTOCOL_ERROR, "a refusal's text is not UTF-8") from None
    return Refused(code, retry_after_ms, text)
