# cython: language_level=3
# HOT: every envelope and receipt that crosses workers.
"""What the bus brings; see loop/arrivals.pxd and bus/messages.pxd."""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy
from wa._fastpath.bus.contract cimport BusReceiver
from wa._fastpath.bus.messages cimport (
    BUS_COLD, BUS_ENVELOPE, BUS_HANDOVER, BUS_RECEIPT, BUS_REPORT, BUS_REPORT_KEPT, BusEnvelope, BusReceipt,
)
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.conn.lists cimport queue_resume
from wa._fastpath.custody.intake cimport take_envelope
from wa._fastpath.custody.receipts cimport tell_here
from wa._fastpath.custody.reports cimport reports_confirmed, reports_take
from wa._fastpath.session.handshake cimport handshake_adopted
from wa._fastpath.state.cold cimport cold_push
from wa._fastpath.state.core cimport COLD_PEER, ColdEvent, Conn, CONN_FREE, Core
from wa._fastpath.state.trace cimport trace, TRACE_FROM_BUS


cdef BusReceiver arrivals(Core* w) noexcept nogil:
    cdef BusReceiver r
    r.context = w
    r.message = on_message
    r.lost = on_lost
    return r


cdef int on_message(void* context, uint32_t worker, uint8_t what, const uint8_t* p, uint32_t n,
                    int32_t fd) noexcept nogil:
    cdef Core* w = <Core*>context
    if what == BUS_HANDOVER:
        return on_handover(w, p, n, fd)
    if fd >= 0:
        return -1                         # nothing else comes with a descriptor
    if what == BUS_ENVELOPE:
        return on_envelope(w, worker, p, n)
    if what == BUS_RECEIPT:
        return on_receipt(w, p, n)
    if what == BUS_REPORT or what == BUS_REPORT_KEPT:
        return on_report(w, what, p, n)
    return on_cold(w, worker, p, n) if what == BUS_COLD else -1


cdef int on_envelope(Core* w, uint32_t worker, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef BusEnvelope v
    if n < sizeof(BusEnvelope):
        return -1
    memcpy(&v, p, sizeof(BusEnvelope))
    if v.env.body_n != n - sizeof(BusEnvelope):
        return -1
    trace(w, TRACE_FROM_BUS, v.env.sender, v.env.recipient, v.env.id, <uint16_t>worker)
    take_envelope(w, &v, p + sizeof(BusEnvelope), v.env.body_n)
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


cdef int on_handover(Core* w, const uint8_t* p, uint32_t n, int32_t fd) noexcept nogil:
    if fd < 0:
        return -1
    handshake_adopted(w, p, n, fd)
    return 0


cdef int on_cold(Core* w, uint32_t worker, const uint8_t* p, uint32_t n) noexcept nogil:
    cdef ColdEvent* e = cold_push(w, COLD_PEER, NULL, p, n)
    if e == NULL:
        return 0                          # like a lost request: the caller's time-out answers it
    e.worker = worker
    return 0


cdef void on_lost(void* context, uint32_t worker) noexcept nogil:
    """What we had sent it will not be answered, so no sender may wait for answers in its window."""
    cdef Core* w = <Core*>context
    cdef uint32_t i
    cdef Conn* c
    for i in range(w.conns.chunks_n * 1024):
        c = conn_at(&w.conns, i)
        if c.state != CONN_FREE and c.outstanding:
            c.outstanding = 0
            queue_resume(w, c)
