# cython: language_level=3
# HOT only where mailboxes are full: one read of the mailbox per envelope that comes.
"""Making room; see custody/room.pxd."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.base.codes cimport CODE_DROPPED, CODE_EXPIRED
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.conn.conntable cimport conn_at, conn_handle
from wa._fastpath.conn.lists cimport queue_drain
from wa._fastpath.custody.batches cimport batch_op, ends_with
from wa._fastpath.custody.counts cimport counted_at, held_add, held_sub, undrained_add, undrained_sub
from wa._fastpath.custody.entries cimport custody_find, custody_insert, entry_free, entry_new
from wa._fastpath.custody.states cimport ENTRY_DROPPING, entry_end, entry_to
from wa._fastpath.mailbox.contract cimport MailRow, OP_DROP, RESULT_MISSING, RESULT_OK, StoreOp
from wa._fastpath.state.core cimport Active, Conn, Core, Device, Entry, NONE_INDEX

cdef enum:
    PRIORITY_STATUS = 5


cdef void forget_row(Core* w, Device* d, uint64_t seq) noexcept nogil:
    """A row that is in nobody's custody: not sent to the live connection yet, or corrupt and passed over."""
    cdef Active* a
    held_sub(w, d)
    if d.conn == NONE_INDEX or d.undrained == 0:
        return                            # 0: a drain found it corrupt and wrote it off (drain.pyx)
    a = conn_at(&w.conns, d.conn).active
    if a == NULL or a.drain == NULL or seq >= a.drain.first:
        undrained_sub(w, d)


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
    e.env = row.env
    e.mail_seq, e.conn = row.seq, NONE_INDEX
    if d.conn != NONE_INDEX:
        # Until the store has answered, the row counts as undrained on this connection: nothing may overtake it.
        e.undrained_on = conn_handle(conn_at(&w.conns, d.conn))
    custody_insert(&w.custody, e)
    entry_to(w, e, ENTRY_DROPPING)
    op.env = row.env
    op.seq = row.seq
    ends_with(w, op, code)
    held_sub(w, d)
    return 0


cdef bint make_room(Core* w, Device* d, const Envelope* v) noexcept nogil:
    """What has expired goes first, then status; with overflow = "prune" then the lowest priority, oldest first, but
    none above the newcomer."""
    cdef uint32_t now_s = <uint32_t>(w.wall_ms // 1000)
    cdef const MailRow* row
    cdef bint expired
    cdef int k, n = w.store.read_victims(w.store, d.address, now_s, w.receipt_rows, DELIVERY_WINDOW_MAX)
    wa_assert(v.recipient == d.address, b"room is made in the mailbox of the recipient")
    for k in range(n):                    # none when the read failed
        row = &w.receipt_rows[k]
        if custody_find(&w.custody, row.env.recipient, row.env.sender, row.env.id) != NULL:
            continue                      # in flight, or on its way out already
        if row.env.sender == v.sender and row.env.id == v.id:
            return False                  # the newcomer itself, sent again
        expired = 0 < row.env.expires_s <= now_s
        if not expired and row.env.priority != PRIORITY_STATUS and (
            not w.bounds.prune or row.env.priority > v.priority
        ):
            return False
        return drop(w, d, row, CODE_EXPIRED if expired else CODE_DROPPED) == 0
    return False


cdef void drop_end(Core* w, Entry* e, bint gone) noexcept nogil:
    cdef Device* d = counted_at(w, e.env.recipient, e.mail_seq)
    cdef Conn* c = NULL
    cdef bint counted
    wa_assert(e.state == ENTRY_DROPPING, b"only what was to make room ends so")
    if d != NULL:
        if d.conn != NONE_INDEX:
            c = conn_at(&w.conns, d.conn)
        counted = c != NULL and conn_handle(c) == e.undrained_on
        if gone and counted and d.undrained:
            undrained_sub(w, d)
        elif not gone:
            # The disk refused, and what it should have made room for as well.
            held_add(w, d)
            if c != NULL and not counted:
                undrained_add(w, d)       # logged in since: drains when this batch is done (go_live)
        if c != NULL:
            queue_drain(w, c)             # it stopped at this row
    entry_end(w, e)


cdef void settle_drop(Core* w, const StoreOp* op) noexcept nogil:
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    if e != NULL and e.state == ENTRY_DROPPING and e.mail_seq == op.seq:
        drop_end(w, e, op.result == RESULT_OK or op.result == RESULT_MISSING)
