# cython: language_level=3
"""Contract of the device directory: the registered devices of our shards, by address.  Open addressing, linear probing.
"""
from libc.stdint cimport uint64_t
from wa._fastpath.state.core cimport Device, Directory

cdef int directory_init(Directory* d) noexcept nogil
cdef void directory_destroy(Directory* d) noexcept nogil
cdef Device* directory_find(Directory* d, uint64_t address) noexcept nogil # valid until the next add or remove
cdef Device* directory_add(Directory* d, uint64_t address) noexcept nogil  # finds or makes; NULL when memory is out
cdef void directory_remove(Directory* d, uint64_t address) noexcept nogil
