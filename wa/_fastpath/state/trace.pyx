# cython: language_level=3
# HOT: when on; when off the callers' test of one pointer is all there is.
"""Writing side of the trace ring; see state/trace.pxd.  The reading side is wa/runtime/trace.py."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from wa._fastpath.state.core cimport Core

HEADER_BYTES = sizeof(TraceRing)
RECORD_BYTES = sizeof(TraceRecord)

STAGES = {
    TRACE_RECEIVED: "received",
    TRACE_TO_OWNER: "to the recipient's worker",
    TRACE_FROM_BUS: "from another worker",
    TRACE_SENT: "sent to the device",
    TRACE_LINGER_OVER: "not acknowledged in time, going to disk",
    TRACE_TO_DISK: "device offline or behind, going to disk",
    TRACE_STORED: "custody: on disk, fsync done",
    TRACE_DUPLICATE: "duplicate of one already here",
    TRACE_SENT_QUEUED: "sent to the device from its mailbox",
    TRACE_RESENT: "sent again, no acknowledgement yet",
    TRACE_ACKNOWLEDGED: "acknowledged by the device",
    TRACE_TOLD: "sender told",
    TRACE_REFUSED: "refused",
    TRACE_ENDED: "out of the mailbox, undelivered",
    TRACE_RECEIPT_STORED: "receipt waits for its offline sender",
    TRACE_READ: "read by the recipient",
}

cdef extern from *:
    """
    /* The serial goes last: a reader that sees it sees the rest of the record. */
    #define wa_publish(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    void wa_publish(uint64_t* p, uint64_t v) noexcept nogil


cdef void trace_write(Core* w, uint16_t stage, uint64_t sender, uint64_t recipient, uint64_t id,
                      uint16_t code) noexcept nogil:
    cdef TraceRing* ring = <TraceRing*>w.trace
    cdef uint64_t serial = ring.written + 1
    cdef TraceRecord* r = <TraceRecord*>(<uint8_t*>w.trace + sizeof(TraceRing)) + (serial - 1) % ring.capacity
    wa_publish(&r.serial, 0)
    r.time_us = w.poller.now_ns(w.poller) // 1000
    r.sender = sender
    r.recipient = recipient
    r.id = id
    r.worker = w.worker
    r.stage = stage
    r.code = code
    wa_publish(&r.serial, serial)
    wa_publish(&ring.written, serial)


cdef int trace_attach(Core* w, void* memory, size_t n) except -1:
    """Starts an empty ring in `memory`, n bytes that outlive the worker's loop."""
    cdef TraceRing* ring = <TraceRing*>memory
    if n < sizeof(TraceRing) + sizeof(TraceRecord):
        raise ValueError(f"a trace ring of {n} bytes has no room for a record")
    memset(memory, 0, n)
    ring.magic = TRACE_MAGIC
    ring.version = TRACE_VERSION
    ring.record_bytes = sizeof(TraceRecord)
    ring.capacity = <uint32_t>((n - sizeof(TraceRing)) // sizeof(TraceRecord))
    ring.worker = w.worker
    ring.wall_minus_mono_us = w.poller.wall_ms(w.poller) * 1000 - w.poller.now_ns(w.poller) // 1000
    w.trace = memory
    return 0
