# cython: language_level=3
# HOT: every envelope and receipt that crosses workers; one recv per stream and turn.
"""Receiving half of the bus over Unix sockets; see bus/unix.pxd.

Comes in: bytes and descriptors of a stream, whose first message says which worker is at its other end.
Must hold: a message is handed on whole, with the descriptor that was sent with it; if that was lost, not at all.
Is called: the receiver's `message`; whoever it refuses is hung up on.
"""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.sodium cimport sodium_memzero
from wa._fastpath.bus.contract cimport BUS_MESSAGE_BYTES_MAX, TOKEN_BUS_IN
from wa._fastpath.bus.unix cimport BUS_FDS_MAX, BUS_HELLO, BUS_MAGIC, BusHead, BusHello, Incoming, UnixBus
from wa._fastpath.os.poller cimport LOST_FD, PeerName, READABLE

cdef enum:
    READ_MIN = 65536
    FDS_ROOM = 256                # of Incoming.fds


cdef void incoming_accept(UnixBus* u) noexcept nogil:
    cdef PeerName peer
    cdef int fd
    cdef uint32_t i
    while True:
        fd = u.poller.accept(u.poller, u.listener, &peer)
        if fd < 0:
            return
        i = 0
        while i < u.come_n and u.come[i].fd >= 0:
            i += 1
        if i == u.come_n or u.poller.watch(u.poller, fd, READABLE, <uint64_t>TOKEN_BUS_IN << 56 | i) < 0:
            u.poller.close(u.poller, fd)
            continue
        u.come[i].fd = fd
        u.come[i].worker = -1
        u.come[i].n = 0
        u.come[i].fds_n = 0


cdef void incoming_drop(UnixBus* u, Incoming* b) noexcept nogil:
    cdef uint32_t i
    u.poller.unwatch(u.poller, b.fd)
    u.poller.close(u.poller, b.fd)
    for i in range(b.fds_n):
        if b.fds[i] != LOST_FD:
            u.poller.close(u.poller, b.fds[i])
    free(b.buf)
    memset(b, 0, sizeof(Incoming))
    b.fd = -1
    b.worker = -1


cdef int room(Incoming* b) noexcept nogil:
    cdef uint8_t* buf
    cdef uint32_t capacity
    if b.capacity - b.n >= READ_MIN:
        return 0
    capacity = b.capacity * 2 if b.capacity else READ_MIN * 2
    buf = <uint8_t*>realloc(b.buf, capacity)
    if buf == NULL:
        return -1
    b.buf = buf
    b.capacity = capacity
    return 0


cdef void incoming_readable(UnixBus* u, uint32_t slot) noexcept nogil:
    cdef Incoming* b = &u.come[slot]
    cdef int64_t n
    cdef int fds_n = 0
    cdef uint32_t at = 0
    cdef BusHead head
    wa_assert(slot < u.come_n, b"the token of a stream names its slot")
    if b.fd < 0:
        return
    if room(b) != 0 or b.fds_n + BUS_FDS_MAX > FDS_ROOM:
        incoming_drop(u, b)       # memory, or an end that breaks the rule of bus/send.pyx
        return
    n = u.poller.recv_fds(u.poller, b.fd, b.buf + b.n, b.capacity - b.n, <int*>b.fds + b.fds_n, BUS_FDS_MAX, &fds_n)
    b.fds_n += fds_n
    if n <= 0:
        if n != -EAGAIN and n != -EINTR:
            incoming_drop(u, b)
        return
    b.n += <uint32_t>n
    while b.n - at >= sizeof(BusHead):
        memcpy(&head, b.buf + at, sizeof(BusHead))
        if head.n > BUS_MESSAGE_BYTES_MAX:
            incoming_drop(u, b)
            return
        if b.n - at < sizeof(BusHead) + head.n:
            break
        if hand_on(u, b, &head, b.buf + at + sizeof(BusHead)) != 0:
            incoming_drop(u, b)
            return
        if head.has_fd:
            sodium_memzero(b.buf + at, sizeof(BusHead) + head.n)
        at += sizeof(BusHead) + head.n
        u.bus.stats.messages_in += 1
    if at:
        memmove(b.buf, b.buf + at, b.n - at)
        b.n -= at


cdef int on_hello(UnixBus* u, Incoming* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusHello h
    if n != sizeof(BusHello):
        return -1
    memcpy(&h, p, sizeof(BusHello))
    if h.magic != BUS_MAGIC or h.workers != u.workers or h.layout != u.layout or h.worker >= u.workers:
        return -1
    b.worker = <int32_t>h.worker
    # It lives: do not wait out the retry interval to reach it, either.
    u.to[h.worker].retry_ms = 0
    return 0


cdef int expect_fds(Incoming* b, uint32_t n) noexcept nogil:
    """So many descriptors came with this message, in front of all that wait: puts a LOST_FD for each that did not.

    -1: fewer arrived, and the kernel did not say so.
    """
    cdef uint32_t there = 0
    cdef uint32_t i
    if n > BUS_FDS_MAX:
        return -1
    while there < n and there < b.fds_n and b.fds[there] != LOST_FD:
        there += 1
    if there == n:
        return 0
    if there == b.fds_n or b.fds_n - 1 + n - there > FDS_ROOM:
        return -1
    # One LOST_FD stands for all of them.
    memmove(b.fds + n, b.fds + there + 1, (b.fds_n - there - 1) * sizeof(int32_t))
    b.fds_n += n - there - 1
    for i in range(there, n):
        b.fds[i] = LOST_FD
    wa_assert(b.fds_n <= FDS_ROOM, b"descriptors that wait fit their room")
    return 0


cdef int hand_on(UnixBus* u, Incoming* b, const BusHead* head, const uint8_t* p) noexcept nogil:
    """-1 when the other end is not what it should be: a worker of this very build."""
    cdef int32_t fd = -1
    if b.worker < 0:
        return on_hello(u, b, p, head.n) if head.what == BUS_HELLO else -1
    if head.fds_n and expect_fds(b, head.fds_n) != 0:
        return -1
    if head.has_fd:
        if b.fds_n == 0:
            return -1
        fd = b.fds[0]
        b.fds_n -= 1
        memmove(b.fds, b.fds + 1, b.fds_n * sizeof(int32_t))
        if fd == LOST_FD:
            u.bus.stats.fds_lost += 1
            return 0
    if u.bus.receiver.message(u.bus.receiver.context, <uint32_t>b.worker, head.what, p, head.n, fd) == 0:
        return 0
    if fd >= 0:
        u.poller.close(u.poller, fd)
    return -1


cdef uint64_t incoming_trim(UnixBus* u) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t freed = 0
    for i in range(u.come_n):
        if u.come[i].n == 0:
            freed += u.come[i].capacity
            free(u.come[i].buf)
            u.come[i].buf = NULL
            u.come[i].capacity = 0
    return freed
