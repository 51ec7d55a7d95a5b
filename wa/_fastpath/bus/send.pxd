# cython: language_level=3
"""Contract of the bus, one of the two seams: how bytes reach the owner of a shard.

One simplex Unix stream per ordered pair of workers.  Messages are appended to the peer's buffer and leave
with one write at the end of the turn.  The carrier is best effort: what is in the buffer when a peer dies is lost, and
nothing may depend on it (an envelope on the bus is still its sender's; a lost receipt is asked for again).
Both ends are the same build on the same host, so heads are C structs in native layout; the hello checks that.
"""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.noise.noise cimport NoiseTransport
from wa._fastpath.os.poller cimport PeerName
from wa._fastpath.state.core cimport Core

cdef enum:
    BUS_HELLO = 1
    BUS_ENVELOPE = 2
    BUS_RECEIPT = 3
    BUS_HANDOVER = 4
    BUS_COLD = 5
    BUS_REPORT = 6                # BusReceipt that must not be lost; see custody/reports.pxd
    BUS_REPORT_KEPT = 7           # the same back: it is on the disk of the sender's worker
    BUS_MESSAGE_BYTES_MAX = 1048576
    BUS_FDS_MAX = 64              # per system call
    BUS_MAGIC = 0x77610001

ctypedef struct BusHead:          # before every message
    uint32_t n                    # bytes after this head
    uint8_t what
    uint8_t zero[3]

ctypedef struct BusHello:
    uint32_t magic
    uint32_t worker
    uint32_t workers
    uint32_t head_bytes           # sizeof(BusHandover): differs between builds that do not fit

ctypedef struct BusEnvelope:
    Envelope env                  # its times are set by the owner of the recipient
    uint32_t ttl_s                # 0 = the kind's
    uint32_t zero

ctypedef struct BusReceipt:
    uint64_t sender               # of the envelope: who is told
    uint64_t recipient
    uint64_t id
    uint16_t code
    uint8_t level                 # frame type, or 0: only the sender window moves
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

cdef int bus_init(Core* w) noexcept nogil
cdef void bus_destroy(Core* w) noexcept nogil
cdef void bus_connected(Core* w, uint32_t peer, int32_t fd) noexcept nogil
cdef void bus_lost(Core* w, uint32_t peer) noexcept nogil
cdef int bus_send(Core* w, uint32_t peer, uint8_t what, const void* head, uint32_t head_n,
                  const uint8_t* body, uint32_t body_n, int32_t fd) noexcept nogil
# 0, or -1 when the peer is not there or its buffer is full (then fd, if any, is still the caller's).
cdef void bus_flush(Core* w) noexcept nogil
cdef uint64_t bus_trim(Core* w) noexcept nogil            # gives empty buffers back; how many bytes that was
cdef void bus_writable(Core* w, uint32_t peer) noexcept nogil
