# cython: language_level=3
# HOT: the message path.  No Python, no allocation from the system per message, one hash look-up per table.
"""Delivery to connected devices and custody until they acknowledge; see custody/delivery.pxd."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.custody.batches cimport (
    batch_has_room, batch_op, owner_of, queue_drain, tell,
)
from wa._fastpath.bus.send cimport BUS_ENVELOPE, BusEnvelope, bus_send
from wa._fastpath.base.codes cimport (
    CODE_ADDRESS_UNKNOWN, CODE_BODY_TOO_LARGE, CODE_INTERNAL, CODE_KIND_INVALID, CODE_MAILBOX_FULL,
    CODE_NOT_RESPONDING, CODE_TRY_LATER, CODE_TTL_INVALID,
)
from wa._fastpath.conn.conntable cimport conn_at, directory_find
from wa._fastpath.state.core cimport (
    Active, Conn, Core, Device, DrainState, Entry, CONN_LIVE, ENTRY_COMMITTING, ENTRY_DELETING, ENTRY_DROPPING,
    ENTRY_LINGER, ENTRY_RECEIPT, ENTRY_STORED, ENTRY_UNSAVED, FLAG_DOOMED, FLAG_EOF, FLAG_PAUSED, FLAG_WANT_WRITE, KINDS_N, NONE_INDEX, PRIORITIES_N,
    WINDOW_MAX,
)
from wa._fastpath.custody.entries cimport (
    custody_find, custody_insert, custody_remove, entry_free, entry_new, linger_push, linger_remove,
)
from wa._fastpath.custody.deletion cimport delete_envelope, delete_row, make_room
from wa._fastpath.wire.frames cimport (
    F_ACCEPTED, F_CLOSE, F_DELIVER, F_DELIVERED, F_DELIVER_QUEUED, F_READ, F_REFUSED, F_SEND, F_SEND_TTL,
    F_STORED_RECEIPT, Frame,
)
from wa._fastpath.mailbox.contract cimport MailRow, ORIGIN_DIRECT, ORIGIN_LINGER, OP_DELETE, OP_PUT, OP_RECEIPT_DELETE, RESULT_MISSING, RESULT_OK, StoreOp
from wa._fastpath.conn.output cimport conn_active, conn_watch, mark_dirty, out_frame
from wa._fastpath.base.slab cimport slab_give, slab_take
from wa._fastpath.base.timers cimport timer_set
from wa._fastpath.state.trace cimport (
    TRACE_ACKNOWLEDGED, TRACE_DUPLICATE, TRACE_LINGER_OVER, TRACE_READ, TRACE_RECEIVED, TRACE_REFUSED, TRACE_RESENT,
    TRACE_SENT, TRACE_TO_DISK, TRACE_TO_OWNER, trace,
)



cdef uint8_t priority_of(uint8_t kind) noexcept nogil:
    """Drain rule 8; the kinds of wa.wire.methods.Kind (a test compares the two)."""
    if kind == 6 or kind == 7:
        return 100
    if kind == 5:
        return 50
    if kind == 2:
        return 30
    if kind == 8:
        return 5
    return 10


def priority(kind: int) -> int:
    return priority_of(<uint8_t>kind)


# --- in flight --------------------------------------------------------------------------------------

cdef Entry** ring_of(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t capacity = 0
    cdef Active* a = conn_active(w, c)
    if a == NULL:
        return NULL
    if a.ring == NULL:
        a.ring = <Entry**>slab_take(&w.slab, WINDOW_MAX * sizeof(Entry*), &capacity)
        if a.ring == NULL:
            return NULL
        memset(a.ring, 0, WINDOW_MAX * sizeof(Entry*))
        a.seq_base = c.seq_next
    return a.ring


cdef bint window_open(const Core* w, const Conn* c, uint32_t body_n) noexcept nogil:
    """Room for one more delivery?  One body is always allowed, however large."""
    cdef const Active* a = c.active
    if a == NULL or a.inflight_n == 0:
        return True
    return c.seq_next - a.seq_base < w.bounds.window and a.inflight_bytes + body_n <= w.bounds.window_bytes


cdef void put_in_flight(Core* w, Conn* c, Entry* e) noexcept nogil:
    """Gives `e` the next delivery number of `c`; ring_of(c) must have succeeded."""
    cdef Active* a = c.active
    e.conn = c.index
    e.seq = c.seq_next
    e.sent_ms = w.now_ms
    c.seq_next += 1
    a.ring[e.seq % WINDOW_MAX] = e
    a.inflight_n += 1
    a.inflight_bytes += e.env.body_n
    if c.timer.next == NULL or c.timer.deadline_ms > w.now_ms + w.bounds.resend_after_ms:
        timer_set(&w.wheel, &c.timer, w.now_ms + w.bounds.resend_after_ms)


cdef void entry_end(Core* w, Entry* e) noexcept nogil:
    linger_remove(&w.custody, e)
    if e.state != ENTRY_RECEIPT:
        custody_remove(&w.custody, e)
    if e.state == ENTRY_DELETING or e.state == ENTRY_DROPPING:
        w.custody.deleting -= 1
        w.custody.dropping -= e.state == ENTRY_DROPPING
    if e.body != NULL:
        slab_give(&w.slab, e.body, e.body_capacity)
    entry_free(&w.custody, e)


# --- envelopes in ------------------------------------------------------------------------------------

cdef void refuse_send(Core* w, Conn* c, const Frame* f, uint16_t code) noexcept nogil:
    cdef Frame r
    memset(&r, 0, sizeof(Frame))
    r.type = F_REFUSED
    r.address = f.address
    r.id = f.id
    r.number = code
    w.stats.refused += 1
    trace(w, TRACE_REFUSED, c.address, f.address, f.id, code)
    out_frame(w, c, &r)


cdef void send_from(Core* w, Conn* c, const Frame* f) noexcept nogil:
    """A SEND frame of a live connection: check it, and carry it to the owner of its recipient."""
    cdef BusEnvelope v
    cdef uint32_t owner
    w.stats.envelopes_in += 1
    trace(w, TRACE_RECEIVED, c.address, f.address, f.id, f.kind)
    if f.kind >= KINDS_N:
        refuse_send(w, c, f, CODE_KIND_INVALID)
        return
    if f.body_n > w.bounds.body_bytes:
        refuse_send(w, c, f, CODE_BODY_TOO_LARGE)
        return
    if f.type == F_SEND_TTL and (f.extra == 0 or f.extra > w.bounds.retention_s[f.kind]):
        refuse_send(w, c, f, CODE_TTL_INVALID)
        return
    if f.address >> 58 or f.address & 0xff == 0:
        refuse_send(w, c, f, CODE_ADDRESS_UNKNOWN)
        return
    if c.outstanding >= w.bounds.sender_window * 4:
        # Only records already read can come here: the connection stopped being read at the window.
        refuse_send(w, c, f, CODE_TRY_LATER)
        return
    memset(&v, 0, sizeof(BusEnvelope))
    v.env.recipient = f.address
    v.env.sender = c.address
    v.env.id = f.id
    v.env.body_n = f.body_n
    v.env.kind = f.kind
    v.env.priority = priority_of(f.kind)
    v.ttl_s = <uint32_t>f.extra if f.type == F_SEND_TTL else 0
    owner = owner_of(w, f.address)
    if owner != w.worker and bus_send(w, owner, BUS_ENVELOPE, &v, sizeof(v), f.body, f.body_n, -1) != 0:
        refuse_send(w, c, f, CODE_TRY_LATER)
        return
    c.outstanding += 1
    if c.outstanding >= w.bounds.sender_window and not c.flags & FLAG_PAUSED:
        c.flags |= FLAG_PAUSED
        conn_watch(w, c)
    if owner == w.worker:
        take_envelope(w, &v, f.body, f.body_n)
    else:
        trace(w, TRACE_TO_OWNER, v.env.sender, v.env.recipient, v.env.id, <uint16_t>owner)


cdef void refuse_envelope(Core* w, const BusEnvelope* v, uint16_t code) noexcept nogil:
    w.stats.refused += 1
    trace(w, TRACE_REFUSED, v.env.sender, v.env.recipient, v.env.id, code)
    tell(w, v.env.sender, v.env.recipient, v.env.id, F_REFUSED, code, True)


cdef void take_envelope(Core* w, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil:
    """An envelope for one of our devices.  Its sender hears exactly one first answer, now or later."""
    cdef Device* d = directory_find(&w.directory, v.env.recipient)
    cdef Entry* e
    cdef Conn* c
    if d == NULL:
        refuse_envelope(w, v, CODE_ADDRESS_UNKNOWN)
        return
    e = custody_find(&w.custody, v.env.recipient, v.env.sender, v.env.id)
    if e != NULL:
        take_again(w, e)
        return
    if not batch_has_room(w, n):
        # The disk is behind.  What is delivered live may need it too, so nothing more is taken in.
        refuse_envelope(w, v, CODE_TRY_LATER)
        return
    while d.held + d.undeleted >= w.bounds.mailbox:
        if not make_room(w, d, &v.env):
            refuse_envelope(w, v, CODE_MAILBOX_FULL)
            return
    if d.conn != NONE_INDEX and d.undrained == 0:
        c = conn_at(&w.conns, d.conn)
        if not c.flags & (FLAG_DOOMED | FLAG_EOF) and window_open(w, c, n) and take_live(w, d, c, v, body, n) == 0:
            return
    take_stored(w, d, v, body, n)


cdef void take_again(Core* w, Entry* e) noexcept nogil:
    """The same envelope once more while it is in our hands: its sender reconnected or lost patience."""
    w.stats.duplicates += 1
    trace(w, TRACE_DUPLICATE, e.env.sender, e.env.recipient, e.env.id, 0)
    if e.state == ENTRY_STORED:
        tell(w, e.env.sender, e.env.recipient, e.env.id, F_ACCEPTED, 0, True)
        return
    if e.state == ENTRY_DELETING:
        tell(w, e.env.sender, e.env.recipient, e.env.id, F_DELIVERED, 0, True)
        return
    if e.state == ENTRY_UNSAVED and e.body != NULL:
        commit_entry(w, e)
        return
    tell(w, e.env.sender, e.env.recipient, e.env.id, 0, 0, True)     # the answer is on its way; only the window moves


cdef Envelope stamped(const Core* w, const BusEnvelope* v) noexcept nogil:
    """With the times that the owner of its recipient sets."""
    cdef Envelope env = v.env
    env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    env.expires_s = env.accepted_s + (v.ttl_s if v.ttl_s else <uint32_t>w.bounds.retention_s[env.kind])
    return env


cdef int take_live(Core* w, Device* d, Conn* c, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil:
    """Deliver at once and linger.  -1 when memory is out: the envelope then goes to the mailbox."""
    cdef Entry* e
    cdef Frame f
    if ring_of(w, c) == NULL:
        return -1
    e = entry_new(&w.custody)
    if e == NULL:
        return -1
    e.body = slab_take(&w.slab, n if n else 1, &e.body_capacity)
    if e.body == NULL:
        entry_free(&w.custody, e)
        return -1
    memcpy(e.body, body, n)
    e.env = stamped(w, v)
    w.mail_seq += 1
    e.mail_seq = w.mail_seq
    e.state = ENTRY_LINGER
    e.linger_until_ms = w.now_ms + w.bounds.linger_ms
    custody_insert(&w.custody, e)
    linger_push(&w.custody, e)
    put_in_flight(w, c, e)
    d.held += 1
    w.stats.delivered_live += 1
    trace(w, TRACE_SENT, e.env.sender, e.env.recipient, e.env.id, 0)
    memset(&f, 0, sizeof(Frame))
    f.type = F_DELIVER
    f.kind = e.env.kind
    f.number = e.seq
    f.address = e.env.sender
    f.id = e.env.id
    f.body = body
    f.body_n = n
    out_frame(w, c, &f)      # on failure the connection is doomed, and its end commits what is in flight
    return 0


cdef int backlog_begins(Core* w, Conn* c, uint64_t mail_seq) noexcept nogil:
    """The first envelope that a connected device must fetch from its mailbox: everything before was sent to it."""
    cdef uint32_t capacity = 0
    cdef uint32_t i
    cdef Active* a = conn_active(w, c)
    if a == NULL:
        return -1
    if a.drain == NULL:
        a.drain = <DrainState*>slab_take(&w.slab, sizeof(DrainState), &capacity)
        if a.drain == NULL:
            return -1
        memset(a.drain, 0, sizeof(DrainState))
    for i in range(PRIORITIES_N):
        a.drain.cursor[i] = mail_seq - 1
    a.drain.first = mail_seq
    return 0


cdef void commit_lingering(Core* w, Conn* c) noexcept nogil:
    """A younger envelope goes to disk: the older ones go with it, or a crash would turn their order round."""
    cdef Entry* e
    cdef uint32_t s
    if c.active == NULL or c.active.ring == NULL:
        return
    for s in range(c.active.seq_base, c.seq_next):
        e = c.active.ring[s % WINDOW_MAX]
        if e != NULL and e.state == ENTRY_LINGER:
            commit_entry(w, e)


cdef void take_stored(Core* w, Device* d, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil:
    cdef StoreOp* op
    if d.conn != NONE_INDEX and d.undrained == 0:
        commit_lingering(w, conn_at(&w.conns, d.conn))    # while there is a backlog nothing lingers
    op = batch_op(w, OP_PUT, n)
    if op == NULL:
        refuse_envelope(w, v, CODE_TRY_LATER)
        return
    trace(w, TRACE_TO_DISK, v.env.sender, v.env.recipient, v.env.id, 0)
    w.mail_seq += 1
    op.origin = ORIGIN_DIRECT
    op.env = stamped(w, v)
    op.seq = w.mail_seq
    memcpy(<uint8_t*>(op + 1), body, n)
    d.held += 1
    cdef Conn* c
    if d.conn != NONE_INDEX:
        c = conn_at(&w.conns, d.conn)
        if d.undrained == 0 and backlog_begins(w, c, op.seq) != 0:
            c.flags |= FLAG_DOOMED
            c.doom = CODE_INTERNAL
            mark_dirty(w, c)
        d.undrained += 1


cdef void commit_entry(Core* w, Entry* e) noexcept nogil:
    """The linger window is over, or the connection is: to disk with it."""
    cdef StoreOp* op = batch_op(w, OP_PUT, e.env.body_n)
    linger_remove(&w.custody, e)
    if op == NULL:
        e.state = ENTRY_UNSAVED
        tell(w, e.env.sender, e.env.recipient, e.env.id, F_REFUSED, CODE_TRY_LATER, True)
        return
    op.origin = ORIGIN_LINGER
    op.env = e.env
    op.seq = e.mail_seq
    memcpy(<uint8_t*>(op + 1), e.body, e.env.body_n)
    e.state = ENTRY_COMMITTING
    trace(w, TRACE_LINGER_OVER, e.env.sender, e.env.recipient, e.env.id, 0)
    w.stats.linger_commits += 1


cdef void linger_fire(Core* w) noexcept nogil:
    while w.custody.oldest != NULL and w.custody.oldest.linger_until_ms <= w.now_ms:
        commit_entry(w, w.custody.oldest)


# --- acknowledgements ---------------------------------------------------------------------------------

cdef void acknowledged(Core* w, Entry* e) noexcept nogil:
    cdef Device* d
    w.stats.acknowledged += 1
    if e.state == ENTRY_RECEIPT:
        delete_row(w, e)      # when that fails it comes again with the next login, and is acknowledged again
        entry_end(w, e)
        return
    trace(w, TRACE_ACKNOWLEDGED, e.env.sender, e.env.recipient, e.env.id, 0)
    # "delivered" is the first answer unless "accepted" (STORED) or a refusal (UNSAVED) was told before.
    tell(w, e.env.sender, e.env.recipient, e.env.id, F_DELIVERED, 0, e.state == ENTRY_LINGER or e.state == ENTRY_COMMITTING)
    d = directory_find(&w.directory, e.env.recipient)
    if d != NULL and d.held:
        d.held -= 1
    if e.state == ENTRY_COMMITTING or e.state == ENTRY_STORED:
        delete_envelope(w, e)
    else:
        entry_end(w, e)


cdef int acknowledge(Core* w, Conn* c, uint64_t first, uint64_t count) noexcept nogil:
    cdef Active* a = c.active
    cdef uint64_t s
    cdef uint32_t slot
    cdef Entry* e
    if first == 0 or first >= c.seq_next or count > c.seq_next - first:
        return -1
    if a == NULL or a.ring == NULL:
        return 0              # everything was acknowledged before: an answer to a resend
    for s in range(first, first + count):
        slot = <uint32_t>(s % WINDOW_MAX)
        e = a.ring[slot]
        if e == NULL or e.seq != s:
            continue
        a.ring[slot] = NULL
        a.inflight_n -= 1
        a.inflight_bytes -= e.env.body_n
        acknowledged(w, e)
    while a.seq_base != c.seq_next and a.ring[a.seq_base % WINDOW_MAX] == NULL:
        a.seq_base += 1
    if a.drain != NULL:
        queue_drain(w, c)
    mark_dirty(w, c)          # the flush gives back what is not needed any more
    return 0


cdef void mark_read(Core* w, Conn* c, uint64_t sender, uint64_t id) noexcept nogil:
    trace(w, TRACE_READ, sender, c.address, id, 0)
    tell(w, sender, c.address, id, F_READ, 0, False)


# --- resend ---------------------------------------------------------------------------------------------

cdef int resend_frame(Core* w, Conn* c, Entry* e) noexcept nogil:
    cdef Frame f
    cdef const uint8_t* body = e.body
    memset(&f, 0, sizeof(Frame))
    f.number = e.seq
    f.address = e.env.sender
    f.id = e.env.id
    if e.state == ENTRY_RECEIPT:
        f.type = F_STORED_RECEIPT
        f.extra = e.level
        f.code = e.code
        return out_frame(w, c, &f)
    if body == NULL:
        if w.store.read(w.store, e.env.recipient, e.env.priority, e.mail_seq - 1, w.rows, 1, w.arena, w.arena_n) != 1:
            return 0
        if w.rows[0].seq != e.mail_seq:
            return 0          # expired or corrupt since: nothing to repeat
        body = w.rows[0].body
    f.type = F_DELIVER_QUEUED
    f.kind = e.env.kind
    f.extra = e.env.accepted_s
    f.body = body
    f.body_n = e.env.body_n
    return out_frame(w, c, &f)


cdef void resend(Core* w, Conn* c) noexcept nogil:
    """Rule 6: what is unacknowledged for 5 s goes out again, three times; then the connection is dead."""
    cdef Active* a = c.active
    cdef Entry* e
    cdef uint32_t s
    if a == NULL or a.ring == NULL:
        return
    for s in range(a.seq_base, c.seq_next):
        e = a.ring[s % WINDOW_MAX]
        if e == NULL or w.now_ms < e.sent_ms + w.bounds.resend_after_ms:
            continue
        if e.resends >= w.bounds.resends:
            w.stats.unresponsive += 1
            if not c.flags & FLAG_DOOMED:
                c.flags |= FLAG_DOOMED
                c.doom = CODE_NOT_RESPONDING
            mark_dirty(w, c)
            return
        e.resends += 1
        e.sent_ms = w.now_ms
        w.stats.resends += 1
        trace(w, TRACE_RESENT, e.env.sender, e.env.recipient, e.env.id, e.resends)
        # Behind a full socket a second copy helps nobody: only the count goes on.
        if not c.flags & FLAG_WANT_WRITE and resend_frame(w, c, e) != 0:
            return


cdef void conn_timer(Core* w, Conn* c) noexcept nogil:
    """Sets the one timer of a live connection to the earliest thing that can happen to it."""
    cdef uint64_t deadline = <uint64_t>c.heard_s * 1000 + w.bounds.idle_ms
    cdef Active* a = c.active
    cdef Entry* e
    cdef uint32_t s
    if a != NULL and a.ring != NULL:
        for s in range(a.seq_base, c.seq_next):
            e = a.ring[s % WINDOW_MAX]
            if e != NULL and e.sent_ms + w.bounds.resend_after_ms < deadline:
                deadline = e.sent_ms + w.bounds.resend_after_ms
    if a != NULL and a.in_n and not c.flags & FLAG_PAUSED and a.partial_since_ms + w.bounds.authenticate_ms < deadline:
        deadline = a.partial_since_ms + w.bounds.authenticate_ms
    if a != NULL and a.stalled_since_ms and a.stalled_since_ms + w.bounds.authenticate_ms < deadline:
        deadline = a.stalled_since_ms + w.bounds.authenticate_ms
    timer_set(&w.wheel, &c.timer, deadline)
