"""The functions that Noise is made of, over libsodium (pysodium) and `cryptography` (AES-GCM).

DH, cipher and hash functions are those of section 12 of the specification.  Nothing here knows a handshake.
"""

import hashlib
import hmac
from typing import Final

import pysodium
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wa import limits
from wa.noise.patterns import Suite

KEY_BYTES: Final = 32
TAG_BYTES: Final = limits.NOISE_TAG_BYTES
NONCE_LAST: Final = (1 << 64) - 1  # reserved for Rekey(), section 11.3


class TagMismatch(Exception):
    """A ciphertext did not authenticate."""


class LowOrderPoint(Exception):
    """A Diffie-Hellman came out as all zeros: the peer sent a point of low order (RFC 7748, section 6.1)."""


def public_key(private: bytes) -> bytes:
    """The X25519 public key, 32 bytes."""
    public: bytes = pysodium.crypto_scalarmult_curve25519_base(private)
    return public


def diffie_hellman(private: bytes, public: bytes) -> bytes:
    """The X25519 shared secret, 32 bytes, never all zero.  Raises LowOrderPoint."""
    try:
        shared: bytes = pysodium.crypto_scalarmult_curve25519(private, public)
    except ValueError:
        raise LowOrderPoint from None
    return shared


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def hkdf3(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes, bytes]:
    """HKDF of section 4.3 with three outputs of 32 bytes."""
    temp = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(temp, b"\x01", "sha256")
    second = hmac.digest(temp, first + b"\x02", "sha256")
    return first, second, hmac.digest(temp, second + b"\x03", "sha256")


def hkdf2(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF of section 4.3 with two outputs of 32 bytes."""
    temp = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(temp, b"\x01", "sha256")
    return first, hmac.digest(temp, first + b"\x02", "sha256")


def _nonce(suite: Suite, n: int) -> bytes:
    return bytes(4) + n.to_bytes(8, "little" if suite is Suite.CHACHA else "big")


def seal(suite: Suite, key: bytes, n: int, data: bytes, plain: bytes) -> bytes:
    """ENCRYPT(key, n, associated data, plain): 16 bytes longer than plain."""
    if suite is Suite.AESGCM:
        return AESGCM(key).encrypt(_nonce(suite, n), plain, data)
    cipher: bytes = pysodium.crypto_aead_chacha20poly1305_ietf_encrypt(plain, data, _nonce(suite, n), key)
    return cipher


def unseal(suite: Suite, key: bytes, n: int, data: bytes, cipher: bytes) -> bytes:
    """DECRYPT(key, n, associated data, cipher).  Raises TagMismatch."""
    if len(cipher) < TAG_BYTES:
        raise TagMismatch
    try:
        if suite is Suite.AESGCM:
            return AESGCM(key).decrypt(_nonce(suite, n), cipher, data)
        plain: bytes = pysodium.crypto_aead_chacha20poly1305_ietf_decrypt(cipher, data, _nonce(suite, n), key)
    except (InvalidTag, ValueError):
        raise TagMismatch from None
    return plain


def rekey(suite: Suite, key: bytes) -> bytes:
    """REKEY(key): the first 32 bytes of ENCRYPT(key, 2^64 - 1, "", 32 zeros)."""
    return seal(suite, key, NONCE_LAST, b"", bytes(KEY_BYTES))[:KEY_BYTES]


def aes_is_fast() -> bool:
    """True when libsodium finds the processor's AES instructions, which its AES-GCM needs."""
    available: int = pysodium.sodium.crypto_aead_aes256gcm_is_available()
    return available == 1


def preferred_suite() -> Suite:
    """The suite a client should offer: AESGCM where the processor does AES, else ChaChaPoly."""
    return Suite.AESGCM if aes_is_fast() else Suite.CHACHA
