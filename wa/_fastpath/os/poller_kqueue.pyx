# cython: language_level=3
# HOT: one wait() per loop turn, one event per ready connection.
"""The poller contract over kqueue (FreeBSD).

Kernel facts
  - Reading and writing are two filters with two events; the contract has one event per fd, so they are joined.
  - EV_EOF on the read filter means that the peer stopped sending (recv gives 0), on the write filter that nothing can
    be sent any more; only the second, or an error in `fflags`, is a hangup.
  - `data` differs between systems and socket kinds: bytes are counted by recv until EAGAIN, never by it.
  - An EV_ERROR entry in a wait's answer belongs to the fd it names; its socket is broken and is reported as hung up.
  - close() drops filters silently and another fd may take the number: EV_DELETE comes first (unwatch before close).
  - A kqueue is not inherited by fork(): each process makes its own, after it.
"""
from libc.errno cimport EEXIST, EINTR, ENOENT, errno
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from wa._fastpath.os.fdtable cimport fd_find, fd_reserve, fd_table_free, FD_WATCHED, FdEntry, FdTable
from wa._fastpath.os.poller cimport HANGUP, Poller, PollEvent, READABLE, WAKE_TOKEN_FD, WRITABLE
from wa._fastpath.os.sockets cimport sockets_fill, sockets_forget

cdef extern from *:
    """
    #include <sys/types.h>
    #include <sys/event.h>
    #include <sys/time.h>
    #include <fcntl.h>
    #include <unistd.h>
    """
    struct timespec:
        long tv_sec
        long tv_nsec
    struct kevent_t "kevent":
        uintptr_t ident
        short filter
        unsigned short flags
        unsigned int fflags
    const int EVFILT_READ, EVFILT_WRITE, EVFILT_USER
    const int EV_ADD, EV_DELETE, EV_CLEAR, EV_EOF, EV_ERROR
    const unsigned int NOTE_TRIGGER
    const int F_SETFD, FD_CLOEXEC
    int kqueue() nogil
    int kevent(int, const kevent_t*, int, kevent_t*, int, const timespec*) nogil
    int fcntl(int, int, int) nogil
    int c_close "close"(int) nogil

cdef enum:
    EVENTS_MAX = 512              # of one wait(); the kernel rotates, so the rest comes first next time
    WAKE_IDENT = 1

ctypedef struct State:
    int queue_fd
    FdTable table
    kevent_t events[EVENTS_MAX]


cdef int submit(State* s, uintptr_t ident, int filter, int flags, unsigned int fflags) noexcept nogil:
    """One change; with no room for an answer the kernel gives the change's own error as errno."""
    cdef kevent_t change
    memset(&change, 0, sizeof(change))
    change.ident = ident
    change.filter = <short>filter
    change.flags = <unsigned short>flags
    change.fflags = fflags
    while kevent(s.queue_fd, &change, 1, NULL, 0, NULL) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef int apply(State* s, int fd, uint32_t before, uint32_t after) noexcept nogil:
    """Moves fd from one mask to another; 0 or -errno, and then the filters are as before."""
    cdef uint32_t changed = before ^ after
    cdef int status = 0
    if changed & READABLE:
        status = submit(s, fd, EVFILT_READ, EV_ADD if after & READABLE else EV_DELETE, 0)
    if changed & WRITABLE and status == 0:
        status = submit(s, fd, EVFILT_WRITE, EV_ADD if after & WRITABLE else EV_DELETE, 0)
        if status != 0 and changed & READABLE:
            submit(s, fd, EVFILT_READ, EV_DELETE if after & READABLE else EV_ADD, 0)
    return status


cdef int kqueue_watch(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
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


cdef int kqueue_change(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
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


cdef int kqueue_unwatch(Poller* p, int fd) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef FdEntry* entry = fd_find(&s.table, fd)
    cdef uint32_t mask
    if entry == NULL:
        return -ENOENT
    mask = entry.flags & ~<uint32_t>FD_WATCHED
    entry.flags = 0
    return apply(s, fd, mask, 0)


cdef inline uint32_t readiness(const kevent_t* e) noexcept nogil:
    if e.flags & EV_ERROR:
        return HANGUP | READABLE
    if e.filter == EVFILT_WRITE:
        return HANGUP | READABLE | WRITABLE if e.flags & EV_EOF else WRITABLE
    return HANGUP | READABLE if e.flags & EV_EOF and e.fflags != 0 else READABLE


cdef int collect(State* s, const kevent_t* e, PollEvent* out, int count) noexcept nogil:
    """Adds one kernel event to the `count` events in out, joining it with the other filter's; the new count."""
    cdef FdEntry* entry
    cdef int fd, at
    if e.filter == EVFILT_USER:
        out[count].fd = WAKE_TOKEN_FD
        out[count].mask = READABLE
        out[count].token = 0
        return count + 1
    fd = <int>e.ident
    entry = fd_find(&s.table, fd)
    if entry == NULL:
        return count
    at = entry.event - 1          # left over from an earlier wait unless out[at] says otherwise
    if 0 <= at < count and out[at].fd == fd:
        out[at].mask |= readiness(e)
        return count
    entry.event = count + 1
    out[count].fd = fd
    out[count].mask = readiness(e)
    out[count].token = entry.token
    return count + 1


cdef int kqueue_poll(Poller* p, PollEvent* out, int out_max, int timeout_ms) noexcept nogil:
    cdef State* s = <State*>p.state
    cdef timespec timeout
    cdef int i, got, count = 0
    timeout.tv_sec = timeout_ms // 1000
    timeout.tv_nsec = (timeout_ms % 1000) * 1_000_000
    got = kevent(s.queue_fd, NULL, 0, s.events, min(out_max, EVENTS_MAX), NULL if timeout_ms < 0 else &timeout)
    if got < 0:
        return 0 if errno == EINTR else -errno    # a signal ends the wait: its handler is in Python
    for i in range(got):
        count = collect(s, &s.events[i], out, count)
    return count


cdef void kqueue_wake(Poller* p) noexcept nogil:
    submit(<State*>p.state, WAKE_IDENT, EVFILT_USER, 0, NOTE_TRIGGER)


cdef void kqueue_destroy(Poller* p) noexcept nogil:
    cdef State* s = <State*>p.state
    if s.queue_fd >= 0:
        c_close(s.queue_fd)
    fd_table_free(&s.table)
    sockets_forget(p)
    free(s)
    free(p)


cdef int open_state(State* s) noexcept nogil:
    s.queue_fd = kqueue()
    if s.queue_fd < 0:
        return -1
    if fcntl(s.queue_fd, F_SETFD, FD_CLOEXEC) < 0:
        return -1
    return submit(s, WAKE_IDENT, EVFILT_USER, EV_ADD | EV_CLEAR, 0)


cdef Poller* poller_create() noexcept nogil:
    """Belongs to the process that made it: make one after fork, not before."""
    cdef Poller* p = <Poller*>calloc(1, sizeof(Poller))
    cdef State* s = <State*>calloc(1, sizeof(State))
    if p == NULL or s == NULL:
        free(p)
        free(s)
        return NULL
    p.state = s
    p.wait = kqueue_poll
    p.watch = kqueue_watch
    p.change = kqueue_change
    p.unwatch = kqueue_unwatch
    p.wake = kqueue_wake
    p.destroy = kqueue_destroy
    sockets_fill(p)
    if open_state(s) != 0:
        kqueue_destroy(p)
        return NULL
    return p
