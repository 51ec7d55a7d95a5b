# cython: language_level=3
"""Contract of the linger window (rule 5): what is delivered live waits for its acknowledgement before it is written.

The queue ascends by deadline, since every envelope waits the same time.
"""
from wa._fastpath.state.core cimport Conn, Core, Entry

cdef void linger_begin(Core* w, Entry* e) noexcept nogil
cdef void linger_fire(Core* w) noexcept nogil                             # whose window is over; every turn
cdef void commit_entry(Core* w, Entry* e) noexcept nogil                  # to disk with it; REFUSED without memory
cdef void commit_lingering(Core* w, Conn* c) noexcept nogil               # all that linger on this connection
