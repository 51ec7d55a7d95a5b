# cython: language_level=3
"""Contract of the receiving side of a connection: bytes -> hello, handshake, records, frames -> delivery.

Sans-I/O apart from one recv per event.  A remote fault ends this connection with a named code and never more.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, int32_t
from wa._fastpath.bus cimport BusHandover
from wa._fastpath.core cimport Conn, Core

cdef void session_readable(Core* w, Conn* c) noexcept nogil
cdef void session_resume(Core* w, Conn* c) noexcept nogil                  # read again, the kept rest first
cdef void session_timer(Core* w, Conn* c) noexcept nogil
cdef void session_adopted(Core* w, const BusHandover* h, const uint8_t* rest, uint32_t n, int32_t fd) noexcept nogil
cdef int session_admit(Core* w, Conn* c, uint64_t address) noexcept nogil  # -1: not waiting for that
