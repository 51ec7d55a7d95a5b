# cython: language_level=3
"""The worker's loop: `Core` with a Python face."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.core cimport Core

cdef class Loop:
    cdef Core* w
    cdef object store                 # keeps the MailStore alive
    cdef object sink
    cdef object run_dir
    cdef object bus_socket
    cdef object tcp_socket
    cdef bint stopping
    cdef bint interrupted
    cdef bint woken
    cdef bint mail_known
    cdef uint64_t next_tick_ms
    cdef uint64_t next_connect_ms

    cdef void step_poll(self) noexcept nogil
    cdef void step_read(self, int n) noexcept nogil
    cdef void step_after_cold(self) noexcept nogil
    cdef int step_cold(self) except -1
    cdef void connect_peers(self)
    cdef void drain_and_close(self)
