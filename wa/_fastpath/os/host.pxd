# cython: language_level=3
"""Where a Loop lives: the event backend of the platform this is built for, and the way to the other workers."""
from wa._fastpath.os.poller cimport Poller

cdef Poller* poller_create() noexcept nogil       # NULL on failure; make it after fork, free it with destroy()


cdef class Host:
    """All that a Loop gets from outside; this one is the real machine, a simulator hands in its own.

    The descriptors belong to the poller: whoever gets one unwatches and closes it there.
    """
    cdef Poller* new_poller(self) except NULL                           # OSError when out of descriptors or memory
    cdef int bus_listen(self, str run_dir, int worker) except -1        # listening Unix socket; OSError
    cdef int bus_connect(self, str run_dir, int worker) except -1       # connected stream to that worker; OSError
