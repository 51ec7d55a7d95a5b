# cython: language_level=3
# HOT: every envelope between workers is one append here; the system call is paid once per worker and turn.
"""Sending half of the bus over Unix sockets; see bus/unix.pxd.

Comes in: messages for one worker, some with a descriptor.
Must hold: descriptors leave in the order of their messages, with the first byte of them and never before, so that the
receiver never holds more than two calls' worth.
Is called: the poller; the receiver's `lost` when a stream ends.
"""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.sodium cimport sodium_memzero
from wa._fastpath.bus.contract cimport Bus, BUS_MESSAGE_BYTES_MAX, TOKEN_BUS_OUT
from wa._fastpath.bus.unix cimport BUS_FDS_MAX, BUS_HELLO, BUS_MAGIC, BusHead, BusHello, Outgoing, UnixBus
from wa._fastpath.os.poller cimport READABLE, WRITABLE

cdef enum:
    RETRY_MS = 20
    FDS_QUEUED_MAX = 4096


cdef void out_clear(Outgoing* p) noexcept nogil:
    if p.secret:
        sodium_memzero(p.out, p.out_n)
    p.secret = 0
    p.out_n = 0
    p.out_at = 0


cdef void outgoing_drop(UnixBus* u, Outgoing* p) noexcept nogil:
    cdef uint32_t i
    if p.fd >= 0:
        u.poller.unwatch(u.poller, p.fd)
        u.poller.close(u.poller, p.fd)
    for i in range(p.fds_n):
        u.poller.close(u.poller, p.fds[i])    # connections that were on their way: their clients come back
    p.fd = -1
    p.connected = 0
    p.want_write = 0
    out_clear(p)
    p.fds_n = 0


cdef int unix_due(Bus* b, uint32_t worker, uint64_t now_ms) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    if worker == u.worker or u.to[worker].connected:
        return -1
    return now_ms >= u.to[worker].retry_ms


cdef void unix_failed(Bus* b, uint32_t worker, uint64_t retry_ms) noexcept nogil:
    (<UnixBus*>b.state).to[worker].retry_ms = retry_ms


cdef void unix_connected(Bus* b, uint32_t worker, int32_t fd) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    cdef Outgoing* p = &u.to[worker]
    cdef BusHello hello
    wa_assert(worker < u.workers and worker != u.worker, b"a stream leads to another worker")
    outgoing_drop(u, p)
    p.fd = fd
    p.connected = 1
    u.poller.watch(u.poller, fd, READABLE, <uint64_t>TOKEN_BUS_OUT << 56 | worker)   # readable = it hung up
    memset(&hello, 0, sizeof(BusHello))
    hello.magic = BUS_MAGIC
    hello.worker = u.worker
    hello.workers = u.workers
    hello.layout = u.layout
    unix_send(b, worker, BUS_HELLO, &hello, sizeof(BusHello), NULL, 0, -1)


cdef void outgoing_lost(UnixBus* u, uint32_t worker, uint64_t now_ms) noexcept nogil:
    outgoing_drop(u, &u.to[worker])
    u.to[worker].retry_ms = now_ms + RETRY_MS
    u.bus.stats.lost += 1
    u.bus.receiver.lost(u.bus.receiver.context, worker)


cdef int out_room(Outgoing* p, uint32_t need) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t capacity
    cdef uint8_t* out
    if p.out_at and p.out_n + need > p.out_capacity:
        memmove(p.out, p.out + p.out_at, p.out_n - p.out_at)
        for i in range(p.fds_n):
            p.fd_at[i] -= p.out_at
        p.out_n -= p.out_at
        p.out_at = 0
    if p.out_n + need > p.out_capacity:
        capacity = (p.out_n + need) * 2
        if capacity < 65536:
            capacity = 65536
        out = <uint8_t*>realloc(p.out, capacity)
        if out == NULL:
            return -1
        p.out = out
        p.out_capacity = capacity
    return 0


cdef int queue_fd(Outgoing* p, int32_t fd) noexcept nogil:
    cdef int32_t* fds
    cdef uint32_t* at
    if p.fds_n == p.fds_capacity:
        if p.fds_n >= FDS_QUEUED_MAX:
            return -1
        fds = <int32_t*>realloc(p.fds, (p.fds_capacity + 64) * sizeof(int32_t))
        if fds == NULL:
            return -1
        p.fds = fds
        at = <uint32_t*>realloc(p.fd_at, (p.fds_capacity + 64) * sizeof(uint32_t))
        if at == NULL:
            return -1
        p.fd_at = at
        p.fds_capacity += 64
    p.fds[p.fds_n] = fd
    p.fd_at[p.fds_n] = p.out_n
    p.fds_n += 1
    return 0


