# cython: language_level=3
"""Public keys of X25519."""
from libc.stdint cimport uint8_t

# The public key, 32 bytes, of a private one, 32 bytes of any value.  For keys that are sent in the clear: how long it
# takes may tell of the public key, though of nothing else about the private one.
cdef void x25519_public(uint8_t* public, const uint8_t* private) noexcept nogil
