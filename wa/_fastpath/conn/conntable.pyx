# cython: language_level=3
# HOT: one look-up here per envelope and per event; everything is flat memory and index arithmetic.
"""Connection table and device directory; see conn/conntable.pxd and state/core.pxd for who owns what."""
from libc.stdint cimport int32_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from wa._fastpath.state.core cimport Conn, CONN_FREE, ConnTable, Device, Directory, NONE_INDEX

cdef enum:
    CHUNK_SHIFT = 10              # connections are allocated 1,024 at a time and never move
    CHUNK = 1024
    DIRECTORY_START = 1024


cdef int conntable_init(ConnTable* t) noexcept nogil:
    memset(t, 0, sizeof(ConnTable))
    t.free_head = NONE_INDEX
    return 0


cdef void conntable_destroy(ConnTable* t) noexcept nogil:
    cdef uint32_t i
    for i in range(t.chunks_n):
        free(t.chunks[i])
    free(t.chunks)
    memset(t, 0, sizeof(ConnTable))
    t.free_head = NONE_INDEX


cdef int grow(ConnTable* t) noexcept nogil:
    cdef Conn** chunks = <Conn**>realloc(t.chunks, (t.chunks_n + 1) * sizeof(Conn*))
    if chunks == NULL:
        return -1
    t.chunks = chunks
    cdef Conn* chunk = <Conn*>calloc(CHUNK, sizeof(Conn))
    if chunk == NULL:
        return -1
    cdef uint32_t first = t.chunks_n * CHUNK
    cdef uint32_t i
    # Free connections are chained through `index`'s neighbour field dirty_next, lowest index first.
    for i in range(CHUNK):
        chunk[i].index = first + i
        chunk[i].generation = 1
        chunk[i].fd = -1
        chunk[i].dirty_next = first + i + 1 if i + 1 < CHUNK else t.free_head
    t.free_head = first
    t.chunks[t.chunks_n] = chunk
    t.chunks_n += 1
    return 0


cdef Conn* conn_new(ConnTable* t, int32_t fd) noexcept nogil:
    if t.free_head == NONE_INDEX and grow(t) != 0:
        return NULL
    cdef Conn* c = conn_at(t, t.free_head)
    t.free_head = c.dirty_next
    cdef uint32_t index = c.index
    cdef uint32_t generation = c.generation
    memset(c, 0, sizeof(Conn))
    c.index = index
    c.generation = generation
    c.fd = fd
    c.dirty_next = NONE_INDEX
    c.drain_next = NONE_INDEX
    c.resume_next = NONE_INDEX
    c.seq_next = 1
    t.live_n += 1
    return c


cdef void conn_release(ConnTable* t, Conn* c) noexcept nogil:
    cdef uint32_t index = c.index
    # 24 bits: the high byte of an event token tells connections from other descriptors (loop/loop.pyx).
    cdef uint32_t generation = (c.generation + 1) & 0xffffff
    memset(c, 0, sizeof(Conn))                # transport keys are zeroed with the rest
    c.index = index
    c.generation = generation if generation != 0 else 1
    c.fd = -1
    c.state = CONN_FREE
    c.dirty_next = t.free_head
    t.free_head = index
    t.live_n -= 1


cdef Conn* conn_at(ConnTable* t, uint32_t index) noexcept nogil:
    return &t.chunks[index >> CHUNK_SHIFT][index & (CHUNK - 1)]


cdef Conn* conn_by_handle(ConnTable* t, uint64_t handle) noexcept nogil:
    cdef uint32_t index = <uint32_t>handle
    if index >> CHUNK_SHIFT >= t.chunks_n:
        return NULL
    cdef Conn* c = conn_at(t, index)
    if c.state == CONN_FREE or c.generation != <uint32_t>(handle >> 32):
        return NULL
    return c


cdef uint64_t conn_handle(const Conn* c) noexcept nogil:
    return <uint64_t>c.generation << 32 | c.index


# --- directory ------------------------------------------------------------------------------------

# The number of slots is no power of two, so that growing by a quarter is possible: right after it 56 slots of 100 are
# used, and a device costs 72 bytes at the most.

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


def sizes() -> dict:
    """Bytes of the structs that an idle connection and a registered device cost."""
    return {"conn": sizeof(Conn), "device": sizeof(Device)}
