# cython: language_level=3
# COLD: once a second, in the tick of the loop.
"""Giving memory back to the system; see loop/giveback.pxd."""
from libc.stdint cimport uint64_t
from wa._fastpath.base.heap cimport wa_heap_trim
from wa._fastpath.base.slab cimport slab_trim
from wa._fastpath.custody.entries cimport custody_trim
from wa._fastpath.state.core cimport Core, Pending

cdef enum:
    SLAB_TRIM_BUFFERS = 32768     # a second: a millisecond of work, not to be felt
    HEAP_TRIM_BYTES = 32768       # freed since the last time that it is worth going through the heap


cdef void give_back(Core* w) noexcept nogil:
    cdef uint64_t freed
    # All of them: they lie scattered over the heap, and each one that is kept holds a page of it.
    slab_trim(&w.slab, 0, SLAB_TRIM_BUFFERS)
    w.trimmed_bytes += custody_trim(&w.custody) + w.bus.trim(w.bus)
    # Every accepted connection has had a Pending, and given it back.
    freed = w.trimmed_bytes + w.slab.freed_bytes + w.stats.accepts * sizeof(Pending)
    if freed >= w.heap_trimmed_at + HEAP_TRIM_BYTES:
        w.heap_trimmed_at = freed
        wa_heap_trim()
