# cython: language_level=3
# HOT: the message path.  No Python, no allocation from the system per message, one hash look-up per table.
"""Envelopes come in; see custody/intake.pxd.

Comes in: a SEND frame of a live connection, or a BusEnvelope of another worker.
Must hold: its sender hears exactly one first answer, now or later; an envelope of one identity is in custody once; a
device with a backlog is sent nothing past it (drain.pxd has the order).
Is called: take_live puts it into flight and lets it linger; take_stored puts it into the batch.
"""
from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.codes cimport (
    CODE_ADDRESS_UNKNOWN, CODE_BODY_TOO_LARGE, CODE_INTERNAL, CODE_KIND_INVALID, CODE_MAILBOX_FULL, CODE_TRY_LATER,
    CODE_TTL_INVALID,
)
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.base.slab cimport slab_take
from wa._fastpath.bus.messages cimport BUS_ENVELOPE, BusEnvelope
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.conn.flags cimport conn_doom, conn_pause
from wa._fastpath.conn.output cimport out_frame
from wa._fastpath.custody.batches cimport batch_has_room, batch_op
from wa._fastpath.custody.counts cimport held_add, undrained_add
from wa._fastpath.custody.drain cimport backlog_begin
from wa._fastpath.custody.entries cimport custody_find, custody_insert, entry_free, entry_new
from wa._fastpath.custody.flight cimport flight_put, flight_ring, flight_room, send_delivery
from wa._fastpath.custody.linger cimport commit_entry, commit_lingering, linger_begin
from wa._fastpath.custody.receipts cimport tell
from wa._fastpath.custody.room cimport make_room
from wa._fastpath.custody.states cimport ENTRY_DELETING, ENTRY_REFUSED, ENTRY_STORED
from wa._fastpath.mailbox.contract cimport OP_PUT, ORIGIN_DIRECT, StoreOp
from wa._fastpath.state.core cimport Conn, Core, Device, Entry, FLAG_DOOMED, FLAG_EOF, KINDS_N, NONE_INDEX
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.route cimport owner_of
from wa._fastpath.state.trace cimport (
    trace, TRACE_DUPLICATE, TRACE_RECEIVED, TRACE_REFUSED, TRACE_SENT, TRACE_TO_DISK, TRACE_TO_OWNER,
)
from wa._fastpath.wire.frames cimport F_ACCEPTED, F_DELIVER, F_DELIVERED, F_REFUSED, F_SEND_TTL, Frame


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


# --- from a sender ------------------------------------------------------------------------------------

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


cdef uint16_t fault_of(const Core* w, const Conn* c, const Frame* f) noexcept nogil:
    """Why a SEND is refused at once, or 0."""
    if f.kind >= KINDS_N:
        return CODE_KIND_INVALID
    if f.body_n > w.bounds.body_bytes:
        return CODE_BODY_TOO_LARGE
    if f.type == F_SEND_TTL and (f.extra == 0 or f.extra > w.bounds.retention_s[f.kind]):
        return CODE_TTL_INVALID
    if f.address >> 58 or f.address & 0xff == 0:
        return CODE_ADDRESS_UNKNOWN
    # Only records already read can come over the window: the connection stopped being read at it.
    return CODE_TRY_LATER if c.outstanding >= w.bounds.sender_window * 4 else 0


cdef void send_from(Core* w, Conn* c, const Frame* f) noexcept nogil:
    """A SEND frame of a live connection: check it, and carry it to the owner of its recipient."""
    cdef BusEnvelope v
    cdef uint32_t owner
    cdef uint16_t fault
    w.stats.envelopes_in += 1
    trace(w, TRACE_RECEIVED, c.address, f.address, f.id, f.kind)
    fault = fault_of(w, c, f)
    if fault:
        refuse_send(w, c, f, fault)
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
    if owner != w.worker and w.bus.send(w.bus, owner, BUS_ENVELOPE, &v, sizeof(v), f.body, f.body_n, -1) != 0:
        refuse_send(w, c, f, CODE_TRY_LATER)
        return
    c.outstanding += 1
    if c.outstanding >= w.bounds.sender_window:
        conn_pause(w, c)
    if owner == w.worker:
        take_envelope(w, &v, f.body, f.body_n)
    else:
        trace(w, TRACE_TO_OWNER, v.env.sender, v.env.recipient, v.env.id, <uint16_t>owner)


# --- into custody -------------------------------------------------------------------------------------

cdef void refuse_envelope(Core* w, const Envelope* v, uint16_t code) noexcept nogil:
    w.stats.refused += 1
    trace(w, TRACE_REFUSED, v.sender, v.recipient, v.id, code)
    tell(w, v, F_REFUSED, code, True)


