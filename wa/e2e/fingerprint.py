"""The safety number: two people compare sixty digits, or a QR code, to rule out a third one in between.

libsignal's NumericFingerprint scheme.  Each side hashes its own account:

    H0 = SHA-512(0x0000 || keys || identifier || keys)        H(i) = SHA-512(H(i-1) || keys)     5,200 hashes
    half = six groups: bytes 5g..5g+4 of the last H, big-endian, modulo 100,000, five digits

`keys` are the account's identity keys, sorted and joined; `identifier` is the E.164 number ("+15551230001").
Both halves, the smaller first, are the number, so both people see the same.  The QR payload is libsignal's
protocol buffer CombinedFingerprints, version 1: { 1: version, 2: { 1: own }, 3: { 1: peer's } } with the
first 32 bytes of each last hash; own and peer's are swapped on the other screen.
"""

import hashlib
import hmac
from collections.abc import Iterable

from wa.e2e.codec import Reader
from wa.e2e.errors import InvalidMessage

ITERATIONS = 5_200
DIGITS = 60
_HASH_VERSION = b"\x00\x00"
_QR_VERSION = 1
_QR_HASH_BYTES = 32


def account_hash(identity_keys: Iterable[bytes], identifier: bytes) -> bytes:
    """The 64-byte hash of one side.  Slow on purpose, about ten milliseconds."""
    keys = b"".join(sorted(identity_keys))
    digest = hashlib.sha512(_HASH_VERSION + keys + identifier + keys).digest()
    for _ in range(ITERATIONS - 1):
        digest = hashlib.sha512(digest + keys).digest()
    return digest


def digits(own: bytes, peer: bytes) -> str:
    """Sixty digits out of both account hashes; the order of the arguments does not matter."""
    return "".join(sorted((_half(own), _half(peer))))


def grouped(sixty: str) -> str:
    """For people: twelve groups of five, separated by spaces."""
    return " ".join(sixty[at : at + 5] for at in range(0, len(sixty), 5))


def qr_payload(own: bytes, peer: bytes) -> bytes:
    """What this screen shows."""
    return b"\x08" + bytes([_QR_VERSION]) + _field(0x12, own) + _field(0x1A, peer)


def qr_matches(own: bytes, peer: bytes, scanned: bytes) -> bool:
    """Whether a payload scanned from the peer's screen is about us and agrees.

    Raises InvalidMessage when it is no such payload or of another version.
    """
    reader = Reader(scanned, InvalidMessage)
    if reader.take(2) != b"\x08" + bytes([_QR_VERSION]):
        raise InvalidMessage("not a safety code of this version")
    theirs, ours = _read_field(reader, 0x12), _read_field(reader, 0x1A)
    reader.end()
    agree = hmac.compare_digest(theirs, peer[:_QR_HASH_BYTES])
    return hmac.compare_digest(ours, own[:_QR_HASH_BYTES]) and agree


def _half(digest: bytes) -> str:
    groups = (int.from_bytes(digest[at : at + 5], "big") % 100_000 for at in range(0, 30, 5))
    return "".join(f"{group:05d}" for group in groups)


def _field(tag: int, digest: bytes) -> bytes:
    content = b"\x0a" + bytes([_QR_HASH_BYTES]) + digest[:_QR_HASH_BYTES]
    return bytes([tag, len(content)]) + content


def _read_field(reader: Reader, tag: int) -> bytes:
    if reader.take(4) != bytes([tag, _QR_HASH_BYTES + 2, 0x0A, _QR_HASH_BYTES]):
        raise InvalidMessage("not a safety code")
    return reader.take(_QR_HASH_BYTES)
