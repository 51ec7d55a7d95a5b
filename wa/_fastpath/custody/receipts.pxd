# cython: language_level=3
"""Contract of receipts: what a sender hears of its envelope (rules 1, 2, 11).  Custody answers through here only.

`tell` reaches the sender wherever it is: on this worker, on another, or not connected at all.
level: F_ACCEPTED, F_DELIVERED, F_READ, F_REFUSED, or 0 when only the sender's window moves.
answers: this is the first answer to the envelope, so that it leaves its sender's window.
"""
from libc.stdint cimport uint16_t, uint8_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.bus.messages cimport BusReceipt
from wa._fastpath.state.core cimport Core

cdef void tell(Core* w, const Envelope* v, uint8_t level, uint16_t code, bint answers) noexcept nogil
cdef void tell_here(Core* w, const BusReceipt* r) noexcept nogil          # BUS_RECEIPT; the sender is ours
