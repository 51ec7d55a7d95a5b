# cython: language_level=3
"""Contract of the invariants of a worker's state: what must hold between any two turns.

The debug build looks every few turns and at the end, the simulator after every turn; a release build has the function
and does not call it.
"""
from wa._fastpath.state.core cimport Core

cdef bint debug_build() noexcept nogil
cdef const char* core_check(Core* w) noexcept nogil       # NULL, or the invariant that does not hold
cdef const char* core_leaks(Core* w) noexcept nogil       # the same for a loop that has ended: nothing may be alive
