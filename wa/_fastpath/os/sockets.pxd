# cython: language_level=3
"""The part of the poller contract that is POSIX on both systems: sockets, clocks, randomness.

Each function does what the member of `Poller` with the same name promises; `sockets_fill` puts them into the table.
"""
from libc.stdint cimport int64_t, uint64_t, uint8_t
from wa._fastpath.os.poller cimport PeerName, Poller

cdef enum:
    FDS_PER_MESSAGE_MAX = 253     # Linux SCM_MAX_FD, the smaller of the two systems' bounds

cdef int sock_accept(Poller* p, int fd, PeerName* peer) noexcept nogil
cdef int64_t sock_recv(Poller* p, int fd, uint8_t* buf, size_t n) noexcept nogil
cdef int64_t sock_send(Poller* p, int fd, const uint8_t* buf, size_t n) noexcept nogil
cdef int64_t sock_send_fds(Poller* p, int sock, const uint8_t* buf, size_t n, const int* fds, int fds_n) noexcept nogil
cdef int64_t sock_recv_fds(
    Poller* p, int sock, uint8_t* buf, size_t n, int* fds, int fds_max, int* fds_n
) noexcept nogil
cdef void sock_close(Poller* p, int fd) noexcept nogil
cdef uint64_t clock_now_ns(Poller* p) noexcept nogil
cdef uint64_t clock_wall_ms(Poller* p) noexcept nogil
cdef void system_random(Poller* p, uint8_t* out, size_t n) noexcept nogil
cdef void sockets_fill(Poller* p) noexcept nogil
cdef void sockets_forget(Poller* p) noexcept nogil          # the random bytes that nobody took
