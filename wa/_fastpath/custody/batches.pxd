# cython: language_level=3
"""Contract of mailbox batches: operations of a turn or more, handed to the store when it is idle."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.mailbox.contract cimport StoreOp
from wa._fastpath.state.core cimport Core

cdef StoreOp* batch_op(Core* w, uint8_t what, uint32_t body_n) noexcept nogil     # NULL = memory
cdef bint batch_has_room(const Core* w, uint32_t body_n) noexcept nogil
cdef void batch_submit(Core* w) noexcept nogil                                    # when the store is idle
cdef uint64_t batch_last(const Core* w) noexcept nogil                            # number of the last one begun
cdef bint batches_done(const Core* w) noexcept nogil                              # none is filling or under way
cdef void ends_with(const Core* w, StoreOp* op, uint16_t code) noexcept nogil
# the receipt that a SWEEP, PURGE or DROP leaves
