# cython: language_level=3
"""Contract of the sending half of the bus over Unix sockets."""
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.bus.contract cimport Bus
from wa._fastpath.bus.unix cimport Outgoing, UnixBus

cdef void outgoing_drop(UnixBus* u, Outgoing* p) noexcept nogil            # closes it with what waits in it
cdef void outgoing_lost(UnixBus* u, uint32_t worker, uint64_t now_ms) noexcept nogil
cdef void outgoing_writable(UnixBus* u, uint32_t worker, uint64_t now_ms) noexcept nogil
cdef uint64_t outgoing_trim(UnixBus* u) noexcept nogil

# Of the table of functions:
cdef int unix_send(Bus* b, uint32_t worker, uint8_t what, const void* head, uint32_t head_n,
                   const uint8_t* body, uint32_t body_n, int32_t fd) noexcept nogil
cdef void unix_flush(Bus* b, uint64_t now_ms) noexcept nogil
cdef int unix_due(Bus* b, uint32_t worker, uint64_t now_ms) noexcept nogil
cdef void unix_connected(Bus* b, uint32_t worker, int32_t fd) noexcept nogil
cdef void unix_failed(Bus* b, uint32_t worker, uint64_t retry_ms) noexcept nogil
