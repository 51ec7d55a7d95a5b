# cython: language_level=3
# HOT for logins: a reconnect storm runs through here.
"""Who waits for a handshake; see session/waiting.pxd."""
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.state.core cimport Conn, Core, Pending


cdef void waiting_add(Core* w, Conn* c) noexcept nogil:
    cdef Pending* p = c.pending
    if p.waits:
        return
    p.waits = 1
    p.conn = c.index
    w.waiting_n += 1
    if p.answer_due and w.waiting_first != NULL:
        p.wait_prev = NULL
        p.wait_next = w.waiting_first
        w.waiting_first.wait_prev = p
        w.waiting_first = p
        return
    p.wait_next = NULL
    p.wait_prev = w.waiting_last
    if w.waiting_last != NULL:
        w.waiting_last.wait_next = p
    else:
        w.waiting_first = p
    w.waiting_last = p


cdef void waiting_remove(Core* w, Conn* c) noexcept nogil:
    cdef Pending* p = c.pending
    if not p.waits:
        return
    p.waits = 0
    if p.wait_prev != NULL:
        p.wait_prev.wait_next = p.wait_next
    else:
        w.waiting_first = p.wait_next
    if p.wait_next != NULL:
        p.wait_next.wait_prev = p.wait_prev
    else:
        w.waiting_last = p.wait_prev
    w.waiting_n -= 1


cdef Conn* waiting_first(Core* w) noexcept nogil:
    return NULL if w.waiting_first == NULL else conn_at(&w.conns, w.waiting_first.conn)
