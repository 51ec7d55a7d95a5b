# cython: language_level=3
"""The bus over Unix sockets: one simplex stream per ordered pair of workers.  See bus/contract.pxd.

Messages are appended to a buffer per worker and leave with one write at the end of the turn.  Descriptors leave with
the first byte of the first of their messages, and its head says how many there are.  So a receiver that had no room for
some knows whose they were, and the stream goes on.  What travels with a descriptor is secret; buffers that held it are
wiped.
"""
from libc.stdint cimport int32_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.bus.contract cimport Bus
from wa._fastpath.os.poller cimport Poller

cdef enum:
    BUS_HELLO = 1                 # the first message of a stream; the others are the owner's
    BUS_MAGIC = 0x77610003
    BUS_FDS_MAX = 64              # descriptors per system call

ctypedef struct BusHead:          # before every message, 8 bytes
    uint32_t n                    # bytes after this head
    uint8_t what
    uint8_t has_fd                # one descriptor is this message's
    uint8_t fds_n                 # so many leave with the first byte of this head; set when it leaves
    uint8_t zero

ctypedef struct BusHello:
    uint32_t magic
    uint32_t worker
    uint32_t workers
    uint32_t layout               # differs between builds that do not fit

ctypedef struct Outgoing:         # a stream to another worker
    int32_t fd
    uint8_t connected
    uint8_t want_write
    uint8_t secret                # out holds, or held, something secret
    uint64_t retry_ms
    uint8_t* out
    uint32_t out_n, out_at, out_capacity
    # descriptors waiting to leave: fd k belongs to the message that starts at byte fd_at[k] of out
    uint32_t fds_n
    uint32_t fds_capacity
    int32_t* fds
    uint32_t* fd_at

ctypedef struct Incoming:         # a stream from another worker
    int32_t fd
    int32_t worker                # -1 until its hello
    uint8_t* buf
    uint32_t n, capacity
    uint32_t fds_n
    int32_t fds[256]              # descriptors received and not yet claimed by their messages; LOST_FD for a lost one

ctypedef struct UnixBus:
    Bus bus                       # first: a Bus* is its UnixBus*
    Poller* poller
    uint32_t worker, workers
    uint32_t layout
    uint64_t bytes_max            # waiting for one worker
    Outgoing* to                  # workers of them; our own slot is unused
    Incoming* come                # workers * 2 slots: a restarted worker may connect before its old stream is seen
                                  # closed
    uint32_t come_n
    int32_t listener

cdef Bus* unix_bus_new(Poller* poller, uint32_t worker, uint32_t workers, uint32_t layout,
                       uint64_t bytes_max) noexcept nogil                 # NULL: no memory
cdef void unix_bytes_max(Bus* b, uint64_t bytes_max) noexcept nogil
