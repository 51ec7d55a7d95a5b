# cython: language_level=3
"""Contract of what a worker remembers of the registry: which Noise key each of its devices is bound to.

The registry is the truth.  Whatever changes a device's key there goes through `Loop.add_device` or `remove_device`; a
device whose key is not remembered, or another key, is the cold path's to judge.

Not the key is kept but 16 bytes of its hash under a secret of this worker, so that an entry of the directory stays
small.  Nobody without the secret can look for another key with the same tag other than by whole handshakes, 2^128 of
them.
"""
from libc.stdint cimport uint8_t
from wa._fastpath.state.core cimport Core, Device, Pending

cdef void device_bind(Core* w, Device* d, const uint8_t* static_key) noexcept nogil    # 32 bytes, or NULL: not known

cdef bint key_is_bound(Core* w, const Device* d, Pending* p) noexcept nogil
# The handshake of `p` has proved the key of `d`, which may be NULL.  Constant time; sets p.key_tag in any case.

cdef bint still_bound(const Device* d, const Pending* p) noexcept nogil
# The device has the key that this connection was admitted for.  True when its key is not remembered.
