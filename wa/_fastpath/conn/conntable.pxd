# cython: language_level=3
"""Contract of the connection table.  A connection never moves; its handle is its generation and index."""
from libc.stdint cimport int32_t, uint32_t, uint64_t
from wa._fastpath.state.core cimport Conn, ConnTable, Device

cdef int conntable_init(ConnTable* t) noexcept nogil
cdef void conntable_destroy(ConnTable* t) noexcept nogil
cdef Conn* conn_new(ConnTable* t, int32_t fd) noexcept nogil               # NULL when memory is out
cdef void conn_release(ConnTable* t, Conn* c) noexcept nogil               # the caller has freed what hangs off it
cdef Conn* conn_at(ConnTable* t, uint32_t index) noexcept nogil            # never NULL for an index in use
cdef Conn* conn_by_handle(ConnTable* t, uint64_t handle) noexcept nogil    # NULL when that connection is gone
cdef uint64_t conn_handle(const Conn* c) noexcept nogil
