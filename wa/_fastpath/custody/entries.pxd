# cython: language_level=3
"""Contract of the custody table: envelopes in flight, found by identity, and the linger queue.

Not its concern: sending, storing, telling anybody.
"""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.state.core cimport Custody, Entry

cdef int custody_init(Custody* k) noexcept nogil
cdef void custody_destroy(Custody* k) noexcept nogil
cdef uint64_t custody_trim(Custody* k) noexcept nogil
# Gives all memory of entries back when none is in use; how many bytes that was.
cdef Entry* entry_new(Custody* k) noexcept nogil                          # zeroed; NULL when memory is out
cdef void entry_free(Custody* k, Entry* e) noexcept nogil                 # the caller has freed its body
cdef int custody_insert(Custody* k, Entry* e) noexcept nogil              # by (recipient, sender, id)
cdef void custody_remove(Custody* k, Entry* e) noexcept nogil             # no-op when not in the table
cdef Entry* custody_find(Custody* k, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil
cdef void linger_push(Custody* k, Entry* e) noexcept nogil                # deadlines only ascend
cdef void linger_remove(Custody* k, Entry* e) noexcept nogil              # no-op when not queued
