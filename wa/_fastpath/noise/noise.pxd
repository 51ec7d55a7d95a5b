# cython: language_level=3
"""Contract of the Noise layer: handshake (XX, IK, NNpsk0, XXfallback) and transport, as C structs over libsodium.

Randomness is an argument: the caller hands in the ephemeral private key, so a simulator can replay a run.
Every function is `noexcept nogil` and returns a negative NOISE_* code on failure; nothing is logged.
Keys are zeroed when a handshake ends, whichever way it ends.
"""
from libc.stdint cimport int64_t, uint64_t, uint8_t

cdef enum:
    NOISE_SUITE_CHACHA = 1        # Noise_*_25519_ChaChaPoly_SHA256
    NOISE_SUITE_AESGCM = 2        # Noise_*_25519_AESGCM_SHA256 (needs AES-NI; noise_suite_available())
    NOISE_XX = 1
    NOISE_IK = 2
    NOISE_NNPSK0 = 3
    NOISE_XXFALLBACK = 4          # never offered in a hello
    NOISE_E_AUTH = -1             # a tag did not verify
    NOISE_E_FORMAT = -2           # too short, too long, or a low-order point (all-zero shared secret)
    NOISE_E_STATE = -3            # called out of turn: the caller's fault
    NOISE_E_SPACE = -4            # the output buffer is too small: the caller's fault
    NOISE_E_NONCE = -5            # the nonce space of a direction is used up

ctypedef struct NoiseTransport:   # 80 bytes: all that an idle connection keeps
    uint8_t send_key[32]
    uint8_t recv_key[32]
    uint64_t send_nonce
    uint64_t recv_nonce

ctypedef struct NoiseHandshake:
    uint8_t h[32]
    uint8_t ck[32]
    uint8_t k[32]
    uint64_t n
    uint8_t s_priv[32]
    uint8_t s_pub[32]
    uint8_t e_priv[32]
    uint8_t e_pub[32]
    uint8_t rs[32]
    uint8_t re[32]
    uint8_t psk[32]
    uint8_t suite
    uint8_t pattern
    uint8_t initiator             # 1 when this side sends the pattern's first message
    uint8_t step                  # messages done
    uint8_t has_k, has_rs, has_re, done

cdef bint noise_suite_available(int suite) noexcept nogil
cdef int noise_start(NoiseHandshake* hs, int pattern, int suite, bint initiator,
                     const uint8_t* prologue, size_t prologue_n,
                     const uint8_t* s_priv, const uint8_t* s_pub,
                     const uint8_t* rs_pub) noexcept nogil
# rs_pub: the responder's static key for an IK initiator, else NULL.

cdef int noise_start_psk(NoiseHandshake* hs, int suite, bint initiator,
                         const uint8_t* prologue, size_t prologue_n, const uint8_t* psk) noexcept nogil
# NNpsk0: both sides know 32 secret bytes and neither has a static key.

cdef int noise_fallback(NoiseHandshake* hs, const uint8_t* prologue, size_t prologue_n) noexcept nogil
# Turns a failed IK (the responder after noise_read returned NOISE_E_AUTH on message 1, the initiator on
# hearing of it) into XXfallback, keeping the initiator's ephemeral as the pre-message `-> e`.

cdef int64_t noise_write(NoiseHandshake* hs, const uint8_t* e_priv,
                         const uint8_t* payload, size_t payload_n,
                         uint8_t* out, size_t out_cap) noexcept nogil
# Length of the handshake message written.  e_priv: 32 fresh random bytes, used when the message carries `e`.

cdef int64_t noise_read(NoiseHandshake* hs, const uint8_t* msg, size_t msg_n,
                        uint8_t* payload, size_t payload_cap) noexcept nogil
# Length of the payload.  After NOISE_E_AUTH only noise_fallback() or noise_wipe() may follow.

cdef bint noise_done(const NoiseHandshake* hs) noexcept nogil
cdef int noise_split(NoiseHandshake* hs, NoiseTransport* out) noexcept nogil
# Also wipes the handshake, except hs.rs (the peer's static key), hs.h (channel binding) and the flags.
cdef void noise_wipe(NoiseHandshake* hs) noexcept nogil

cdef int64_t noise_seal(NoiseTransport* t, int suite, const uint8_t* plain, size_t n, uint8_t* out) noexcept nogil
# Writes n + 16 bytes; out may equal plain.  Rekeys the sending direction by the rule of limits.REKEY_MESSAGES.
cdef int64_t noise_open(NoiseTransport* t, int suite, const uint8_t* cipher, size_t n, uint8_t* out) noexcept nogil
# Writes n - 16 bytes; out may equal cipher.  NOISE_E_AUTH leaves t unchanged.
