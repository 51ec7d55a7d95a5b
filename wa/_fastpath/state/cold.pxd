# cython: language_level=3
"""Contract of the cold events of a turn: what Python is told once per batch, at the end of the turn (loop/events.pyx).

Beneath all others: whoever finds something that Python must know calls it.
"""
from libc.stdint cimport uint32_t, uint8_t
from wa._fastpath.state.core cimport ColdEvent, Conn, Core, Device

cdef ColdEvent* cold_push(Core* w, uint8_t what, const Conn* c, const uint8_t* body, uint32_t n) noexcept nogil

# Custody rule 12, for a device that is not connected and for which an envelope of this priority waits: one wake-up
# until it has been online again.  A call (priority 100) does not wait 30 days: it wakes again when the last wake-up
# is CALL_WAKE_AGAIN_MS old.
cdef void wake_device(Core* w, Device* d, uint8_t priority) noexcept nogil
