# cython: language_level=3
"""Contract of the receiving side of a connection: bytes -> hello, handshake, records, frames -> delivery.

Sans-I/O apart from one recv per event.  A remote fault ends this connection with a named code and never more.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from wa._fastpath.state.core cimport Conn, Core

cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]

cdef void session_readable(Core* w, Conn* c) noexcept nogil
cdef void session_handshakes(Core* w) noexcept nogil  # those whose turn it is; see session/waiting.pxd
cdef void session_kept(Core* w, Conn* c, const uint8_t* data, uint32_t n) noexcept nogil
# bytes that another worker read
cdef void session_resume(Core* w, Conn* c) noexcept nogil                  # read again, the kept rest first
cdef void session_timer(Core* w, Conn* c) noexcept nogil