cdef void take_envelope(Core* w, const BusEnvelope* v, const uint8_t* body, uint32_t n) noexcept nogil:
    """An envelope for one of our devices.  Its sender hears exactly one first answer, now or later."""
    cdef Device* d = directory_find(&w.directory, v.env.recipient)
    cdef Entry* e
    cdef Conn* c
    wa_assert(v.env.body_n == n, b"an envelope knows the length of its body")
    wa_assert(owner_of(w, v.env.recipient) == w.worker, b"an envelope comes to the owner of its recipient")
    if d == NULL:
        refuse_envelope(w, &v.env, CODE_ADDRESS_UNKNOWN)
        return
    e = custody_find(&w.custody, v.env.recipient, v.env.sender, v.env.id)
    if e != NULL:
        take_again(w, e)
        return
    if not batch_has_room(w, n):
        # The disk is behind.  What is delivered live may need it too, so nothing more is taken in.
        refuse_envelope(w, &v.env, CODE_TRY_LATER)
        return
    while d.held + d.undeleted >= w.bounds.mailbox:
        if not make_room(w, d, &v.env):
            refuse_envelope(w, &v.env, CODE_MAILBOX_FULL)
            return
    if d.conn != NONE_INDEX and d.undrained == 0:
        c = conn_at(&w.conns, d.conn)
        if not c.flags & (FLAG_DOOMED | FLAG_EOF) and flight_room(w, c, n) and take_live(w, d, c, v, body) == 0:
            return
    take_stored(w, d, v, body)


cdef void take_again(Core* w, Entry* e) noexcept nogil:
    """The same envelope once more while it is in our hands: its sender reconnected or lost patience."""
    w.stats.duplicates += 1
    trace(w, TRACE_DUPLICATE, e.env.sender, e.env.recipient, e.env.id, 0)
    if e.state == ENTRY_STORED:
        tell(w, &e.env, F_ACCEPTED, 0, True)
    elif e.state == ENTRY_DELETING:
        tell(w, &e.env, F_DELIVERED, 0, True)
    elif e.state == ENTRY_REFUSED and e.body != NULL:
        commit_entry(w, e)
    else:
        tell(w, &e.env, 0, 0, True)       # the answer is on its way; only the window moves


cdef Envelope stamped(const Core* w, const BusEnvelope* v) noexcept nogil:
    """With the times that the owner of its recipient sets."""
    cdef Envelope env = v.env
    env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    env.expires_s = env.accepted_s + (v.ttl_s if v.ttl_s else <uint32_t>w.bounds.retention_s[env.kind])
    return env


cdef int take_live(Core* w, Device* d, Conn* c, const BusEnvelope* v, const uint8_t* body) noexcept nogil:
    """Deliver at once and linger.  -1 when memory is out: the envelope then goes to the mailbox."""
    cdef Entry* e
    cdef uint32_t n = v.env.body_n
    if flight_ring(w, c) == NULL:
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
    custody_insert(&w.custody, e)
    linger_begin(w, e)
    flight_put(w, c, e)
    held_add(w, d)
    w.stats.delivered_live += 1
    trace(w, TRACE_SENT, e.env.sender, e.env.recipient, e.env.id, 0)
    send_delivery(w, c, e, F_DELIVER, body)    # on failure the connection is doomed, and its end commits what is in
                                               # flight
    return 0


cdef void take_stored(Core* w, Device* d, const BusEnvelope* v, const uint8_t* body) noexcept nogil:
    cdef StoreOp* op
    cdef Conn* c
    if d.conn != NONE_INDEX and d.undrained == 0:
        commit_lingering(w, conn_at(&w.conns, d.conn))    # while there is a backlog nothing lingers
    op = batch_op(w, OP_PUT, v.env.body_n)
    if op == NULL:
        refuse_envelope(w, &v.env, CODE_TRY_LATER)
        return
    trace(w, TRACE_TO_DISK, v.env.sender, v.env.recipient, v.env.id, 0)
    w.mail_seq += 1
    op.origin = ORIGIN_DIRECT
    op.env = stamped(w, v)
    op.seq = w.mail_seq
    memcpy(<uint8_t*>(op + 1), body, v.env.body_n)
    held_add(w, d)
    if d.conn != NONE_INDEX:
        c = conn_at(&w.conns, d.conn)
        if d.undrained == 0 and backlog_begin(w, c, op.seq) != 0:
            conn_doom(w, c, CODE_INTERNAL)
        undrained_add(w, d)
