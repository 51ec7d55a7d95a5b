# cython: language_level=3
# HOT: every turn passes the one test of reports_say; the rest runs when envelopes expire.
"""Telling senders of envelopes that ended undelivered; see custody/reports.pxd.

`Core.reports` holds the senders on other workers for whom receipts wait here.
"""
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.bus.messages cimport BUS_REPORT, BUS_REPORT_KEPT, BusReceipt
from wa._fastpath.custody.batches cimport batch_op
from wa._fastpath.custody.drain cimport receipts_again
from wa._fastpath.mailbox.contract cimport (
    MailRow, OP_RECEIPT_DELETE, OP_RECEIPT_PUT, ORIGIN_REPORT, ORIGIN_UNREPORT, RESULT_DUPLICATE, RESULT_FAILED,
    RESULT_FULL, RESULT_OK, StoreOp,
)
from wa._fastpath.state.addresses cimport addresses_add, addresses_find, addresses_remove, AddressSlot
from wa._fastpath.state.core cimport Core, Device
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.route cimport owner_of
from wa._fastpath.wire.frames cimport F_REFUSED

cdef enum:
    AGAIN_S = 5                   # without a confirmation
    UNREACHED_S = 1               # the other worker is not there


# --- on the recipient's worker ------------------------------------------------------------------------

cdef void report(Core* w, const StoreOp* op) noexcept nogil:
    cdef Device* d
    if op.env.sender == 0 or op.code == 0:
        return                            # damaged beyond telling whose it was: the store has reported it
    if owner_of(w, op.env.sender) != w.worker:
        reports_wait(w, op.env.sender)
        return
    d = directory_find(&w.directory, op.env.sender)
    if d == NULL:
        report_not(w, op)                 # the sending device was removed
    else:
        receipts_again(w, d)


cdef void report_not(Core* w, const StoreOp* op) noexcept nogil:
    cdef StoreOp* out = batch_op(w, OP_RECEIPT_DELETE, 0)
    if out == NULL:
        return
    out.origin = ORIGIN_UNREPORT
    out.env.recipient, out.env.sender, out.env.id, out.level = op.env.sender, op.env.recipient, op.env.id, F_REFUSED


cdef void reports_settle_undo(Core* w, const StoreOp* op) noexcept nogil:
    cdef Device* d
    if op.result != RESULT_FULL and op.result != RESULT_FAILED:
        return
    d = directory_find(&w.directory, op.env.recipient)
    if d != NULL:
        receipts_again(w, d)              # its sender has heard "delivered", which a report does not take back
    elif owner_of(w, op.env.recipient) != w.worker:
        reports_wait(w, op.env.recipient)


cdef void reports_wait(Core* w, uint64_t sender) noexcept nogil:
    cdef AddressSlot* slot = addresses_add(&w.reports, sender)
    if slot == NULL:
        return                            # no memory: the next start finds the receipt and says it
    slot.said = 0
    slot.due_s = 0
    w.reports_due_s = 0


cdef void reports_say(Core* w) noexcept nogil:
    cdef uint32_t now_s = <uint32_t>(w.now_ms // 1000)
    cdef uint64_t i = 0
    cdef AddressSlot* slot
    if w.reports.used == 0 or w.reports_due_s > now_s:
        return
    w.reports_due_s = now_s + AGAIN_S
    while i < w.reports.slots_n:
        slot = &w.reports.slots[i]
        if slot.address and slot.due_s <= now_s and say(w, slot, now_s) == 0:
            continue                      # it is gone, and another may have moved into its place
        if slot.address and slot.due_s < w.reports_due_s:
            w.reports_due_s = slot.due_s
        i += 1


cdef int say(Core* w, AddressSlot* slot, uint32_t now_s) noexcept nogil:
    """A window of the receipts that wait for one sender.  Returns how many, 0 when it was taken off the list."""
    cdef BusReceipt r
    cdef MailRow* row
    cdef int k, n = w.store.read_receipts(w.store, slot.address, 0, 0, w.receipt_rows, DELIVERY_WINDOW_MAX)
    if n == 0:
        addresses_remove(&w.reports, slot.address)
        return 0
    slot.said = 0
    slot.due_s = now_s + (AGAIN_S if n > 0 else UNREACHED_S)
    for k in range(n):
        row = &w.receipt_rows[k]
        memset(&r, 0, sizeof(BusReceipt))
        r.sender, r.recipient, r.id = row.env.recipient, row.env.sender, row.env.id
        r.level, r.code, r.expires_s = row.level, row.code, row.env.expires_s
        if w.bus.send(w.bus, owner_of(w, r.sender), BUS_REPORT, &r, sizeof(BusReceipt), NULL, 0, -1) != 0:
            slot.due_s = now_s + UNREACHED_S
            break
        slot.said += 1
    return n


cdef void reports_confirmed(Core* w, const BusReceipt* r) noexcept nogil:
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_DELETE, 0)
    if op == NULL:
        return                            # said and confirmed again
    op.origin = ORIGIN_REPORT
    op.env.recipient, op.env.sender, op.env.id, op.level = r.sender, r.recipient, r.id, r.level


cdef void reports_settle_delete(Core* w, const StoreOp* op) noexcept nogil:
    cdef AddressSlot* slot = addresses_find(&w.reports, op.env.recipient)
    if slot == NULL or slot.said == 0:
        return
    slot.said -= 1
    if slot.said == 0:
        slot.due_s = 0            # the rest, or off the list
        w.reports_due_s = 0


# --- on the sender's worker ---------------------------------------------------------------------------

cdef void confirm(Core* w, const BusReceipt* r) noexcept nogil:
    w.bus.send(w.bus, owner_of(w, r.recipient), BUS_REPORT_KEPT, r, sizeof(BusReceipt), NULL, 0, -1)


cdef void reports_take(Core* w, const BusReceipt* r) noexcept nogil:
    cdef StoreOp* op
    if directory_find(&w.directory, r.sender) == NULL:
        confirm(w, r)                     # the sending device was removed: there is nobody to tell
        return
    op = batch_op(w, OP_RECEIPT_PUT, 0)
    if op == NULL:
        return                            # said again
    op.origin = ORIGIN_REPORT
    op.env.recipient, op.env.sender, op.env.id = r.sender, r.recipient, r.id
    op.level, op.code = r.level, r.code
    op.env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    op.env.expires_s = r.expires_s


cdef void reports_settle_put(Core* w, const StoreOp* op) noexcept nogil:
    cdef BusReceipt r
    cdef Device* d = directory_find(&w.directory, op.env.recipient)
    if op.result != RESULT_OK and op.result != RESULT_DUPLICATE:
        return                            # the disk refused it: said again
    memset(&r, 0, sizeof(BusReceipt))
    r.sender, r.recipient, r.id, r.level = op.env.recipient, op.env.sender, op.env.id, op.level
    confirm(w, &r)
    if d != NULL:
        receipts_again(w, d)
