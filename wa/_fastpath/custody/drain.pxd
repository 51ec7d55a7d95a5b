# cython: language_level=3
"""Contract of the way from the mailbox to a connected device, and of finished commits.

Order (rule 8).  Places in a mailbox are given out in order of arrival, and what a connection has been sent is,
per priority class, everything up to a cursor.  Two things keep that true:
- an envelope goes to a connected device directly only while nothing is waiting for it in its mailbox;
- a connection that ends commits what it had in flight, with the old places.  Those commits may become visible after
  younger ones, so the next connection does not read its mailbox before they are done (DrainState.after_batch).
"""
from wa._fastpath.state.core cimport Conn, Core

cdef void drain_all(Core* w) noexcept nogil                # everything on the drain list of this turn
cdef void take_commits(Core* w) noexcept nogil
cdef int drain_begin(Core* w, Conn* c) noexcept nogil      # a device came online; -1 = memory
