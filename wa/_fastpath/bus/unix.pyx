# cython: language_level=3
# COLD: making and freeing; the rest hands events on to the two halves, send.pyx and receive.pyx.
"""The bus over Unix sockets as a table of functions; see bus/unix.pxd."""
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from wa._fastpath.bus.contract cimport Bus, TOKEN_BUS_IN, TOKEN_BUS_LISTENER, TOKEN_BUS_OUT
from wa._fastpath.bus.receive cimport incoming_accept, incoming_drop, incoming_readable, incoming_trim
from wa._fastpath.bus.send cimport (
    outgoing_drop, outgoing_lost, outgoing_trim, outgoing_writable, unix_connected, unix_due, unix_failed, unix_flush,
    unix_send,
)
from wa._fastpath.os.poller cimport Poller, READABLE

assert sizeof(BusHead) == 8 and sizeof(BusHello) == 16     # no padding


cdef Bus* unix_bus_new(Poller* poller, uint32_t worker, uint32_t workers, uint32_t layout,
                       uint64_t bytes_max) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>calloc(1, sizeof(UnixBus))
    cdef uint32_t i
    if u == NULL:
        return NULL
    u.poller, u.worker, u.workers, u.layout, u.bytes_max = poller, worker, workers, layout, bytes_max
    u.listener = -1
    u.come_n = workers * 2
    u.to = <Outgoing*>calloc(workers, sizeof(Outgoing))
    u.come = <Incoming*>calloc(u.come_n, sizeof(Incoming))
    u.bus.state = u
    u.bus.send, u.bus.flush, u.bus.event = unix_send, unix_flush, unix_event
    u.bus.due, u.bus.connected, u.bus.failed = unix_due, unix_connected, unix_failed
    u.bus.listen, u.bus.deaf = unix_listen, unix_deaf
    u.bus.trim, u.bus.destroy = unix_trim, unix_destroy
    if u.to == NULL or u.come == NULL:
        free(u.to)
        free(u.come)
        free(u)
        return NULL
    for i in range(workers):
        u.to[i].fd = -1
    for i in range(u.come_n):
        u.come[i].fd = -1
        u.come[i].worker = -1
    return &u.bus


cdef void unix_bytes_max(Bus* b, uint64_t bytes_max) noexcept nogil:
    (<UnixBus*>b.state).bytes_max = bytes_max


cdef void unix_destroy(Bus* b) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    cdef uint32_t i
    unix_deaf(b)
    for i in range(u.workers):
        outgoing_drop(u, &u.to[i])
        free(u.to[i].out)
        free(u.to[i].fds)
        free(u.to[i].fd_at)
    for i in range(u.come_n):
        if u.come[i].fd >= 0:
            incoming_drop(u, &u.come[i])
    free(u.to)
    free(u.come)
    free(u)


cdef int unix_listen(Bus* b, int32_t fd) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    u.listener = fd
    return u.poller.watch(u.poller, fd, READABLE, <uint64_t>TOKEN_BUS_LISTENER << 56)


cdef void unix_deaf(Bus* b) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    if u.listener >= 0:
        u.poller.unwatch(u.poller, u.listener)
        u.poller.close(u.poller, u.listener)
        u.listener = -1


cdef void unix_event(Bus* b, uint64_t token, uint32_t mask, uint64_t now_ms) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    cdef uint32_t what = <uint32_t>(token >> 56)
    if what == TOKEN_BUS_IN:
        incoming_readable(u, <uint32_t>token)
    elif what == TOKEN_BUS_LISTENER:
        incoming_accept(u)
    elif what == TOKEN_BUS_OUT and mask & READABLE:
        outgoing_lost(u, <uint32_t>token, now_ms)      # simplex: readable means it hung up
    elif what == TOKEN_BUS_OUT:
        outgoing_writable(u, <uint32_t>token, now_ms)


cdef uint64_t unix_trim(Bus* b) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    return outgoing_trim(u) + incoming_trim(u)
