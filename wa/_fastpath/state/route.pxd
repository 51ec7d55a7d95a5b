# cython: language_level=3
"""Who owns a shard is a table, not a remainder, so that a shard can move.  Filled in when a worker is made."""
from libc.stdint cimport uint32_t, uint64_t
from wa._fastpath.base.shards cimport shard_of
from wa._fastpath.state.core cimport Core


cdef inline uint32_t owner_of(const Core* w, uint64_t address) noexcept nogil:
    """The worker that owns this address.  All devices of an account have one owner: the device does not count.

    The tag bits of an address stay in, so that groups spread on their own.
    """
    return w.owners[shard_of(address >> 8)]
