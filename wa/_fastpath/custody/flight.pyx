# cython: language_level=3
# HOT: every delivery takes a number here and gives it back.
"""Deliveries in flight; see custody/flight.pxd.

Comes in: an Entry that is LINGER, STORED or RECEIPT, and the connection of its device.
Must hold: seq_base is the oldest number not acknowledged, seq_next the next one; inflight_n and inflight_bytes count
the ring; an entry on a ring names that connection, and one off it none.
Is called: linger (what was in memory only goes to disk when the connection ends), output (frames).
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.base.codes cimport CODE_NOT_RESPONDING
from wa._fastpath.base.slab cimport slab_take
from wa._fastpath.base.timers cimport timer_set
from wa._fastpath.conn.flags cimport conn_doom
from wa._fastpath.conn.output cimport conn_active, out_frame
from wa._fastpath.custody.counts cimport counted_at, held_sub
from wa._fastpath.custody.linger cimport commit_entry
from wa._fastpath.custody.states cimport ENTRY_COMMITTING, entry_end, ENTRY_LINGER, ENTRY_RECEIPT, ENTRY_STORED
from wa._fastpath.state.core cimport Active, Conn, Core, Device, Entry, FLAG_WANT_WRITE, NONE_INDEX
from wa._fastpath.state.trace cimport trace, TRACE_RESENT
from wa._fastpath.wire.frames cimport F_DELIVER_QUEUED, F_STORED_RECEIPT, Frame


cdef Entry** flight_ring(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t capacity = 0
    cdef Active* a = conn_active(w, c)
    if a == NULL:
        return NULL
    if a.ring == NULL:
        a.ring = <Entry**>slab_take(&w.slab, DELIVERY_WINDOW_MAX * sizeof(Entry*), &capacity)
        if a.ring == NULL:
            return NULL
        memset(a.ring, 0, DELIVERY_WINDOW_MAX * sizeof(Entry*))
        a.seq_base = c.seq_next
    return a.ring


cdef bint flight_room(const Core* w, const Conn* c, uint32_t body_n) noexcept nogil:
    """Room for one more delivery?  One body is always allowed, however large."""
    cdef const Active* a = c.active
    if a == NULL or a.inflight_n == 0:
        return True
    return c.seq_next - a.seq_base < w.bounds.window and a.inflight_bytes + body_n <= w.bounds.window_bytes


cdef int flight_left(const Core* w, const Conn* c) noexcept nogil:
    return <int>(w.bounds.window - (c.seq_next - c.active.seq_base))


cdef void flight_put(Core* w, Conn* c, Entry* e) noexcept nogil:
    """Gives `e` the next delivery number of `c`; flight_ring(c) must have succeeded."""
    cdef Active* a = c.active
    wa_assert(a != NULL and a.ring != NULL, b"the ring was made before")
    wa_assert(a.ring[c.seq_next % DELIVERY_WINDOW_MAX] == NULL, b"the slot of the next number is free")
    e.conn = c.index
    e.seq = c.seq_next
    e.sent_ms = w.now_ms
    c.seq_next += 1
    a.ring[e.seq % DELIVERY_WINDOW_MAX] = e
    a.inflight_n += 1
    a.inflight_bytes += e.env.body_n
    if c.timer.next == NULL or c.timer.deadline_ms > w.now_ms + w.bounds.resend_after_ms:
        timer_set(&w.wheel, &c.timer, w.now_ms + w.bounds.resend_after_ms)


cdef Entry* flight_take(Conn* c, uint64_t number) noexcept nogil:
    cdef Active* a = c.active
    cdef Entry* e = a.ring[number % DELIVERY_WINDOW_MAX]
    if e == NULL or e.seq != number:
        return NULL
    wa_assert(e.conn == c.index, b"what is on a ring names its connection")
    wa_assert(a.inflight_n > 0 and a.inflight_bytes >= e.env.body_n, b"what is on a ring is counted")
    a.ring[number % DELIVERY_WINDOW_MAX] = NULL
    a.inflight_n -= 1
    a.inflight_bytes -= e.env.body_n
    e.conn = NONE_INDEX
    while a.seq_base != c.seq_next and a.ring[a.seq_base % DELIVERY_WINDOW_MAX] == NULL:
        a.seq_base += 1
    return e


cdef void release(Core* w, Entry* e) noexcept nogil:
    """Its connection is over, and it was not acknowledged there."""
    cdef Device* d
    if e.state == ENTRY_LINGER:
        commit_entry(w, e)                # COMMITTING, or REFUSED when there was no memory for it
    if e.state == ENTRY_COMMITTING:
        return                            # ends when its commit is done
    if e.state != ENTRY_STORED and e.state != ENTRY_RECEIPT:
        d = counted_at(w, e.env.recipient, e.mail_seq)
        if d != NULL:
            held_sub(w, d)                # nowhere any more; its sender was told so
    entry_end(w, e)


cdef bint flight_release(Core* w, Conn* c) noexcept nogil:
    cdef Active* a = c.active
    cdef Entry* e
    cdef uint32_t s
    cdef bint waits = False
    if a == NULL or a.ring == NULL:
        return False
    for s in range(a.seq_base, c.seq_next):
        e = flight_take(c, s)
        if e != NULL:
            waits |= e.state == ENTRY_LINGER or e.state == ENTRY_COMMITTING or e.state == ENTRY_STORED
            release(w, e)
    wa_assert(a.inflight_n == 0 and a.inflight_bytes == 0, b"nothing is left in flight")
    return waits


# --- frames -------------------------------------------------------------------------------------------

cdef int send_delivery(Core* w, Conn* c, const Entry* e, uint8_t type, const uint8_t* body) noexcept nogil:
    cdef Frame f
    memset(&f, 0, sizeof(Frame))
    f.type = type
    f.kind = e.env.kind
    f.number = e.seq
    f.address = e.env.sender
    f.id = e.env.id
    f.extra = e.env.accepted_s if type == F_DELIVER_QUEUED else 0
    f.body = body
    f.body_n = e.env.body_n
    return out_frame(w, c, &f)


cdef int send_receipt(Core* w, Conn* c, const Entry* e) noexcept nogil:
    cdef Frame f
    memset(&f, 0, sizeof(Frame))
    f.type = F_STORED_RECEIPT
    f.number = e.seq
    f.extra = e.level
    f.address = e.env.sender
    f.id = e.env.id
    f.code = e.code
    return out_frame(w, c, &f)


# --- resend -------------------------------------------------------------------------------------------

cdef int send_again(Core* w, Conn* c, Entry* e) noexcept nogil:
    cdef const uint8_t* body = e.body
    if e.state == ENTRY_RECEIPT:
        return send_receipt(w, c, e)
    if body == NULL:
        if w.store.read(w.store, e.env.recipient, e.env.priority, e.mail_seq - 1, w.rows, 1, w.arena, w.arena_n) != 1:
            return 0
        if w.rows[0].seq != e.mail_seq:
            return 0                      # expired or corrupt since: nothing to repeat
        body = w.rows[0].body
    return send_delivery(w, c, e, F_DELIVER_QUEUED, body)


cdef void flight_resend(Core* w, Conn* c) noexcept nogil:
    """Rule 6: what is unacknowledged for 5 s goes out again, three times; then the connection is dead."""
    cdef Active* a = c.active
    cdef Entry* e
    cdef uint32_t s
    if a == NULL or a.ring == NULL:
        return
    for s in range(a.seq_base, c.seq_next):
        e = a.ring[s % DELIVERY_WINDOW_MAX]
        if e == NULL or w.now_ms < e.sent_ms + w.bounds.resend_after_ms:
            continue
        if e.resends >= w.bounds.resends:
            w.stats.unresponsive += 1
            conn_doom(w, c, CODE_NOT_RESPONDING)
            return
        e.resends += 1
        e.sent_ms = w.now_ms
        w.stats.resends += 1
        trace(w, TRACE_RESENT, e.env.sender, e.env.recipient, e.env.id, e.resends)
        # Behind a full socket a second copy helps nobody: only the count goes on.
        if not c.flags & FLAG_WANT_WRITE and send_again(w, c, e) != 0:
            return


cdef uint64_t flight_due_ms(const Core* w, const Conn* c, uint64_t until_ms) noexcept nogil:
    cdef const Active* a = c.active
    cdef const Entry* e
    cdef uint32_t s
    if a == NULL or a.ring == NULL:
        return until_ms
    for s in range(a.seq_base, c.seq_next):
        e = a.ring[s % DELIVERY_WINDOW_MAX]
        if e != NULL and e.sent_ms + w.bounds.resend_after_ms < until_ms:
            until_ms = e.sent_ms + w.bounds.resend_after_ms
    return until_ms
