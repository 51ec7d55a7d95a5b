# cython: language_level=3
# HOT for wake-ups: every envelope that is stored for an absent device asks whether one is pending.
"""What Python is told of a turn; see state/cold.pxd."""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport malloc, realloc
from libc.string cimport memcpy, memset
from wa._fastpath.state.core cimport COLD_WAKE, ColdEvent, Conn, Core, Device

cdef enum:
    PRIORITY_CALL = 100


cdef ColdEvent* cold_push(Core* w, uint8_t what, const Conn* c, const uint8_t* body, uint32_t n) noexcept nogil:
    """One more event for the batch that Python sees at the end of this turn; NULL when memory is out."""
    cdef ColdEvent* events
    cdef ColdEvent* e
    if w.cold_n == w.cold_capacity:
        events = <ColdEvent*>realloc(w.cold, (w.cold_capacity * 2 + 64) * sizeof(ColdEvent))
        if events == NULL:
            return NULL
        w.cold = events
        w.cold_capacity = w.cold_capacity * 2 + 64
    e = &w.cold[w.cold_n]
    memset(e, 0, sizeof(ColdEvent))
    if n:
        e.body = <uint8_t*>malloc(n)
        if e.body == NULL:
            return NULL
        memcpy(e.body, body, n)
        e.body_n = n
    e.what = what
    if c != NULL:
        e.conn = c.index
        e.generation = c.generation
        e.address = c.address
        if c.pending != NULL:
            e.peer = c.pending.peer
            e.intent = c.pending.intent
            e.has_key = 1
            memcpy(e.static_key, c.pending.static_key, 32)
    w.cold_n += 1
    w.stats.cold_events += 1
    return e


cdef void wake_device(Core* w, Device* d, uint8_t priority) noexcept nogil:
    cdef uint32_t now_s = <uint32_t>(w.now_ms // 1000) + 1
    cdef ColdEvent* e
    if d.woken_s and (
        priority != PRIORITY_CALL or <uint64_t>(now_s - d.woken_s) * 1000 < w.bounds.call_wake_again_ms
    ):
        return
    e = cold_push(w, COLD_WAKE, NULL, NULL, 0)
    if e == NULL:
        return                    # no memory now: the next envelope asks again
    e.address = d.address
    d.woken_s = now_s
    w.stats.wakes += 1