cdef int unix_send(Bus* b, uint32_t worker, uint8_t what, const void* head, uint32_t head_n,
                   const uint8_t* body, uint32_t body_n, int32_t fd) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    cdef Outgoing* p = &u.to[worker]
    cdef BusHead h
    wa_assert(worker < u.workers and worker != u.worker, b"a message goes to another worker")
    wa_assert(head_n + body_n <= BUS_MESSAGE_BYTES_MAX, b"a message has its bound")
    if not p.connected or p.out_n - p.out_at + head_n + body_n > u.bytes_max:
        return -1
    if out_room(p, sizeof(BusHead) + head_n + body_n) != 0:
        return -1
    if fd >= 0 and queue_fd(p, fd) != 0:
        return -1
    p.secret |= fd >= 0
    memset(&h, 0, sizeof(BusHead))
    h.n = head_n + body_n
    h.what = what
    h.has_fd = fd >= 0
    memcpy(p.out + p.out_n, &h, sizeof(BusHead))
    if head_n:
        memcpy(p.out + p.out_n + sizeof(BusHead), head, head_n)
    if body_n:
        memcpy(p.out + p.out_n + sizeof(BusHead) + head_n, body, body_n)
    p.out_n += sizeof(BusHead) + head_n + body_n
    b.stats.messages_out += 1
    return 0


cdef void announce_fds(Outgoing* p, uint32_t fds_n) noexcept nogil:
    """In the head that is about to leave."""
    cdef BusHead h
    wa_assert(p.fd_at[0] == p.out_at, b"descriptors leave with the first byte of a message")
    wa_assert(0 < fds_n <= BUS_FDS_MAX, b"a call takes so many descriptors")
    memcpy(&h, p.out + p.out_at, sizeof(BusHead))
    h.fds_n = <uint8_t>fds_n
    memcpy(p.out + p.out_at, &h, sizeof(BusHead))


cdef int send_some(UnixBus* u, Outgoing* p) noexcept nogil:
    """One system call.  1 = more to do, 0 = done, -EAGAIN, or another -errno when the peer is gone."""
    cdef uint32_t n = p.out_n - p.out_at
    cdef uint32_t fds_n = 0
    cdef uint32_t i
    cdef int64_t sent
    # Descriptors go with the first byte of a call and are claimed in order by the hand-over messages.  They leave only
    # with the first byte of their messages: after a partial write the next ones wait for theirs, so that the receiver
    # never holds more than two calls' worth.
    if p.fds_n and p.fd_at[0] > p.out_at:
        n = p.fd_at[0] - p.out_at
        sent = u.poller.send(u.poller, p.fd, p.out + p.out_at, n)
    elif p.fds_n:
        fds_n = p.fds_n if p.fds_n < BUS_FDS_MAX else BUS_FDS_MAX
        if p.fds_n > BUS_FDS_MAX:
            n = p.fd_at[BUS_FDS_MAX] - p.out_at
        announce_fds(p, fds_n)
        sent = u.poller.send_fds(u.poller, p.fd, p.out + p.out_at, n, <const int*>p.fds, <int>fds_n)
    else:
        sent = u.poller.send(u.poller, p.fd, p.out + p.out_at, n)
    if sent < 0:
        return <int>sent
    for i in range(fds_n):
        u.poller.close(u.poller, p.fds[i])     # ours; the receiver has its own now
    if fds_n:
        p.fds_n -= fds_n
        memmove(p.fds, p.fds + fds_n, p.fds_n * sizeof(int32_t))
        memmove(p.fd_at, p.fd_at + fds_n, p.fds_n * sizeof(uint32_t))
    p.out_at += <uint32_t>sent
    if p.out_at == p.out_n:
        out_clear(p)
        return 0
    return 1


cdef void outgoing_flush(UnixBus* u, uint32_t worker, uint64_t now_ms) noexcept nogil:
    cdef Outgoing* p = &u.to[worker]
    cdef int more = 1
    cdef bint want = False
    while more == 1 and p.out_n:
        more = send_some(u, p)
        if more == -EINTR:
            more = 1
    if more == -EAGAIN:
        want = True
    elif more < 0:
        outgoing_lost(u, worker, now_ms)
        return
    if want != p.want_write:
        p.want_write = want
        u.poller.change(u.poller, p.fd, READABLE | WRITABLE if want else READABLE,
                        <uint64_t>TOKEN_BUS_OUT << 56 | worker)


cdef void unix_flush(Bus* b, uint64_t now_ms) noexcept nogil:
    cdef UnixBus* u = <UnixBus*>b.state
    cdef uint32_t i
    for i in range(u.workers):
        if u.to[i].connected and u.to[i].out_n and not u.to[i].want_write:
            outgoing_flush(u, i, now_ms)


cdef void outgoing_writable(UnixBus* u, uint32_t worker, uint64_t now_ms) noexcept nogil:
    if u.to[worker].connected:
        outgoing_flush(u, worker, now_ms)


cdef uint64_t outgoing_trim(UnixBus* u) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t freed = 0
    for i in range(u.workers):
        if u.to[i].out_n == 0:
            freed += u.to[i].out_capacity
            free(u.to[i].out)
            u.to[i].out = NULL
            u.to[i].out_capacity = 0
    return freed
