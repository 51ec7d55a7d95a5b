# cython: language_level=3
"""Contract of the receiving side of the bus: bytes from other workers -> delivery, receipts, handed-over connections."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.state.core cimport Core

cdef void inbox_accept(Core* w) noexcept nogil
cdef void inbox_readable(Core* w, uint32_t slot) noexcept nogil
cdef uint64_t inbox_trim(Core* w) noexcept nogil          # gives empty buffers back; how many bytes that was
