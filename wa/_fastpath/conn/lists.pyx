# cython: language_level=3
# HOT: every connection with traffic is on a list once a turn.
"""The lists of a turn; see conn/lists.pxd."""
from libc.stdint cimport uint32_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.state.core cimport Conn, CONN_FREE, Core, FLAG_DIRTY, FLAG_DRAIN, FLAG_RESUME, NONE_INDEX


cdef void mark_dirty(Core* w, Conn* c) noexcept nogil:
    wa_assert(c.state != CONN_FREE, b"a connection in use is flushed")
    if not c.flags & FLAG_DIRTY:
        c.flags |= FLAG_DIRTY
        c.dirty_next = w.dirty_head
        w.dirty_head = c.index


cdef Conn* take_dirty(Core* w) noexcept nogil:
    cdef Conn* c
    if w.dirty_head == NONE_INDEX:
        return NULL
    c = conn_at(&w.conns, w.dirty_head)
    wa_assert(c.flags & FLAG_DIRTY != 0, b"who is on the list has its flag")
    w.dirty_head = c.dirty_next
    c.dirty_next = NONE_INDEX
    c.flags &= ~FLAG_DIRTY
    return c


cdef void queue_drain(Core* w, Conn* c) noexcept nogil:
    wa_assert(c.state != CONN_FREE, b"a connection in use is drained")
    if not c.flags & FLAG_DRAIN:
        c.flags |= FLAG_DRAIN
        c.drain_next = w.drain_head
        w.drain_head = c.index


cdef uint32_t take_drains(Core* w) noexcept nogil:
    cdef uint32_t first = w.drain_head
    w.drain_head = NONE_INDEX
    return first


cdef Conn* next_drain(Core* w, uint32_t* index) noexcept nogil:
    cdef Conn* c = conn_at(&w.conns, index[0])
    wa_assert(c.flags & FLAG_DRAIN != 0, b"who is on the list has its flag")
    index[0] = c.drain_next
    c.drain_next = NONE_INDEX
    c.flags &= ~FLAG_DRAIN
    return c


cdef void queue_resume(Core* w, Conn* c) noexcept nogil:
    wa_assert(c.state != CONN_FREE, b"a connection in use is read on")
    if not c.flags & FLAG_RESUME:
        c.flags |= FLAG_RESUME
        c.resume_next = w.resume_head
        w.resume_head = c.index


cdef uint32_t take_resumes(Core* w) noexcept nogil:
    cdef uint32_t first = w.resume_head
    w.resume_head = NONE_INDEX
    return first


cdef Conn* next_resume(Core* w, uint32_t* index) noexcept nogil:
    cdef Conn* c = conn_at(&w.conns, index[0])
    wa_assert(c.flags & FLAG_RESUME != 0, b"who is on the list has its flag")
    index[0] = c.resume_next
    c.resume_next = NONE_INDEX
    c.flags &= ~FLAG_RESUME
    return c


cdef void lists_leave(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t* link
    if c.flags & FLAG_DIRTY:
        link = &w.dirty_head
        while link[0] != c.index:
            link = &conn_at(&w.conns, link[0]).dirty_next
        link[0] = c.dirty_next
    if c.flags & FLAG_RESUME:
        link = &w.resume_head
        while link[0] != c.index:
            link = &conn_at(&w.conns, link[0]).resume_next
        link[0] = c.resume_next
    if c.flags & FLAG_DRAIN:
        link = &w.drain_head
        while link[0] != c.index:
            link = &conn_at(&w.conns, link[0]).drain_next
        link[0] = c.drain_next
    c.flags &= ~(FLAG_DIRTY | FLAG_RESUME | FLAG_DRAIN)
