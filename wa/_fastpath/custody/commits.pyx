# cython: language_level=3
# HOT: one call per operation of every batch.
"""What the mailbox thread finished; see custody/commits.pxd.

Comes in: batches that are committed and fsynced, or refused, in the order in which they were submitted.
Must hold: of each operation its sender or its entry hears exactly once.
Is called: receipts (accepted, refused), deletion, room and reports for their own operations, cold for wake-ups.
"""
from libc.stdint cimport uint32_t
from wa._fastpath.base.codes cimport CODE_DROPPED, CODE_TRY_LATER
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.conn.lists cimport queue_drain
from wa._fastpath.custody.counts cimport counted_at, held_sub, undrained_sub
from wa._fastpath.custody.deletion cimport settle_delete
from wa._fastpath.custody.entries cimport custody_find
from wa._fastpath.custody.receipts cimport tell
from wa._fastpath.custody.reports cimport (
    report, report_not, reports_settle_delete, reports_settle_put, reports_settle_undo,
)
from wa._fastpath.custody.room cimport drop_end, forget_row, settle_drop
from wa._fastpath.custody.states cimport (
    ENTRY_COMMITTING, ENTRY_DELETING, entry_drop_body, ENTRY_DROPPING, entry_end, ENTRY_REFUSED, ENTRY_STORED,
    entry_to,
)
from wa._fastpath.mailbox.contract cimport (
    batch_first, batch_free, batch_next, OP_DELETE, OP_DROP, OP_PUT, OP_RECEIPT_DELETE, OP_RECEIPT_PUT, ORIGIN_LINGER,
    ORIGIN_REPORT, ORIGIN_UNREPORT, RESULT_DUPLICATE, RESULT_OK, StoreBatch, StoreOp,
)
from wa._fastpath.state.cold cimport wake_device
from wa._fastpath.state.core cimport Core, Device, Entry, NONE_INDEX
from wa._fastpath.state.trace cimport trace, TRACE_DUPLICATE, TRACE_ENDED, TRACE_REFUSED, TRACE_STORED
from wa._fastpath.wire.frames cimport F_ACCEPTED, F_REFUSED


cdef void take_commits(Core* w) noexcept nogil:
    cdef StoreBatch* b = w.store.collect(w.store)
    cdef StoreBatch* following
    while b != NULL:
        following = b.next
        w.batch_done_no = w.batch_submitted_no
        # In this order: what was put may have expired in the same commit, and so may what was being deleted.
        settle_puts(w, b)
        settle_expiries(w, b)
        settle_rest(w, b)
        batch_free(b)
        b = following


cdef void settle_puts(Core* w, StoreBatch* b) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    while op != NULL:
        if op.what == OP_PUT:
            if op.origin == ORIGIN_LINGER:
                settle_linger(w, op)
            else:
                settle_direct(w, op)
        elif op.what == OP_RECEIPT_PUT and op.origin == ORIGIN_REPORT:
            reports_settle_put(w, op)
        op = batch_next(b, op)


cdef void settle_rest(Core* w, StoreBatch* b) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    while op != NULL:
        if op.what == OP_DELETE:
            settle_delete(w, op)
        elif op.what == OP_DROP:
            settle_drop(w, op)
        elif op.what == OP_RECEIPT_DELETE and op.origin == ORIGIN_REPORT:
            reports_settle_delete(w, op)
        elif op.what == OP_RECEIPT_DELETE and op.origin == ORIGIN_UNREPORT:
            reports_settle_undo(w, op)
        op = batch_next(b, op)


cdef void say_accepted(Core* w, const StoreOp* op) noexcept nogil:
    trace(w, TRACE_STORED, op.env.sender, op.env.recipient, op.env.id, 0)
    tell(w, &op.env, F_ACCEPTED, 0, True)


cdef void say_refused(Core* w, const StoreOp* op) noexcept nogil:
    w.stats.refused += 1
    trace(w, TRACE_REFUSED, op.env.sender, op.env.recipient, op.env.id, CODE_TRY_LATER)
    tell(w, &op.env, F_REFUSED, CODE_TRY_LATER, True)


cdef void uncount(Core* w, Device* d) noexcept nogil:
    """An envelope that was counted is not in the mailbox, or was counted when it came the first time."""
    held_sub(w, d)
    if d.conn != NONE_INDEX:
        undrained_sub(w, d)


cdef void settle_direct(Core* w, const StoreOp* op) noexcept nogil:
    """An envelope that went to the mailbox directly."""
    cdef Device* d = counted_at(w, op.env.recipient, op.seq)
    if op.result == RESULT_OK:
        w.stats.stored += 1
        say_accepted(w, op)
    elif op.result == RESULT_DUPLICATE:
        w.stats.duplicates += 1
        trace(w, TRACE_DUPLICATE, op.env.sender, op.env.recipient, op.env.id, 0)
        if d != NULL:
            uncount(w, d)
        tell(w, &op.env, F_ACCEPTED, 0, True)
    else:
        if d != NULL:
            uncount(w, d)
        say_refused(w, op)
    if d == NULL:
        return
    if d.conn != NONE_INDEX:
        queue_drain(w, conn_at(&w.conns, d.conn))
    elif op.result == RESULT_OK or op.result == RESULT_DUPLICATE:
        wake_device(w, d, op.env.priority)


cdef void settle_linger(Core* w, const StoreOp* op) noexcept nogil:
    """An envelope whose device did not acknowledge it inside the linger window."""
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    cdef Device* d
    if e == NULL or e.state != ENTRY_COMMITTING or e.mail_seq != op.seq:
        return                    # acknowledged meanwhile: told, and its deletion is queued behind this
    if op.result == RESULT_OK or op.result == RESULT_DUPLICATE:
        say_accepted(w, op)
        entry_to(w, e, ENTRY_STORED)
        entry_drop_body(w, e)
        if e.conn == NONE_INDEX:
            entry_end(w, e)
        return
    say_refused(w, op)
    entry_to(w, e, ENTRY_REFUSED)
    if e.conn == NONE_INDEX:
        d = counted_at(w, op.env.recipient, op.seq)
        if d != NULL:
            uncount(w, d)                 # a login since then counted it as undrained
        entry_end(w, e)


cdef void settle_expiries(Core* w, const StoreBatch* b) noexcept nogil:
    """Rule 4: nothing disappears in silence."""
    cdef uint32_t i
    for i in range(b.expired_n):
        settle_expiry(w, &b.expired[i])


cdef void settle_expiry(Core* w, const StoreOp* op) noexcept nogil:
    """One envelope that a SWEEP, PURGE or DROP took out."""
    cdef Device* d
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    if e != NULL and e.mail_seq != op.seq:
        e = NULL                  # sent again since, and in custody anew
    if e != NULL and e.state == ENTRY_DELETING:
        report_not(w, op)         # delivered, told, and counted out; its deletion came later than its time
        return
    if op.code == CODE_DROPPED:
        w.stats.dropped += 1
    else:
        w.stats.expired += 1
    trace(w, TRACE_ENDED, op.env.sender, op.env.recipient, op.env.id, op.code)
    d = counted_at(w, op.env.recipient, op.seq)
    if e != NULL and e.state == ENTRY_DROPPING:
        drop_end(w, e, True)
    elif e != NULL:
        entry_to(w, e, ENTRY_REFUSED)    # in flight still: an acknowledgement may yet raise it to delivered
    elif d != NULL:
        forget_row(w, d, op.seq)
        if d.conn != NONE_INDEX and d.undrained == 0:
            queue_drain(w, conn_at(&w.conns, d.conn))    # it may have waited for this
    report(w, op)
