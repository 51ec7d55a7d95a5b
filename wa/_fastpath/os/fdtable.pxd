# cython: language_level=3
# HOT: looked up for every event.
"""What a poller remembers of each watched fd: a table indexed by fd that doubles."""
from libc.errno cimport EBADF, ENOMEM
from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

ctypedef struct FdEntry:          # 16 bytes; zeroed = not watched
    uint64_t token
    int32_t event                 # scratch of one wait(): 1 + index of this fd's PollEvent, checked before use
    uint32_t flags                # FD_WATCHED | mask

cdef enum:
    FD_WATCHED = 0x80             # a mask of 0 is a watched fd of which nothing is reported
    FD_TABLE_MIN = 64

ctypedef struct FdTable:          # starts zeroed
    FdEntry* entries
    uint32_t capacity


cdef inline FdEntry* fd_find(FdTable* t, int fd) noexcept nogil:
    """The entry of a watched fd, else NULL."""
    if fd < 0 or <uint32_t>fd >= t.capacity or t.entries[fd].flags == 0:
        return NULL
    return &t.entries[fd]


cdef inline int fd_reserve(FdTable* t, int fd) noexcept nogil:
    """Makes room for fd; 0 or -errno.  Entries may move."""
    cdef uint32_t capacity
    cdef FdEntry* entries
    if fd < 0:
        return -EBADF
    if <uint32_t>fd < t.capacity:
        return 0
    capacity = t.capacity if t.capacity else FD_TABLE_MIN
    while capacity <= <uint32_t>fd:
        capacity *= 2
    entries = <FdEntry*>realloc(t.entries, capacity * sizeof(FdEntry))
    if entries == NULL:
        return -ENOMEM
    memset(entries + t.capacity, 0, (capacity - t.capacity) * sizeof(FdEntry))
    t.entries = entries
    t.capacity = capacity
    return 0


cdef inline void fd_table_free(FdTable* t) noexcept nogil:
    free(t.entries)
    t.entries = NULL
    t.capacity = 0
