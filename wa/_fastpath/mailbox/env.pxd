# cython: language_level=3
"""Contract of the environment (mailbox/env.pyx) of a mailbox store.  0, errno (> 0) or MDB_* (<= -30000) unless it says
more."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.mailbox.log cimport Lmdb

cdef enum:
    FORMAT_OTHER = -1
    TABLES_MAX = 4

cdef int open_env(Lmdb* s) noexcept nogil
# Sets s.env and the table handles and replays the log, or leaves s.env NULL.  Also FORMAT_OTHER.
cdef void close_env(Lmdb* s) noexcept nogil
cdef int resize(Lmdb* s, size_t bytes) noexcept nogil
cdef int reopen(Lmdb* s) noexcept nogil
cdef bint panicked(Lmdb* s) noexcept nogil
cdef bint is_full(Lmdb* s, int rc) noexcept nogil
cdef int free_pages(Lmdb* s, uint64_t* free_n, uint64_t* all_n, uint32_t* page_bytes) noexcept nogil
