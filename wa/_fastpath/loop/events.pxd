# cython: language_level=3
"""Contract of what Python sees of a turn: one object per cold event."""
from libc.stdint cimport uint32_t
from wa._fastpath.state.core cimport ColdEvent

cdef list cold_batch(ColdEvent* events, uint32_t n)       # takes the events and frees them with their bodies
