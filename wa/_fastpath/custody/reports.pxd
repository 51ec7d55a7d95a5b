# cython: language_level=3
"""Contract of reports: how an envelope ended that was not delivered reaches its sender, whatever fails.

SWEEP, PURGE and DROP leave a receipt for the sender in the transaction that takes its envelope out
(mailbox/contract.pxd).
    sender on this worker:  the receipt is where it belongs; a connected sender gets it as a stored receipt, at once.
    on another worker:      it waits here, under its owner, until that worker has it on its own disk:
        recipient's worker  -- BUS_REPORT -->  sender's worker: RECEIPT_PUT, fsync
        RECEIPT_DELETE  <-- BUS_REPORT_KEPT --
      said again after a while until then, and after a restart.  Everything in it may come twice.
"""
from libc.stdint cimport uint64_t
from wa._fastpath.bus.messages cimport BusReceipt
from wa._fastpath.mailbox.contract cimport StoreOp
from wa._fastpath.state.core cimport Core

cdef void report(Core* w, const StoreOp* op) noexcept nogil                # op: of StoreBatch.expired
cdef void report_not(Core* w, const StoreOp* op) noexcept nogil            # it was delivered after all, and told so
cdef void reports_settle_undo(Core* w, const StoreOp* op) noexcept nogil   # … and the store has answered that
cdef void reports_wait(Core* w, uint64_t sender) noexcept nogil  # a receipt of another worker's device is here
cdef void reports_say(Core* w) noexcept nogil                              # what is due; every turn
cdef void reports_take(Core* w, const BusReceipt* r) noexcept nogil        # BUS_REPORT
cdef void reports_settle_put(Core* w, const StoreOp* op) noexcept nogil    # the store answered its RECEIPT_PUT
cdef void reports_confirmed(Core* w, const BusReceipt* r) noexcept nogil   # BUS_REPORT_KEPT
cdef void reports_settle_delete(Core* w, const StoreOp* op) noexcept nogil # the store answered its RECEIPT_DELETE
