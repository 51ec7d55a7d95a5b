# cython: language_level=3
# HOT: runs for every stored envelope that is sent, tens of thousands a second when phones come back online.
"""Draining mailboxes; see custody/drain.pxd.

Comes in: a connection on the drain list of this turn.
Must hold: per priority class everything up to the cursor was sent; `undrained` counts the rows that were not.
Is called: the store's reads, flight (window and frames).
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.base.slab cimport slab_give, slab_take
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.conn.lists cimport mark_dirty, next_drain, queue_drain, take_drains
from wa._fastpath.conn.output cimport conn_active
from wa._fastpath.custody.batches cimport batch_last, batches_done
from wa._fastpath.custody.counts cimport undrained_sub
from wa._fastpath.custody.entries cimport custody_find, custody_insert, entry_new
from wa._fastpath.custody.flight cimport flight_left, flight_put, flight_ring, flight_room, send_delivery, send_receipt
from wa._fastpath.custody.states cimport ENTRY_DROPPING, ENTRY_RECEIPT, ENTRY_STORED, entry_to
from wa._fastpath.mailbox.contract cimport MailRow
from wa._fastpath.state.core cimport (
    Active, Conn, CONN_LIVE, Core, Device, DrainState, Entry, FLAG_DOOMED, FLAG_EOF, NONE_INDEX, PRIORITIES_N,
)
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.trace cimport trace, TRACE_SENT_QUEUED
from wa._fastpath.wire.frames cimport F_DELIVER_QUEUED

cdef enum:
    DRAIN_STATE_CLASS = 128       # slab class of DrainState
    EXHAUSTED = 0                 # everything there is was sent
    WINDOW_FULL = 1               # goes on when the device acknowledges
    READ_FAILED = 2
    PASS_AGAIN_MS = 2000

cdef extern from *:
    """
    static const unsigned char wa_priorities[5] = {100, 50, 30, 10, 5};
    """
    const uint8_t wa_priorities[5]


cdef DrainState* drain_state(Core* w, Conn* c) noexcept nogil:
    """Made when there is none; NULL without memory."""
    cdef uint32_t capacity = 0
    cdef Active* a = conn_active(w, c)
    if a == NULL:
        return NULL
    if a.drain == NULL:
        a.drain = <DrainState*>slab_take(&w.slab, sizeof(DrainState), &capacity)
        if a.drain != NULL:
            memset(a.drain, 0, sizeof(DrainState))
    return a.drain


cdef int drain_begin(Core* w, Conn* c) noexcept nogil:
    cdef DrainState* ds = drain_state(w, c)
    if ds == NULL:
        return -1
    memset(ds, 0, sizeof(DrainState))
    ds.receipts_left = 1
    ds.after_batch = batch_last(w)
    queue_drain(w, c)
    return 0


cdef int backlog_begin(Core* w, Conn* c, uint64_t mail_seq) noexcept nogil:
    """The first envelope that a connected device must fetch from its mailbox: everything before was sent to it."""
    cdef DrainState* ds = drain_state(w, c)
    cdef uint32_t i
    if ds == NULL:
        return -1
    for i in range(PRIORITIES_N):
        ds.cursor[i] = mail_seq - 1
    ds.first = mail_seq
    return 0


cdef void receipts_again(Core* w, Device* d) noexcept nogil:
    cdef DrainState* ds
    cdef Conn* c
    d.has_receipts = 1
    if d.conn == NONE_INDEX:
        return
    c = conn_at(&w.conns, d.conn)
    ds = drain_state(w, c)
    if ds == NULL:
        return                            # no memory: it comes with the next login
    # A pass that is under way may have gone past its place: another one follows.
    ds.receipts_left = 2 if ds.receipts_left else 1
    if ds.receipts_left == 1:
        ds.receipt_peer = ds.receipt_id = 0
    queue_drain(w, c)


cdef void drain_end(Core* w, Conn* c) noexcept nogil:
    if c.active != NULL and c.active.drain != NULL:
        slab_give(&w.slab, <uint8_t*>c.active.drain, DRAIN_STATE_CLASS)
        c.active.drain = NULL


cdef void drain_all(Core* w) noexcept nogil:
    cdef uint32_t index = take_drains(w)
    cdef Conn* c
    while index != NONE_INDEX:
        c = next_drain(w, &index)
        if c.state == CONN_LIVE and c.active != NULL and c.active.drain != NULL:
            drain(w, c)


cdef void drain(Core* w, Conn* c) noexcept nogil:
    cdef DrainState* ds = c.active.drain
    cdef Device* d = directory_find(&w.directory, c.address)
    cdef uint32_t i
    cdef int found
    cdef bint exhausted = True
    if d == NULL or c.flags & (FLAG_DOOMED | FLAG_EOF):
        return
    if w.batch_done_no < ds.after_batch:
        queue_drain(w, c)     # looked at again when the store wakes us
        return
    if flight_ring(w, c) == NULL:
        return
    if ds.receipts_left and drain_receipts(w, c, d) == READ_FAILED:
        queue_drain(w, c)     # looked at again in the next turn, a second from now at the latest
        return
    i = 0
    while i < PRIORITIES_N and d.undrained and not c.flags & FLAG_DOOMED:
        found = drain_class(w, c, d, i)
        if found == READ_FAILED:
            queue_drain(w, c)
        if found != EXHAUSTED:
            exhausted = False
            break
        i += 1
    if d.undrained and exhausted and not ds.expired_ms and batches_done(w):
        # Corrupt records, reported by the store and skipped.  They stay counted until a sweep takes them out.
        d.undrained = 0
    if d.undrained and ds.expired_ms:
        pass_again(w, c, ds)
    if d.undrained == 0 and not ds.receipts_left:
        drain_end(w, c)
        mark_dirty(w, c)


cdef void pass_again(Core* w, Conn* c, DrainState* ds) noexcept nogil:
    """Rows whose time is over are the sweep's.  Should the clock step back before it came, their time is not over."""
    queue_drain(w, c)
    if w.now_ms - ds.expired_ms >= PASS_AGAIN_MS:
        memset(ds.cursor, 0, sizeof(ds.cursor))    # what was sent is in custody, and skipped
        ds.first = 0
        ds.expired_ms = 0


