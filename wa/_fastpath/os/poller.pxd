# cython: language_level=3
"""Contract of the event source: the kernel as the loop sees it.

A `Poller` is a table of C functions.  `poller_epoll` and `poller_kqueue` implement it over real sockets; a
simulator implements the same table over its own network, clock and faults.  The loop never knows which.
Readiness is level-triggered.  Every call returns 0 or a count, or -errno; none raises and none needs the GIL.
A mask of 0 keeps an fd known but reports nothing of it, not even a hangup.  A signal ends wait() with 0 events.
A poller belongs to the process that made it: after fork() each makes its own.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    READABLE = 1
    WRITABLE = 2
    HANGUP = 4                    # error or both directions closed; reported with READABLE set

    WAKE_TOKEN_FD = -1            # event.fd of a wake()
    LOST_FD = -1                  # of recv_fds()
    RANDOM_BYTES = 256            # drawn from the kernel at once; getrandom() is not interrupted up to here

ctypedef struct PeerName:         # of an accepted connection, for budgets and logs
    uint8_t family                # 4, 6, or 0 for a Unix socket
    uint8_t address[16]           # network order, IPv4 in the first four bytes
    uint16_t port

ctypedef struct PollEvent:
    int32_t fd
    uint32_t mask
    uint64_t token                # what watch() or change() was last given for this fd

ctypedef struct Poller:
    void* state
    uint8_t random_bytes[RANDOM_BYTES]        # of the real backends; the last random_n are not used yet
    uint32_t random_n
    # Waits up to timeout_ms (-1 for ever, 0 not at all).  Returns how many events were written.
    int (*wait)(Poller* p, PollEvent* out, int out_max, int timeout_ms) noexcept nogil
    int (*watch)(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil
    int (*change)(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil
    int (*unwatch)(Poller* p, int fd) noexcept nogil          # always before close (kqueue's EV_DELETE)
    # Thread-safe: makes wait() return an event with fd WAKE_TOKEN_FD; several wakes may join into one.
    void (*wake)(Poller* p) noexcept nogil
    # Next pending connection of a listening fd, non-blocking and close-on-exec, or -EAGAIN.
    int (*accept)(Poller* p, int fd, PeerName* peer) noexcept nogil
    # Bytes moved; 0 from recv means end of stream; -EAGAIN when it would block.
    int64_t (*recv)(Poller* p, int fd, uint8_t* buf, size_t n) noexcept nogil
    int64_t (*send)(Poller* p, int fd, const uint8_t* buf, size_t n) noexcept nogil
    # The same on a Unix socket, with descriptors beside the bytes (SCM_RIGHTS).  send_fds attaches all of
    # fds to the first byte; recv_fds sets *fds_n to how many arrived (fds has room for fds_max, at least 64).
    # A process out of descriptors gets the bytes all the same: a LOST_FD at the end stands for all that did not arrive.
    int64_t (*send_fds)(Poller* p, int sock, const uint8_t* buf, size_t n, const int* fds, int fds_n) noexcept nogil
    int64_t (*recv_fds)(Poller* p, int sock, uint8_t* buf, size_t n, int* fds, int fds_max, int* fds_n) noexcept nogil
    void (*close)(Poller* p, int fd) noexcept nogil
    uint64_t (*now_ns)(Poller* p) noexcept nogil              # monotonic
    uint64_t (*wall_ms)(Poller* p) noexcept nogil             # Unix time, for retention only
    void (*random)(Poller* p, uint8_t* out, size_t n) noexcept nogil   # CSPRNG
    void (*destroy)(Poller* p) noexcept nogil
# Each backend module exports `cdef Poller* poller_create() noexcept nogil` (NULL on failure), and
# `os/host.pyx` picks the platform's.
