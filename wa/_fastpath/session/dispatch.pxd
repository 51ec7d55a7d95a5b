# cython: language_level=3
"""Contract: one frame of a client -> what it asks for, by the state of its connection (docs/protocol.md, 1.3)."""
from wa._fastpath.state.core cimport Conn, Core
from wa._fastpath.wire.frames cimport Frame

cdef void on_frame(Core* w, Conn* c, const Frame* f) noexcept nogil
