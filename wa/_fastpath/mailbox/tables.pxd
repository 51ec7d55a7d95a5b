# cython: language_level=3
"""Two tables of the mailbox index, which know nothing of what is in them: chains by hash, and lists of entries in
order.

Neither allocates per entry, and neither has a growth that takes long.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memmove, memset

cdef extern from *:
    """
    #define WA_NO_ENTRY 0xffffffffu
    """
    uint32_t NO_ENTRY "WA_NO_ENTRY"

cdef enum:
    CHAINS_MIN = 64
    CHAIN_LOAD_MAX = 2            # entries per chain

ctypedef struct Link:             # receipts are in no chain: these are the high and low half of their id
    uint32_t hash
    uint32_t next

ctypedef struct Chains:           # linear hashing: one chain is split with each insertion, so no growth takes long
    uint32_t* heads
    uint32_t capacity, low_n, split
    uint64_t n

ctypedef struct Handles:          # entries in order; grows at the end, shrinks at the front without moving
    uint32_t* at
    uint32_t start, n, capacity


cdef inline bint room(void** at, uint32_t* capacity, uint64_t n, size_t item_bytes) noexcept nogil:
    """Room for item n: False when memory is out."""
    cdef uint64_t wanted
    cdef void* grown
    if n < capacity[0]:
        return True
    wanted = n + n // 2 + 64
    if wanted > 0xfffffff0ULL:
        return False
    grown = realloc(at[0], wanted * item_bytes)
    if grown == NULL:
        return False
    at[0] = grown
    capacity[0] = <uint32_t>wanted
    return True


cdef inline void table_free(void** at, uint32_t* capacity) noexcept nogil:
    free(at[0])
    at[0] = NULL
    capacity[0] = 0


# --- chains -------------------------------------------------------------------------------------------

cdef inline Link* link_at(uint8_t* base, size_t stride, uint32_t i) noexcept nogil:
    return <Link*>(base + <size_t>i * stride)


cdef inline uint32_t chain_of(const Chains* c, uint32_t hash) noexcept nogil:
    cdef uint32_t i = hash & (c.low_n - 1)
    return hash & (2 * c.low_n - 1) if i < c.split else i


cdef inline bint chains_init(Chains* c) noexcept nogil:
    c.heads = <uint32_t*>malloc(CHAINS_MIN * sizeof(uint32_t))
    if c.heads == NULL:
        return False
    c.capacity = CHAINS_MIN
    chains_reset(c)
    return True


cdef inline void chains_reset(Chains* c) noexcept nogil:
    if c.heads == NULL:
        return
    c.low_n = CHAINS_MIN
    c.split = 0
    c.n = 0
    memset(c.heads, 0xff, CHAINS_MIN * sizeof(uint32_t))


cdef inline void chains_shrink(Chains* c) noexcept nogil:
    """To what an empty table begins with."""
    cdef uint32_t* fewer = <uint32_t*>realloc(c.heads, CHAINS_MIN * sizeof(uint32_t))
    if fewer != NULL:
        c.heads = fewer
        c.capacity = CHAINS_MIN
    chains_reset(c)


cdef inline void chains_split(Chains* c, uint8_t* links, size_t stride) noexcept nogil:
    """One more chain.  When memory is out the chains just stay longer."""
    cdef uint32_t at, after
    cdef uint32_t* head
    cdef uint32_t* to
    cdef Link* link
    if not room(<void**>&c.heads, &c.capacity, <uint64_t>c.low_n + c.split, sizeof(uint32_t)):
        return
    head = &c.heads[c.split]
    to = &c.heads[c.low_n + c.split]
    at = head[0]
    head[0] = to[0] = NO_ENTRY
    while at != NO_ENTRY:
        link = link_at(links, stride, at)
        after = link.next
        if link.hash & c.low_n:
            link.next = to[0]
            to[0] = at
        else:
            link.next = head[0]
            head[0] = at
        at = after
    c.split += 1
    if c.split == c.low_n:
        c.low_n *= 2
        c.split = 0


cdef inline void chain_add(Chains* c, uint8_t* links, size_t stride, uint32_t i) noexcept nogil:
    cdef Link* link = link_at(links, stride, i)
    cdef uint32_t* head
    if c.n >= <uint64_t>CHAIN_LOAD_MAX * (<uint64_t>c.low_n + c.split):
        chains_split(c, links, stride)
    head = &c.heads[chain_of(c, link.hash)]
    link.next = head[0]
    head[0] = i
    c.n += 1


cdef inline void chain_remove(Chains* c, uint8_t* links, size_t stride, uint32_t i) noexcept nogil:
    cdef Link* link = link_at(links, stride, i)
    cdef uint32_t* at = &c.heads[chain_of(c, link.hash)]
    while at[0] != i:
        at = &link_at(links, stride, at[0]).next
    at[0] = link.next
    c.n -= 1


# --- lists in order -----------------------------------------------------------------------------------

cdef inline bint handles_room(Handles* h) noexcept nogil:
    """Room for one more at the end."""
    cdef uint32_t* grown
    cdef uint32_t capacity
    if h.start + h.n < h.capacity:
        return True
    if h.start > h.n // 4:
        memmove(h.at, h.at + h.start, <size_t>h.n * sizeof(uint32_t))
        h.start = 0
        return True
    capacity = h.capacity + h.capacity // 8 + 4
    grown = <uint32_t*>realloc(h.at, <size_t>capacity * sizeof(uint32_t))
    if grown == NULL:
        return False
    h.at = grown
    h.capacity = capacity
    return True


cdef inline void handles_insert(Handles* h, uint32_t at, uint32_t entry) noexcept nogil:
    # Moves the shorter side; room was made.
    cdef uint32_t* p = h.at + h.start
    if h.start and at < h.n // 2:
        memmove(p - 1, p, <size_t>at * sizeof(uint32_t))
        h.start -= 1
        p -= 1
    else:
        memmove(p + at + 1, p + at, <size_t>(h.n - at) * sizeof(uint32_t))
    p[at] = entry
    h.n += 1


cdef inline void handles_remove(Handles* h, uint32_t at) noexcept nogil:
    cdef uint32_t* p = h.at + h.start
    cdef uint32_t* shrunk
    h.n -= 1
    if at < h.n // 2 or at == 0:
        memmove(p + 1, p, <size_t>at * sizeof(uint32_t))
        h.start += 1
    else:
        memmove(p + at, p + at + 1, <size_t>(h.n - at) * sizeof(uint32_t))
    if h.n == 0:
        free(h.at)
        memset(h, 0, sizeof(Handles))
    elif h.capacity > 64 and h.n < h.capacity // 4:
        memmove(h.at, h.at + h.start, <size_t>h.n * sizeof(uint32_t))
        h.start = 0
        shrunk = <uint32_t*>realloc(h.at, <size_t>(h.capacity // 2) * sizeof(uint32_t))
        if shrunk != NULL:
            h.at = shrunk
            h.capacity //= 2
