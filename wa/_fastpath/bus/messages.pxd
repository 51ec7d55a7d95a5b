# cython: language_level=3
"""Messages between workers.  Both ends are the same build on the same machine, so the fixed part of a message is a C
struct in native layout; `bus_layout` tells builds apart that do not fit, when they connect.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.envelope cimport Envelope

cdef enum:
    BUS_ENVELOPE = 2              # BusEnvelope, body
    BUS_RECEIPT = 3               # BusReceipt
    BUS_HANDOVER = 4              # a connection in the bytes of session/form.pxd; its descriptor travels beside
    BUS_COLD = 5                  # bytes of the cold path
    BUS_REPORT = 6                # BusReceipt that must not be lost; see custody/reports.pxd
    BUS_REPORT_KEPT = 7           # the same back: it is on the disk of the sender's worker

ctypedef struct BusEnvelope:      # 48 bytes
    Envelope env                  # its times are set by the owner of the recipient
    uint32_t ttl_s                # 0 = the kind's
    uint32_t zero

ctypedef struct BusReceipt:       # 32 bytes
    uint64_t sender               # of the envelope: who is told
    uint64_t recipient
    uint64_t id
    uint16_t code
    uint8_t level                 # frame type, or 0: only the sender's window moves
    uint8_t answers               # 1 when this is the first answer to the envelope
    uint32_t expires_s            # reports


cdef inline uint32_t bus_layout() noexcept nogil:
    return <uint32_t>(sizeof(BusEnvelope) | sizeof(BusReceipt) << 8)
