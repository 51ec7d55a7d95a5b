# cython: language_level=3
# HOT: every envelope and receipt that crosses workers; one recv per peer and turn.
"""Receiving side of the bus; see bus/receive.pxd and bus/send.pxd."""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove, memset
from wa._fastpath.bus.send cimport (
    BUS_COLD, BUS_ENVELOPE, BUS_HANDOVER, BUS_HELLO, BUS_MAGIC, BUS_MESSAGE_BYTES_MAX, BUS_RECEIPT, BUS_REPORT,
    BUS_REPORT_KEPT, BusEnvelope, BusHandover, BusHead, BusHello, BusReceipt,
)
from wa._fastpath.custody.intake cimport take_envelope
from wa._fastpath.custody.receipts cimport tell_here
from wa._fastpath.custody.reports cimport reports_confirmed, reports_take
from wa._fastpath.os.poller cimport PeerName, READABLE
from wa._fastpath.session.handshake cimport handshake_adopted
from wa._fastpath.state.cold cimport cold_push
from wa._fastpath.state.core cimport BusIn, COLD_PEER, ColdEvent, Core
from wa._fastpath.state.trace cimport trace, TRACE_FROM_BUS

cdef enum:
    TOKEN_BUS_IN = 4              # high byte of the event token; see loop/loop.pyx
    READ_MIN = 65536
    FDS_ROOM = 64                 # what one recv_fds may bring


cdef void inbox_accept(Core* w) noexcept nogil:
    cdef PeerName peer
    cdef int fd
    cdef uint32_t i
    while True:
        fd = w.poller.accept(w.poller, w.bus_listener, &peer)
        if fd < 0:
            return
        i = 0
        while i < w.bus_in_n and w.bus_in[i].fd >= 0:
            i += 1
        if i == w.bus_in_n or w.poller.watch(w.poller, fd, READABLE, <uint64_t>TOKEN_BUS_IN << 56 | i) < 0:
            w.poller.close(w.poller, fd)
            continue
        w.bus_in[i].fd = fd
        w.bus_in[i].worker = -1
        w.bus_in[i].n = 0
        w.bus_in[i].fds_n = 0


cdef void hang_up(Core* w, BusIn* b) noexcept nogil:
    cdef uint32_t i
    w.poller.unwatch(w.poller, b.fd)
    w.poller.close(w.poller, b.fd)
    for i in range(b.fds_n):
        w.poller.close(w.poller, b.fds[i])
    free(b.buf)
    memset(b, 0, sizeof(BusIn))
    b.fd = -1
    b.worker = -1


cdef int room(BusIn* b) noexcept nogil:
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


cdef void inbox_readable(Core* w, uint32_t slot) noexcept nogil:
    cdef BusIn* b = &w.bus_in[slot]
    cdef int64_t n
    cdef int fds_n = 0
    cdef uint32_t at = 0
    cdef BusHead head
    if b.fd < 0:
        return
    if room(b) != 0 or b.fds_n + FDS_ROOM > 256:
        hang_up(w, b)             # memory, or a peer that breaks the contract of bus/send.pyx
        return
    n = w.poller.recv_fds(w.poller, b.fd, b.buf + b.n, b.capacity - b.n, <int*>b.fds + b.fds_n, FDS_ROOM, &fds_n)
    b.fds_n += fds_n
    if n <= 0:
        if n != -EAGAIN and n != -EINTR:
            hang_up(w, b)
        return
    b.n += <uint32_t>n
    while b.n - at >= sizeof(BusHead):
        memcpy(&head, b.buf + at, sizeof(BusHead))
        if head.n > BUS_MESSAGE_BYTES_MAX:
            hang_up(w, b)
            return
        if b.n - at < sizeof(BusHead) + head.n:
            break
        if on_message(w, b, head.what, b.buf + at + sizeof(BusHead), head.n) != 0:
            hang_up(w, b)
            return
        at += sizeof(BusHead) + head.n
        w.stats.bus_messages_in += 1
    if at:
        memmove(b.buf, b.buf + at, b.n - at)
        b.n -= at


cdef uint64_t inbox_trim(Core* w) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t freed = 0
    for i in range(w.bus_in_n):
        if w.bus_in[i].n == 0:
            freed += w.bus_in[i].capacity
            free(w.bus_in[i].buf)
            w.bus_in[i].buf = NULL
            w.bus_in[i].capacity = 0
    return freed


cdef int on_message(Core* w, BusIn* b, uint8_t what, const uint8_t* p, uint32_t n) noexcept nogil:
    """-1 when the other end is not what it should be: a worker of this very build."""
    if b.worker < 0:
        return on_hello(w, b, p, n) if what == BUS_HELLO else -1
    if what == BUS_ENVELOPE:
        return on_envelope(w, b, p, n)
    if what == BUS_RECEIPT:
        return on_receipt(w, p, n)
    if what == BUS_REPORT or what == BUS_REPORT_KEPT:
        return on_report(w, what, p, n)
    if what == BUS_HANDOVER:
        return on_handover(w, b, p, n)
    if what == BUS_COLD:
        return on_cold(w, b, p, n)
    return -1


cdef int on_hello(Core* w, BusIn* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusHello h
    if n != sizeof(BusHello):
        return -1
    memcpy(&h, p, sizeof(BusHello))
    if h.magic != BUS_MAGIC or h.workers != w.workers or h.head_bytes != sizeof(BusHandover) or h.worker >= w.workers:
        return -1
    b.worker = <int32_t>h.worker
    # It lives: do not wait out the retry interval to reach it, either.
    w.peers[h.worker].retry_ms = 0
    return 0


cdef int on_envelope(Core* w, const BusIn* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusEnvelope v
    if n < sizeof(BusEnvelope):
        return -1
    memcpy(&v, p, sizeof(BusEnvelope))
    if v.env.body_n != n - sizeof(BusEnvelope):
        return -1
    trace(w, TRACE_FROM_BUS, v.env.sender, v.env.recipient, v.env.id, <uint16_t>b.worker)
    take_envelope(w, &v, p + sizeof(BusEnvelope), n - <uint32_t>sizeof(BusEnvelope))
    return 0


cdef int on_receipt(Core* w, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusReceipt r
    if n != sizeof(BusReceipt):
        return -1
    memcpy(&r, p, sizeof(BusReceipt))
    tell_here(w, &r)
    return 0


cdef int on_report(Core* w, uint8_t what, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusReceipt r
    if n != sizeof(BusReceipt):
        return -1
    memcpy(&r, p, sizeof(BusReceipt))
    if what == BUS_REPORT:
        reports_take(w, &r)
    else:
        reports_confirmed(w, &r)
    return 0


cdef int on_handover(Core* w, BusIn* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusHandover h
    cdef int32_t fd
    if n < sizeof(BusHandover) or b.fds_n == 0:
        return -1
    memcpy(&h, p, sizeof(BusHandover))
    fd = b.fds[0]
    b.fds_n -= 1
    memmove(b.fds, b.fds + 1, b.fds_n * sizeof(int32_t))
    handshake_adopted(w, &h, p + sizeof(BusHandover), n - <uint32_t>sizeof(BusHandover), fd)
    memset(&h, 0, sizeof(BusHandover))
    return 0


cdef int on_cold(Core* w, BusIn* b, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef ColdEvent* e = cold_push(w, COLD_PEER, NULL, p, n)
    if e == NULL:
        return 0                  # like a lost request: the caller's time-out answers it
    e.request_id = <uint64_t>b.worker
    return 0
