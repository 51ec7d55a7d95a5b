# cython: language_level=3
# HOT: one receipt per envelope passes here.
"""Mailbox batches and receipts; see custody/batches.pxd."""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset
from wa._fastpath.bus.send cimport BUS_RECEIPT, BusReceipt, bus_send
from wa._fastpath.base.codes cimport CODE_MAILBOX_FULL, CODE_TRY_LATER
from wa._fastpath.conn.conntable cimport conn_at, directory_find
from wa._fastpath.state.core cimport Conn, Core, Device, FLAG_DRAIN, FLAG_PAUSED, FLAG_RESUME, NONE_INDEX
from wa._fastpath.wire.frames cimport F_ACCEPTED, F_DELIVERED, F_READ, F_REFUSED, Frame
from wa._fastpath.mailbox.contract cimport OP_RECEIPT_PUT, StoreOp, batch_add, batch_free, batch_new
from wa._fastpath.conn.output cimport out_frame
from wa._fastpath.bus.shards cimport worker_of_address
from wa._fastpath.state.trace cimport TRACE_RECEIPT_STORED, TRACE_TOLD, trace

cdef enum:
    BATCH_START_BYTES = 65536
    BATCH_OPS_MAX = 8192          # limits.BATCH_OPS_MAX


cdef uint32_t owner_of(const Core* w, uint64_t address) noexcept nogil:
    return worker_of_address(address, w.workers)


cdef StoreOp* batch_op(Core* w, uint8_t what, uint32_t body_n) noexcept nogil:
    if w.batch == NULL:
        w.batch = batch_new(BATCH_START_BYTES)
        if w.batch == NULL:
            return NULL
        w.batch_no += 1
    return batch_add(w.batch, what, body_n)


cdef bint batch_has_room(const Core* w, uint32_t body_n) noexcept nogil:
    return w.batch == NULL or (
        w.batch.used + body_n < w.bounds.batch_bytes and w.batch.ops_n < BATCH_OPS_MAX
    )


cdef void batch_submit(Core* w) noexcept nogil:
    # One batch at the disk at a time: what arrives meanwhile shares the next fsync.
    if w.batch == NULL or w.batch_submitted_no != w.batch_done_no:
        return
    w.stats.batches += 1
    w.stats.batch_ops += w.batch.ops_n
    w.batch_submitted_no = w.batch_no
    if w.store.submit(w.store, w.batch) != 0:
        # Only a store that is being closed refuses; the loop has ended then, and nobody was told anything.
        batch_free(w.batch)
    w.batch = NULL


cdef void queue_resume(Core* w, Conn* c) noexcept nogil:
    if not c.flags & FLAG_RESUME:
        c.flags |= FLAG_RESUME
        c.resume_next = w.resume_head
        w.resume_head = c.index


cdef void queue_drain(Core* w, Conn* c) noexcept nogil:
    if not c.flags & FLAG_DRAIN:
        c.flags |= FLAG_DRAIN
        c.drain_next = w.drain_head
        w.drain_head = c.index


cdef void store_receipt(Core* w, Device* d, uint64_t recipient, uint64_t id, uint8_t level, uint16_t code) noexcept nogil:
    # A sender that still holds the envelope sends it again when it is back, so these two need not wait for it.
    if level == F_REFUSED and (code == CODE_TRY_LATER or code == CODE_MAILBOX_FULL):
        return
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_PUT, 0)
    if op == NULL:
        return                            # asked for again with receipts.status
    op.env.recipient = d.address
    op.env.sender = recipient
    op.env.id = id
    op.level = level
    op.code = code
    op.env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    op.env.expires_s = op.env.accepted_s + <uint32_t>w.bounds.retention_s[0]
    d.has_receipts = 1
    trace(w, TRACE_RECEIPT_STORED, d.address, recipient, id, level)
    w.stats.receipts_stored += 1


cdef void tell_here(Core* w, uint64_t sender, uint64_t recipient, uint64_t id,
                    uint8_t level, uint16_t code, bint answers) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, sender)
    cdef Conn* c
    cdef Frame f
    if d == NULL:
        return                            # the sending device was removed meanwhile
    if d.conn == NONE_INDEX:
        if level:
            store_receipt(w, d, recipient, id, level, code)
        return
    c = conn_at(&w.conns, d.conn)
    if answers and c.outstanding:
        c.outstanding -= 1
        if c.flags & FLAG_PAUSED and c.outstanding * 2 <= w.bounds.sender_window:
            queue_resume(w, c)
    if level == 0:
        return
    memset(&f, 0, sizeof(Frame))
    f.type = level
    f.address = recipient
    f.id = id
    f.number = code
    if out_frame(w, c, &f) == 0:
        w.stats.receipts_live += 1
        trace(w, TRACE_TOLD, sender, recipient, id, level)
    else:
        store_receipt(w, d, recipient, id, level, code)


cdef void tell(Core* w, uint64_t sender, uint64_t recipient, uint64_t id,
               uint8_t level, uint16_t code, bint answers) noexcept nogil:
    cdef BusReceipt r
    cdef uint32_t owner = owner_of(w, sender)
    if owner == w.worker:
        tell_here(w, sender, recipient, id, level, code, answers)
        return
    memset(&r, 0, sizeof(BusReceipt))
    r.sender = sender
    r.recipient = recipient
    r.id = id
    r.level = level
    r.code = code
    r.answers = answers
    # Best effort: a sender whose receipt is lost with its worker asks for it (receipts.status) or sends again.
    bus_send(w, owner, BUS_RECEIPT, &r, sizeof(BusReceipt), NULL, 0, -1)
