# cython: language_level=3
# COLD: simulations only; it counts and checks what a kernel lets pass.
"""The simulated machine of one worker process; see sim/_native/poller.pxd and sim/_native/net.pxd.

It checks what a kernel lets pass: that nothing is done to a closed descriptor and that close() comes after unwatch().
A process can be told to die after so many more calls to the outside.  From that call on nothing it does has an effect,
which is the same as a kill -9 between any two steps.
"""
cimport cython
from libc.errno cimport EAGAIN, EBADF, EEXIST, EINVAL, ENOENT, EPIPE
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset
from sim._native.agenda cimport net_below, net_random, net_wake
from sim._native.net cimport (
    BREACH_CLOSE_WATCHED, BREACH_CLOSED_FD, BREACH_NOT_WATCHED, BREACH_WATCH_TWICE, End, end_carried, end_carry,
    end_listener, end_next_ns, end_pair, end_ready, end_recv, end_send, end_unref, listener_offer, listener_take, Net,
    net_breach, net_release, SimNet,
)
from wa._fastpath.os.host cimport Host
from wa._fastpath.os.poller cimport HANGUP, PeerName, Poller, PollEvent, READABLE, WAKE_TOKEN_FD, WRITABLE

from wa.errors import LocalError

cdef enum:
    FD_FIRST = 3


# --- descriptors -------------------------------------------------------------------------------------------

cdef inline SimFd* open_fd(SimState* s, int fd) noexcept nogil:
    if fd < 0 or <uint32_t>fd >= s.fds_n or s.fds[fd].end == NULL:
        if not s.dead:
            net_breach(s.net, BREACH_CLOSED_FD)
        return NULL
    return &s.fds[fd]


cdef int fd_new(SimState* s, End* e) noexcept nogil:
    """The lowest free number, as a kernel gives; takes the reference over."""
    cdef uint32_t fd = FD_FIRST
    while fd < s.fds_n and s.fds[fd].end != NULL:
        fd += 1
    if fd >= s.capacity:
        s.fds = <SimFd*>realloc(s.fds, (s.capacity * 2 + 64) * sizeof(SimFd))
        s.capacity = s.capacity * 2 + 64
    if fd >= s.fds_n:
        memset(s.fds + s.fds_n, 0, (fd + 1 - s.fds_n) * sizeof(SimFd))
        s.fds_n = fd + 1
    memset(&s.fds[fd], 0, sizeof(SimFd))
    s.fds[fd].end = e
    e.holder = s.id
    return <int>fd


cdef void die(SimState* s) noexcept nogil:
    """The kernel closes everything the process had."""
    cdef uint32_t i
    s.dead = 1
    s.dies_in = 0
    for i in range(s.fds_n):
        if s.fds[i].end != NULL:
            end_unref(s.net, s.fds[i].end)
            s.fds[i].end = NULL
    if s.owner != NULL:
        with gil:
            (<SimHost>s.owner).died()


cdef inline void count_call(SimState* s) noexcept nogil:
    if s.dies_in:
        s.dies_in -= 1
        if s.dies_in == 0:
            die(s)


cdef void release(SimState* s) noexcept nogil:
    cdef uint32_t i
    s.refs -= 1
    if s.refs:
        return
    for i in range(s.fds_n):
        if s.fds[i].end != NULL:
            end_unref(s.net, s.fds[i].end)
    net_release(s.net)
    free(s.fds)
    free(s)


# --- the table ---------------------------------------------------------------------------------------------

cdef int sim_wait(Poller* p, PollEvent* out, int out_max, int timeout_ms) noexcept nogil:
    """Does not wait by itself: the scheduler outside has moved the clock, or moves it now, when a loop that stops
    waits."""
    cdef SimState* s = <SimState*>p.state
    cdef uint32_t i, k, mask
    cdef int count = 0
    cdef SimFd* f
    if timeout_ms > 0 and s.owner != NULL and not s.dead:
        with gil:
            (<SimHost>s.owner).waits(<uint64_t>timeout_ms * 1000000)
    if s.dead:
        s.afterlife_ns += 1000000
        return 0
    if s.woken:
        s.woken = 0
        out[0].fd = WAKE_TOKEN_FD
        out[0].mask = READABLE
        out[0].token = 0
        count = 1
    s.rotate = <uint32_t>net_below(s.net, s.fds_n)
    for k in range(s.fds_n):
        if count == out_max:
            break
        i = (s.rotate + k) % s.fds_n
        f = &s.fds[i]
        if f.end == NULL or not f.watched or f.mask == 0:
            continue
        mask = end_ready(s.net, f.end)
        if mask & (f.mask | HANGUP):
            out[count].fd = <int>i
            out[count].mask = mask & (f.mask | HANGUP) | (READABLE if mask & HANGUP else 0)
            out[count].token = f.token
            count += 1
    return count


