# cython: language_level=3
# HOT: runs for every stored envelope, tens of thousands a second when phones come back online.
"""Draining mailboxes and taking what the mailbox thread finished; see custody/drain.pxd."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from wa._fastpath.custody.batches cimport queue_drain, tell
from wa._fastpath.base.codes cimport CODE_DROPPED, CODE_TRY_LATER
from wa._fastpath.state.cold cimport wake_device
from wa._fastpath.conn.conntable cimport conn_at, directory_find
from wa._fastpath.state.core cimport (
    Active, Conn, Core, Device, DrainState, Entry, CONN_LIVE, ENTRY_COMMITTING, ENTRY_DELETING, ENTRY_DROPPING, ENTRY_RECEIPT,
    ENTRY_STORED, ENTRY_UNSAVED, FLAG_DOOMED, FLAG_DRAIN, FLAG_EOF, FLAG_WANT_WRITE, NONE_INDEX, PRIORITIES_N, WINDOW_MAX,
)
from wa._fastpath.custody.entries cimport custody_find, custody_insert, entry_free, entry_new
from wa._fastpath.custody.deletion cimport deleted, drop_end, dropped, forget_row
from wa._fastpath.custody.delivery cimport entry_end, put_in_flight, ring_of, window_open
from wa._fastpath.wire.frames cimport F_ACCEPTED, F_DELIVER_QUEUED, F_REFUSED, F_STORED_RECEIPT, Frame
from wa._fastpath.mailbox.contract cimport (
    MailRow, ORIGIN_LINGER, ORIGIN_REPORT, ORIGIN_UNREPORT, OP_DELETE, OP_DROP, OP_PUT, OP_RECEIPT_DELETE, OP_RECEIPT_PUT, RESULT_DUPLICATE, RESULT_OK, StoreBatch, StoreOp, batch_first, batch_free, batch_next,
)
from wa._fastpath.conn.output cimport conn_active, mark_dirty, out_frame
from wa._fastpath.custody.reports cimport report, report_not, reported_after_all, reports_deleted, reports_kept
from wa._fastpath.base.slab cimport slab_give, slab_take
from wa._fastpath.state.trace cimport (
    TRACE_DUPLICATE, TRACE_ENDED, TRACE_REFUSED, TRACE_SENT_QUEUED, TRACE_STORED, trace,
)

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


cdef int drain_begin(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t capacity = 0
    cdef Active* a = conn_active(w, c)
    if a == NULL:
        return -1
    if a.drain == NULL:
        a.drain = <DrainState*>slab_take(&w.slab, sizeof(DrainState), &capacity)
        if a.drain == NULL:
            return -1
    memset(a.drain, 0, sizeof(DrainState))
    a.drain.receipts_left = 1
    a.drain.after_batch = w.batch_no if w.batch != NULL else w.batch_submitted_no
    queue_drain(w, c)
    return 0


cdef void drain_all(Core* w) noexcept nogil:
    cdef uint32_t index = w.drain_head
    cdef Conn* c
    w.drain_head = NONE_INDEX
    while index != NONE_INDEX:
        c = conn_at(&w.conns, index)
        index = c.drain_next
        c.drain_next = NONE_INDEX
        c.flags &= ~FLAG_DRAIN
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
    if ring_of(w, c) == NULL:
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
    if d.undrained and exhausted and not ds.expired_ms and w.batch == NULL and w.batch_submitted_no == w.batch_done_no:
        # Corrupt records, reported by the store and skipped.  They stay counted until a sweep takes them out.
        d.undrained = 0
    if d.undrained and ds.expired_ms:
        pass_again(w, c, ds)
    if d.undrained == 0 and not ds.receipts_left:
        slab_give(&w.slab, <uint8_t*>ds, DRAIN_STATE_CLASS)
        c.active.drain = NULL
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
        want = <int>(w.bounds.window - (c.seq_next - c.active.seq_base))
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
                if not window_open(w, c, row.env.body_n) or deliver_row(w, c, d, row) != 0:
                    return WINDOW_FULL
            ds.cursor[i] = row.seq


cdef int deliver_row(Core* w, Conn* c, Device* d, const MailRow* row) noexcept nogil:
    cdef Frame f
    cdef Entry* e = entry_new(&w.custody)
    if e == NULL:
        return -1
    e.state = ENTRY_STORED
    e.env = row.env
    e.mail_seq = row.seq
    custody_insert(&w.custody, e)
    put_in_flight(w, c, e)
    if d.undrained:
        d.undrained -= 1
    w.stats.delivered_queued += 1
    trace(w, TRACE_SENT_QUEUED, e.env.sender, e.env.recipient, e.env.id, 0)
    memset(&f, 0, sizeof(Frame))
    f.type = F_DELIVER_QUEUED
    f.kind = e.env.kind
    f.number = e.seq
    f.address = e.env.sender
    f.id = e.env.id
    f.extra = e.env.accepted_s
    f.body = row.body
    f.body_n = row.env.body_n
    return out_frame(w, c, &f)


cdef bint receipt_in_flight(const Conn* c, const MailRow* r) noexcept nogil:
    cdef const Entry* e
    cdef uint32_t i
    for i in range(WINDOW_MAX):
        e = c.active.ring[i]
        if (e != NULL and e.state == ENTRY_RECEIPT and e.env.id == r.env.id and e.env.sender == r.env.sender
                and e.level == r.level):
            return True
    return False


cdef int drain_receipts(Core* w, Conn* c, Device* d) noexcept nogil:
    cdef DrainState* ds = c.active.drain
    cdef MailRow* r
    cdef Entry* e
    cdef Frame f
    cdef int n, k, want
    while True:
        want = <int>(w.bounds.window - (c.seq_next - c.active.seq_base))
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
            e.state = ENTRY_RECEIPT
            e.env = r.env
            e.level = r.level
            e.code = r.code
            put_in_flight(w, c, e)
            ds.receipt_peer = r.env.sender
            ds.receipt_id = r.env.id
            memset(&f, 0, sizeof(Frame))
            f.type = F_STORED_RECEIPT
            f.number = e.seq
            f.extra = e.level
            f.address = e.env.sender
            f.id = e.env.id
            f.code = e.code
            if out_frame(w, c, &f) != 0:
                return WINDOW_FULL
    ds.receipts_left = 0
    if ds.receipt_peer == 0 and ds.receipt_id == 0:
        d.has_receipts = 0        # nothing was waiting
    return EXHAUSTED


# --- commits ------------------------------------------------------------------------------------------

cdef void take_commits(Core* w) noexcept nogil:
    cdef StoreBatch* b = w.store.collect(w.store)
    cdef StoreBatch* following
    while b != NULL:
        following = b.next
        w.batch_done_no = w.batch_submitted_no
        # In this order: what was put may have expired in the same commit, and so may what was being deleted.
        take_puts(w, b)
        take_expired(w, b)
        take_deletes(w, b)
        batch_free(b)
        b = following


cdef void take_puts(Core* w, StoreBatch* b) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    while op != NULL:
        if op.what == OP_PUT:
            if op.origin == ORIGIN_LINGER:
                lingered(w, op)
            else:
                stored(w, op)
        elif op.what == OP_RECEIPT_PUT and op.origin == ORIGIN_REPORT:
            reports_kept(w, op)
        op = batch_next(b, op)


cdef void take_deletes(Core* w, StoreBatch* b) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    while op != NULL:
        if op.what == OP_DELETE:
            deleted(w, op)
        elif op.what == OP_DROP:
            dropped(w, op)
        elif op.what == OP_RECEIPT_DELETE and op.origin == ORIGIN_REPORT:
            reports_deleted(w, op)
        elif op.what == OP_RECEIPT_DELETE and op.origin == ORIGIN_UNREPORT:
            reported_after_all(w, op)
        op = batch_next(b, op)


cdef void forget_one(Device* d) noexcept nogil:
    if d.held:
        d.held -= 1
    if d.conn != NONE_INDEX and d.undrained:
        d.undrained -= 1


cdef void stored(Core* w, const StoreOp* op) noexcept nogil:
    """An envelope that went to the mailbox directly."""
    cdef Device* d = directory_find(&w.directory, op.env.recipient)
    if op.result == RESULT_OK:
        w.stats.stored += 1
        trace(w, TRACE_STORED, op.env.sender, op.env.recipient, op.env.id, 0)
        tell(w, op.env.sender, op.env.recipient, op.env.id, F_ACCEPTED, 0, True)
    elif op.result == RESULT_DUPLICATE:
        w.stats.duplicates += 1
        trace(w, TRACE_DUPLICATE, op.env.sender, op.env.recipient, op.env.id, 0)
        if d != NULL:
            forget_one(d)         # counted when it came the first time
        tell(w, op.env.sender, op.env.recipient, op.env.id, F_ACCEPTED, 0, True)
    else:
        w.stats.refused += 1
        trace(w, TRACE_REFUSED, op.env.sender, op.env.recipient, op.env.id, CODE_TRY_LATER)
        if d != NULL:
            forget_one(d)
        tell(w, op.env.sender, op.env.recipient, op.env.id, F_REFUSED, CODE_TRY_LATER, True)
    if d == NULL:
        return
    if d.conn != NONE_INDEX:
        queue_drain(w, conn_at(&w.conns, d.conn))
    elif op.result == RESULT_OK or op.result == RESULT_DUPLICATE:
        wake_device(w, d, op.env.priority)


cdef void lingered(Core* w, const StoreOp* op) noexcept nogil:
    """An envelope whose device did not acknowledge it inside the linger window."""
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    cdef Device* d
    if e == NULL or e.state != ENTRY_COMMITTING or e.mail_seq != op.seq:
        return                    # acknowledged meanwhile: told, and its deletion is queued behind this
    if op.result == RESULT_OK or op.result == RESULT_DUPLICATE:
        trace(w, TRACE_STORED, op.env.sender, op.env.recipient, op.env.id, 0)
        tell(w, op.env.sender, op.env.recipient, op.env.id, F_ACCEPTED, 0, True)
        e.state = ENTRY_STORED
        if e.body != NULL:
            slab_give(&w.slab, e.body, e.body_capacity)
            e.body = NULL
        if e.conn == NONE_INDEX:
            entry_end(w, e)
        return
    w.stats.refused += 1
    trace(w, TRACE_REFUSED, op.env.sender, op.env.recipient, op.env.id, CODE_TRY_LATER)
    tell(w, op.env.sender, op.env.recipient, op.env.id, F_REFUSED, CODE_TRY_LATER, True)
    e.state = ENTRY_UNSAVED
    if e.conn == NONE_INDEX:
        d = directory_find(&w.directory, op.env.recipient)
        if d != NULL:
            forget_one(d)
        entry_end(w, e)


cdef void take_expired(Core* w, const StoreBatch* b) noexcept nogil:
    """Rule 4: nothing disappears in silence."""
    cdef uint32_t i
    cdef const StoreOp* op
    cdef Device* d
    cdef Entry* e
    for i in range(b.expired_n):
        op = &b.expired[i]
        e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
        if e != NULL and e.mail_seq != op.seq:
            e = NULL                  # sent again since, and in custody anew
        if e != NULL and e.state == ENTRY_DELETING:
            report_not(w, op)         # delivered, told, and counted out; its deletion came later than its time
            continue
        if op.code == CODE_DROPPED:
            w.stats.dropped += 1
        else:
            w.stats.expired += 1
        trace(w, TRACE_ENDED, op.env.sender, op.env.recipient, op.env.id, op.code)
        d = directory_find(&w.directory, op.env.recipient)
        if e != NULL and e.state == ENTRY_DROPPING:
            drop_end(w, e, True)
        elif e != NULL:
            e.state = ENTRY_UNSAVED   # in flight still: an acknowledgement may yet raise it to delivered
        elif d != NULL:
            forget_row(w, d, op.seq)
            if d.conn != NONE_INDEX and d.undrained == 0:
                queue_drain(w, conn_at(&w.conns, d.conn))    # it may have waited for this
        report(w, op)
