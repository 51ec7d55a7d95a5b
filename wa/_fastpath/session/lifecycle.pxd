# cython: language_level=3
"""Contract of a connection's life: accepted, live, ending.  One way to begin, one to end, one place that releases.

A connection ends in two steps: `begin_close` (says why, takes the device offline, nothing in custody is lost) and, at
the flush of the turn once the close frame is out, `conn_end`, the only place that closes the socket and frees.
Pointers to connections therefore stay valid throughout a turn.
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.os.poller cimport PeerName
from wa._fastpath.state.core cimport Conn, Core, Pending

cdef void accept_all(Core* w) noexcept nogil
cdef Conn* conn_adopt(Core* w, int32_t fd) noexcept nogil                  # a new Conn with a Pending, watched
cdef void go_live(Core* w, Conn* c) noexcept nogil
cdef void live_on(Core* w, Conn* c) noexcept nogil                         # was live elsewhere; nobody is told
cdef void conn_timer(Core* w, Conn* c) noexcept nogil                      # of a live connection, set anew
cdef bint detach(Core* w, Conn* c) noexcept nogil                          # the device goes offline; True: mail waits
cdef void begin_close(Core* w, Conn* c, uint16_t code, uint64_t retry_after_ms) noexcept nogil
cdef void conn_end(Core* w, Conn* c) noexcept nogil
cdef void pending_free(Core* w, Conn* c) noexcept nogil
cdef bint admission(Core* w, const PeerName* peer) noexcept nogil          # may it shake hands now?
cdef uint64_t busy_slot_ms(Core* w) noexcept nogil                         # when a shed client shall come back
