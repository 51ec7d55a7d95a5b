# cython: language_level=3
"""Contract of acknowledgements: a device has committed what it was sent (rule 3), or shown it (rule 2)."""
from libc.stdint cimport uint64_t
from wa._fastpath.state.core cimport Conn, Core

cdef int acknowledge(Core* w, Conn* c, uint64_t first, uint64_t count) noexcept nogil    # -1: never sent
cdef void mark_read(Core* w, Conn* c, uint64_t sender, uint64_t id) noexcept nogil
