# cython: language_level=3
"""A network that exists only in memory: streams whose bytes take time, listeners, descriptors beside bytes.

Nothing moves by itself.  A byte that was sent arrives at the virtual time its segment was given; whoever holds the
other end is woken for that time through the heap of wakes, which is the agenda of the whole simulation.  Everything
random comes from one generator seeded by the caller, so a seed replays exactly.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.os.poller cimport PeerName

cdef enum EndKind:
    END_STREAM = 1
    END_LISTENER = 2

cdef enum Breach:                 # a rule of os/poller.pxd that its caller broke
    BREACH_CLOSED_FD = 1          # an operation on a descriptor that is not open
    BREACH_CLOSE_WATCHED = 2      # closed without unwatch()
    BREACH_WATCH_TWICE = 3
    BREACH_NOT_WATCHED = 4
    BREACHES_MAX = 16

ctypedef struct Segment:          # bytes up to `end` arrive together
    uint64_t at_ns
    uint64_t end                  # offset in the stream

ctypedef struct Carried:          # a descriptor beside the byte at `offset`
    uint64_t offset
    End* end

ctypedef struct Pipe:             # one direction of a stream
    uint8_t* data                 # stream bytes [base, written)
    uint32_t capacity
    uint32_t limit                # sent and not read yet: the socket buffers of both sides
    uint64_t base, read, written, arrived
    Segment* segments
    uint32_t segment_at, segments_n, segments_capacity
    Carried* carried
    uint32_t carried_at, carried_n, carried_capacity
    uint64_t last_ns              # arrival of the latest segment: a stream keeps its order
    uint64_t fin_ns               # when the reader sees the end of the stream
    uint64_t reset_ns             # when the reader sees that the connection broke
    uint64_t broken_ns            # when the writer does
    uint8_t lost                  # what is sent from now on never arrives
    uint8_t full                  # the writer found it so: tell it when there is room

ctypedef struct End:              # of a stream, or a listener
    End* following                # every end there is
    End* previous
    End* peer
    Pipe* to_me                   # owned by this end
    Pipe* from_me                 # owned by the peer, which outlives its own closing for this
    uint32_t refs                 # descriptors, descriptors in flight, the accept queue, a client's handle
    uint32_t holder               # who is woken
    uint8_t kind
    uint8_t local                 # Unix stream
    uint8_t gone                  # closed; kept while the peer is open
    End** waiting                 # listener: connections not accepted yet
    uint64_t* waiting_ns
    uint32_t waiting_n, waiting_capacity
    PeerName name

ctypedef struct Link:             # what the bytes of a stream go through
    uint64_t latency_ns, jitter_ns
    uint32_t split_percent        # of the sends are cut into pieces that arrive one after the other
    uint32_t short_percent        # of the sends are taken in part only
    uint32_t limit

ctypedef struct Wake:
    uint64_t at_ns
    uint64_t order                # ties in the order they were asked for
    uint32_t target
    uint32_t zero

ctypedef struct Net:
    uint64_t now_ns
    uint64_t wall_base_ms         # wall clock = base + now; a step moves the base
    uint64_t random
    Wake* wakes
    uint32_t wakes_n, wakes_capacity
    uint64_t wakes_order
    Link tcp, local
    End* ends
    uint32_t ends_n
    uint32_t refs
    uint32_t breaches_n
    uint8_t breaches[16]

cdef extern from *:
    """
    #define WA_SIM_NEVER 0xffffffffffffffffULL
    """
    const uint64_t NEVER "WA_SIM_NEVER"

cdef void net_breach(Net* n, uint8_t what) noexcept nogil
cdef void net_release(Net* n) noexcept nogil                                          # the last one frees it

cdef End* end_pair(Net* n, bint local, uint32_t holder, uint32_t peer_holder) noexcept nogil   # refs 1 each
cdef End* end_listener(Net* n, uint32_t holder) noexcept nogil
cdef int listener_offer(Net* n, End* listener, End* end) noexcept nogil              # takes the reference over
cdef End* listener_take(Net* n, End* listener) noexcept nogil                         # or NULL
cdef void end_unref(Net* n, End* e) noexcept nogil                                    # the last one closes
cdef void end_reset(Net* n, End* e) noexcept nogil                                    # both sides see it break
cdef void end_vanish(Net* n, End* e) noexcept nogil                                   # nothing arrives any more
cdef int64_t end_send(Net* n, End* e, const uint8_t* buf, size_t len) noexcept nogil
cdef int64_t end_recv(Net* n, End* e, uint8_t* buf, size_t len) noexcept nogil
cdef int end_carry(Net* n, End* e, End* what) noexcept nogil                          # beside the next byte sent
cdef End* end_carried(Net* n, End* e) noexcept nogil  # beside bytes already read, or NULL
cdef uint32_t end_ready(Net* n, End* e) noexcept nogil                                # READABLE | WRITABLE | HANGUP
cdef uint64_t end_next_ns(Net* n, End* e) noexcept nogil  # when end_ready may change by itself


cdef class SimNet:
    cdef Net* n
    cdef dict handles
    cdef int last_handle
    cdef End* end(self, int handle) except NULL
    cdef int adopt(self, End* e)                  # a handle for a client; takes the reference over
