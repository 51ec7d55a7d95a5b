# cython: language_level=3
"""Contract of the traffic: what a line says when it hears something, and how that is checked."""
from libc.stdint cimport uint64_t
from bench._load.gen cimport Gen, Line
from wa._fastpath.wire.frames cimport Frame

cdef void on_frame(Gen* g, Line* l, const Frame* f) noexcept nogil
cdef void on_batch(Gen* g, Line* l) noexcept nogil
cdef int top_up(Gen* g, Line* l, uint64_t sent_ns) noexcept nogil       # fills the window; how many it began
cdef int begin_one(Gen* g, Line* l, uint64_t sent_ns) noexcept nogil    # 1, or 0 when the window has no room
