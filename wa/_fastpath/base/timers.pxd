# cython: language_level=3
"""Contract of the timer wheel: hierarchical, intrusive, O(1) set and cancel, no allocation.

One Timer is embedded in each owner (connection) and starts zeroed.  Deadlines are monotonic milliseconds; resolution
is 4 ms and a timer never fires early.  `now_ms` never goes back.  A timer that its handler sets again at or before
now is due at once: a handler that always does so keeps wheel_pop() from ever returning NULL.
"""
from libc.stdint cimport uint64_t

ctypedef struct Timer:
    Timer* next                   # NULL when not set
    Timer* prev
    uint64_t deadline_ms

cdef enum:
    WHEEL_LEVELS = 11             # of 64 slots, 6 bits of the tick each: the whole u64 millisecond range
    WHEEL_SLOTS = 704             # WHEEL_LEVELS * 64
    WHEEL_RESOLUTION_MS = 4

ctypedef struct TimerWheel:       # 17 KiB; must not move once initialised (list heads point to themselves)
    uint64_t tick                 # now / WHEEL_RESOLUTION_MS when last advanced
    uint64_t set_n                # timers set now, due ones included
    uint64_t occupied[11]         # per level, bit i: slot i is not empty
    Timer due                     # head of the timers that wheel_pop() hands out next
    Timer slots[704]              # heads, level by level

cdef void wheel_init(TimerWheel* w, uint64_t now_ms) noexcept nogil
cdef void timer_set(TimerWheel* w, Timer* t, uint64_t deadline_ms) noexcept nogil    # also moves a set one
cdef void timer_cancel(TimerWheel* w, Timer* t) noexcept nogil                        # no-op when not set
cdef Timer* wheel_pop(TimerWheel* w, uint64_t now_ms) noexcept nogil  # one due timer, now unset; or NULL
cdef int wheel_wait_ms(TimerWheel* w, uint64_t now_ms) noexcept nogil                 # bound for poll; -1 when empty
