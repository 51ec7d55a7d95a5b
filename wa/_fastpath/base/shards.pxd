# cython: language_level=3
"""Who owns an account: the C twin of wa/routing/shards.py, with identical results."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.base.bounds cimport SHARDS


cdef inline uint64_t splitmix64(uint64_t x) noexcept nogil:
    x += 0x9e3779b97f4a7c15ULL
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL
    return x ^ (x >> 31)


cdef inline uint32_t shard_of(uint64_t number) noexcept nogil:
    return <uint32_t>(splitmix64(number) & (SHARDS - 1))
