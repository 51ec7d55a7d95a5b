"""The Python twin of `wa._fastpath.session.ticket`: what is inside a resumption ticket (docs/security.md).

A ticket is opaque to clients: only the server that made it can open it, and only until it stops, since the ticket key
is never stored.

    nonce 24 | XChaCha20-Poly1305 under the ticket key of:
    version u8 = 1 | 000000 | serial u32 | epoch u64 | address u64 | issued u64 | expires u64 | psk 32   (112 in all)

Integers are in the machine's own byte order: a ticket comes back to the machine that made it.
"""

import struct
from dataclasses import dataclass, field
from typing import Final

import pysodium

from wa.errors import LocalError

VERSION: Final = 1
NONCE_BYTES: Final = 24
_GRANT: Final = struct.Struct("=B3xIQQQQ32s")
SEALED_BYTES: Final = NONCE_BYTES + _GRANT.size + 16


@dataclass(frozen=True)
class Grant:
    """What a ticket grants, once.  Times are Unix milliseconds; a serial is unique in its epoch."""

    address: int
    serial: int
    epoch: int
    issued_ms: int
    expires_ms: int
    psk: bytes = field(repr=False)


def seal(ticket_key: bytes, grant: Grant, nonce: bytes) -> bytes:
    """The ticket.  nonce: 24 random bytes.  Raises LocalError."""
    if (len(ticket_key), len(grant.psk), len(nonce)) != (32, 32, NONCE_BYTES):
        raise LocalError("a ticket key and a psk are 32 bytes, a nonce is 24")
    plain = _GRANT.pack(VERSION, grant.serial, grant.epoch, grant.address, grant.issued_ms, grant.expires_ms, grant.psk)
    sealed: bytes = pysodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plain, b"", nonce, ticket_key)
    return nonce + sealed


def unseal(ticket_key: bytes, ticket: bytes, now_ms: int) -> Grant | None:
    """None for a ticket that this key did not seal, that has expired, or that is from the future."""
    if len(ticket) != SEALED_BYTES:
        return None
    try:
        plain = pysodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
            ticket[NONCE_BYTES:], b"", ticket[:NONCE_BYTES], ticket_key
        )
    except ValueError:
        return None
    version, serial, epoch, address, issued_ms, expires_ms, psk = _GRANT.unpack(plain)
    if version != VERSION or not issued_ms <= now_ms < expires_ms:
        return None
    return Grant(address, serial, epoch, issued_ms, expires_ms, psk)
