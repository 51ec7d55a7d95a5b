# cython: language_level=3
"""Contract of a connection's buffers: frames in, one record and one system call per turn out.

Not its concern: what the frames mean, or ending a connection.  Trouble is left as FLAG_DOOMED / FLAG_EOF for the
flush step of the turn.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from wa._fastpath.state.core cimport Active, Conn, Core
from wa._fastpath.wire.frames cimport Frame

cdef Active* conn_active(Core* w, Conn* c) noexcept nogil                  # makes it when needed; NULL = memory
cdef void conn_quiet(Core* w, Conn* c) noexcept nogil                      # gives back what is not needed now
cdef void conn_drop_buffers(Core* w, Conn* c) noexcept nogil
cdef int buffer_reserve(Core* w, uint8_t** buf, uint32_t* capacity, uint32_t used, uint32_t need) noexcept nogil
cdef void buffer_free(Core* w, uint8_t** buf, uint32_t* capacity) noexcept nogil
cdef int out_frame(Core* w, Conn* c, const Frame* f) noexcept nogil        # 0, or -1 and the connection is doomed
cdef int out_simple(Core* w, Conn* c, uint8_t type, uint64_t number, uint64_t extra) noexcept nogil
cdef int out_raw(Core* w, Conn* c, const uint8_t* data, uint32_t n) noexcept nogil   # before the transport exists
cdef uint32_t out_pending(const Conn* c) noexcept nogil                    # bytes not taken by the socket yet
cdef void conn_flush(Core* w, Conn* c) noexcept nogil
