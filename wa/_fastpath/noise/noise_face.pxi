"""Textual part of noise/noise.pyx: its Python face, two thin classes for the client SDK and the tests.

Their methods check the caller first and raise LocalError, so the assertions of the C functions never fire here.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize

import os

from wa import limits
from wa.errors import Code, LocalError, RemoteError

if sodium_init() < 0:
    raise ImportError("libsodium could not be initialised")

SUITE_CHACHA = NOISE_SUITE_CHACHA
SUITE_AESGCM = NOISE_SUITE_AESGCM
XX = NOISE_XX
IK = NOISE_IK
NNPSK0 = NOISE_NNPSK0
XXFALLBACK = NOISE_XXFALLBACK
TRANSPORT_BYTES = sizeof(NoiseTransport)
HANDSHAKE_BYTES = sizeof(NoiseHandshake)


def suite_available(int suite) -> bool:
    """True when this machine can run the suite: AESGCM needs a processor with AES instructions."""
    return noise_suite_available(suite)


cdef int key_check(bytes key, str what) except -1:
    if len(key) != KEY_N:
        raise LocalError(f"{what} is {KEY_N} bytes, not {len(key)}")
    return 0


cdef class Handshake:
    """One side of a Noise handshake.  A peer's fault is RemoteError(HANDSHAKE_FAILED), a misuse LocalError.

    pattern: XX, IK or NNpsk0.  prologue: the hello.  static_private: 32 bytes, for XX and IK.
    remote_static: the responder's key, for the initiator of IK and for nobody else.
    psk: 32 bytes, for both sides of NNpsk0, which has no static keys.
    """
    cdef NoiseHandshake hs

    def __cinit__(self, int pattern, int suite, *, bint initiator, bytes prologue, bytes static_private=None,
                  bytes remote_static=None, bytes psk=None):
        cdef uint8_t[32] public
        cdef const uint8_t* peer = NULL
        if pattern not in (NOISE_XX, NOISE_IK, NOISE_NNPSK0):
            raise LocalError("a handshake starts as XX, IK or NNpsk0; use fallback() for XXfallback")
        if not noise_suite_available(suite):
            raise LocalError(f"suite {suite} is not available on this machine; use the other one")
        if (remote_static is not None) != (pattern == NOISE_IK and initiator):
            raise LocalError("remote_static is for the initiator of IK, and it needs one")
        if (psk is not None) != (pattern == NOISE_NNPSK0) or (static_private is None) != (pattern == NOISE_NNPSK0):
            raise LocalError("NNpsk0 needs a psk and no static key, the other patterns need static_private and no psk")
        if pattern == NOISE_NNPSK0:
            key_check(psk, "psk")
            noise_start_psk(&self.hs, suite, initiator, prologue, len(prologue), psk)
            return
        key_check(static_private, "static_private")
        if remote_static is not None:
            key_check(remote_static, "remote_static")
        crypto_scalarmult_base(public, static_private)
        if remote_static is not None:
            peer = remote_static
        noise_start(&self.hs, pattern, suite, initiator, prologue, len(prologue), static_private, public, peer)

    def __dealloc__(self):
        noise_wipe(&self.hs)

    def write(self, bytes payload=b"", *, bytes ephemeral=None) -> bytes:
        """The next handshake message.  ephemeral: 32 bytes, fresh random ones when not given."""
        cdef size_t cost
        cdef bytes out
        if not my_turn(&self.hs):
            raise LocalError("it is not this side's turn to write")
        cost = overhead(&self.hs)
        if len(payload) + cost > NOISE_MESSAGE_BYTES_MAX:
            raise LocalError(f"a handshake payload here is at most {NOISE_MESSAGE_BYTES_MAX - cost} bytes")
        if ephemeral is None:
            ephemeral = os.urandom(KEY_N)
        key_check(ephemeral, "ephemeral")
        out = PyBytes_FromStringAndSize(NULL, len(payload) + cost)
        if noise_write(&self.hs, ephemeral, payload, len(payload), <uint8_t*><char*>out, len(out)) < 0:
            raise RemoteError(Code.HANDSHAKE_FAILED, "the peer sent a low-order point")
        return out

    def read(self, bytes message) -> bytes:
        """The payload of the peer's next handshake message."""
        cdef int64_t n
        cdef bytes out
        if not their_turn(&self.hs):
            raise LocalError("it is not the peer's turn to write")
        out = PyBytes_FromStringAndSize(NULL, max(len(message), 1))
        n = noise_read(&self.hs, message, len(message), <uint8_t*><char*>out, len(out))
        if n == NOISE_E_AUTH:
            raise RemoteError(Code.HANDSHAKE_FAILED, "a handshake message did not authenticate")
        if n < 0:
            raise RemoteError(Code.HANDSHAKE_FAILED, "a handshake message has a wrong length or a low-order point")
        return out[:n]

    def fallback(self, bytes prologue) -> None:
        """Go on as XXfallback after IK failed at its first message."""
        if not can_fall_back(&self.hs):
            raise LocalError("only IK that failed at its first message can fall back")
        noise_fallback(&self.hs, prologue, len(prologue))

    def split(self) -> Transport:
        """The transport of a handshake that is done; the handshake's keys are zeroed."""
        cdef NoiseTransport t
        cdef Transport out
        if not self.hs.done or self.hs.step == STEP_ENDED:
            raise LocalError("the handshake is not done, or was split before")
        noise_split(&self.hs, &t)
        out = Transport.__new__(Transport, self.hs.suite, (<uint8_t*>&t)[:sizeof(t)])
        sodium_memzero(&t, sizeof(t))
        return out

    @property
    def done(self) -> bool:
        """True when every message has been written and read."""
        return noise_done(&self.hs)

    @property
    def my_turn(self) -> bool:
        """True when the next message is to be written, not read, by this side."""
        return my_turn(&self.hs)

    @property
    def can_fall_back(self) -> bool:
        """True when fallback() may be called."""
        return can_fall_back(&self.hs)

    @property
    def pattern(self) -> int:
        return self.hs.pattern

    @property
    def suite(self) -> int:
        return self.hs.suite

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static key, 32 bytes, once known."""
        return self.hs.rs[:KEY_N] if self.hs.has_rs else None

    @property
    def hash(self) -> bytes:
        """The handshake hash, 32 bytes: a channel binding once done."""
        return self.hs.h[:KEY_N]


cdef class Transport:
    """Both directions of an established connection, made of `state`, the 80 bytes of a NoiseTransport."""
    cdef NoiseTransport t
    cdef int _suite

    def __cinit__(self, int suite, bytes state):
        if not noise_suite_available(suite):
            raise LocalError(f"suite {suite} is not available on this machine")
        if len(state) != sizeof(NoiseTransport):
            raise LocalError(f"a transport state is {sizeof(NoiseTransport)} bytes, not {len(state)}")
        self._suite = suite
        memcpy(&self.t, <const char*>state, sizeof(NoiseTransport))

    def __dealloc__(self):
        sodium_memzero(&self.t, sizeof(NoiseTransport))

    def seal(self, bytes plain) -> bytes:
        """One transport message, 16 bytes longer than plain.  LocalError: too long, or nonces used up."""
        cdef bytes out
        if len(plain) > NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES:
            raise LocalError(f"a transport message holds at most {NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES} bytes")
        out = PyBytes_FromStringAndSize(NULL, len(plain) + NOISE_TAG_BYTES)
        if noise_seal(&self.t, self._suite, plain, len(plain), <uint8_t*><char*>out) < 0:
            raise LocalError("the nonces of this connection are used up; make a new one")
        return out

    def open(self, bytes cipher) -> bytes:
        """The plaintext of the peer's next message, or RemoteError(DECRYPT_FAILED) and nothing changed."""
        cdef bytes out = PyBytes_FromStringAndSize(NULL, max(len(cipher) - NOISE_TAG_BYTES, 1))
        cdef int64_t n = noise_open(&self.t, self._suite, cipher, len(cipher), <uint8_t*><char*>out)
        if n < 0:
            raise RemoteError(Code.DECRYPT_FAILED)
        return out[:n]

    def seal_in_place(self, bytearray buffer) -> None:
        """seal() where the plaintext lies, as the server's loop does; the buffer grows by 16 bytes."""
        cdef size_t n = len(buffer)
        if n > NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES:
            raise LocalError(f"a transport message holds at most {NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES} bytes")
        buffer.extend(bytes(NOISE_TAG_BYTES))
        if noise_seal(&self.t, self._suite, <uint8_t*><char*>buffer, n, <uint8_t*><char*>buffer) < 0:
            del buffer[n:]
            raise LocalError("the nonces of this connection are used up; make a new one")

    def open_in_place(self, bytearray buffer) -> None:
        """open() where the ciphertext lies; the buffer shrinks by 16 bytes, and stays as it is on an error."""
        cdef int64_t n = noise_open(&self.t, self._suite, <uint8_t*><char*>buffer, len(buffer),
                                    <uint8_t*><char*>buffer)
        if n < 0:
            raise RemoteError(Code.DECRYPT_FAILED)
        del buffer[n:]

    @property
    def suite(self) -> int:
        return self._suite

    def state(self) -> bytes:
        """The 80 bytes: send key 32, receive key 32, send nonce, receive nonce (u64, native order)."""
        return (<uint8_t*>&self.t)[:sizeof(NoiseTransport)]
