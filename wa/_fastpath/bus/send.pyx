# cython: language_level=3
# HOT: every envelope between workers is one append here; the system call is paid once per peer and turn.
"""Sending side of the bus; see bus/send.pxd.  The receiving side is bus/receive.pyx."""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove, memset
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.os.poller cimport READABLE, WRITABLE
from wa._fastpath.state.core cimport BusIn, Conn, CONN_FREE, Core, FLAG_RESUME, Peer

cdef enum:
    RETRY_MS = 20
    TOKEN_BUS_OUT = 3             # high byte of the event token; see loop/loop.pyx
    FDS_QUEUED_MAX = 4096


cdef int bus_init(Core* w) noexcept nogil:
    cdef uint32_t i
    w.peers = <Peer*>calloc(w.workers, sizeof(Peer))
    w.bus_in_n = w.workers * 2            # a restarted worker may connect before its old stream is seen closed
    w.bus_in = <BusIn*>calloc(w.bus_in_n, sizeof(BusIn))
    if w.peers == NULL or w.bus_in == NULL:
        return -1
    for i in range(w.workers):
        w.peers[i].fd = -1
    for i in range(w.bus_in_n):
        w.bus_in[i].fd = -1
        w.bus_in[i].worker = -1
    return 0


cdef void bus_destroy(Core* w) noexcept nogil:
    cdef uint32_t i, k
    if w.peers != NULL:
        for i in range(w.workers):
            drop(w, &w.peers[i])
            free(w.peers[i].out)
            free(w.peers[i].fds)
            free(w.peers[i].fd_at)
    if w.bus_in != NULL:
        for i in range(w.bus_in_n):
            if w.bus_in[i].fd >= 0:
                w.poller.unwatch(w.poller, w.bus_in[i].fd)
                w.poller.close(w.poller, w.bus_in[i].fd)
            for k in range(w.bus_in[i].fds_n):
                w.poller.close(w.poller, w.bus_in[i].fds[k])
            free(w.bus_in[i].buf)
    free(w.peers)
    free(w.bus_in)
    w.peers = NULL
    w.bus_in = NULL


cdef void drop(Core* w, Peer* p) noexcept nogil:
    cdef uint32_t i
    if p.fd >= 0:
        w.poller.unwatch(w.poller, p.fd)
        w.poller.close(w.poller, p.fd)
    for i in range(p.fds_n):
        w.poller.close(w.poller, p.fds[i])    # connections that were on their way: their clients come back
    p.fd = -1
    p.connected = 0
    p.want_write = 0
    p.out_n = 0
    p.out_at = 0
    p.fds_n = 0


cdef void bus_connected(Core* w, uint32_t peer, int32_t fd) noexcept nogil:
    cdef Peer* p = &w.peers[peer]
    cdef BusHello hello
    drop(w, p)
    p.fd = fd
    p.connected = 1
    w.poller.watch(w.poller, fd, READABLE, <uint64_t>TOKEN_BUS_OUT << 56 | peer)   # readable = it hung up
    memset(&hello, 0, sizeof(BusHello))
    hello.magic = BUS_MAGIC
    hello.worker = w.worker
    hello.workers = w.workers
    hello.head_bytes = sizeof(BusHandover)
    bus_send(w, peer, BUS_HELLO, &hello, sizeof(BusHello), NULL, 0, -1)


cdef void bus_lost(Core* w, uint32_t peer) noexcept nogil:
    """The peer died.  What we had sent it will not be answered, so no sender may wait for answers in its window."""
    cdef uint32_t i
    cdef Conn* c
    drop(w, &w.peers[peer])
    w.peers[peer].retry_ms = w.now_ms + RETRY_MS
    w.stats.bus_lost += 1
    for i in range(w.conns.chunks_n * 1024):
        c = conn_at(&w.conns, i)
        if c.state != CONN_FREE and c.outstanding:
            c.outstanding = 0
            if not c.flags & FLAG_RESUME:
                c.flags |= FLAG_RESUME
                c.resume_next = w.resume_head
                w.resume_head = c.index


