# cython: language_level=3
"""Contract of what happens to memory after a burst: it goes back to the system within a second or so of the end.

A thousand clients that were active once must cost no more than a thousand that are idle.
"""
from wa._fastpath.state.core cimport Core

cdef void give_back(Core* w) noexcept nogil               # once a second
