# cython: language_level=3
# HOT: one look-up here per envelope; everything is flat memory and index arithmetic.
"""The device directory; see state/directory.pxd.

The number of slots is no power of two, so that growing by a quarter is possible: right after it 56 slots of 100 are
used, and a device costs 72 bytes at the most.
"""
from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from wa._fastpath.state.core cimport Device, Directory, NONE_INDEX

cdef enum:
    DIRECTORY_START = 1024


cdef inline uint64_t mix(uint64_t x) noexcept nogil:
    # splitmix64's finaliser: numbers are dense, slots must not be
    x = (x ^ (x >> 30)) * <uint64_t>0xbf58476d1ce4e5b9
    x = (x ^ (x >> 27)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)


cdef inline uint64_t home_of(const Directory* d, uint64_t address) noexcept nogil:
    return (mix(address) >> 32) * d.slots_n >> 32     # the hash as a fraction of the slots, which are under 2^32


cdef inline uint64_t after(const Directory* d, uint64_t i) noexcept nogil:
    return i + 1 if i + 1 < d.slots_n else 0


cdef inline uint64_t distance(const Directory* d, uint64_t start, uint64_t end) noexcept nogil:
    """Slots from `start` on to `end`, over the end of the table when need be."""
    return end - start if end >= start else end + d.slots_n - start


cdef int directory_init(Directory* d) noexcept nogil:
    d.slots = <Device*>calloc(DIRECTORY_START, sizeof(Device))
    d.slots_n = DIRECTORY_START
    d.used = 0
    return 0 if d.slots != NULL else -1


cdef void directory_destroy(Directory* d) noexcept nogil:
    free(d.slots)
    d.slots = NULL
    d.used = 0


cdef Device* directory_find(Directory* d, uint64_t address) noexcept nogil:
    cdef uint64_t i = home_of(d, address)
    while d.slots[i].address != 0:
        if d.slots[i].address == address:
            return &d.slots[i]
        i = after(d, i)
    return NULL


cdef int directory_grow(Directory* d) noexcept nogil:
    cdef uint64_t old_n = d.slots_n
    cdef Device* old = d.slots
    cdef Device* slots = <Device*>calloc(old_n + old_n // 4, sizeof(Device))
    if slots == NULL:
        return -1
    d.slots = slots
    d.slots_n = old_n + old_n // 4
    cdef uint64_t i, j
    for i in range(old_n):
        if old[i].address == 0:
            continue
        j = home_of(d, old[i].address)
        while slots[j].address != 0:
            j = after(d, j)
        slots[j] = old[i]
    free(old)
    return 0


cdef Device* directory_add(Directory* d, uint64_t address) noexcept nogil:
    cdef Device* found = directory_find(d, address)
    if found != NULL:
        return found
    if (d.used + 1) * 10 > d.slots_n * 7 and directory_grow(d) != 0:
        return NULL
    cdef uint64_t i = home_of(d, address)
    while d.slots[i].address != 0:
        i = after(d, i)
    memset(&d.slots[i], 0, sizeof(Device))
    d.slots[i].address = address
    d.slots[i].conn = NONE_INDEX
    d.used += 1
    return &d.slots[i]


cdef void directory_remove(Directory* d, uint64_t address) noexcept nogil:
    cdef Device* found = directory_find(d, address)
    if found == NULL:
        return
    # Backward shift: no tombstones, so look-ups never get longer with churn.
    cdef uint64_t hole = <uint64_t>(found - d.slots)
    cdef uint64_t i = hole
    while True:
        i = after(d, i)
        if d.slots[i].address == 0:
            break
        if distance(d, home_of(d, d.slots[i].address), i) >= distance(d, hole, i):
            d.slots[hole] = d.slots[i]
            hole = i
    memset(&d.slots[hole], 0, sizeof(Device))
    d.used -= 1


# --- test face --------------------------------------------------------------------------------------

cdef class DirectoryFace:
    """The directory as a set of addresses, for tests and micro benchmarks."""
    cdef Directory d

    def __cinit__(self):
        if directory_init(&self.d) != 0:
            raise MemoryError

    def __dealloc__(self):
        directory_destroy(&self.d)

    def add(self, uint64_t address, uint16_t held=0):
        cdef Device* slot = directory_add(&self.d, address)
        if slot == NULL:
            raise MemoryError
        slot.held = held

    def get(self, uint64_t address):
        """The `held` count of a device, or None."""
        cdef Device* slot = directory_find(&self.d, address)
        return None if slot == NULL else slot.held

    def remove(self, uint64_t address):
        directory_remove(&self.d, address)

    def __len__(self):
        return self.d.used
