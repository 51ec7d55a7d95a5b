# cython: language_level=3
"""SHA-256 and HKDF, as the Noise handshake uses them (sections 4.3 and 12 of the specification)."""
from libc.stdint cimport uint8_t

# SHA-256 of a ‖ b; either may be NULL with length 0, and out may be a or b.
cdef void sha256(uint8_t* out, const uint8_t* a, size_t a_n, const uint8_t* b, size_t b_n) noexcept nogil

# HKDF(ck, ikm) with two outputs of 32 bytes, three where out3 is not NULL; ck has 32 bytes, and out1 may be ck.
cdef void hkdf(const uint8_t* ck, const uint8_t* ikm, size_t ikm_n,
               uint8_t* out1, uint8_t* out2, uint8_t* out3) noexcept nogil
