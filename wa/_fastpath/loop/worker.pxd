# cython: language_level=3
"""Contract of making and freeing a worker's `Core`, with its bounds and its view of the mailbox."""
from wa._fastpath.os.poller cimport Poller
from wa._fastpath.state.core cimport Core

cdef Core* core_new(Poller* poller, int worker, int workers) except NULL   # the poller becomes the core's
cdef void core_free(Core* w) noexcept
cdef int core_identity(Core* w, bytes static_private, bytes certificate) except -1
cdef int core_tickets(Core* w, bytes ticket_key) except -1   # None: off
cdef int core_bounds(Core* w, dict overrides) except -1
cdef int core_owners(Core* w, object owners) except -1    # worker of each shard; None: the remainder
cdef void core_clock(Core* w) noexcept nogil
cdef int core_census(Core* w) noexcept nogil             # counts what the mailbox holds for the known devices
