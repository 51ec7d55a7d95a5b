# cython: language_level=3
"""What makes a simulation repeatable: one generator for everything random, one heap for everything that will happen."""
from libc.stdint cimport uint32_t, uint64_t
from sim._native.net cimport Net, Wake

cdef uint64_t net_random(Net* n) noexcept nogil
cdef uint64_t net_below(Net* n, uint64_t bound) noexcept nogil                       # 0..bound-1
cdef void net_wake(Net* n, uint32_t target, uint64_t at_ns) noexcept nogil
cdef bint pop_wake(Net* n, Wake* out) noexcept nogil                                 # the earliest; False: none
