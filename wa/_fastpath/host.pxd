# cython: language_level=3
"""The event backend of the platform this is built for."""
from wa._fastpath.poller cimport Poller

cdef Poller* poller_create() noexcept nogil       # NULL on failure; make it after fork, free it with destroy()
