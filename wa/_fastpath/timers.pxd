# cython: language_level=3
"""Contract of the timer wheel: hierarchical, intrusive, O(1) set and cancel, no allocation.

One Timer is embedded in each owner (connection).  Deadlines are monotonic milliseconds; resolution is 4 ms
and a timer never fires early.
"""
from libc.stdint cimport uint32_t, uint64_t

ctypedef struct Timer:
    Timer* next                   # NULL when not set
    Timer* prev
    uint64_t deadline_ms

ctypedef struct TimerWheel        # defined in timers.pyx's own section of this file by the implementer

cdef void wheel_init(TimerWheel* w, uint64_t now_ms) noexcept nogil
cdef void timer_set(TimerWheel* w, Timer* t, uint64_t deadline_ms) noexcept nogil    # also moves a set one
cdef void timer_cancel(TimerWheel* w, Timer* t) noexcept nogil                        # no-op when not set
cdef Timer* wheel_pop(TimerWheel* w, uint64_t now_ms) noexcept nogil                  # one due timer, now unset; or NULL
cdef int wheel_wait_ms(TimerWheel* w, uint64_t now_ms) noexcept nogil                 # bound for poll; -1 when empty
