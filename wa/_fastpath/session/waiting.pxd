# cython: language_level=3
"""Contract of the queue before the curve arithmetic: connections whose next handshake record is here and waits for its turn.

First come, first served, as many in a turn of the loop as `limits.HANDSHAKES_PER_TURN_MAX` lets (session/handshake.pxd, STEP_SLOTS), after
connected clients were read and answered.  Whoever was read and is not answered yet is the next.  The record lies in the connection's own buffer
meanwhile, so its socket is not ready: sockets that stay ready would be reported before those of connected clients, again
and again.  At most `limits.HALF_OPEN_MAX` wait.
"""
from wa._fastpath.state.core cimport Conn, Core

cdef void waiting_add(Core* w, Conn* c) noexcept nogil          # once is enough; in front if its answer is due
cdef void waiting_remove(Core* w, Conn* c) noexcept nogil       # it need not be in it
cdef Conn* waiting_first(Core* w) noexcept nogil                # stays in it; NULL when nobody waits
