# cython: language_level=3
# HOT for logins: every handshake makes an ephemeral key pair.
"""Public keys of X25519; contract: noise/curve.pxd.

libsodium's `crypto_scalarmult_base` takes as long as any other multiplication where it uses its AVX code (27 µs here).
Its Edwards twin has tables of the base point (15 µs, constant time), and the two curves are one under the map of
RFC 7748, section 4.1: u = (1 + y) / (1 - y) modulo p.  That map works on the public key alone, so GMP's inverse, fast
and of varying duration (3 µs), may do it.
"""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from wa._fastpath.base.sodium cimport crypto_scalarmult_base, crypto_scalarmult_ed25519_base, sodium_init

from wa.errors import LocalError

cdef extern from "gmp.h" nogil:
    ctypedef struct __mpz_struct:
        pass
    ctypedef __mpz_struct mpz_t[1]
    void mpz_init(mpz_t x)
    void mpz_clear(mpz_t x)
    void mpz_import(mpz_t x, size_t count, int order, size_t size, int endian, size_t nails, const void* data)
    void* mpz_export(void* data, size_t* count, int order, size_t size, int endian, size_t nails, mpz_t x)
    void mpz_ui_sub(mpz_t r, unsigned long a, mpz_t b)
    void mpz_add_ui(mpz_t r, mpz_t a, unsigned long b)
    void mpz_mul(mpz_t r, mpz_t a, mpz_t b)
    void mpz_mod(mpz_t r, mpz_t a, mpz_t m)
    int mpz_invert(mpz_t r, mpz_t a, mpz_t m)

cdef enum:
    KEY_N = 32
    LAST = 31


cdef void load(mpz_t x, const uint8_t* little_endian) noexcept nogil:
    mpz_import(x, KEY_N, -1, 1, 0, 0, little_endian)


cdef void montgomery_u(uint8_t* u, const uint8_t* y) noexcept nogil:
    """u = (1 + y) / (1 - y) modulo 2^255 - 19; 32 bytes each, little-endian.  y is not 1, the neutral element."""
    cdef uint8_t[KEY_N] prime
    cdef mpz_t p, above, below
    memset(prime, 0xFF, KEY_N)
    prime[0] = 0xED
    prime[LAST] = 0x7F
    mpz_init(p)
    mpz_init(above)
    mpz_init(below)
    load(p, prime)
    load(above, y)
    mpz_ui_sub(below, 1, above)
    mpz_add_ui(above, above, 1)
    mpz_invert(below, below, p)
    mpz_mul(above, above, below)
    mpz_mod(above, above, p)
    memset(u, 0, KEY_N)           # a small number is exported without the zeros above it
    mpz_export(u, NULL, -1, 1, 0, 0, above)
    mpz_clear(p)
    mpz_clear(above)
    mpz_clear(below)


cdef void x25519_public(uint8_t* public, const uint8_t* private) noexcept nogil:
    cdef uint8_t[KEY_N] point
    if crypto_scalarmult_ed25519_base(point, private) != 0:
        crypto_scalarmult_base(public, private)   # a private key of zeros, which the Edwards twin refuses
        return
    point[LAST] &= 0x7F           # the sign of x: both points have the same u
    montgomery_u(public, point)


def x25519_public_of(bytes private) -> bytes:
    """The public key of a private one.  Raises LocalError when it has not 32 bytes."""
    cdef uint8_t[KEY_N] public
    if len(private) != KEY_N:
        raise LocalError(f"a private key has {KEY_N} bytes, not {len(private)}")
    x25519_public(public, private)
    return public[:KEY_N]


if sodium_init() < 0:
    raise ImportError("libsodium could not be initialised")
