# cython: language_level=3
"""The poller contract over the simulated network: a third backend, so that the same Loop runs in a simulation."""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from sim._native.net cimport End, Net, SimNet
from wa._fastpath.os.host cimport Host
from wa._fastpath.os.poller cimport Poller

ctypedef struct SimFd:
    End* end                      # NULL: not open
    uint64_t token
    uint32_t mask
    uint32_t watched

ctypedef struct SimState:         # what the kernel knows of one process
    Net* net
    SimFd* fds
    uint32_t fds_n, capacity
    uint32_t id                   # wake target
    uint32_t refs
    uint32_t rotate               # where the next wait() starts to look
    uint32_t key_pool             # ephemeral keys come from so many; 0 = fresh ones
    uint64_t dies_in              # external calls until the process dies; 0 = it lives on
    uint64_t afterlife_ns         # a dead process goes on until it notices, outside of time
    uint8_t woken
    uint8_t dead
    void* owner                   # the SimHost, borrowed, NULL once it is gone


cdef class SimHost(Host):
    cdef SimState* s
    cdef SimNet net
    cdef dict others              # worker -> SimHost: where the bus sockets are
    cdef int bus_fd
    cdef int listener_fd
    cdef object on_death
    cdef public object on_wait    # called with the ns that a wait() may last; None: it never waits
    cdef void died(self) noexcept
    cdef void waits(self, uint64_t ns) noexcept
