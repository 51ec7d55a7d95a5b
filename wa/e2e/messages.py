"""Message bodies, bytes to fields and back.  `sessions` documents the format and decides what they mean."""

from dataclasses import dataclass

from wa import limits
from wa.e2e.codec import Reader, u32
from wa.e2e.double_ratchet import Header
from wa.e2e.errors import InvalidMessage
from wa.e2e.primitives import KEY_BYTES, TAG_BYTES
from wa.e2e.x3dh import E2E_VERSION

TYPE_PREKEY = 1
TYPE_MESSAGE = 2
GENERATION_BYTES = 4


@dataclass(frozen=True)
class Initiation:
    """What makes an initial message: enough for the responder to do X3DH."""

    identity_key: bytes
    base_key: bytes
    signed_prekey_id: int
    one_time_prekey_id: int | None


@dataclass(frozen=True)
class Message:
    """A parsed body.  `prefix` is every byte before the header; it is authenticated with it."""

    prefix: bytes
    initiation: Initiation | None
    header: Header
    ciphertext: bytes


def encode_prefix(initiation: Initiation | None) -> bytes:
    if initiation is None:
        return bytes([E2E_VERSION, TYPE_MESSAGE])
    return (
        bytes([E2E_VERSION, TYPE_PREKEY])
        + initiation.identity_key
        + initiation.base_key
        + u32(initiation.signed_prekey_id)
        + u32(initiation.one_time_prekey_id or 0)
    )


def parse(body: bytes) -> Message:
    """Raises InvalidMessage for anything but a well-formed body of this version."""
    if len(body) > limits.ENVELOPE_BODY_BYTES_MAX:
        raise InvalidMessage("the body is over the envelope limit")
    reader = Reader(body, InvalidMessage)
    if (version := reader.uint(1)) != E2E_VERSION:
        raise InvalidMessage(f"end-to-end version {version} is not spoken here")
    kind = reader.uint(1)
    if kind not in (TYPE_PREKEY, TYPE_MESSAGE):
        raise InvalidMessage(f"message type {kind} is not known")
    initiation = _read_initiation(reader) if kind == TYPE_PREKEY else None
    prefix = reader.consumed()
    header = Header(reader.take(KEY_BYTES), reader.uint(4), reader.uint(4))
    ciphertext = reader.rest()
    if len(ciphertext) < GENERATION_BYTES + TAG_BYTES:
        raise InvalidMessage("the ciphertext is cut short")
    return Message(prefix, initiation, header, ciphertext)


def _read_initiation(reader: Reader) -> Initiation:
    identity_key, base_key = reader.take(KEY_BYTES), reader.take(KEY_BYTES)
    signed_prekey_id, one_time_prekey_id = reader.uint(4), reader.uint(4)
    if signed_prekey_id == 0:
        raise InvalidMessage("signed prekey ids start at 1")
    return Initiation(identity_key, base_key, signed_prekey_id, one_time_prekey_id or None)
