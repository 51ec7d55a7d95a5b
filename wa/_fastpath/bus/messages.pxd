# cython: language_level=3
"""Messages between workers.  Both ends are the same build on the same machine, so the fixed part of a message is a C
struct in native layout; `BUS_LAYOUT` tells builds apart that do not fit, when they connect.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.noise.noise cimport NoiseTransport
from wa._fastpath.os.poller cimport PeerName

cdef enum:
    BUS_ENVELOPE = 2              # BusEnvelope, body
    BUS_RECEIPT = 3               # BusReceipt
    BUS_HANDOVER = 4              # a connection; its descriptor travels beside
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

ctypedef struct BusHandover:      # a connection; its descriptor travels beside
    NoiseTransport noise
    uint64_t address
    uint64_t started_age_ms
    uint8_t static_key[32]
    PeerName peer
    uint8_t suite
    uint8_t intent
    uint8_t has_ticket            # nothing has been answered yet: what follows starts with the ticket record
    uint8_t hello[8]              # of that handshake
    uint8_t zero[3]


cdef inline uint32_t bus_layout() noexcept nogil:
    return <uint32_t>(sizeof(BusEnvelope) | sizeof(BusReceipt) << 8 | sizeof(BusHandover) << 16)