cdef void wake_for(SimState* s, SimFd* f) noexcept nogil:
    """What was sent before its new holder looked must still be seen."""
    if f.mask == 0:
        return
    if end_ready(s.net, f.end) & (f.mask | HANGUP):
        net_wake(s.net, s.id, s.net.now_ns)
    else:
        net_wake(s.net, s.id, end_next_ns(s.net, f.end))


cdef int sim_watch(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f = open_fd(s, fd)
    if f == NULL:
        return -EBADF
    if f.watched:
        net_breach(s.net, BREACH_WATCH_TWICE)
        return -EEXIST
    f.watched = 1
    f.mask = mask
    f.token = token
    wake_for(s, f)
    return 0


cdef int sim_change(Poller* p, int fd, uint32_t mask, uint64_t token) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f = open_fd(s, fd)
    if f == NULL:
        return -EBADF
    if not f.watched:
        net_breach(s.net, BREACH_NOT_WATCHED)
        return -ENOENT
    f.mask = mask
    f.token = token
    wake_for(s, f)
    return 0


cdef int sim_unwatch(Poller* p, int fd) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f = open_fd(s, fd)
    if f == NULL:
        return -EBADF
    if not f.watched:
        net_breach(s.net, BREACH_NOT_WATCHED)
        return -ENOENT
    f.watched = 0
    return 0


cdef void sim_wake(Poller* p) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    s.woken = 1
    net_wake(s.net, s.id, s.net.now_ns)


cdef int sim_accept(Poller* p, int fd, PeerName* peer) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    cdef End* e
    count_call(s)
    f = open_fd(s, fd)
    if f == NULL:
        return -EBADF
    e = listener_take(s.net, f.end)
    if e == NULL:
        return -EAGAIN
    peer[0] = e.name
    return fd_new(s, e)


cdef int64_t sim_recv(Poller* p, int fd, uint8_t* buf, size_t n) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    count_call(s)
    f = open_fd(s, fd)
    return -EBADF if f == NULL else end_recv(s.net, f.end, buf, n)


cdef int64_t sim_send(Poller* p, int fd, const uint8_t* buf, size_t n) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    count_call(s)
    f = open_fd(s, fd)
    return -EBADF if f == NULL else end_send(s.net, f.end, buf, n)


cdef int64_t sim_send_fds(Poller* p, int sock, const uint8_t* buf, size_t n, const int* fds, int fds_n) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    cdef SimFd* what
    cdef int i
    cdef uint32_t mask
    count_call(s)
    f = open_fd(s, sock)
    if f == NULL:
        return -EBADF
    if fds_n < 0 or n == 0:
        return -EINVAL
    mask = end_ready(s.net, f.end)
    if mask & HANGUP:
        return -EPIPE
    if not mask & WRITABLE:
        return -EAGAIN
    for i in range(fds_n):
        what = open_fd(s, fds[i])
        if what == NULL:
            return -EBADF
        if end_carry(s.net, f.end, what.end) != 0:
            return -EPIPE
    return end_send(s.net, f.end, buf, n)


cdef int64_t sim_recv_fds(Poller* p, int sock, uint8_t* buf, size_t n, int* fds, int fds_max,
                          int* fds_n) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    cdef End* socket_end
    cdef End* e
    cdef int64_t got
    fds_n[0] = 0
    count_call(s)
    f = open_fd(s, sock)
    if f == NULL:
        return -EBADF
    socket_end = f.end            # fd_new may move the table
    got = end_recv(s.net, socket_end, buf, n)
    if got <= 0:
        return got
    while True:
        e = end_carried(s.net, socket_end)
        if e == NULL:
            return got
        if fds_n[0] == fds_max:
            end_unref(s.net, e)
            continue
        fds[fds_n[0]] = fd_new(s, e)
        fds_n[0] += 1


cdef void sim_close(Poller* p, int fd) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    cdef SimFd* f
    cdef End* e
    count_call(s)
    f = open_fd(s, fd)
    if f == NULL:
        return
    if f.watched:
        net_breach(s.net, BREACH_CLOSE_WATCHED)
    e = f.end
    f.end = NULL
    end_unref(s.net, e)


cdef uint64_t sim_now_ns(Poller* p) noexcept nogil:
    cdef SimState* s = <SimState*>p.state
    return s.net.now_ns + s.afterlife_ns


cdef uint64_t sim_wall_ms(Poller* p) noexcept nogil:
    cdef Net* n = (<SimState*>p.state).net
    return n.wall_base_ms + n.now_ns // 1000000


cdef void sim_random(Poller* p, uint8_t* out, size_t n) noexcept nogil:
    """Out of a pool, so that a caller who remembers Diffie-Hellman results hardly ever computes one."""
    cdef SimState* s = <SimState*>p.state
    cdef uint64_t x
    cdef size_t i
    cdef Net fixed
    if s.key_pool:
        memset(&fixed, 0, sizeof(Net))
        fixed.random = 0x77610001 + net_below(s.net, s.key_pool)
        for i in range(n):
            out[i] = <uint8_t>net_random(&fixed)
        return
    for i in range(n):
        out[i] = <uint8_t>net_random(s.net)


cdef void sim_destroy(Poller* p) noexcept nogil:
    release(<SimState*>p.state)
    free(p)


# --- the machine -------------------------------------------------------------------------------------------

@cython.no_gc_clear               # a loop that goes with it still closes its descriptors
cdef class SimHost(Host):
    """See sim/_native/poller.pyi."""

    def __cinit__(self, SimNet net, uint32_t target, dict others, object on_death, uint32_t key_pool=0):
        self.net, self.others, self.on_death = net, others, on_death
        self.bus_fd = self.listener_fd = -1
        self.s = <SimState*>calloc(1, sizeof(SimState))
        if self.s == NULL:
            raise MemoryError
        self.s.net = net.n
        net.n.refs += 1
        self.s.refs = 1
        self.s.id = target
        self.s.key_pool = key_pool
        self.s.owner = <void*>self

    def __dealloc__(self):
        if self.s != NULL:
            self.s.owner = NULL
            release(self.s)

    cdef Poller* new_poller(self) except NULL:
        cdef Poller* p = <Poller*>calloc(1, sizeof(Poller))
        if p == NULL:
            raise MemoryError
        self.s.refs += 1
        p.state = self.s
        p.wait, p.watch, p.change, p.unwatch, p.wake = sim_wait, sim_watch, sim_change, sim_unwatch, sim_wake
        p.accept, p.recv, p.send, p.close = sim_accept, sim_recv, sim_send, sim_close
        p.send_fds, p.recv_fds = sim_send_fds, sim_recv_fds
        p.now_ns, p.wall_ms, p.random, p.destroy = sim_now_ns, sim_wall_ms, sim_random, sim_destroy
        return p

    cdef int bus_listen(self, str run_dir, int worker) except -1:
        self.bus_fd = fd_new(self.s, end_listener(self.s.net, self.s.id))
        self.others[worker] = self
        return self.bus_fd

    cdef int bus_connect(self, str run_dir, int worker) except -1:
        cdef SimHost other = self.others.get(worker)
        cdef End* e
        if self.s.dead:
            raise ConnectionRefusedError
        if other is None or other.s.dead or other.bus_fd < 0:
            raise ConnectionRefusedError
        e = end_pair(self.s.net, True, self.s.id, other.s.id)
        listener_offer(self.s.net, other.s.fds[other.bus_fd].end, e.peer)
        return fd_new(self.s, e)

    def listen(self):
        self.listener_fd = fd_new(self.s, end_listener(self.s.net, self.s.id))
        return self.listener_fd

    def connect(self, uint32_t target, bytes address, uint32_t port=0):
        """A client's handle of a new TCP connection to this worker.  Raises ConnectionRefusedError."""
        cdef End* e
        if self.s.dead or self.listener_fd < 0 or self.s.fds[self.listener_fd].end == NULL:
            raise ConnectionRefusedError
        if len(address) != 4:
            raise LocalError("an address is 4 bytes")
        e = end_pair(self.s.net, False, target, self.s.id)
        e.peer.name.family = 4
        memcpy(e.peer.name.address, <const char*>address, 4)
        e.peer.name.port = port
        listener_offer(self.s.net, self.s.fds[self.listener_fd].end, e.peer)
        return self.net.adopt(e)

    def ready(self) -> bool:
        """Would a wait() report anything now?"""
        cdef SimState* s = self.s
        cdef uint32_t i
        cdef SimFd* f
        if s.dead:
            return False
        if s.woken:
            return True
        for i in range(s.fds_n):
            f = &s.fds[i]
            if f.end != NULL and f.watched and f.mask and end_ready(s.net, f.end) & (f.mask | HANGUP):
                return True
        return False

    def kill(self) -> None:
        if not self.s.dead:
            with nogil:
                die(self.s)

    def die_in(self, uint64_t calls) -> None:
        self.s.dies_in = calls

    @property
    def dead(self) -> bool:
        return self.s.dead != 0

    @property
    def open_fds(self) -> int:
        return sum(1 for i in range(self.s.fds_n) if self.s.fds[i].end != NULL)

    cdef void waits(self, uint64_t ns) noexcept:
        if self.on_wait is not None and not self.ready():
            self.on_wait(ns)

    cdef void died(self) noexcept:
        if self.on_death is not None:
            self.on_death()
