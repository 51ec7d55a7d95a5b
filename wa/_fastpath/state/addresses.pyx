# cython: language_level=3
# COLD: devices that were removed, and senders on other workers for whom reports wait.
"""A table by address; see state/addresses.pxd."""
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.shards cimport splitmix64

cdef enum:
    SLOTS_START = 64


cdef void addresses_destroy(Addresses* t) noexcept nogil:
    free(t.slots)
    memset(t, 0, sizeof(Addresses))


cdef AddressSlot* addresses_find(Addresses* t, uint64_t address) noexcept nogil:
    cdef uint64_t i
    wa_assert(address != 0, b"no device has the address 0")
    if t.slots_n == 0:
        return NULL
    i = splitmix64(address) & (t.slots_n - 1)
    while t.slots[i].address != 0:
        if t.slots[i].address == address:
            return &t.slots[i]
        i = (i + 1) & (t.slots_n - 1)
    return NULL


cdef int grow(Addresses* t) noexcept nogil:
    cdef uint64_t n = t.slots_n * 2 if t.slots_n else SLOTS_START
    cdef AddressSlot* slots = <AddressSlot*>calloc(n, sizeof(AddressSlot))
    cdef uint64_t i, j
    if slots == NULL:
        return -1
    for i in range(t.slots_n):
        if t.slots[i].address:
            j = splitmix64(t.slots[i].address) & (n - 1)
            while slots[j].address != 0:
                j = (j + 1) & (n - 1)
            slots[j] = t.slots[i]
    free(t.slots)
    t.slots, t.slots_n = slots, n
    return 0


cdef AddressSlot* addresses_add(Addresses* t, uint64_t address) noexcept nogil:
    cdef AddressSlot* slot = addresses_find(t, address)
    cdef uint64_t i
    if slot != NULL:
        return slot
    if (t.used + 1) * 10 > t.slots_n * 7 and grow(t) != 0:
        return NULL
    i = splitmix64(address) & (t.slots_n - 1)
    while t.slots[i].address != 0:
        i = (i + 1) & (t.slots_n - 1)
    t.slots[i].address = address
    t.used += 1
    return &t.slots[i]


cdef void addresses_remove(Addresses* t, uint64_t address) noexcept nogil:
    """Backward shift: no tombstones, so look-ups never get longer with churn."""
    cdef AddressSlot* slot = addresses_find(t, address)
    cdef uint64_t mask = t.slots_n - 1
    cdef uint64_t hole, i
    if slot == NULL:
        return
    hole = i = <uint64_t>(slot - t.slots)
    while True:
        i = (i + 1) & mask
        if t.slots[i].address == 0:
            break
        if ((i - splitmix64(t.slots[i].address)) & mask) >= ((i - hole) & mask):
            t.slots[hole] = t.slots[i]
            hole = i
    memset(&t.slots[hole], 0, sizeof(AddressSlot))
    t.used -= 1


cdef class AddressesFace:
    """The table as a map from address to `seq`, for tests."""
    cdef Addresses t

    def __dealloc__(self):
        addresses_destroy(&self.t)

    def add(self, uint64_t address, uint64_t seq) -> None:
        cdef AddressSlot* slot = addresses_add(&self.t, address)
        if slot == NULL:
            raise MemoryError
        slot.seq = seq

    def get(self, uint64_t address):
        cdef AddressSlot* slot = addresses_find(&self.t, address)
        return None if slot == NULL else slot.seq

    def remove(self, uint64_t address) -> None:
        addresses_remove(&self.t, address)

    def __len__(self) -> int:
        return self.t.used
