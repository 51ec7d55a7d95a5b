# cython: language_level=3
# HOT: one wait() per loop turn, one event per ready connection.
"""The poller contract over epoll (Linux).

Kernel facts
  - EPOLLHUP and EPOLLERR are reported whether asked for or not, and level-triggered: a socket that its owner does not
    want to hear of (mask 0) would spin the loop.  It is therefore taken out of the set until the mask changes.
  - The set holds open file descriptions, not descriptors: a copy of an fd in another process (fd passing, fork) keeps
    a registration alive after close().  Hence unwatch() before close(), here as with kqueue.
"""
from libc.errno cimport EEXIST, EINTR, ENOENT, errno
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from wa._fastpath.os.fdtable cimport fd_find, fd_reserve, fd_table_free, FD_WATCHED, FdEntry, FdTable
from wa._fastpath.os.poller cimport HANGUP, Poller, PollEvent, READABLE, WAKE_TOKEN_FD, WRITABLE
from wa._fastpath.os.sockets cimport sockets_fill, sockets_forget

cdef extern from "sys/epoll.h" nogil:
    ctypedef union epoll_data_t:
        int fd
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL
    const uint32_t EPOLLIN, EPOLLOUT, EPOLLERR, EPOLLHUP
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)

cdef extern from "sys/eventfd.h" nogil:
    const int EFD_CLOEXEC, EFD_NONBLOCK
    int eventfd(unsigned int, int)
    int eventfd_read(int, uint64_t*)
    int eventfd_write(int, uint64_t)

cdef extern from "unistd.h" nogil:
    int c_close "close"(int)

cdef enum:
    EVENTS_MAX = 512              # of one wait(); the kernel rotates, so the rest comes first next time

ctypedef struct State:
    int epoll_fd
    int wake_fd
    FdTable table
    epoll_event events[EVENTS_MAX]


cdef inline uint32_t interest(uint32_t mask) noexcept nogil:
    return (EPOLLIN if mask & READABLE else 0) | (EPOLLOUT if mask & WRITABLE else 0)


cdef inline uint32_t readiness(uint32_t events) noexcept nogil:
    cdef uint32_t mask = 0
    if events & EPOLLIN:
        mask |= READABLE
    if events & EPOLLOUT:
        mask |= WRITABLE
    if events & (EPOLLERR | EPOLLHUP):
        mask |= HANGUP | READABLE
    return mask


cdef int control(State* s, int operation, int fd, uint32_t mask) noexcept nogil:
    cdef epoll_event event
    event.events = interest(mask)
    event.data.fd = fd
    return -errno if epoll_ctl(s.epoll_fd, operation, fd, &event) != 0 else 0


cdef int apply(State* s, int fd, uint32_t before, uint32_t after) noexcept nogil:
    """Moves fd from one mask to another; 0 or -errno."""
    if before == after:
        return 0
    if before == 0:
        return control(s, EPOLL_CTL_ADD, fd, after)
    if after == 0:
        return control(s, EPOLL_CTL_DEL, fd, 0)
    return control(s, EPOLL_CTL_MOD, fd, after)


cdef int epoll_watch(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef int status
    mask &= READABLE | WRITABLE
    if fd_find(&s.table, fd) != NULL:
        return -EEXIST
    status = fd_reserve(&s.table, fd)
    if status == 0:
        status = apply(s, fd, 0, mask)
    if status == 0:
        s.table.entries[fd].token = token
        s.table.entries[fd].flags = FD_WATCHED | mask
    return status


cdef int epoll_change(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef FdEntry* entry = fd_find(&s.table, fd)
    cdef int status
    mask &= READABLE | WRITABLE
    if entry == NULL:
        return -ENOENT
    status = apply(s, fd, entry.flags & ~<uint32_t>FD_WATCHED, mask)
    if status == 0:
        entry.token = token
        entry.flags = FD_WATCHED | mask
    return status


cdef int epoll_unwatch(Poller* p, int fd) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef FdEntry* entry = fd_find(&s.table, fd)
    cdef uint32_t mask
    if entry == NULL:
        return -ENOENT
    mask = entry.flags & ~<uint32_t>FD_WATCHED
    entry.flags = 0
    return apply(s, fd, mask, 0)


cdef int epoll_poll(Poller* p, PollEvent* out, int out_max, int timeout_ms) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef FdEntry* entry
    cdef uint64_t wakes
    cdef int i, fd, count = 0
    cdef int got = epoll_wait(s.epoll_fd, s.events, min(out_max, EVENTS_MAX), timeout_ms)
    if got < 0:
        return 0 if errno == EINTR else -errno    # a signal ends the wait: its handler is in Python
    for i in range(got):
        fd = s.events[i].data.fd
        if fd == WAKE_TOKEN_FD:
            eventfd_read(s.wake_fd, &wakes)
            out[count].token = 0
            out[count].mask = READABLE
        else:
            entry = fd_find(&s.table, fd)
            if entry == NULL:     # a copy of a closed fd that lives in another process
                continue
            out[count].token = entry.token
            out[count].mask = readiness(s.events[i].events)
        out[count].fd = fd
        count += 1
    return count


cdef void epoll_wake(Poller* p) noexcept nogil:
    eventfd_write((<State*>p.state).wake_fd, 1)   # fails only when 2^64 wakes are pending, which is a wake


cdef void epoll_destroy(Poller* p) noexcept nogil:
    cdef State* s = <State*>p.state
    if s.wake_fd >= 0:
        c_close(s.wake_fd)
    if s.epoll_fd >= 0:
        c_close(s.epoll_fd)
    fd_table_free(&s.table)
    sockets_forget(p)
    free(s)
    free(p)


cdef int open_state(State* s) noexcept nogil:
    cdef epoll_event event
    s.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    s.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
    if s.epoll_fd < 0 or s.wake_fd < 0:
        return -1
    event.events = EPOLLIN
    event.data.fd = WAKE_TOKEN_FD
    return epoll_ctl(s.epoll_fd, EPOLL_CTL_ADD, s.wake_fd, &event)


cdef Poller* poller_create() noexcept nogil:
    """Belongs to the process that made it: make one after fork, not before."""
    cdef Poller* p = <Poller*>calloc(1, sizeof(Poller))
    cdef State* s = <State*>calloc(1, sizeof(State))
    if p == NULL or s == NULL:
        free(p)
        free(s)
        return NULL
    p.state = s
    p.wait = epoll_poll
    p.watch = epoll_watch
    p.change = epoll_change
    p.unwatch = epoll_unwatch
    p.wake = epoll_wake
    p.destroy = epoll_destroy
    sockets_fill(p)
    if open_state(s) != 0:
        epoll_destroy(p)
        return NULL
    return p
