# cython: language_level=3
# HOT for accepts and logins: a reconnect storm runs through here.
"""Life of a connection; see session/lifecycle.pxd."""
from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.codes cimport CODE_BUSY, CODE_DEVICE_UNKNOWN, CODE_INTERNAL, CODE_REPLACED
from wa._fastpath.base.timers cimport timer_cancel, timer_set
from wa._fastpath.conn.conntable cimport conn_at, conn_new, conn_release
from wa._fastpath.conn.flags cimport conn_doom, conn_gone, conn_pause, conn_undoom
from wa._fastpath.conn.lists cimport lists_leave, mark_dirty
from wa._fastpath.conn.output cimport conn_drop_buffers, out_frame, out_raw, out_simple
from wa._fastpath.custody.drain cimport drain_begin, drain_end
from wa._fastpath.custody.flight cimport flight_due_ms, flight_release
from wa._fastpath.noise.noise cimport noise_wipe
from wa._fastpath.os.poller cimport PeerName, READABLE
from wa._fastpath.session.binding cimport still_bound
from wa._fastpath.session.ticket cimport ticket_issue
from wa._fastpath.session.waiting cimport waiting_remove
from wa._fastpath.state.cold cimport cold_push, wake_device
from wa._fastpath.state.core cimport (
    Active, COLD_GONE, Conn, CONN_ADMITTED, CONN_CLAIMED, CONN_CLOSING, CONN_FREE, CONN_HELLO, CONN_LIVE,
    CONN_REGISTERING, Core, Device, FLAG_PAUSED, HELD_MAX, NONE_INDEX, Pending, TOKEN_LISTENER,
)
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.wire.frames cimport F_CLOSE, F_READY, Frame

cdef enum:
    SERVER_VERSION = 1


# --- beginning --------------------------------------------------------------------------------------------

cdef uint64_t busy_slot_ms(Core* w) noexcept nogil:
    """Spreads those we shed over the seconds to come, as many per second as we can shake hands with."""
    w.sheds_this_second += 1
    return 1000 + <uint64_t>w.sheds_this_second * 1000 // (w.bounds.handshakes_per_s + 1) * 2


cdef bint admission(Core* w, const PeerName* peer) noexcept nogil:
    """Budgets per second, in all and per address, before any Diffie-Hellman."""
    cdef uint64_t second = w.now_ms // 1000
    cdef uint32_t slot = 2166136261
    cdef int i
    if second != w.budget_second:
        w.budget_second = second
        w.budget_used = 0
        w.sheds_this_second = 0
        memset(w.address_budget, 0, sizeof(w.address_budget))
    if w.budget_used >= w.bounds.handshakes_per_s:
        return False
    if peer.family:
        for i in range(16):
            slot = (slot ^ peer.address[i]) * 16777619
        slot = (slot ^ slot >> 16) & 4095
        if w.address_budget[slot] >= w.bounds.handshakes_per_address_per_s:
            return False
        w.address_budget[slot] += 1
    w.budget_used += 1
    return True


cdef Conn* conn_adopt(Core* w, int32_t fd) noexcept nogil:
    cdef Conn* c
    cdef Pending* p
    if w.conns.live_n >= w.bounds.connections:
        return NULL
    c = conn_new(&w.conns, fd)
    if c == NULL:
        return NULL
    p = <Pending*>malloc(sizeof(Pending))
    if p == NULL:
        conn_release(&w.conns, c)
        return NULL
    memset(p, 0, sizeof(Pending))
    c.pending = p
    p.started_ms = w.now_ms
    c.state = CONN_HELLO
    c.heard_s = <uint32_t>(w.now_ms // 1000)
    if w.poller.watch(w.poller, fd, READABLE, <uint64_t>c.generation << 32 | c.index) < 0:
        free(p)
        conn_release(&w.conns, c)
        return NULL
    w.conns.half_open_n += 1
    timer_set(&w.wheel, &c.timer, w.now_ms + w.bounds.handshake_step_ms)
    return c


cdef void accept_all(Core* w) noexcept nogil:
    cdef uint64_t i
    cdef int fd
    cdef PeerName peer
    cdef Conn* c
    # While handshakes wait nobody is served sooner for being accepted: no faster than they are made, the backlog keeps
    # them.
    for i in range(1 if w.waiting_n else w.bounds.accepts_per_turn):
        fd = w.poller.accept(w.poller, w.listener, &peer)
        if fd == -EMFILE or fd == -ENFILE:
            # Out of descriptors: the backlog keeps them.  Level-triggered, so looking away is what stops the spin.
            w.listener_full = 1
            w.poller.change(w.poller, w.listener, 0, <uint64_t>TOKEN_LISTENER << 56)
        if fd < 0:
            return
        w.stats.accepts += 1
        c = conn_adopt(w, fd)
        if c == NULL:
            w.poller.close(w.poller, fd)
            continue
        c.pending.peer = peer
        if w.conns.half_open_n > w.bounds.half_open:
            w.stats.sheds += 1
            begin_close(w, c, CODE_BUSY, busy_slot_ms(w))
            return                        # to refuse one costs three times what it takes to accept one


cdef void become_live(Core* w, Conn* c, Device* d) noexcept nogil:
    """From here on this connection is the device."""
    wa_assert(d.address == c.address, b"a connection becomes the device that it logged in as")
    wa_assert(c.state == CONN_ADMITTED or c.state == CONN_REGISTERING, b"it was admitted, or has registered now")
    if d.conn != NONE_INDEX:
        begin_close(w, conn_at(&w.conns, d.conn), CODE_REPLACED, 0)
    pending_free(w, c)
    w.conns.half_open_n -= 1
    c.state = CONN_LIVE
    d.conn = c.index
    d.undrained = d.held
    if w.custody.dropping and d.undrained < HELD_MAX:
        d.undrained += 1          # perhaps a row of this mailbox: nothing overtakes it before the store has answered
    d.woken_s = 0


cdef void live_on(Core* w, Conn* c) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, c.address)
    wa_assert(c.state == CONN_HELLO, b"it was adopted just now")
    c.state = CONN_ADMITTED
    if d == NULL:
        begin_close(w, c, CODE_DEVICE_UNKNOWN, 0)
        return
    become_live(w, c, d)
    if c.outstanding >= w.bounds.sender_window:
        conn_pause(w, c)
    if (d.undrained or d.has_receipts) and drain_begin(w, c) != 0:
        conn_doom(w, c, CODE_INTERNAL)
    conn_timer(w, c)


