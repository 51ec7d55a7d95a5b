# cython: language_level=3
# HOT: one receipt per envelope passes here.
"""Receipts; see custody/receipts.pxd."""
from libc.stdint cimport uint16_t, uint32_t, uint8_t
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.codes cimport CODE_MAILBOX_FULL, CODE_TRY_LATER
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.bus.messages cimport BUS_RECEIPT, BusReceipt
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.conn.lists cimport queue_resume
from wa._fastpath.conn.output cimport out_frame
from wa._fastpath.custody.batches cimport batch_op
from wa._fastpath.mailbox.contract cimport OP_RECEIPT_PUT, StoreOp
from wa._fastpath.state.core cimport Conn, Core, Device, FLAG_PAUSED, NONE_INDEX
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.route cimport owner_of
from wa._fastpath.state.trace cimport trace, TRACE_RECEIPT_STORED, TRACE_TOLD
from wa._fastpath.wire.frames cimport F_ACCEPTED, F_REFUSED, Frame


cdef void store_receipt(Core* w, Device* d, const BusReceipt* r) noexcept nogil:
    # A sender that still holds the envelope sends it again when it is back, so these two need not wait for it.
    if r.level == F_REFUSED and (r.code == CODE_TRY_LATER or r.code == CODE_MAILBOX_FULL):
        return
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_PUT, 0)
    if op == NULL:
        return                            # asked for again with receipts.status
    op.env.recipient = d.address
    op.env.sender = r.recipient
    op.env.id = r.id
    op.level = r.level
    op.code = r.code
    op.env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    op.env.expires_s = op.env.accepted_s + <uint32_t>w.bounds.retention_s[0]
    d.has_receipts = 1
    trace(w, TRACE_RECEIPT_STORED, d.address, r.recipient, r.id, r.level)
    w.stats.receipts_stored += 1


cdef void window_move(Core* w, Conn* c) noexcept nogil:
    """One envelope of this connection was answered; at half the window it is read again."""
    if c.outstanding == 0:
        return                            # sent on a connection before this one, or the bus was lost
    c.outstanding -= 1
    if c.flags & FLAG_PAUSED and c.outstanding * 2 <= w.bounds.sender_window:
        queue_resume(w, c)


cdef void tell_here(Core* w, const BusReceipt* r) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, r.sender)
    cdef Conn* c
    cdef Frame f
    wa_assert(r.level == 0 or F_ACCEPTED <= r.level <= F_REFUSED, b"a receipt has a level")
    wa_assert(owner_of(w, r.sender) == w.worker, b"a receipt comes to the owner of its sender")
    if d == NULL:
        return                            # the sending device was removed meanwhile
    if d.conn == NONE_INDEX:
        if r.level:
            store_receipt(w, d, r)
        return
    c = conn_at(&w.conns, d.conn)
    if r.answers:
        window_move(w, c)
    if r.level == 0:
        return
    memset(&f, 0, sizeof(Frame))
    f.type = r.level
    f.address = r.recipient
    f.id = r.id
    f.number = r.code
    if out_frame(w, c, &f) == 0:
        w.stats.receipts_live += 1
        trace(w, TRACE_TOLD, r.sender, r.recipient, r.id, r.level)
    else:
        store_receipt(w, d, r)


cdef void tell(Core* w, const Envelope* v, uint8_t level, uint16_t code, bint answers) noexcept nogil:
    cdef BusReceipt r
    cdef uint32_t owner = owner_of(w, v.sender)
    memset(&r, 0, sizeof(BusReceipt))
    r.sender = v.sender
    r.recipient = v.recipient
    r.id = v.id
    r.level = level
    r.code = code
    r.answers = answers
    if owner == w.worker:
        tell_here(w, &r)
    else:
        # Best effort: a sender whose receipt is lost with its worker asks for it (receipts.status) or sends again.
        w.bus.send(w.bus, owner, BUS_RECEIPT, &r, sizeof(BusReceipt), NULL, 0, -1)
