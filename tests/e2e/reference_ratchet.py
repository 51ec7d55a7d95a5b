"""The PyPI package doubleratchet under our constants, from its own recommended parts.

Root chain: its HKDF with info WhatsAppRootKey.  Message chains: its HKDF twice over the same input, info
WhatsAppChainKey for the following chain key and WhatsAppMessageKey for the message key.  AEAD: AES-256-GCM.
"""

from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from doubleratchet import AEAD, KDF, AuthenticationFailedException, DoubleRatchet, EncryptedMessage, Header
from doubleratchet.recommended import HashFunction, diffie_hellman_ratchet_curve25519, kdf_hkdf

from wa.e2e import double_ratchet as ours


def hkdf_with(info: bytes) -> type[kdf_hkdf.KDF]:
    class Labelled(kdf_hkdf.KDF):
        @staticmethod
        def _get_hash_function() -> HashFunction:
            return HashFunction.SHA_256

        @staticmethod
        def _get_info() -> bytes:
            return info

    return Labelled


RootKDF = hkdf_with(b"WhatsAppRootKey")
ChainKDF = hkdf_with(b"WhatsAppChainKey")
MessageKDF = hkdf_with(b"WhatsAppMessageKey")


class MessageChainKDF(KDF):
    @staticmethod
    async def derive(key: bytes, data: bytes, length: int) -> bytes:
        assert length == 64
        return await ChainKDF.derive(key, data, 32) + await MessageKDF.derive(key, data, 32)


class GcmAEAD(AEAD):
    @staticmethod
    async def encrypt(plaintext: bytes, key: bytes, associated_data: bytes) -> bytes:
        return AESGCM(key).encrypt(bytes(12), plaintext, associated_data)

    @staticmethod
    async def decrypt(ciphertext: bytes, key: bytes, associated_data: bytes) -> bytes:
        try:
            return AESGCM(key).decrypt(bytes(12), ciphertext, associated_data)
        except InvalidTag:
            raise AuthenticationFailedException from None


class Ratchet(DoubleRatchet):
    @staticmethod
    def _build_associated_data(associated_data: bytes, header: Header) -> bytes:
        return (
            associated_data
            + header.ratchet_pub
            + header.previous_sending_chain_length.to_bytes(4, "big")
            + header.sending_chain_length.to_bytes(4, "big")
        )


def finish(coroutine):
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine waits")


class ReferencePeer:
    """One side of a conversation, with our calling convention."""

    def __init__(self, random: Callable[[int], bytes], skip_max: int, stored_max: int) -> None:
        class DHRatchet(diffie_hellman_ratchet_curve25519.DiffieHellmanRatchet):
            @staticmethod
            def _generate_priv() -> bytes:
                return random(32)

        self._setup = {
            "diffie_hellman_ratchet_class": DHRatchet,
            "root_chain_kdf": RootKDF,
            "message_chain_kdf": MessageChainKDF,
            "message_chain_constant": b"\x01",
            "dos_protection_threshold": skip_max,
            "max_num_skipped_message_keys": stored_max,
            "aead": GcmAEAD,
        }
        self._secret = b""
        self._peer_key: bytes | None = None
        self._own_private: bytes | None = None
        self.ratchet: Ratchet | None = None

    def initiate(self, secret: bytes, peer_ratchet_key: bytes) -> None:
        self._secret, self._peer_key = secret, peer_ratchet_key

    def accept(self, secret: bytes, own_private: bytes) -> None:
        self._secret, self._own_private = secret, own_private

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> tuple[ours.Header, bytes]:
        if self.ratchet is None:
            self.ratchet, message = finish(
                Ratchet.encrypt_initial_message(
                    **self._setup,
                    shared_secret=self._secret,
                    recipient_ratchet_pub=self._peer_key,
                    message=plaintext,
                    associated_data=associated_data,
                )
            )
        else:
            message = finish(self.ratchet.encrypt_message(plaintext, associated_data))
        return ours.Header(*message.header), message.ciphertext

    def decrypt(self, header: ours.Header, ciphertext: bytes, associated_data: bytes) -> bytes:
        theirs = Header(header.ratchet_key, header.previous_length, header.number)
        message = EncryptedMessage(theirs, ciphertext)
        if self.ratchet is None:
            self.ratchet, plaintext = finish(
                Ratchet.decrypt_initial_message(
                    **self._setup,
                    shared_secret=self._secret,
                    own_ratchet_priv=self._own_private,
                    message=message,
                    associated_data=associated_data,
                )
            )
            return plaintext
        return finish(self.ratchet.decrypt_message(message, associated_data))

    def skipped(self) -> dict[tuple[bytes, int], bytes]:
        """The stored message keys, oldest first."""
        model = self.ratchet.model
        return {(key.ratchet_pub, key.index): key.message_key for key in model.skipped_message_keys}

    def root_key(self) -> bytes:
        return self.ratchet.model.diffie_hellman_ratchet.root_chain.key