cdef void go_live(Core* w, Conn* c) noexcept nogil:
    """The first transport record opened."""
    cdef Device* d = directory_find(&w.directory, c.address)
    cdef Frame f
    # Removed since it was admitted, or, under the same address, another device now.
    if d == NULL or c.state == CONN_ADMITTED and not still_bound(d, c.pending):
        begin_close(w, c, CODE_DEVICE_UNKNOWN, 0)
        return
    become_live(w, c, d)
    w.stats.logins += 1
    memset(&f, 0, sizeof(Frame))
    f.type = F_READY
    f.number = SERVER_VERSION
    f.extra = d.held
    f.address = w.wall_ms
    out_frame(w, c, &f)
    ticket_issue(w, c, d)
    if (d.undrained or d.has_receipts) and drain_begin(w, c) != 0:
        conn_doom(w, c, CODE_INTERNAL)
    conn_timer(w, c)


cdef void conn_timer(Core* w, Conn* c) noexcept nogil:
    """Sets the one timer of a live connection to the earliest thing that can happen to it."""
    cdef uint64_t deadline = flight_due_ms(w, c, <uint64_t>c.heard_s * 1000 + w.bounds.idle_ms)
    cdef Active* a = c.active
    if a != NULL and a.in_n and not c.flags & FLAG_PAUSED and a.partial_since_ms + w.bounds.authenticate_ms < deadline:
        deadline = a.partial_since_ms + w.bounds.authenticate_ms
    if a != NULL and a.stalled_since_ms and a.stalled_since_ms + w.bounds.authenticate_ms < deadline:
        deadline = a.stalled_since_ms + w.bounds.authenticate_ms
    timer_set(&w.wheel, &c.timer, deadline)


# --- ending -------------------------------------------------------------------------------------------------

cdef bint detach(Core* w, Conn* c) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, c.address)
    cdef bint waits = d != NULL and d.undrained
    waits |= flight_release(w, c)
    drain_end(w, c)
    if d != NULL and d.conn == c.index:
        d.conn = NONE_INDEX
        d.undrained = 0
    cold_push(w, COLD_GONE, c, NULL, 0)
    return waits


cdef void refuse_in_clear(Core* w, Conn* c, uint16_t code, uint64_t retry_after_ms) noexcept nogil:
    cdef uint8_t r[11]
    memset(r, 0, sizeof(r))
    r[3] = 7                              # record length: kind, code, retry
    r[4] = 3
    r[5] = <uint8_t>(code >> 8)
    r[6] = <uint8_t>code
    r[7] = <uint8_t>(retry_after_ms >> 24)
    r[8] = <uint8_t>(retry_after_ms >> 16)
    r[9] = <uint8_t>(retry_after_ms >> 8)
    r[10] = <uint8_t>retry_after_ms
    out_raw(w, c, r, sizeof(r))


cdef void begin_close(Core* w, Conn* c, uint16_t code, uint64_t retry_after_ms) noexcept nogil:
    cdef Device* d
    if c.state == CONN_CLOSING or c.state == CONN_FREE:
        return
    if c.state == CONN_LIVE:
        # A replaced connection leaves its device online.
        if detach(w, c) and code != CODE_REPLACED:
            d = directory_find(&w.directory, c.address)
            if d != NULL:
                wake_device(w, d, 0)
    else:
        w.conns.half_open_n -= 1
    conn_undoom(c)
    if code == 0:
        conn_gone(c)                      # the peer ended it: there is nobody to tell
    elif c.state >= CONN_CLAIMED:
        out_simple(w, c, F_CLOSE, code, retry_after_ms)
    else:
        refuse_in_clear(w, c, code, retry_after_ms)
    pending_free(w, c)
    c.state = CONN_CLOSING
    conn_pause(w, c)
    timer_set(&w.wheel, &c.timer, w.now_ms + w.bounds.close_flush_ms)
    mark_dirty(w, c)


cdef void conn_end(Core* w, Conn* c) noexcept nogil:
    """Off every list of this turn, then released."""
    lists_leave(w, c)                     # begin_close put it back on one
    timer_cancel(&w.wheel, &c.timer)
    if c.fd >= 0:                         # -1 after a hand-over
        w.poller.unwatch(w.poller, c.fd)
        w.poller.close(w.poller, c.fd)
    pending_free(w, c)
    conn_drop_buffers(w, c)
    conn_release(&w.conns, c)


cdef void pending_free(Core* w, Conn* c) noexcept nogil:
    if c.pending != NULL:
        waiting_remove(w, c)
        noise_wipe(&c.pending.hs)
        free(c.pending)
        c.pending = NULL
