# cython: language_level=3
"""Where is my message?  A ring of the stages that envelopes went through, in memory shared with `wa trace`.

Off unless the worker is given a ring; then each stage costs one clock reading and one 56-byte store.  A record holds
addresses, id, stage and code, never content.  One writer; a reader copies and drops the record that is being written.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.state.core cimport Core

cdef enum:
    TRACE_MAGIC = 0x77617472      # "watr"
    TRACE_VERSION = 1

cdef enum Stage:
    TRACE_RECEIVED = 1            # from the sender's connection
    TRACE_TO_OWNER = 2            # put on the bus to the recipient's worker
    TRACE_FROM_BUS = 3
    TRACE_SENT = 4                # to the recipient's device, from memory
    TRACE_LINGER_OVER = 5         # not acknowledged in time: on its way to disk
    TRACE_TO_DISK = 6             # the device is offline or behind: on its way to disk
    TRACE_STORED = 7              # the fsync returned: custody
    TRACE_DUPLICATE = 8           # it was here already
    TRACE_SENT_QUEUED = 9         # to the recipient's device, from the mailbox
    TRACE_RESENT = 10
    TRACE_ACKNOWLEDGED = 11       # by the recipient's device
    TRACE_TOLD = 12               # the sender was told; code = level
    TRACE_REFUSED = 13            # code = error code
    TRACE_ENDED = 14              # undelivered; code = why: expired, dropped, address_unknown
    TRACE_RECEIPT_STORED = 15     # the sender is offline: its receipt waits; code = level
    TRACE_READ = 16               # the recipient says so

ctypedef struct TraceRecord:      # 56 bytes, native byte order
    uint64_t serial               # from 1; 0 while it is being written
    uint64_t time_us              # monotonic, which all workers of a host share
    uint64_t sender
    uint64_t recipient
    uint64_t id
    uint32_t worker
    uint16_t stage
    uint16_t code
    uint64_t zero

ctypedef struct TraceRing:
    uint32_t magic
    uint16_t version
    uint16_t record_bytes
    uint32_t capacity             # records
    uint32_t worker
    uint64_t written              # serial of the newest record
    uint64_t wall_minus_mono_us   # at the start of the ring

cdef void trace_write(Core* w, uint16_t stage, uint64_t sender, uint64_t recipient, uint64_t id,
                      uint16_t code) noexcept nogil
cdef int trace_attach(Core* w, void* memory, size_t n) except -1

cdef inline void trace(Core* w, uint16_t stage, uint64_t sender, uint64_t recipient, uint64_t id,
                       uint16_t code) noexcept nogil:
    if w.trace != NULL:
        trace_write(w, stage, sender, recipient, id, code)
