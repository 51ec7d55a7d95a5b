# cython: language_level=3
"""Contract of what the cold path asks of a worker: devices, answers to requests, questions about envelopes.

A `conn` is the handle that a cold event carried; one that has ended meanwhile is no mistake: the answer is False.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from wa._fastpath.state.core cimport Core

cdef int device_add(Core* w, uint64_t address, bytes static_key) except -1       # None: only the registry knows its key
cdef int device_remove(Core* w, uint64_t address, uint16_t code) except -1  # its connection ends, its mail is purged
cdef bint device_is_connected(Core* w, uint64_t address) noexcept
cdef void device_wake_lost(Core* w, uint64_t address) noexcept                   # its wake-up did not get through
cdef bint conn_admit(Core* w, uint64_t conn, uint64_t address) noexcept
cdef bint conn_refuse(Core* w, uint64_t conn, uint16_t code, uint32_t retry_after_ms) noexcept
cdef int request_answer(Core* w, uint64_t conn, uint64_t request_id, uint64_t status, bytes body) except -1
cdef bint notice_send(Core* w, uint64_t address, uint64_t notice, bytes body) noexcept
cdef bint envelope_waits(Core* w, uint64_t recipient, uint64_t sender, uint64_t id) noexcept
cdef bint envelope_is_reported(Core* w, uint64_t recipient, uint64_t sender, uint64_t id) noexcept
# A receipt about it waits in the mailbox of its sender, which is ours.
cdef int peer_call(Core* w, int64_t worker, bytes body) except -1
cdef dict counters(Core* w)
