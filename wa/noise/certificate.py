"""The certificate of a server's Noise static key, docs/protocol.md section 1.1.

    version u8 = 1 | static key 32 | not before u64 | not after u64 | Ed25519 signature 64      113 bytes

Clients pin the root key that signs.  Its secret is needed only to make a certificate: keep it off connected machines.
"""

import hmac
import struct
from dataclasses import dataclass
from typing import Final

import pysodium

from wa.errors import Code, LocalError, RemoteError

VERSION: Final = 1
_BODY: Final = struct.Struct(">B32sQQ")
_SIGNATURE_BYTES: Final = 64
_CONTEXT: Final = b"wa certificate 1"
CERTIFICATE_BYTES: Final = _BODY.size + _SIGNATURE_BYTES
assert CERTIFICATE_BYTES == 113


@dataclass(frozen=True)
class Certificate:
    """A verified one.  Times are Unix seconds; valid from not_before up to but not at not_after."""

    static_public: bytes
    not_before: int
    not_after: int


def make_root() -> tuple[bytes, bytes]:
    """A new root key: (secret, public).  The secret is the 32-byte Ed25519 seed."""
    secret: bytes = pysodium.randombytes(32)
    return secret, root_public(secret)


def root_public(root_secret: bytes) -> bytes:
    """The public key, 32 bytes, that clients pin."""
    public, _ = _keypair(root_secret)
    return public


def make(root_secret: bytes, static_public: bytes, not_before: int, not_after: int) -> bytes:
    """The 113 bytes that bind static_public to the root.  Times are Unix seconds.  Raises LocalError."""
    if len(static_public) != 32:
        raise LocalError(f"a Noise static key is 32 bytes, not {len(static_public)}")
    if not 0 <= not_before < not_after < 1 << 64:
        raise LocalError("a certificate is valid from not_before up to a later not_after")
    _, signing_key = _keypair(root_secret)
    body = _BODY.pack(VERSION, static_public, not_before, not_after)
    signature: bytes = pysodium.crypto_sign_detached(_CONTEXT + body, signing_key)
    return body + signature


def verify(certificate: bytes, root_public: bytes, expected_static: bytes, now: int) -> Certificate:
    """The certificate's content, when the root signed it for exactly expected_static and it is valid now.

    now: Unix seconds.  Raises RemoteError(HANDSHAKE_FAILED), whose detail says which check failed.
    """
    found = parse(certificate, root_public)
    if not hmac.compare_digest(found.static_public, expected_static):
        raise _failed("the certificate is for another key than this handshake's")
    if now < found.not_before:
        raise _failed("the certificate is not valid yet; check this device's clock")
    if now >= found.not_after:
        raise _failed("the certificate has expired")
    return found


def parse(certificate: bytes, root_public: bytes) -> Certificate:
    """The content of a certificate that the root signed, whatever its key and times.  Raises as verify()."""
    if len(root_public) != 32:
        raise LocalError(f"a root key is 32 bytes, not {len(root_public)}")
    if len(certificate) != CERTIFICATE_BYTES:
        raise _failed(f"a certificate is {CERTIFICATE_BYTES} bytes, not {len(certificate)}")
    body, signature = certificate[: _BODY.size], certificate[_BODY.size :]
    version, static_public, not_before, not_after = _BODY.unpack(body)
    if version != VERSION:
        raise _failed(f"certificate version {version} is not known here")
    try:
        pysodium.crypto_sign_verify_detached(signature, _CONTEXT + body, root_public)
    except ValueError:
        raise _failed("the certificate is not signed by the pinned root key") from None
    return Certificate(static_public, not_before, not_after)


def _keypair(root_secret: bytes) -> tuple[bytes, bytes]:
    if len(root_secret) != 32:
        raise LocalError(f"a root secret is 32 bytes, not {len(root_secret)}")
    public, signing_key = pysodium.crypto_sign_seed_keypair(root_secret)
    return public, signing_key


def _failed(why: str) -> RemoteError:
    return RemoteError(Code.HANDSHAKE_FAILED, why)
