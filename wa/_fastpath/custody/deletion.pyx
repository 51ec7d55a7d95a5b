# cython: language_level=3
# HOT: one call per stored envelope that is acknowledged.
"""Deleting what was acknowledged, and what has to make room; see custody/deletion.pxd."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from wa._fastpath.custody.batches cimport batch_op, queue_drain
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.base.codes cimport CODE_DROPPED, CODE_EXPIRED
from wa._fastpath.conn.conntable cimport conn_at, conn_handle, directory_find
from wa._fastpath.state.core cimport (
    Active, Conn, Core, Device, ENTRY_DELETING, ENTRY_DROPPING, ENTRY_RECEIPT, Entry, HELD_MAX, NONE_INDEX, WINDOW_MAX,
)
from wa._fastpath.custody.entries cimport custody_find, custody_insert, entry_free, entry_new
from wa._fastpath.custody.delivery cimport entry_end
from wa._fastpath.mailbox.contract cimport MailRow, OP_DELETE, OP_DROP, OP_RECEIPT_DELETE, RESULT_MISSING, RESULT_OK, StoreOp
from wa._fastpath.base.slab cimport slab_give

cdef enum:
    PRIORITY_STATUS = 5


cdef int delete_row(Core* w, const Entry* e) noexcept nogil:
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_DELETE if e.state == ENTRY_RECEIPT else OP_DELETE, 0)
    if op == NULL:
        return -1
    op.env = e.env
    op.env.body_n = 0
    op.level = e.level
    op.seq = e.mail_seq
    return 0


cdef void delete_envelope(Core* w, Entry* e) noexcept nogil:
    """Its device has it.  Until the row is gone a sweep or a drain may still meet it, and must know that; and its place
    in the mailbox is taken."""
    cdef Device* d = directory_find(&w.directory, e.env.recipient)
    if e.body != NULL:
        slab_give(&w.slab, e.body, e.body_capacity)
        e.body = NULL
    e.state = ENTRY_DELETING
    w.custody.deleting += 1
    e.conn = NONE_INDEX
    if d != NULL:
        d.undeleted += 1
    if delete_row(w, e) != 0:
        keep_undeleted(w, e)


cdef void keep_undeleted(Core* w, Entry* e) noexcept nogil:
    e.older = w.custody.undeleted
    w.custody.undeleted = e


cdef Entry* take_undeleted(Entry* e) noexcept nogil:
    """e, off the list that it was in; returns the one after it."""
    cdef Entry* following = e.older
    e.older = NULL
    return following


cdef void delete_again(Core* w) noexcept nogil:
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(e)
        if delete_row(w, e) != 0:
            keep_undeleted(w, e)
        e = following


cdef void delete_no_more(Core* w) noexcept nogil:
    """The worker stops and the disk still refuses: these rows are delivered and acknowledged once more."""
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(e)
        delete_end(w, e)
        e = following


cdef void delete_end(Core* w, Entry* e) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, e.env.recipient)
    if d != NULL and d.undeleted:         # 0: it was removed, and came anew
        d.undeleted -= 1
    entry_end(w, e)


cdef void deleted(Core* w, const StoreOp* op) noexcept nogil:
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    if e == NULL or e.state != ENTRY_DELETING or e.mail_seq != op.seq:
        return
    if op.result == RESULT_OK or op.result == RESULT_MISSING:
        delete_end(w, e)
    else:
        keep_undeleted(w, e)


# --- making room ----------------------------------------------------------------------------------------

cdef void forget_row(Core* w, Device* d, uint64_t seq) noexcept nogil:
    """A row that is in nobody's custody: not sent to the live connection yet, or corrupt and passed over."""
    cdef Active* a
    if d.held:
        d.held -= 1
    if d.conn == NONE_INDEX or d.undrained == 0:
        return
    a = conn_at(&w.conns, d.conn).active
    if a == NULL or a.drain == NULL or seq >= a.drain.first:
        d.undrained -= 1


cdef void ends_with(const Core* w, StoreOp* op, uint16_t code) noexcept nogil:
    op.code = code
    op.env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    op.env.expires_s = op.env.accepted_s + <uint32_t>w.bounds.retention_s[0]


cdef int drop(Core* w, Device* d, const MailRow* row, uint16_t code) noexcept nogil:
    """Takes one row out, in the batch that brings what it makes room for.  -1: no memory."""
    cdef Entry* e = entry_new(&w.custody)
    cdef StoreOp* op
    if e == NULL:
        return -1
    op = batch_op(w, OP_DROP, 0)
    if op == NULL:
        entry_free(&w.custody, e)
        return -1
    e.state = ENTRY_DROPPING
    e.env = row.env
    e.mail_seq, e.conn = row.seq, NONE_INDEX
    if d.conn != NONE_INDEX:
        # Until the store has answered, the row counts as undrained on this connection: nothing may overtake it.
        e.undrained_on = conn_handle(conn_at(&w.conns, d.conn))
    custody_insert(&w.custody, e)
    w.custody.deleting += 1
    w.custody.dropping += 1
    op.env = row.env
    op.seq = row.seq
    ends_with(w, op, code)
    if d.held:
        d.held -= 1
    return 0


cdef bint make_room(Core* w, Device* d, const Envelope* v) noexcept nogil:
    """Rule 10, for a newcomer v: what has expired goes first, then status; with overflow = "prune" then
    the lowest priority, oldest first, but none above the newcomer.  False: nothing may go."""
    cdef uint32_t now_s = <uint32_t>(w.wall_ms // 1000)
    cdef const MailRow* row
    cdef bint expired
    cdef int k, n = w.store.read_victims(w.store, d.address, now_s, w.receipt_rows, WINDOW_MAX)
    for k in range(n):                    # none when the read failed
        row = &w.receipt_rows[k]
        if custody_find(&w.custody, row.env.recipient, row.env.sender, row.env.id) != NULL:
            continue                      # in flight, or on its way out already
        if row.env.sender == v.sender and row.env.id == v.id:
            return False                  # the newcomer itself, sent again
        expired = 0 < row.env.expires_s <= now_s
        if not expired and row.env.priority != PRIORITY_STATUS and (not w.bounds.prune or row.env.priority > v.priority):
            return False
        return drop(w, d, row, CODE_EXPIRED if expired else CODE_DROPPED) == 0
    return False


cdef void drop_end(Core* w, Entry* e, bint gone) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, e.env.recipient)
    cdef Conn* c = NULL
    cdef bint counted
    if d != NULL:
        if d.conn != NONE_INDEX:
            c = conn_at(&w.conns, d.conn)
        counted = c != NULL and conn_handle(c) == e.undrained_on
        if gone and counted and d.undrained:
            d.undrained -= 1
        elif not gone:
            # The disk refused, and what it should have made room for as well.
            d.held += d.held < HELD_MAX
            if c != NULL and not counted:
                d.undrained += d.undrained < HELD_MAX     # logged in since: drains when this batch is done (go_live)
        if c != NULL:
            queue_drain(w, c)             # it stopped at this row
    entry_end(w, e)


cdef void dropped(Core* w, const StoreOp* op) noexcept nogil:
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    if e != NULL and e.state == ENTRY_DROPPING and e.mail_seq == op.seq:
        drop_end(w, e, op.result == RESULT_OK or op.result == RESULT_MISSING)
