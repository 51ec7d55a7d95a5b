# cython: language_level=3
"""Contract of the way from the mailbox to a connected device (rule 8).

Order.  Places in a mailbox are given out in order of arrival, and what a connection has been sent is, per priority
class, everything up to a cursor.  Two things keep that true:
- an envelope goes to a connected device directly only while nothing is waiting for it in its mailbox;
- a connection that ends commits what it had in flight, with the old places.  Those commits may become visible after
  younger ones, so the next connection does not read its mailbox before they are done (DrainState.after_batch).
"""
from libc.stdint cimport uint64_t
from wa._fastpath.state.core cimport Conn, Core, Device

cdef void drain_all(Core* w) noexcept nogil                               # everything on the drain list of this turn
cdef int drain_begin(Core* w, Conn* c) noexcept nogil                     # a device came online; -1 = memory
cdef int backlog_begin(Core* w, Conn* c, uint64_t mail_seq) noexcept nogil    # from this place on; -1 = memory
cdef void receipts_again(Core* w, Device* d) noexcept nogil               # a receipt for d is in its mailbox: send it
cdef void drain_end(Core* w, Conn* c) noexcept nogil                      # there need not be a drain
