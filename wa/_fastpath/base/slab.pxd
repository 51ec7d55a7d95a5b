# cython: language_level=3
"""Contract of the buffer slab: buffers by size class for connections that have bytes pending.

An idle connection owns no buffer.  Classes are powers of two from 64 bytes to 128 KiB; freed buffers are kept
for reuse up to `cached_max` bytes and given back to the system beyond that.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t

ctypedef struct Slab:
    void* free_list[12]           # class i holds buffers of 64 << i bytes
    uint64_t used_bytes           # handed out now
    uint64_t cached_bytes         # in the free lists
    uint64_t limit_bytes          # take() fails over this
    uint64_t cached_max_bytes
    uint64_t freed_bytes          # given back since the start
    uint64_t takes, gives         # live buffers = takes - gives (the debug build's leak test reads them)

cdef enum:
    SLAB_BYTES_MAX = 131072

cdef void slab_init(Slab* s, uint64_t limit_bytes, uint64_t cached_max_bytes) noexcept nogil
cdef uint8_t* slab_take(Slab* s, size_t n, uint32_t* capacity) noexcept nogil
# NULL when n > SLAB_BYTES_MAX or the limit is reached.  *capacity >= n is the size class.
cdef void slab_give(Slab* s, uint8_t* p, uint32_t capacity) noexcept nogil     # p may be NULL
cdef void slab_trim(Slab* s, uint64_t keep_bytes, uint64_t buffers_max) noexcept nogil    # frees so many cached buffers
cdef void slab_destroy(Slab* s) noexcept nogil
