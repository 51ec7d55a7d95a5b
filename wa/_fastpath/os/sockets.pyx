# cython: language_level=3
# HOT: recv and send of every connection pass here.
"""Sockets, clocks and randomness as POSIX gives them to both event backends, and the set-up of listening sockets.

Kernel facts that the code relies on
  - TCP_NODELAY of a listening socket is inherited by what it accepts, on Linux and on FreeBSD: no call per accept.
  - EWOULDBLOCK is EAGAIN on both.
  - MSG_NOSIGNAL exists on both, so a dead peer is EPIPE and never a signal.
  - Linux balances SO_REUSEPORT over the sockets of a port; on FreeBSD that needs SO_REUSEPORT_LB (at most 256).
  - Descriptors that do not fit the control buffer are closed by the kernel and MSG_CTRUNC is set.
  - A process out of descriptors: Linux gives those for which there is room, and MSG_CTRUNC; FreeBSD gives none and no
    bytes, but EMSGSIZE, and the bytes to the next call.
"""
import os
import socket
import stat

from wa import limits
from wa.errors import LocalError

from libc.errno cimport ECONNABORTED, EINTR, EINVAL, EMSGSIZE, errno
from libc.stdint cimport uint32_t
from libc.stdlib cimport abort
from libc.string cimport memcpy, memset
from wa._fastpath.base.sodium cimport sodium_memzero
from wa._fastpath.os.poller cimport LOST_FD, RANDOM_BYTES

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/socket.h>
    #include <sys/un.h>
    #include <sys/random.h>
    #include <netinet/in.h>
    #include <time.h>
    #include <unistd.h>
    #include <string.h>

    #ifdef SO_REUSEPORT_LB
    #define WA_REUSEPORT SO_REUSEPORT_LB
    #else
    #define WA_REUSEPORT SO_REUSEPORT
    #endif
    """
    ctypedef int socklen_t
    ctypedef unsigned short sa_family_t
    struct sockaddr:
        sa_family_t sa_family
    struct sockaddr_storage:
        sa_family_t ss_family
    struct in_addr:
        unsigned int s_addr
    struct in6_addr:
        unsigned char s6_addr[16]
    struct sockaddr_in:
        unsigned short sin_port
        in_addr sin_addr
    struct sockaddr_in6:
        unsigned short sin6_port
        in6_addr sin6_addr
    struct iovec:
        void* iov_base
        size_t iov_len
    struct msghdr:
        iovec* msg_iov
        int msg_iovlen
        void* msg_control
        size_t msg_controllen
        int msg_flags
    struct cmsghdr:
        size_t cmsg_len
        int cmsg_level
        int cmsg_type
    struct timespec:
        long tv_sec
        long tv_nsec
    const int AF_INET, AF_INET6, SOL_SOCKET, SCM_RIGHTS
    const int SOCK_NONBLOCK, SOCK_CLOEXEC
    const int MSG_NOSIGNAL, MSG_CMSG_CLOEXEC, MSG_CTRUNC
    const int CLOCK_MONOTONIC, CLOCK_REALTIME
    const int WA_REUSEPORT
    cmsghdr* CMSG_FIRSTHDR(msghdr*) nogil
    cmsghdr* CMSG_NXTHDR(msghdr*, cmsghdr*) nogil
    unsigned char* CMSG_DATA(cmsghdr*) nogil
    size_t CMSG_LEN(size_t) nogil
    size_t CMSG_SPACE(size_t) nogil
    unsigned short ntohs(unsigned short) nogil
    int accept4(int, sockaddr*, socklen_t*, int) nogil
    ssize_t c_recv "recv"(int, void*, size_t, int) nogil
    ssize_t c_send "send"(int, const void*, size_t, int) nogil
    ssize_t sendmsg(int, const msghdr*, int) nogil
    ssize_t recvmsg(int, msghdr*, int) nogil
    int c_close "close"(int) nogil
    int clock_gettime(int, timespec*) nogil
    ssize_t getrandom(void*, size_t, unsigned int) nogil

cdef enum:
    CONTROL_WORDS = 256           # u64 for alignment; 253 descriptors and their header take 129


cdef void peer_name(const sockaddr_storage* s, PeerName* peer) noexcept nogil:
    cdef const sockaddr_in* v4 = <const sockaddr_in*>s
    cdef const sockaddr_in6* v6 = <const sockaddr_in6*>s
    cdef const uint8_t* a
    cdef int i
    memset(peer, 0, sizeof(PeerName))
    if s.ss_family == AF_INET:
        peer.family = 4
        memcpy(peer.address, &v4.sin_addr, 4)
        peer.port = ntohs(v4.sin_port)
    elif s.ss_family == AF_INET6:
        a = &v6.sin6_addr.s6_addr[0]
        peer.port = ntohs(v6.sin6_port)
        # ::ffff:a.b.c.d is an IPv4 peer of a dual-stack socket and shares the budget of its IPv4 address
        for i in range(12):
            if a[i] != (0xFF if i >= 10 else 0):
                peer.family = 6
                memcpy(peer.address, a, 16)
                return
        peer.family = 4
        memcpy(peer.address, a + 12, 4)


cdef int sock_accept(Poller* p, int fd, PeerName* peer) noexcept nogil:
    cdef sockaddr_storage name
    cdef socklen_t name_n
    cdef int got
    while True:
        name_n = sizeof(name)
        memset(&name, 0, sizeof(name))
        got = accept4(fd, <sockaddr*>&name, &name_n, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if got >= 0:
            peer_name(&name, peer)
            return got
        # ECONNABORTED: that peer left while it was queued; the next one may be there
        if errno != EINTR and errno != ECONNABORTED:
            return -errno


cdef int64_t sock_recv(Poller* p, int fd, uint8_t* buf, size_t n) noexcept nogil:
    cdef ssize_t got
    while True:
        got = c_recv(fd, buf, n, 0)
        if got >= 0:
            return got
        if errno != EINTR:
            return -errno


cdef int64_t sock_send(Poller* p, int fd, const uint8_t* buf, size_t n) noexcept nogil:
    cdef ssize_t sent
    while True:
        sent = c_send(fd, buf, n, MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if errno != EINTR:
            return -errno


cdef int64_t sock_send_fds(Poller* p, int sock, const uint8_t* buf, size_t n, const int* fds, int fds_n) noexcept nogil:
    cdef uint64_t control[CONTROL_WORDS]
    cdef msghdr message
    cdef iovec part
    cdef cmsghdr* c
    cdef ssize_t sent
    if fds_n == 0:
        return sock_send(p, sock, buf, n)
    if fds_n < 0 or fds_n > FDS_PER_MESSAGE_MAX or n == 0:
        return -EINVAL
    memset(&message, 0, sizeof(message))
    memset(control, 0, sizeof(control))
    part.iov_base = <void*>buf
    part.iov_len = n
    message.msg_iov = &part
    message.msg_iovlen = 1
    message.msg_control = control
    message.msg_controllen = CMSG_SPACE(fds_n * sizeof(int))
    c = CMSG_FIRSTHDR(&message)
    c.cmsg_level = SOL_SOCKET
    c.cmsg_type = SCM_RIGHTS
    c.cmsg_len = CMSG_LEN(fds_n * sizeof(int))
    memcpy(CMSG_DATA(c), fds, fds_n * sizeof(int))
    while True:
        sent = sendmsg(sock, &message, MSG_NOSIGNAL)
        if sent >= 0:
            return sent
        if errno != EINTR:
            return -errno


cdef bint take_rights(cmsghdr* c, int* fds, int fds_max, int* fds_n) noexcept nogil:
    """Appends the descriptors of one control message; those that do not fit are closed and False returned."""
    cdef int count = <int>((c.cmsg_len - CMSG_LEN(0)) // sizeof(int))
    cdef bint whole = True
    cdef int i, fd
    for i in range(count):
        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int))
        if fds_n[0] < fds_max:
            fds[fds_n[0]] = fd
            fds_n[0] += 1
        else:
            c_close(fd)
            whole = False
    return whole


cdef int64_t sock_recv_fds(
    Poller* p, int sock, uint8_t* buf, size_t n, int* fds, int fds_max, int* fds_n
) noexcept nogil:
    cdef uint64_t control[CONTROL_WORDS]
    cdef msghdr message
    cdef iovec part
    cdef cmsghdr* c
    cdef ssize_t got
    cdef bint fit = True
    cdef bint lost = False
    cdef int i
    fds_n[0] = 0
    part.iov_base = buf
    part.iov_len = n
    while True:
        memset(&message, 0, sizeof(message))
        message.msg_iov = &part
        message.msg_iovlen = 1
        message.msg_control = control
        message.msg_controllen = sizeof(control)
        got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC)
        if got >= 0:
            break
        if errno == EMSGSIZE and not lost:
            lost = True
        elif errno != EINTR:
            return -errno
    if message.msg_flags & MSG_CTRUNC:
        lost = True
    c = CMSG_FIRSTHDR(&message)
    while c != NULL:
        if c.cmsg_level == SOL_SOCKET and c.cmsg_type == SCM_RIGHTS:
            fit = take_rights(c, fds, fds_max, fds_n) and fit
        c = CMSG_NXTHDR(&message, c)
    if not fit or lost and fds_n[0] == fds_max:       # both ends disagree on the bound
        for i in range(fds_n[0]):
            c_close(fds[i])
        fds_n[0] = 0
        return -EMSGSIZE
    if lost:
        fds[fds_n[0]] = LOST_FD
        fds_n[0] += 1
    return got


cdef void sock_close(Poller* p, int fd) noexcept nogil:
    c_close(fd)                   # after EINTR the descriptor is gone too, on both systems


cdef uint64_t clock_ns(int clock) noexcept nogil:
    cdef timespec t
    if clock_gettime(clock, &t) != 0:
        abort()                   # only for a clock that the system lacks: nothing can run without one
    return <uint64_t>t.tv_sec * 1_000_000_000 + <uint64_t>t.tv_nsec


cdef uint64_t clock_now_ns(Poller* p) noexcept nogil:
    return clock_ns(CLOCK_MONOTONIC)


cdef uint64_t clock_wall_ms(Poller* p) noexcept nogil:
    return clock_ns(CLOCK_REALTIME) // 1_000_000


cdef void fill_random(uint8_t* out, size_t n) noexcept nogil:
    """n is at most RANDOM_BYTES."""
    cdef ssize_t got
    while n > 0:
        got = getrandom(out, n, 0)
        if got < 0:
            if errno == EINTR:
                continue
            abort()               # no key may ever be made of anything else
        out += got
        n -= got


cdef void system_random(Poller* p, uint8_t* out, size_t n) noexcept nogil:
    """The kernel's bytes, some calls' worth at once: a login takes three.  Each is forgotten as it is handed out."""
    cdef size_t part
    while n > 0:
        if p.random_n == 0:
            fill_random(p.random_bytes, RANDOM_BYTES)
            p.random_n = RANDOM_BYTES
        part = n if n < p.random_n else p.random_n
        memcpy(out, p.random_bytes + RANDOM_BYTES - p.random_n, part)
        sodium_memzero(p.random_bytes + RANDOM_BYTES - p.random_n, part)
        p.random_n -= <uint32_t>part
        out += part
        n -= part


cdef void sockets_fill(Poller* p) noexcept nogil:
    p.accept = sock_accept
    p.recv = sock_recv
    p.send = sock_send
    p.send_fds = sock_send_fds
    p.recv_fds = sock_recv_fds
    p.close = sock_close
    p.now_ns = clock_now_ns
    p.wall_ms = clock_wall_ms
    p.random = system_random


cdef void sockets_forget(Poller* p) noexcept nogil:
    sodium_memzero(p.random_bytes, RANDOM_BYTES)


def listen_tcp(host: str, port: int, backlog: int, reuseport: bool) -> socket.socket:
    """A listening TCP socket, non-blocking and close-on-exec; port 0 takes a free one (see getsockname()).

    `host` is a numeric address; "::" also takes IPv4.  With `reuseport` every worker listens on a socket of
    its own and the kernel spreads connections over them.  Accepted sockets have TCP_NODELAY.
    Raises OSError, and LocalError for a host that is no address.
    """
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_PASSIVE
        )
    except socket.gaierror as error:
        raise LocalError(f"listen on a numeric address, not {host!r}: {error}") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if reuseport:
            listener.setsockopt(socket.SOL_SOCKET, WA_REUSEPORT, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener


cdef remove_stale(path: str):
    """Unlinks a socket file that nobody listens on any more (its process was killed)."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    finally:
        probe.close()


def listen_unix(path: str) -> socket.socket:
    """A listening Unix stream socket for this user only (mode 0600), non-blocking and close-on-exec.

    Replaces a socket file that nobody listens on; raises OSError(EADDRINUSE) for a live one or another file.
    """
    remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.setblocking(False)
        listener.bind(path)
        os.chmod(path, 0o600)     # before listen(): until then a connect is refused
        listener.listen(limits.WORKERS_MAX)
    except OSError:
        listener.close()
        raise
    return listener


def connect_unix(path: str) -> socket.socket:
    """A connected Unix stream socket, non-blocking and close-on-exec.

    Raises OSError; BlockingIOError when the listener's backlog is full.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        connection.connect(path)  # a Unix connect is done at once or fails
    except OSError:
        connection.close()
        raise
    return connection
