# cython: language_level=3
"""Contract of the receiving half of the bus over Unix sockets."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.bus.unix cimport Incoming, UnixBus

cdef void incoming_accept(UnixBus* u) noexcept nogil
cdef void incoming_readable(UnixBus* u, uint32_t slot) noexcept nogil
cdef void incoming_drop(UnixBus* u, Incoming* b) noexcept nogil
cdef uint64_t incoming_trim(UnixBus* u) noexcept nogil
