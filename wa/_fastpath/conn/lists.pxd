# cython: language_level=3
"""Contract of the three lists of a turn: connections to flush, to drain, to read on.

A connection is on each at most once.  drain and resume are taken whole, since who is on them may be queued again.
"""
from libc.stdint cimport uint32_t
from wa._fastpath.state.core cimport Conn, Core

cdef void mark_dirty(Core* w, Conn* c) noexcept nogil                      # flushed at the end of this turn
cdef Conn* take_dirty(Core* w) noexcept nogil                              # the newest, off the list; NULL: nobody
cdef void queue_drain(Core* w, Conn* c) noexcept nogil  # its mailbox is read in this turn, or the next
cdef uint32_t take_drains(Core* w) noexcept nogil                          # index of the first, or NONE_INDEX
cdef Conn* next_drain(Core* w, uint32_t* index) noexcept nogil             # that one, off the list; index: of the next
cdef void queue_resume(Core* w, Conn* c) noexcept nogil                    # its kept rest may be consumed again
cdef uint32_t take_resumes(Core* w) noexcept nogil
cdef Conn* next_resume(Core* w, uint32_t* index) noexcept nogil
cdef void lists_leave(Core* w, Conn* c) noexcept nogil                     # off all three
