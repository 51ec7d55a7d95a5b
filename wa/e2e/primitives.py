"""The primitives under X3DH and the Double Ratchet, in the exact form in which both use them.

X25519, Ed25519 and HMAC-SHA-256 come from libsodium, AES-256-GCM from OpenSSL.

Zeroing is best effort.  Secrets are computed into `bytearray`s through libsodium's own output pointers, and `wipe`
overwrites them (`sodium_memzero`) after use.  But stores and the random source pass immutable `bytes`, which CPython
frees without overwriting, and OpenSSL and the allocator keep copies.
"""

import ctypes
from typing import Any

import pysodium
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from wa.e2e.errors import InvalidKey, InvalidMessage

KEY_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16
_HASH_BYTES = 32
_NONCE = bytes(12)
_P = 2**255 - 19
_SIGN_BIT = 1 << 255

_sodium: Any = pysodium.sodium
_Bytes32 = ctypes.c_char * 32


def wipe(*secrets: bytearray) -> None:
    """Overwrites each secret with zeros in place."""
    for secret in secrets:
        if secret:
            _sodium.sodium_memzero(
                (ctypes.c_char * len(secret)).from_buffer(secret), ctypes.c_size_t(len(secret))
            )


def hmac_sha256(key: bytes | bytearray, message: bytes | bytearray) -> bytearray:
    """HMAC-SHA-256 (RFC 2104) under a key of exactly 32 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"an HMAC key of {len(key)} bytes")
    out = bytearray(_HASH_BYTES)
    key_copy = bytearray(key)
    message_copy = bytearray(message)
    _sodium.crypto_auth_hmacsha256(
        _Bytes32.from_buffer(out),
        (ctypes.c_char * len(message_copy)).from_buffer(message_copy),
        ctypes.c_ulonglong(len(message_copy)),
        _Bytes32.from_buffer(key_copy),
    )
    wipe(key_copy, message_copy)
    return out


def hkdf_sha256(salt: bytes | bytearray, secret: bytes | bytearray, info: bytes, length: int) -> bytearray:
    """HKDF-SHA-256 (RFC 5869), extract then expand, with a 32-byte salt, to `length` bytes."""
    extracted = hmac_sha256(salt, secret)
    out = hkdf_expand_sha256(extracted, info, length)
    wipe(extracted)
    return out


def hkdf_expand_sha256(extracted: bytes | bytearray, info: bytes, length: int) -> bytearray:
    """The second half of HKDF-SHA-256 (RFC 5869, section 2.3)."""
    out = bytearray()
    block = bytearray()
    for counter in range(1, -(-length // _HASH_BYTES) + 1):
        message = block + info + bytes([counter])
        wipe(block)
        block = hmac_sha256(extracted, message)
        wipe(message)
        out += block
    wipe(block)
    del out[length:]
    return out


def check_x25519_public(key: bytes) -> None:
    """Refuses a u coordinate that is not 32 bytes or not canonical (RFC 7748 would reduce it).

    Low-order points are refused by `x25519`.  Raises InvalidKey.
    """
    if len(key) != KEY_BYTES or int.from_bytes(key, "little") >= _P:
        raise InvalidKey("an X25519 public key is not canonical")


def x25519(private: bytes | bytearray, public: bytes) -> bytearray:
    """The shared secret, 32 bytes.  Raises InvalidKey for non-canonical and low-order points.

    libsodium refuses the low-order points themselves and an all-zero result.
    """
    check_x25519_public(public)
    out = bytearray(KEY_BYTES)
    scalar = bytearray(private)
    failed = _sodium.crypto_scalarmult_curve25519(
        _Bytes32.from_buffer(out), _Bytes32.from_buffer(scalar), public
    )
    wipe(scalar)
    if failed:
        raise InvalidKey("an X25519 public key has low order")
    return out


def x25519_public(private: bytes | bytearray) -> bytes:
    public: bytes = pysodium.crypto_scalarmult_curve25519_base(bytes(private))
    return public


def x25519_of_ed25519_public(key: bytes) -> bytes:
    """The Montgomery form of an Ed25519 public key.

    Raises InvalidKey unless the key is canonical, on the curve, and in the prime-order subgroup.
    """
    if len(key) != KEY_BYTES or int.from_bytes(key, "little") % _SIGN_BIT >= _P:
        raise InvalidKey("an Ed25519 public key is not canonical")
    try:
        converted: bytes = pysodium.crypto_sign_pk_to_box_pk(key)
    except ValueError:
        raise InvalidKey("an Ed25519 public key is not in the prime-order subgroup") from None
    return converted


def x25519_of_ed25519_secret(secret: bytes) -> bytes:
    converted: bytes = pysodium.crypto_sign_sk_to_box_sk(secret)
    return converted


def ed25519_of_seed(seed: bytes) -> tuple[bytes, bytes]:
    """(public key 32, libsodium's secret key 64) of a 32-byte seed (RFC 8032)."""
    public, secret = pysodium.crypto_sign_seed_keypair(seed)
    return public, secret


def ed25519_sign(secret: bytes, message: bytes) -> bytes:
    signature: bytes = pysodium.crypto_sign_detached(message, secret)
    return signature


def ed25519_verifies(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether the 64-byte signature is by this key.  libsodium refuses malleable forms and small orders."""
    if len(public) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        pysodium.crypto_sign_verify_detached(signature, message, public)
    except ValueError:
        return False
    return True


def seal(key: bytes | bytearray, plaintext: bytes, associated_data: bytes) -> bytes:
    """AES-256-GCM under a key that is used once, so the nonce is twelve zero bytes; tag appended."""
    return AESGCM(key).encrypt(_NONCE, plaintext, associated_data)


def open_sealed(key: bytes | bytearray, ciphertext: bytes, associated_data: bytes) -> bytes:
    """The inverse of `seal`.  Raises InvalidMessage when the tag does not verify."""
    try:
        return AESGCM(key).decrypt(_NONCE, ciphertext, associated_data)
    except InvalidTag:
        raise InvalidMessage("the message does not authenticate") from None
