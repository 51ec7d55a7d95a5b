# cython: language_level=3
from wa._fastpath.os.poller cimport Poller

cdef Poller* poller_create() noexcept nogil       # NULL on failure; errno says why