cdef int drain_class(Core* w, Conn* c, Device* d, uint32_t i) noexcept nogil:
    """Sends what is waiting in one priority class."""
    cdef DrainState* ds = c.active.drain
    cdef MailRow* row
    cdef Entry* e
    cdef uint32_t now_s = <uint32_t>(w.wall_ms // 1000)
    cdef int n, k, want
    while True:
        want = flight_left(w, c)
        if want <= 0:
            return WINDOW_FULL
        n = w.store.read(w.store, c.address, wa_priorities[i], ds.cursor[i], w.rows, want, w.arena, w.arena_n)
        if n < 0:
            return READ_FAILED    # what is there stays counted
        if n == 0:
            return EXHAUSTED
        for k in range(n):
            row = &w.rows[k]
            e = custody_find(&w.custody, row.env.recipient, row.env.sender, row.env.id)
            if e != NULL and e.state == ENTRY_DROPPING:
                return WINDOW_FULL    # goes on when the store has answered
            if e != NULL:
                pass
            elif 0 < row.env.expires_s <= now_s:
                ds.expired_ms = w.now_ms if ds.expired_ms == 0 else ds.expired_ms    # left to the sweep
            else:
                if not flight_room(w, c, row.env.body_n) or deliver_row(w, c, d, row) != 0:
                    return WINDOW_FULL
            ds.cursor[i] = row.seq


cdef int deliver_row(Core* w, Conn* c, Device* d, const MailRow* row) noexcept nogil:
    cdef Entry* e = entry_new(&w.custody)
    if e == NULL:
        return -1
    wa_assert(row.env.recipient == c.address, b"a mailbox is sent to its own device")
    e.env = row.env
    e.mail_seq = row.seq
    entry_to(w, e, ENTRY_STORED)
    custody_insert(&w.custody, e)
    flight_put(w, c, e)
    undrained_sub(w, d)
    w.stats.delivered_queued += 1
    trace(w, TRACE_SENT_QUEUED, e.env.sender, e.env.recipient, e.env.id, 0)
    return send_delivery(w, c, e, F_DELIVER_QUEUED, row.body)


cdef bint receipt_in_flight(const Conn* c, const MailRow* r) noexcept nogil:
    cdef const Entry* e
    cdef uint32_t i
    for i in range(DELIVERY_WINDOW_MAX):
        e = c.active.ring[i]
        if (e != NULL and e.state == ENTRY_RECEIPT and e.env.id == r.env.id and e.env.sender == r.env.sender
                and e.level == r.level):
            return True
    return False


cdef int drain_receipts(Core* w, Conn* c, Device* d) noexcept nogil:
    cdef DrainState* ds = c.active.drain
    cdef MailRow* r
    cdef Entry* e
    cdef int n, k, want
    while True:
        want = flight_left(w, c)
        if want <= 0:
            return WINDOW_FULL
        n = w.store.read_receipts(w.store, c.address, ds.receipt_peer, ds.receipt_id, w.receipt_rows, want)
        if n < 0:
            return READ_FAILED
        if n == 0 and ds.receipts_left > 1:
            ds.receipts_left = 1      # another came meanwhile, perhaps in front of the cursor
            ds.receipt_peer = ds.receipt_id = 0
            continue
        if n == 0:
            break
        for k in range(n):
            r = &w.receipt_rows[k]
            if receipt_in_flight(c, r):
                ds.receipt_peer = r.env.sender
                ds.receipt_id = r.env.id
                continue
            e = entry_new(&w.custody)
            if e == NULL:
                return WINDOW_FULL
            e.env = r.env
            e.level = r.level
            e.code = r.code
            entry_to(w, e, ENTRY_RECEIPT)
            flight_put(w, c, e)
            ds.receipt_peer = r.env.sender
            ds.receipt_id = r.env.id
            if send_receipt(w, c, e) != 0:
                return WINDOW_FULL
    ds.receipts_left = 0
    if ds.receipt_peer == 0 and ds.receipt_id == 0:
        d.has_receipts = 0        # nothing was waiting
    return EXHAUSTED
