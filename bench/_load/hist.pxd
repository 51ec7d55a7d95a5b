# cython: language_level=3
"""Histogram of nanoseconds in logarithmic buckets: 64 per power of two, so a value is off by 1.6 % at most."""
from libc.stdint cimport uint32_t, uint64_t

cdef extern from *:
    int clz "__builtin_clzll"(unsigned long long) nogil

cdef enum:
    SUB_BITS = 6
    BUCKETS_N = 3776              # (64 - SUB_BITS + 1) << SUB_BITS

ctypedef struct Hist:
    uint64_t counts[3776]


cdef inline uint32_t bucket_of(uint64_t value) noexcept nogil:
    cdef int e
    if value < (1 << SUB_BITS):
        return <uint32_t>value
    e = 63 - clz(value)
    return <uint32_t>(((e - SUB_BITS + 1) << SUB_BITS) + ((value >> (e - SUB_BITS)) & ((1 << SUB_BITS) - 1)))


cdef inline void hist_add(Hist* h, uint64_t value) noexcept nogil:
    h.counts[bucket_of(value)] += 1
