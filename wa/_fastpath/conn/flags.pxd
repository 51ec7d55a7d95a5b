# cython: language_level=3
"""Contract of a connection's flags: each is set and cleared here, and those of the lists in conn/lists.pyx.

    PAUSED       not read: its sender's window is full, its output backed up, or its handshake waits
    WANT_WRITE   the socket did not take everything
    DOOMED       ends at the flush of this turn, with the code `Conn.doom`; the first code stays
    EOF          the peer is gone: nothing can be sent, and it ends at the flush
    ASKED        a registering client has made a request
"""
from libc.stdint cimport uint16_t
from wa._fastpath.state.core cimport Conn, Core

cdef void conn_pause(Core* w, Conn* c) noexcept nogil                      # once is enough
cdef void conn_read_on(Core* w, Conn* c) noexcept nogil
cdef void conn_want_write(Core* w, Conn* c, bint wanted) noexcept nogil
cdef int conn_doom(Core* w, Conn* c, uint16_t code) noexcept nogil         # returns -1
cdef void conn_undoom(Conn* c) noexcept nogil                              # it is being closed: the code was told
cdef void conn_gone(Conn* c) noexcept nogil                                # EOF; who is not the flush marks it dirty
cdef void conn_asked(Conn* c) noexcept nogil
cdef void conn_watch(Core* w, Conn* c) noexcept nogil                      # tells the poller what the flags say
