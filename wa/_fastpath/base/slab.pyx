# cython: language_level=3
# HOT: a buffer is taken and given back for every burst of bytes on every connection.
"""Buffer slab: one free list per size class, threaded through the free buffers themselves.

Rules
  - Class i holds buffers of 64 << i bytes; a request is rounded up to its class.
  - `limit_bytes` bounds what is handed out; `cached_max_bytes` bounds what is kept for reuse.
  - A buffer belongs to its taker until given back with the capacity it was taken with.

A debug build (WA_DEBUG=1) overwrites every buffer that is given back, so that a stale pointer reads as 0xDB, and
aborts when a capacity is not a size class.
"""
cimport cython
from libc.stdint cimport uint32_t, UINT64_MAX, uint64_t, uint8_t
from libc.stdlib cimport abort, free, malloc
from libc.string cimport memset

from wa.errors import LocalError

cdef extern from *:
    """
    #ifdef WA_DEBUG
    #define WA_SLAB_CHECKED 1
    #else
    #define WA_SLAB_CHECKED 0
    #endif
    """
    const int WA_SLAB_CHECKED
    int clz64 "__builtin_clzll"(unsigned long long) nogil

cdef enum:
    CLASSES = 12
    CLASS_BYTES_MIN = 64
    POISON = 0xDB


cdef inline int class_of(size_t n) noexcept nogil:
    """The smallest class whose buffers hold n bytes; n <= SLAB_BYTES_MAX."""
    if n <= CLASS_BYTES_MIN:
        return 0
    return 64 - clz64((n - 1) >> 6)


cdef void slab_init(Slab* s, uint64_t limit_bytes, uint64_t cached_max_bytes) noexcept nogil:
    memset(s, 0, sizeof(Slab))
    s.limit_bytes = limit_bytes
    s.cached_max_bytes = cached_max_bytes


cdef uint8_t* slab_take(Slab* s, size_t n, uint32_t* capacity) noexcept nogil:
    cdef int i
    cdef uint32_t size
    cdef void* p
    if n > SLAB_BYTES_MAX:
        return NULL
    i = class_of(n)
    size = <uint32_t>CLASS_BYTES_MIN << i
    if s.used_bytes + size > s.limit_bytes:
        return NULL
    p = s.free_list[i]
    if p != NULL:
        s.free_list[i] = (<void**>p)[0]
        s.cached_bytes -= size
    else:
        p = malloc(size)
        if p == NULL:
            return NULL
    s.used_bytes += size
    s.takes += 1
    capacity[0] = size
    return <uint8_t*>p


cdef void slab_give(Slab* s, uint8_t* p, uint32_t capacity) noexcept nogil:
    cdef int i
    if p == NULL:
        return
    i = class_of(capacity)
    if WA_SLAB_CHECKED:
        if capacity > SLAB_BYTES_MAX or capacity != <uint32_t>CLASS_BYTES_MIN << i or s.used_bytes < capacity:
            abort()
        memset(p, POISON, capacity)
    s.used_bytes -= capacity
    s.gives += 1
    if s.cached_bytes + capacity > s.cached_max_bytes:
        s.freed_bytes += capacity
        free(p)
        return
    (<void**>p)[0] = s.free_list[i]
    s.free_list[i] = p
    s.cached_bytes += capacity


cdef void slab_trim(Slab* s, uint64_t keep_bytes, uint64_t buffers_max) noexcept nogil:
    """Largest first: they return most to the system and are the rarest in use."""
    cdef int i
    cdef void* p
    cdef uint64_t left = buffers_max
    for i in range(CLASSES - 1, -1, -1):
        while s.cached_bytes > keep_bytes and s.free_list[i] != NULL and left:
            p = s.free_list[i]
            s.free_list[i] = (<void**>p)[0]
            s.cached_bytes -= <uint32_t>CLASS_BYTES_MIN << i
            s.freed_bytes += <uint32_t>CLASS_BYTES_MIN << i
            left -= 1
            free(p)


cdef void slab_destroy(Slab* s) noexcept nogil:
    """Frees the cached buffers.  Live ones stay their takers'."""
    slab_trim(s, 0, UINT64_MAX)


@cython.no_gc_clear               # __dealloc__ needs `live`, also when a cycle holds this object
cdef class SlabFace:
    """The slab for tests: buffers are named by small integers.  Raises LocalError for an unknown name."""

    cdef Slab slab
    cdef dict live
    cdef int last

    def __cinit__(self, limit_bytes: int, cached_max_bytes: int):
        slab_init(&self.slab, limit_bytes, cached_max_bytes)
        self.live = {}
        self.last = 0

    def __dealloc__(self):
        for address, _ in self.live.values():
            free(<void*><size_t>address)
        slab_destroy(&self.slab)

    def take(self, n: int) -> int | None:
        """The name of a buffer of at least n bytes, or None when the slab refuses."""
        cdef uint32_t capacity = 0
        cdef uint8_t* p = slab_take(&self.slab, n, &capacity)
        if p == NULL:
            return None
        memset(p, self.last & 0xFF, capacity)  # its whole length must be writable
        self.last += 1
        self.live[self.last] = (<size_t>p, capacity)
        return self.last

    def give(self, name: int) -> None:
        if name not in self.live:
            raise LocalError(f"buffer {name} is not live: give back what take() returned, once")
        address, capacity = self.live.pop(name)
        slab_give(&self.slab, <uint8_t*><size_t>address, capacity)

    def give_null(self) -> None:
        slab_give(&self.slab, NULL, 64)

    def trim(self, keep_bytes: int, buffers_max: int = 1 << 63) -> None:
        slab_trim(&self.slab, keep_bytes, buffers_max)

    def capacity(self, name: int) -> int:
        return self.live[name][1]

    def address(self, name: int) -> int:
        return self.live[name][0]

    @property
    def used_bytes(self) -> int:
        return self.slab.used_bytes

    @property
    def cached_bytes(self) -> int:
        return self.slab.cached_bytes

    @property
    def takes(self) -> int:
        return self.slab.takes

    @property
    def gives(self) -> int:
        return self.slab.gives
