# cython: language_level=3
# HOT: one look-up here per event; everything is flat memory and index arithmetic.
"""Connection table; see conn/conntable.pxd, and state/core.pxd for who owns what."""
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset
from wa._fastpath.state.core cimport Conn, CONN_FREE, ConnTable, Device, NONE_INDEX

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


def sizes() -> dict:
    """Bytes of the structs that an idle connection and a registered device cost."""
    return {"conn": sizeof(Conn), "device": sizeof(Device)}
