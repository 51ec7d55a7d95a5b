# cython: language_level=3
"""Contract of a small table by address, for what few addresses have: open addressing, linear probing."""
from libc.stdint cimport uint32_t, uint64_t

ctypedef struct AddressSlot:
    uint64_t address              # 0 = empty
    uint64_t seq                  # Core.formers: rows up to this place are a removed device's
    uint32_t said                 # Core.reports: receipts said and not confirmed
    uint32_t due_s                # Core.reports: monotonic second from which on they are said (again)

ctypedef struct Addresses:
    AddressSlot* slots
    uint64_t slots_n              # a power of two; 0 before the first
    uint64_t used

cdef void addresses_destroy(Addresses* t) noexcept nogil
cdef AddressSlot* addresses_find(Addresses* t, uint64_t address) noexcept nogil   # valid until the next add or remove
cdef AddressSlot* addresses_add(Addresses* t, uint64_t address) noexcept nogil    # finds or makes; NULL: no memory
cdef void addresses_remove(Addresses* t, uint64_t address) noexcept nogil