cdef int out_room(Peer* p, uint32_t need) noexcept nogil:
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


cdef int queue_fd(Peer* p, int32_t fd) noexcept nogil:
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


cdef int bus_send(Core* w, uint32_t peer, uint8_t what, const void* head, uint32_t head_n,
                  const uint8_t* body, uint32_t body_n, int32_t fd) noexcept nogil:
    cdef Peer* p = &w.peers[peer]
    cdef BusHead h
    if not p.connected or p.out_n - p.out_at + head_n + body_n > w.bounds.bus_bytes:
        return -1
    if out_room(p, sizeof(BusHead) + head_n + body_n) != 0:
        return -1
    if fd >= 0 and queue_fd(p, fd) != 0:
        return -1
    memset(&h, 0, sizeof(BusHead))
    h.n = head_n + body_n
    h.what = what
    memcpy(p.out + p.out_n, &h, sizeof(BusHead))
    memcpy(p.out + p.out_n + sizeof(BusHead), head, head_n)
    if body_n:
        memcpy(p.out + p.out_n + sizeof(BusHead) + head_n, body, body_n)
    p.out_n += sizeof(BusHead) + head_n + body_n
    w.stats.bus_messages_out += 1
    return 0


cdef int send_some(Core* w, Peer* p) noexcept nogil:
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
        sent = w.poller.send(w.poller, p.fd, p.out + p.out_at, n)
    elif p.fds_n:
        fds_n = p.fds_n if p.fds_n < BUS_FDS_MAX else BUS_FDS_MAX
        if p.fds_n > BUS_FDS_MAX:
            n = p.fd_at[BUS_FDS_MAX] - p.out_at
        sent = w.poller.send_fds(w.poller, p.fd, p.out + p.out_at, n, <const int*>p.fds, <int>fds_n)
    else:
        sent = w.poller.send(w.poller, p.fd, p.out + p.out_at, n)
    if sent < 0:
        return <int>sent
    for i in range(fds_n):
        w.poller.close(w.poller, p.fds[i])     # ours; the receiver has its own now
    if fds_n:
        p.fds_n -= fds_n
        memmove(p.fds, p.fds + fds_n, p.fds_n * sizeof(int32_t))
        memmove(p.fd_at, p.fd_at + fds_n, p.fds_n * sizeof(uint32_t))
    p.out_at += <uint32_t>sent
    if p.out_at == p.out_n:
        p.out_at = 0
        p.out_n = 0
        return 0
    return 1


cdef void peer_flush(Core* w, uint32_t peer) noexcept nogil:
    cdef Peer* p = &w.peers[peer]
    cdef int more = 1
    cdef bint want = False
    while more == 1 and p.out_n:
        more = send_some(w, p)
        if more == -EINTR:
            more = 1
    if more == -EAGAIN:
        want = True
    elif more < 0:
        bus_lost(w, peer)
        return
    if want != p.want_write:
        p.want_write = want
        w.poller.change(w.poller, p.fd, READABLE | WRITABLE if want else READABLE,
                        <uint64_t>TOKEN_BUS_OUT << 56 | peer)


cdef void bus_flush(Core* w) noexcept nogil:
    cdef uint32_t i
    for i in range(w.workers):
        if w.peers[i].connected and w.peers[i].out_n and not w.peers[i].want_write:
            peer_flush(w, i)


cdef uint64_t bus_trim(Core* w) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t freed = 0
    for i in range(w.workers):
        if w.peers[i].out_n == 0:
            freed += w.peers[i].out_capacity
            free(w.peers[i].out)
            w.peers[i].out = NULL
            w.peers[i].out_capacity = 0
    return freed


cdef void bus_writable(Core* w, uint32_t peer) noexcept nogil:
    if w.peers[peer].connected:
        peer_flush(w, peer)
