# cython: language_level=3
# COLD: simulations only, though theirs is the innermost loop.
"""Chance and agenda of a simulation; see sim/_native/agenda.pxd."""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport realloc
from sim._native.net cimport Net, NEVER, Wake


cdef uint64_t net_random(Net* n) noexcept nogil:
    cdef uint64_t x
    n.random += <uint64_t>0x9e3779b97f4a7c15
    x = n.random
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)


cdef uint64_t net_below(Net* n, uint64_t bound) noexcept nogil:
    return net_random(n) % bound if bound else 0


cdef inline bint earlier(const Wake* a, const Wake* b) noexcept nogil:
    return a.at_ns < b.at_ns or (a.at_ns == b.at_ns and a.order < b.order)


cdef void net_wake(Net* n, uint32_t target, uint64_t at_ns) noexcept nogil:
    """A binary heap; a simulation that is out of memory has nothing to say, so growth failing ends the process."""
    cdef uint32_t i, up
    cdef Wake w
    if at_ns == NEVER:
        return
    if n.wakes_n == n.wakes_capacity:
        n.wakes_capacity = n.wakes_capacity * 2 + 256
        n.wakes = <Wake*>realloc(n.wakes, n.wakes_capacity * sizeof(Wake))
    n.wakes_order += 1
    w.at_ns = at_ns if at_ns > n.now_ns else n.now_ns
    w.order = n.wakes_order
    w.target = target
    w.zero = 0
    i = n.wakes_n
    n.wakes_n += 1
    while i:
        up = (i - 1) >> 1
        if not earlier(&w, &n.wakes[up]):
            break
        n.wakes[i] = n.wakes[up]
        i = up
    n.wakes[i] = w


cdef bint pop_wake(Net* n, Wake* out) noexcept nogil:
    cdef uint32_t i = 0
    cdef uint32_t child
    cdef Wake w
    if n.wakes_n == 0:
        return False
    out[0] = n.wakes[0]
    n.wakes_n -= 1
    w = n.wakes[n.wakes_n]
    while True:
        child = 2 * i + 1
        if child >= n.wakes_n:
            break
        if child + 1 < n.wakes_n and earlier(&n.wakes[child + 1], &n.wakes[child]):
            child += 1
        if not earlier(&n.wakes[child], &w):
            break
        n.wakes[i] = n.wakes[child]
        i = child
    n.wakes[i] = w
    return True
