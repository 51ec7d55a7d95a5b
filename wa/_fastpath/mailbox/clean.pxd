# cython: language_level=3
"""Contract of the cleaner (mailbox/clean.pyx), which keeps the log from growing."""
from libc.stdint cimport uint32_t
from wa._fastpath.mailbox.log cimport Lmdb

cdef bint clean_wanted(Lmdb* s) noexcept nogil
cdef int clean(Lmdb* s) noexcept nogil
# One bounded step in the turn under way, after everything else in it.  0, or an error that ends the turn.
