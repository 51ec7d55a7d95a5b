# cython: language_level=3
# HOT for logins: a handshake hashes some sixty blocks of 64 bytes.
"""SHA-256 and HKDF for the handshake; contract: noise/hkdf.pxd.

The blocks are libcrypto's, which uses the SHA instructions of a processor that has them: 0.04 µs each where
libsodium's portable code takes 0.2.  Of libcrypto this is the old interface: the new one allocates for every hash.
HMAC (RFC 2104) is written out, so that a key is padded and hashed once for all that it authenticates.
"""
from libc.stdint cimport uint8_t
from wa._fastpath.base.sodium cimport sodium_memzero

from wa.errors import LocalError

cdef extern from *:
    """
    #define OPENSSL_SUPPRESS_DEPRECATED 1      /* the functions below, see the docstring */
    #include <openssl/sha.h>
    """
    ctypedef struct SHA256_CTX:
        pass
    int SHA256_Init(SHA256_CTX* s) nogil
    int SHA256_Update(SHA256_CTX* s, const void* data, size_t n) nogil
    int SHA256_Final(uint8_t* out, SHA256_CTX* s) nogil

cdef enum:
    HASH_N = 32
    BLOCK_N = 64
    INNER_PAD = 0x36
    OUTER_PAD = 0x5C

ctypedef struct Hmac:             # a key that has been taken in; copied for each message
    SHA256_CTX inner
    SHA256_CTX outer


cdef void sha256(uint8_t* out, const uint8_t* a, size_t a_n, const uint8_t* b, size_t b_n) noexcept nogil:
    cdef SHA256_CTX s
    SHA256_Init(&s)
    if a_n:
        SHA256_Update(&s, a, a_n)
    if b_n:
        SHA256_Update(&s, b, b_n)
    SHA256_Final(out, &s)


cdef void hmac_key(Hmac* keyed, const uint8_t* key) noexcept nogil:
    cdef uint8_t[BLOCK_N] pad
    cdef int i
    for i in range(BLOCK_N):
        pad[i] = (key[i] if i < HASH_N else 0) ^ INNER_PAD
    SHA256_Init(&keyed.inner)
    SHA256_Update(&keyed.inner, pad, BLOCK_N)
    for i in range(BLOCK_N):
        pad[i] ^= INNER_PAD ^ OUTER_PAD
    SHA256_Init(&keyed.outer)
    SHA256_Update(&keyed.outer, pad, BLOCK_N)
    sodium_memzero(pad, BLOCK_N)


cdef void hmac(const Hmac* keyed, uint8_t* out, const uint8_t* a, size_t a_n, uint8_t b) noexcept nogil:
    """HMAC-SHA-256 of a ‖ b, of a alone where b is 0; out may be a."""
    cdef Hmac s = keyed[0]
    if a_n:
        SHA256_Update(&s.inner, a, a_n)
    if b:
        SHA256_Update(&s.inner, &b, 1)
    SHA256_Final(out, &s.inner)
    SHA256_Update(&s.outer, out, HASH_N)
    SHA256_Final(out, &s.outer)
    sodium_memzero(&s, sizeof(s))


cdef void hkdf(const uint8_t* ck, const uint8_t* ikm, size_t ikm_n,
               uint8_t* out1, uint8_t* out2, uint8_t* out3) noexcept nogil:
    cdef Hmac s
    cdef uint8_t[HASH_N] temp
    hmac_key(&s, ck)
    hmac(&s, temp, ikm, ikm_n, 0)
    hmac_key(&s, temp)
    hmac(&s, out1, NULL, 0, 1)
    hmac(&s, out2, out1, HASH_N, 2)
    if out3 != NULL:
        hmac(&s, out3, out2, HASH_N, 3)
    sodium_memzero(&s, sizeof(s))
    sodium_memzero(temp, HASH_N)


def sha256_of(bytes a, bytes b) -> bytes:
    """SHA-256 of a ‖ b."""
    cdef uint8_t[HASH_N] out
    sha256(out, a, len(a), b, len(b))
    return out[:HASH_N]


def hkdf_of(bytes chaining_key, bytes material) -> tuple:
    """The three outputs of HKDF, 32 bytes each.  Raises LocalError for a chaining key that has not 32 bytes."""
    cdef uint8_t[3][HASH_N] out
    if len(chaining_key) != HASH_N:
        raise LocalError(f"a chaining key has {HASH_N} bytes, not {len(chaining_key)}")
    hkdf(chaining_key, material, len(material), out[0], out[1], out[2])
    return out[0][:HASH_N], out[1][:HASH_N], out[2][:HASH_N]
