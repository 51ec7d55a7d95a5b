# cython: language_level=3
"""Contract of deletion: an acknowledged envelope stays known until its row is gone from the mailbox.

    COMMITTING or STORED -- ack --> DELETING -- the store says deleted, or not there --> ended
                                       \\- the disk refused --> tried again every second

Until then a sweep may still find the row expired and a drain may still read it; both must know that it was delivered.
"""
from wa._fastpath.mailbox.contract cimport StoreOp
from wa._fastpath.state.core cimport Core, Entry

cdef int delete_row(Core* w, const Entry* e) noexcept nogil               # -1: no memory
cdef void delete_envelope(Core* w, Entry* e) noexcept nogil               # e is off its ring
cdef void settle_delete(Core* w, const StoreOp* op) noexcept nogil        # the store answered an OP_DELETE
cdef void delete_again(Core* w) noexcept nogil                            # what the disk refused, once a second
cdef void delete_no_more(Core* w) noexcept nogil                          # gives that up
