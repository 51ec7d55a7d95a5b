"""Wrapping of stored secrets under a passphrase.

    key     Argon2id(passphrase in NFC and UTF-8, salt 16, operations, memory), 32 bytes
    wrapped nonce 24 || XChaCha20-Poly1305(key, nonce, value, associated data = label)
    header  version 1 (1 byte) || operations 4 || memory 8 (bytes) || salt 16 || wrapped empty value 40

The header is stored beside the rows and is not secret.  It holds its own limits, so new stores can have higher ones.
The label is the row's table and key.  Random nonces are long enough for any number of rows under one key.
"""

import unicodedata

import pysodium

from wa import limits
from wa.e2e.codec import Reader, u32, u64
from wa.e2e.errors import InvalidState, WrongPassphrase
from wa.e2e.keys import Random
from wa.errors import LocalError

_VERSION = 1
_SALT_BYTES: int = pysodium.crypto_pwhash_SALTBYTES
_NONCE_BYTES: int = pysodium.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_TAG_BYTES: int = pysodium.crypto_aead_xchacha20poly1305_ietf_ABYTES
_KEY_BYTES: int = pysodium.crypto_aead_xchacha20poly1305_ietf_KEYBYTES
_CHECK_LABEL = b"wa passphrase check"
OPERATIONS: int = pysodium.crypto_pwhash_argon2id_OPSLIMIT_MODERATE
MEMORY_BYTES: int = pysodium.crypto_pwhash_argon2id_MEMLIMIT_MODERATE


class Vault:
    """A derived key.  Pass `wrap` and `unwrap` to `SqliteStore`; store `header` beside its tables."""

    __slots__ = ("_key", "_random", "header")

    def __init__(self, key: bytes, random: Random, header: bytes) -> None:
        self._key = key
        self._random = random
        self.header = header

    @classmethod
    def create(
        cls,
        passphrase: str,
        random: Random,
        *,
        operations: int = OPERATIONS,
        memory_bytes: int = MEMORY_BYTES,
    ) -> "Vault":
        """A new vault under libsodium's moderate limits (about a second, 256 MiB) unless told otherwise."""
        if not passphrase:
            raise LocalError("the passphrase is empty; leave it out to store keys unwrapped")
        salt = random(_SALT_BYTES)
        parameters = bytes([_VERSION]) + u32(operations) + u64(memory_bytes) + salt
        vault = cls(_derive(passphrase, salt, operations, memory_bytes), random, b"")
        vault.header = parameters + vault.wrap(b"", _CHECK_LABEL + parameters)
        return vault

    @classmethod
    def open(cls, passphrase: str, header: bytes, random: Random) -> "Vault":
        """The vault of a stored header.  Raises WrongPassphrase, or InvalidState for a damaged header."""
        reader = Reader(header, InvalidState)
        if (version := reader.uint(1)) != _VERSION:
            raise InvalidState(f"passphrase header of version {version}")
        operations, memory_bytes = reader.uint(4), reader.uint(8)
        salt = reader.take(_SALT_BYTES)
        parameters = reader.consumed()
        check = reader.take(_NONCE_BYTES + _TAG_BYTES)
        reader.end()
        if not 1 <= operations <= limits.PASSPHRASE_OPERATIONS_MAX:
            raise InvalidState("the passphrase header asks for too many operations")
        if not pysodium.crypto_pwhash_MEMLIMIT_MIN <= memory_bytes <= limits.PASSPHRASE_MEMORY_BYTES_MAX:
            raise InvalidState("the passphrase header asks for too much memory")
        vault = cls(_derive(passphrase, salt, operations, memory_bytes), random, header)
        try:
            vault.unwrap(check, _CHECK_LABEL + parameters)
        except InvalidState:
            raise WrongPassphrase("the passphrase does not open this store") from None
        return vault

    def wrap(self, value: bytes, label: bytes) -> bytes:
        nonce = self._random(_NONCE_BYTES)
        sealed: bytes = pysodium.crypto_aead_xchacha20poly1305_ietf_encrypt(value, label, nonce, self._key)
        return nonce + sealed

    def unwrap(self, wrapped: bytes, label: bytes) -> bytes:
        """Raises InvalidState when the value is damaged, moved to another row, or under another key."""
        if len(wrapped) < _NONCE_BYTES + _TAG_BYTES:
            raise InvalidState("a wrapped value is cut short")
        nonce, sealed = wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:]
        try:
            value: bytes = pysodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
                sealed, label, nonce, self._key
            )
        except ValueError:
            raise InvalidState("a wrapped value does not authenticate") from None
        return value


def _derive(passphrase: str, salt: bytes, operations: int, memory_bytes: int) -> bytes:
    text = unicodedata.normalize("NFC", passphrase).encode()
    key: bytes = pysodium.crypto_pwhash(
        _KEY_BYTES, text, salt, operations, memory_bytes, pysodium.crypto_pwhash_ALG_ARGON2ID13
    )
    return key
