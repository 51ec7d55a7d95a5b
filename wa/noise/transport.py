"""The Python twin of `wa._fastpath.noise.noise.Transport`: both directions of an established connection.

A direction's key is replaced after every limits.REKEY_MESSAGES of its messages; the nonce is not reset.
"""

import struct
from typing import Final

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import primitives
from wa.noise.patterns import Suite
from wa.noise.primitives import NONCE_LAST

_STATE: Final = struct.Struct("=32s32sQQ")
TRANSPORT_BYTES: Final = _STATE.size


class Transport:
    """Made of `state`, the 80 bytes of a NoiseTransport: send key, receive key, send nonce, receive nonce."""

    def __init__(self, suite: int, state: bytes) -> None:
        if suite not in (Suite.CHACHA, Suite.AESGCM):
            raise LocalError(f"suite {suite} is not known")
        if len(state) != TRANSPORT_BYTES:
            raise LocalError(f"a transport state is {TRANSPORT_BYTES} bytes, not {len(state)}")
        self._suite = Suite(suite)
        self._send_key, self._recv_key, self._send_nonce, self._recv_nonce = _STATE.unpack(state)

    def seal(self, plain: bytes) -> bytes:
        """One transport message, 16 bytes longer than plain.  LocalError: too long, or nonces used up."""
        if len(plain) > limits.RECORD_PLAIN_BYTES_MAX:
            raise LocalError(f"a transport message holds at most {limits.RECORD_PLAIN_BYTES_MAX} bytes")
        if self._send_nonce == NONCE_LAST:
            raise LocalError("the nonces of this connection are used up; make a new one")
        cipher = primitives.seal(self._suite, self._send_key, self._send_nonce, b"", plain)
        self._send_nonce += 1
        if self._send_nonce % limits.REKEY_MESSAGES == 0:
            self._send_key = primitives.rekey(self._suite, self._send_key)
        return cipher

    def open(self, cipher: bytes) -> bytes:
        """The plaintext of the peer's next message, or RemoteError(DECRYPT_FAILED) and nothing changed."""
        if len(cipher) > limits.NOISE_MESSAGE_BYTES_MAX or self._recv_nonce == NONCE_LAST:
            raise RemoteError(Code.DECRYPT_FAILED)
        try:
            plain = primitives.unseal(self._suite, self._recv_key, self._recv_nonce, b"", cipher)
        except primitives.TagMismatch:
            raise RemoteError(Code.DECRYPT_FAILED) from None
        self._recv_nonce += 1
        if self._recv_nonce % limits.REKEY_MESSAGES == 0:
            self._recv_key = primitives.rekey(self._suite, self._recv_key)
        return plain

    @property
    def suite(self) -> int:
        return self._suite

    def state(self) -> bytes:
        """The 80 bytes, integers in native order as in the C struct."""
        return _STATE.pack(self._send_key, self._recv_key, self._send_nonce, self._recv_nonce)


def transport_of(suite: Suite, send_key: bytes, recv_key: bytes) -> Transport:
    """A fresh transport, nonces at 0."""
    return Transport(suite, _STATE.pack(send_key, recv_key, 0, 0))
