# cython: language_level=3
"""Contract of the bus, one of the three seams beside poller and mailbox store: how bytes reach the owner of a shard.

A bus carries messages from worker to worker, in order per pair, and with one of them a descriptor.  It knows no
message: what arrives goes to the receiver, a table of two functions that the loop fills in.  Nothing of the bus calls
anything else above it.

The carrier is best effort: what was sent to a worker that dies is lost, and nothing may depend on it.  An envelope on
the bus is still its sender's; a receipt that is lost is asked for again.

Implementation: bus/unix.pyx, one simplex Unix stream per ordered pair of workers of a machine.
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t

cdef enum:
    BUS_MESSAGE_BYTES_MAX = 1048576
    TOKEN_BUS_LISTENER = 2        # high bytes of event tokens that are the bus's; see state/core.pxd
    TOKEN_BUS_OUT = 3
    TOKEN_BUS_IN = 4

ctypedef struct BusReceiver:
    void* context
    # One message; fd is -1, or a descriptor that is the receiver's from now on if it returns 0.  -1: the other end is
    # not what it should be, a worker of this very build; the bus hangs up on it.  A message whose descriptor was lost,
    # in a process that has none left, is counted and not handed on.
    int (*message)(void* context, uint32_t worker, uint8_t what, const uint8_t* p, uint32_t n,
                   int32_t fd) noexcept nogil
    # That worker died, or hung up: what it was sent will not be answered.
    void (*lost)(void* context, uint32_t worker) noexcept nogil

ctypedef struct BusStats:
    uint64_t messages_in, messages_out, lost
    uint64_t fds_lost             # messages that came without their descriptor

ctypedef struct Bus:
    void* state
    BusReceiver receiver          # set before the first event
    BusStats stats
    # 0, or -1 when that worker is not there or its buffer is full: then fd, if there is one, is still the caller's.
    # head and body leave as one message; they are copied.
    int (*send)(Bus* b, uint32_t worker, uint8_t what, const void* head, uint32_t head_n,
                const uint8_t* body, uint32_t body_n, int32_t fd) noexcept nogil
    void (*flush)(Bus* b, uint64_t now_ms) noexcept nogil                 # once a turn: one write per worker
    void (*event)(Bus* b, uint64_t token, uint32_t mask, uint64_t now_ms) noexcept nogil   # tokens as above
    # Connecting is the owner's, who knows where: `due` says whether that worker is to be reached now (1), later (0), or
    # is connected (-1).  Then either `connected` with a descriptor, which is the bus's from then on, or `failed`.
    int (*due)(Bus* b, uint32_t worker, uint64_t now_ms) noexcept nogil
    void (*connected)(Bus* b, uint32_t worker, int32_t fd) noexcept nogil
    void (*failed)(Bus* b, uint32_t worker, uint64_t retry_ms) noexcept nogil
    int (*listen)(Bus* b, int32_t fd) noexcept nogil                      # 0 or -errno; the descriptor is the bus's
    void (*deaf)(Bus* b) noexcept nogil                                   # listens no more; no-op when it does not
    uint64_t (*trim)(Bus* b) noexcept nogil  # gives empty buffers back; how many bytes that was
    void (*destroy)(Bus* b) noexcept nogil
