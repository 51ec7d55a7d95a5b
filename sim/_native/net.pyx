# cython: language_level=3
# COLD: simulations only; written to be read, with one allocation per connection.
"""The simulated network; see sim/_native/net.pxd.  Its Python face, `SimNet`, is what the clients of a simulation use.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EAGAIN, ECONNRESET, EPIPE
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memmove
from sim._native.agenda cimport net_below, net_wake, pop_wake
from wa._fastpath.os.poller cimport HANGUP, READABLE, WRITABLE

from wa.errors import LocalError

cdef enum:
    RECV_MAX = 65536


# --- the whole -------------------------------------------------------------------------------------------

cdef void net_breach(Net* n, uint8_t what) noexcept nogil:
    if n.breaches_n < BREACHES_MAX:
        n.breaches[n.breaches_n] = what
        n.breaches_n += 1


cdef void net_release(Net* n) noexcept nogil:
    n.refs -= 1
    if n.refs:
        return
    while n.ends != NULL:
        end_free(n, n.ends)
    free(n.wakes)
    free(n)


# --- ends ------------------------------------------------------------------------------------------------

cdef End* end_new(Net* n, uint8_t kind, uint32_t holder) noexcept nogil:
    cdef End* e = <End*>calloc(1, sizeof(End))
    e.kind = kind
    e.holder = holder
    e.refs = 1
    e.following = n.ends
    if n.ends != NULL:
        n.ends.previous = e
    n.ends = e
    n.ends_n += 1
    return e


cdef void pipe_free(Pipe* p) noexcept nogil:
    if p == NULL:
        return
    free(p.data)
    free(p.segments)
    free(p.carried)
    free(p)


cdef void end_free(Net* n, End* e) noexcept nogil:
    if e.previous != NULL:
        e.previous.following = e.following
    else:
        n.ends = e.following
    if e.following != NULL:
        e.following.previous = e.previous
    if e.peer != NULL:
        e.peer.peer = NULL
        e.peer.from_me = NULL
    pipe_free(e.to_me)
    free(e.waiting)
    free(e.waiting_ns)
    free(e)
    n.ends_n -= 1


cdef Pipe* pipe_new(const Link* link) noexcept nogil:
    cdef Pipe* p = <Pipe*>calloc(1, sizeof(Pipe))
    p.limit = link.limit
    p.fin_ns = NEVER
    p.reset_ns = NEVER
    p.broken_ns = NEVER
    return p


cdef inline const Link* link_of(Net* n, const End* e) noexcept nogil:
    return &n.local if e.local else &n.tcp


cdef uint64_t travel_ns(Net* n, const End* e) noexcept nogil:
    cdef const Link* link = link_of(n, e)
    return link.latency_ns + net_below(n, link.jitter_ns)


cdef End* end_pair(Net* n, bint local, uint32_t holder, uint32_t peer_holder) noexcept nogil:
    cdef End* a = end_new(n, END_STREAM, holder)
    cdef End* b = end_new(n, END_STREAM, peer_holder)
    a.local = b.local = local
    a.to_me = pipe_new(link_of(n, a))
    b.to_me = pipe_new(link_of(n, b))
    a.from_me = b.to_me
    b.from_me = a.to_me
    a.peer = b
    b.peer = a
    return a


cdef End* end_listener(Net* n, uint32_t holder) noexcept nogil:
    return end_new(n, END_LISTENER, holder)


cdef int listener_offer(Net* n, End* l, End* e) noexcept nogil:
    cdef uint64_t at = n.now_ns + travel_ns(n, e)
    if l.gone:
        return -1
    if l.waiting_n == l.waiting_capacity:
        l.waiting_capacity = l.waiting_capacity * 2 + 16
        l.waiting = <End**>realloc(l.waiting, l.waiting_capacity * sizeof(End*))
        l.waiting_ns = <uint64_t*>realloc(l.waiting_ns, l.waiting_capacity * sizeof(uint64_t))
    if l.waiting_n and l.waiting_ns[l.waiting_n - 1] > at:
        at = l.waiting_ns[l.waiting_n - 1]
    l.waiting[l.waiting_n] = e
    l.waiting_ns[l.waiting_n] = at
    l.waiting_n += 1
    net_wake(n, l.holder, at)
    return 0


cdef End* listener_take(Net* n, End* l) noexcept nogil:
    cdef End* e
    if l.waiting_n == 0 or l.waiting_ns[0] > n.now_ns:
        return NULL
    e = l.waiting[0]
    l.waiting_n -= 1
    memmove(l.waiting, l.waiting + 1, l.waiting_n * sizeof(End*))
    memmove(l.waiting_ns, l.waiting_ns + 1, l.waiting_n * sizeof(uint64_t))
    return e


cdef void close_listener(Net* n, End* l) noexcept nogil:
    cdef uint32_t i
    l.gone = 1
    for i in range(l.waiting_n):
        end_unref(n, l.waiting[i])
    end_free(n, l)


cdef void end_unref(Net* n, End* e) noexcept nogil:
    cdef uint32_t i
    cdef uint64_t at
    cdef bint unread
    e.refs -= 1
    if e.refs:
        return
    if e.kind == END_LISTENER:
        close_listener(n, e)
        return
    e.gone = 1
    arrive(n, e.to_me)
    unread = e.to_me.arrived > e.to_me.read
    # Descriptors that travelled with bytes nobody will read are closed, as the kernel does.
    for i in range(e.to_me.carried_at, e.to_me.carried_n):
        end_unref(n, e.to_me.carried[i].end)
    e.to_me.carried_at = e.to_me.carried_n
    if e.peer == NULL:
        end_free(n, e)
        return
    if e.peer.gone:
        end_free(n, e.peer)
        end_free(n, e)
        return
    at = n.now_ns + travel_ns(n, e)
    if at < e.from_me.last_ns:
        at = e.from_me.last_ns
    if not e.from_me.lost:
        if unread and not e.local:
            e.from_me.reset_ns = min(at, e.from_me.reset_ns)      # Linux: RST when unread data is thrown away
        else:
            e.from_me.fin_ns = min(at, e.from_me.fin_ns)
        net_wake(n, e.peer.holder, at)
    if not e.to_me.lost:
        e.to_me.broken_ns = min(at, e.to_me.broken_ns)
        net_wake(n, e.peer.holder, at)


cdef void drop_in_flight(Net* n, Pipe* p) noexcept nogil:
    arrive(n, p)
    p.written = p.arrived
    p.segments_n = p.segment_at


cdef void end_reset(Net* n, End* e) noexcept nogil:
    if e.peer == NULL or e.gone:
        return
    drop_in_flight(n, e.to_me)
    drop_in_flight(n, e.from_me)
    e.to_me.reset_ns = n.now_ns
    e.from_me.reset_ns = n.now_ns
    e.to_me.broken_ns = n.now_ns
    e.from_me.broken_ns = n.now_ns
    net_wake(n, e.holder, n.now_ns)
    net_wake(n, e.peer.holder, n.now_ns)


cdef void end_vanish(Net* n, End* e) noexcept nogil:
    if e.peer == NULL or e.gone:
        return
    drop_in_flight(n, e.to_me)
    drop_in_flight(n, e.from_me)
    e.to_me.lost = 1
    e.from_me.lost = 1


# --- bytes -----------------------------------------------------------------------------------------------

cdef void arrive(Net* n, Pipe* p) noexcept nogil:
    while p.segment_at < p.segments_n and p.segments[p.segment_at].at_ns <= n.now_ns:
        p.arrived = p.segments[p.segment_at].end
        p.segment_at += 1
    if p.segment_at == p.segments_n:
        p.segment_at = 0
        p.segments_n = 0


cdef void add_segment(Pipe* p, uint64_t end, uint64_t at_ns) noexcept nogil:
    if p.segments_n == p.segments_capacity:
        p.segments_capacity = p.segments_capacity * 2 + 16
        p.segments = <Segment*>realloc(p.segments, p.segments_capacity * sizeof(Segment))
    p.segments[p.segments_n].end = end
    p.segments[p.segments_n].at_ns = at_ns
    p.segments_n += 1
    p.last_ns = at_ns


cdef void append(Pipe* p, const uint8_t* buf, size_t len) noexcept nogil:
    cdef size_t used = p.written - p.base
    if p.read - p.base > p.capacity // 2:
        memmove(p.data, p.data + (p.read - p.base), p.written - p.read)
        p.base = p.read
        used = p.written - p.base
    if used + len > p.capacity:
        p.capacity = <uint32_t>((used + len) * 2)
        p.data = <uint8_t*>realloc(p.data, p.capacity)
    memcpy(p.data + used, buf, len)
    p.written += len


cdef void schedule(Net* n, End* e, uint64_t first) noexcept nogil:
    """Gives the bytes from `first` on their times of arrival, in one piece or in several."""
    cdef Pipe* p = e.from_me
    cdef const Link* link = link_of(n, e)
    cdef uint64_t at = n.now_ns + travel_ns(n, e)
    cdef uint64_t end = first
    if at < p.last_ns:
        at = p.last_ns
    if net_below(n, 100) < link.split_percent:
        while p.written - end > 1 and net_below(n, 4):
            end += 1 + net_below(n, min(p.written - end - 1, <uint64_t>1 << net_below(n, 14)))
            add_segment(p, end, at)
            net_wake(n, e.peer.holder, at)
            at += 1 + net_below(n, link.jitter_ns // 8 + 1000)
    if end < p.written:
        add_segment(p, p.written, at)
        net_wake(n, e.peer.holder, at)


cdef int64_t end_send(Net* n, End* e, const uint8_t* buf, size_t len) noexcept nogil:
    cdef Pipe* p = e.from_me
    cdef uint64_t first
    cdef size_t room
    if p == NULL or p.broken_ns <= n.now_ns or e.to_me.reset_ns <= n.now_ns:
        return -EPIPE
    room = p.limit - (p.written - p.read)
    if room == 0:
        p.full = 1
        return -EAGAIN
    if net_below(n, 100) < link_of(n, e).short_percent:
        room = 1 + net_below(n, room)
    if len > room:
        len = room
        p.full = 1
    if p.lost:
        p.limit -= <uint32_t>len      # buffered for a peer that will never take it
        return <int64_t>len
    first = p.written
    append(p, buf, len)
    schedule(n, e, first)
    return <int64_t>len


cdef size_t scm_boundary(Net* n, Pipe* p, size_t len) noexcept nogil:
    """How far one call reads: up to the next bytes that carry descriptors, or through them but not to the ones after.
    """
    cdef uint32_t i
    cdef uint64_t edge = 0
    cdef bint through = net_below(n, 2)
    for i in range(p.carried_at, p.carried_n):
        if p.carried[i].offset <= p.read:
            through = False           # these begin at the first byte: nothing is glued behind them
        elif not through or (edge and p.carried[i].offset != edge):
            return min(len, p.carried[i].offset - p.read)
        else:
            edge = p.carried[i].offset
    return len


cdef int64_t end_recv(Net* n, End* e, uint8_t* buf, size_t len) noexcept nogil:
    cdef Pipe* p = e.to_me
    cdef size_t got
    arrive(n, p)
    got = p.arrived - p.read
    if got == 0:
        if p.reset_ns <= n.now_ns:
            return -ECONNRESET
        if p.fin_ns <= n.now_ns and p.read == p.written:
            return 0
        return -EAGAIN
    if len > got:
        len = got
    len = scm_boundary(n, p, len)
    memcpy(buf, p.data + (p.read - p.base), len)
    p.read += len
    if p.full and e.peer != NULL:
        p.full = 0
        net_wake(n, e.peer.holder, n.now_ns + travel_ns(n, e))
    return <int64_t>len


cdef int end_carry(Net* n, End* e, End* what) noexcept nogil:
    cdef Pipe* p = e.from_me
    if p == NULL or p.broken_ns <= n.now_ns:
        return -1
    if p.carried_n == p.carried_capacity:
        p.carried_capacity = p.carried_capacity * 2 + 16
        p.carried = <Carried*>realloc(p.carried, p.carried_capacity * sizeof(Carried))
    p.carried[p.carried_n].offset = p.written
    p.carried[p.carried_n].end = what
    p.carried_n += 1
    what.refs += 1
    return 0


cdef End* end_carried(Net* n, End* e) noexcept nogil:
    cdef Pipe* p = e.to_me
    cdef End* what
    if p.carried_at == p.carried_n or p.carried[p.carried_at].offset >= p.read:
        return NULL
    what = p.carried[p.carried_at].end
    p.carried_at += 1
    return what


cdef uint32_t end_ready(Net* n, End* e) noexcept nogil:
    cdef Pipe* p = e.to_me
    cdef uint32_t mask = 0
    if e.kind == END_LISTENER:
        return READABLE if e.waiting_n and e.waiting_ns[0] <= n.now_ns else 0
    arrive(n, p)
    if p.arrived > p.read or (p.fin_ns <= n.now_ns and p.read == p.written):
        mask |= READABLE
    if p.reset_ns <= n.now_ns or (e.local and p.fin_ns <= n.now_ns):
        mask |= READABLE | HANGUP
    p = e.from_me
    if p == NULL or p.broken_ns <= n.now_ns:
        mask |= WRITABLE
        if e.to_me.fin_ns <= n.now_ns and e.to_me.read == e.to_me.written:
            mask |= HANGUP
    elif p.written - p.read < p.limit:
        mask |= WRITABLE
    else:
        p.full = 1
    return mask


cdef inline uint64_t ahead(Net* n, uint64_t at_ns) noexcept nogil:
    return at_ns if at_ns > n.now_ns else NEVER


cdef uint64_t end_next_ns(Net* n, End* e) noexcept nogil:
    cdef uint64_t at = NEVER
    if e.kind == END_LISTENER:
        return e.waiting_ns[0] if e.waiting_n else NEVER
    arrive(n, e.to_me)
    if e.to_me.segment_at < e.to_me.segments_n:
        at = e.to_me.segments[e.to_me.segment_at].at_ns
    at = min(at, ahead(n, e.to_me.fin_ns), ahead(n, e.to_me.reset_ns))
    if e.from_me != NULL:
        at = min(at, ahead(n, e.from_me.broken_ns))
    return at


# --- the face --------------------------------------------------------------------------------------------

cdef class SimNet:
    """See sim/_native/net.pyi."""

    def __cinit__(self, uint64_t seed):
        self.n = <Net*>calloc(1, sizeof(Net))
        if self.n == NULL:
            raise MemoryError
        self.n.refs = 1
        self.n.random = seed
        self.n.now_ns = 1_000_000_000
        self.n.tcp.limit = self.n.local.limit = 65536
        self.handles = {}

    def __dealloc__(self):
        if self.n != NULL:
            net_release(self.n)

    @property
    def now_ns(self):
        return self.n.now_ns

    @property
    def wall_ms(self):
        return self.n.wall_base_ms + self.n.now_ns // 1000000

    def step_wall(self, int64_t by_ms):
        self.n.wall_base_ms += by_ms

    def link(self, bint local, uint64_t latency_ns, uint64_t jitter_ns, uint32_t split_percent,
             uint32_t short_percent, uint32_t limit):
        cdef Link* l = &self.n.local if local else &self.n.tcp
        l.latency_ns, l.jitter_ns, l.limit = latency_ns, jitter_ns, limit
        l.split_percent, l.short_percent = split_percent, short_percent

    def wake(self, uint32_t target, uint64_t at_ns):
        net_wake(self.n, target, at_ns)

    def next_wake(self):
        cdef Wake w
        if not pop_wake(self.n, &w):
            return -1
        self.n.now_ns = w.at_ns
        return w.target

    def breaches(self):
        names = {BREACH_CLOSED_FD: "closed_fd", BREACH_CLOSE_WATCHED: "close_watched",
                 BREACH_WATCH_TWICE: "watch_twice", BREACH_NOT_WATCHED: "not_watched"}
        return [names[self.n.breaches[i]] for i in range(self.n.breaches_n)]

    @property
    def ends(self):
        return self.n.ends_n

    cdef End* end(self, int handle) except NULL:
        got = self.handles.get(handle)
        if got is None:
            raise LocalError(f"connection {handle} is not open")
        return <End*><size_t>got

    cdef int adopt(self, End* e):
        self.last_handle += 1
        self.handles[self.last_handle] = <size_t>e
        return self.last_handle

    def send(self, int handle, bytes data):
        cdef int64_t sent = end_send(self.n, self.end(handle), <const uint8_t*><const char*>data, len(data))
        if sent == -EAGAIN:
            return 0
        if sent < 0:
            raise ConnectionResetError
        return sent

    def recv(self, int handle):
        cdef uint8_t buf[RECV_MAX]
        cdef int64_t got = end_recv(self.n, self.end(handle), buf, RECV_MAX)
        if got == -EAGAIN:
            return None
        if got < 0:
            raise ConnectionResetError
        return PyBytes_FromStringAndSize(<const char*>buf, got)

    def close(self, int handle):
        cdef End* e = self.end(handle)
        del self.handles[handle]
        end_unref(self.n, e)

    def reset(self, int handle):
        end_reset(self.n, self.end(handle))

    def vanish(self, int handle):
        end_vanish(self.n, self.end(handle))
