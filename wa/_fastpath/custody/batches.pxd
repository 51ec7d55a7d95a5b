# cython: language_level=3
"""Contract of what leaves a worker's owner logic: mailbox operations and receipts.

`tell` reaches the sender of an envelope wherever it is: on this worker, on another, or not connected at all.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from wa._fastpath.state.core cimport Conn, Core, Device
from wa._fastpath.mailbox.contract cimport StoreOp

cdef uint32_t owner_of(const Core* w, uint64_t address) noexcept nogil
cdef StoreOp* batch_op(Core* w, uint8_t what, uint32_t body_n) noexcept nogil     # NULL = memory
cdef bint batch_has_room(const Core* w, uint32_t body_n) noexcept nogil
cdef void batch_submit(Core* w) noexcept nogil                                      # when the store is idle
cdef void tell(Core* w, uint64_t sender, uint64_t recipient, uint64_t id,
               uint8_t level, uint16_t code, bint answers) noexcept nogil
cdef void tell_here(Core* w, uint64_t sender, uint64_t recipient, uint64_t id,
                    uint8_t level, uint16_t code, bint answers) noexcept nogil
cdef void queue_resume(Core* w, Conn* c) noexcept nogil
cdef void queue_drain(Core* w, Conn* c) noexcept nogil
