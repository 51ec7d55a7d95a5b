"""What is inside the end-to-end encryption: a small versioned msgpack map, padded to hide its length.

    {v: 1, t: "text",  text, ts}              a message; `id` too when sent again under a new envelope id
    {v: 1, t: "sync",  text, ts, to, id}      copy of a message for the sender's own other devices
    {v: 1, t: "again", id, ts}                "I cannot decrypt your envelope `id`; encrypt it anew"

`ts` is the sender's clock in Unix milliseconds, `to` a number as an integer, `id` a message id.  A reader ignores
unknown keys, and shows an unknown `t` or `v` as Unsupported.

Padding: 0x80, then zeros (ISO/IEC 7816-4).  The padded length is a multiple of 64 up to 1,024 and of the
PADMÉ unit above (Nikitin et al., PURBs, 2019, section 4), so it tells at most a logarithm of the length's
logarithm.
"""

from dataclasses import dataclass
from typing import Any

import msgpack

from wa import limits
from wa.errors import Code, LocalError, RemoteError

VERSION = 1
PAD_UNIT_BYTES = 64
PAD_UNIFORM_BYTES_MAX = 1_024


@dataclass(frozen=True)
class Text:
    """A text message.  `original_id` names the message when its envelope carries a newer id."""

    text: str
    ts_ms: int
    original_id: int | None = None


@dataclass(frozen=True)
class Sync:
    """One's own message to the number `to`, sent from another of one's own devices."""

    to: int
    message_id: int
    text: str
    ts_ms: int


@dataclass(frozen=True)
class Again:
    """The peer could not decrypt the envelope `message_id`."""

    message_id: int
    ts_ms: int


@dataclass(frozen=True)
class Unsupported:
    """A newer client's content."""

    type: str


Content = Text | Sync | Again | Unsupported


def padded_length(length: int) -> int:
    """The length on the wire of `length` bytes of content and padding (at least one byte of it)."""
    length += 1
    if length <= PAD_UNIFORM_BYTES_MAX:
        return -(-length // PAD_UNIT_BYTES) * PAD_UNIT_BYTES
    exponent = length.bit_length() - 1
    unit = 1 << exponent - exponent.bit_length()
    return -(-length // unit) * unit


def pad(data: bytes) -> bytes:
    return (data + b"\x80").ljust(padded_length(len(data)), b"\0")


def unpad(data: bytes) -> bytes:
    """Raises RemoteError(BAD_PARAMS)."""
    stripped = data.rstrip(b"\0")
    if not stripped.endswith(b"\x80"):
        raise RemoteError(Code.BAD_PARAMS, "the content is not padded")
    return stripped[:-1]


def encode(content: Text | Sync | Again) -> bytes:
    """The padded plaintext.  Raises LocalError when the text is over limits.TEXT_BYTES_MAX."""
    body: dict[str, Any] = {"v": VERSION}
    match content:
        case Text(text, ts_ms, original_id):
            body |= {"t": "text", "text": text, "ts": ts_ms}
            if original_id is not None:
                body["id"] = original_id
        case Sync(to, message_id, text, ts_ms):
            body |= {"t": "sync", "text": text, "ts": ts_ms, "to": to, "id": message_id}
        case Again(message_id, ts_ms):
            body |= {"t": "again", "id": message_id, "ts": ts_ms}
    check_text(body.get("text", ""))
    return pad(msgpack.packb(body))


def check_text(text: str) -> None:
    """Raises LocalError when the text cannot be sent."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise LocalError("the text has lone surrogates; it is not valid Unicode") from None
    if size > limits.TEXT_BYTES_MAX:
        raise LocalError(f"a text may have {limits.TEXT_BYTES_MAX:,} bytes of UTF-8, not {size:,}")


def decode(data: bytes) -> Content:
    """Raises RemoteError(BAD_PARAMS) for anything that is not a content map of a known form."""
    try:
        body = msgpack.unpackb(unpad(data), raw=False, strict_map_key=True)
    except (ValueError, msgpack.UnpackException) as error:
        raise RemoteError(Code.BAD_PARAMS, f"the content is not msgpack: {type(error).__name__}") from None
    if not isinstance(body, dict) or not isinstance(body.get("v"), int) or not isinstance(body.get("t"), str):
        raise RemoteError(Code.BAD_PARAMS, "the content is not a map with v and t")
    if body["v"] != VERSION:
        return Unsupported(f"{body['t'][:32]} (version {body['v']})")
    match body["t"]:
        case "text":
            original = _integer(body, "id") if "id" in body else None
            return Text(_text(body), _integer(body, "ts"), original)
        case "sync":
            return Sync(_integer(body, "to"), _integer(body, "id"), _text(body), _integer(body, "ts"))
        case "again":
            return Again(_integer(body, "id"), _integer(body, "ts"))
        case other:
            return Unsupported(other[:32])


def _integer(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise RemoteError(Code.BAD_PARAMS, f"{name} is not an unsigned integer of 64 bits")
    return value


def _text(body: dict[str, Any]) -> str:
    value = body.get("text")
    if not isinstance(value, str):
        raise RemoteError(Code.BAD_PARAMS, "text is not a string")
    return value
