# cython: language_level=3
"""Contract of the queue before the curve arithmetic: connections whose next handshake record is here.

Each turn serves connected clients first, then takes from this queue: first come, first served, as many as
`limits.HANDSHAKES_PER_TURN_MAX` allows (session/handshake.pxd, STEP_SLOTS).  Who was read and is not answered yet goes
first.

A waiting record lies in the connection's own buffer, so its socket is not ready.  A socket that stays ready would be
reported before those of connected clients, turn after turn.  At most `limits.HALF_OPEN_MAX` wait.
"""
from wa._fastpath.state.core cimport Conn, Core

cdef void waiting_add(Core* w, Conn* c) noexcept nogil          # once is enough; in front if its answer is due
cdef void waiting_remove(Core* w, Conn* c) noexcept nogil       # it need not be in it
cdef Conn* waiting_first(Core* w) noexcept nogil                # stays in it; NULL when nobody waits
