# cython: language_level=3
"""Contract of the connections: they log in, turn bytes into frames for Gen.on_frame and frames into bytes."""
from libc.stdint cimport uint32_t, uint64_t
from bench._load.gen cimport Gen, Line
from wa._fastpath.wire.frames cimport Frame

cdef int line_connect(Gen* g, Line* l) noexcept nogil          # begins a login; 0 or -errno (descriptors, ports)
cdef void line_event(Gen* g, Line* l, uint32_t mask) noexcept nogil
cdef void line_down(Gen* g, Line* l) noexcept nogil            # closes it; counts nothing
cdef int put_frame(Gen* g, Line* l, const Frame* f) noexcept nogil  # into the record being filled
cdef int put_simple(Gen* g, Line* l, int type, uint64_t number, uint64_t extra) noexcept nogil
cdef void keep_ticket(Gen* g, Line* l, const Frame* f) noexcept nogil  # the next login is by it
cdef void put_acks(Gen* g, Line* l) noexcept nogil             # of ack_n deliveries from ack_first on
cdef void flush_record(Gen* g, Line* l) noexcept nogil         # seals and sends what put_frame() gathered
