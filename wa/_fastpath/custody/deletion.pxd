# cython: language_level=3
"""Contract of deletion: an acknowledged envelope stays known until its row is gone from the mailbox.

    COMMITTING or STORED -- ack --> DELETING -- the store says deleted, or not there --> ended
                                       \\- the disk refused --> tried again every second

Until then a sweep may still find the row expired and a drain may still read it; both must know that it was delivered.
What makes room for another (rule 10) is DROPPING in the same way; if the disk refuses, it is back where it was.
"""
from libc.stdint cimport uint8_t, uint16_t, uint64_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.state.core cimport Core, Device, Entry
from wa._fastpath.mailbox.contract cimport StoreOp

cdef int delete_row(Core* w, const Entry* e) noexcept nogil                # -1: no memory
cdef void delete_envelope(Core* w, Entry* e) noexcept nogil                # e is off its ring
cdef void deleted(Core* w, const StoreOp* op) noexcept nogil               # the store answered an OP_DELETE
cdef void delete_again(Core* w) noexcept nogil                             # what the disk refused, once a second
cdef void delete_no_more(Core* w) noexcept nogil                           # gives that up
cdef void forget_row(Core* w, Device* d, uint64_t seq) noexcept nogil      # out of the counts of its mailbox
cdef void ends_with(const Core* w, StoreOp* op, uint16_t code) noexcept nogil    # what a SWEEP, PURGE or DROP leaves
cdef bint make_room(Core* w, Device* d, const Envelope* v) noexcept nogil      # v: the newcomer
cdef void drop_end(Core* w, Entry* e, bint gone) noexcept nogil            # its row is gone, or stays
cdef void dropped(Core* w, const StoreOp* op) noexcept nogil               # the store answered an OP_DROP
