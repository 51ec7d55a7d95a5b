# cython: language_level=3
# HOT: windows that fill and empty pass here.
"""Flags of a connection; see conn/flags.pxd."""
from libc.stdint cimport uint16_t, uint32_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.conn.conntable cimport conn_handle
from wa._fastpath.conn.lists cimport mark_dirty
from wa._fastpath.os.poller cimport READABLE, WRITABLE
from wa._fastpath.state.core cimport (
    Conn, CONN_FREE, CONN_REGISTERING, Core, FLAG_ASKED, FLAG_DOOMED, FLAG_EOF, FLAG_PAUSED, FLAG_WANT_WRITE,
)


cdef void conn_watch(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t mask = 0
    wa_assert(c.state != CONN_FREE and c.fd >= 0, b"what is watched is open")
    if not c.flags & FLAG_PAUSED:
        mask |= READABLE
    if c.flags & FLAG_WANT_WRITE:
        mask |= WRITABLE
    if w.poller.change(w.poller, c.fd, mask, conn_handle(c)) < 0:
        conn_gone(c)
        mark_dirty(w, c)


cdef void conn_pause(Core* w, Conn* c) noexcept nogil:
    if not c.flags & FLAG_PAUSED:
        c.flags |= FLAG_PAUSED
        conn_watch(w, c)


cdef void conn_read_on(Core* w, Conn* c) noexcept nogil:
    wa_assert(c.flags & FLAG_PAUSED != 0, b"only who was paused is read on")
    c.flags &= ~FLAG_PAUSED
    conn_watch(w, c)


cdef void conn_want_write(Core* w, Conn* c, bint wanted) noexcept nogil:
    if (c.flags & FLAG_WANT_WRITE != 0) == wanted:
        return
    if wanted:
        c.flags |= FLAG_WANT_WRITE
    else:
        c.flags &= ~FLAG_WANT_WRITE
    conn_watch(w, c)


cdef int conn_doom(Core* w, Conn* c, uint16_t code) noexcept nogil:
    wa_assert(code != 0, b"an end has a reason")
    if not c.flags & FLAG_DOOMED:
        c.flags |= FLAG_DOOMED
        c.doom = code
    mark_dirty(w, c)
    return -1


cdef void conn_undoom(Conn* c) noexcept nogil:
    c.flags &= ~FLAG_DOOMED


cdef void conn_gone(Conn* c) noexcept nogil:
    wa_assert(c.state != CONN_FREE, b"who is gone was here")
    c.flags |= FLAG_EOF


cdef void conn_asked(Conn* c) noexcept nogil:
    wa_assert(c.state == CONN_REGISTERING, b"only a registering client is noted to have asked")
    c.flags |= FLAG_ASKED
