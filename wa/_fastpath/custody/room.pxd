# cython: language_level=3
"""Contract of making room in a full mailbox (rule 10).

What goes is DROPPING until the store has answered, in the same batch that brings what it makes room for.  If the disk
refuses, it is back where it was.
"""
from libc.stdint cimport uint64_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.mailbox.contract cimport StoreOp
from wa._fastpath.state.core cimport Core, Device, Entry

cdef bint make_room(Core* w, Device* d, const Envelope* v) noexcept nogil  # for v; False: nothing may go
cdef void drop_end(Core* w, Entry* e, bint gone) noexcept nogil            # its row is gone, or stays
cdef void settle_drop(Core* w, const StoreOp* op) noexcept nogil           # the store answered an OP_DROP
cdef void forget_row(Core* w, Device* d, uint64_t seq) noexcept nogil
# in nobody's custody, and gone: out of d's counts
