# cython: language_level=3
# HOT for logins: a reconnect storm runs through here.
"""Devices and their Noise keys; see session/binding.pxd."""
from libc.stdint cimport uint8_t
from libc.string cimport memset
from wa._fastpath.base.sodium cimport crypto_generichash, sodium_memcmp
from wa._fastpath.state.core cimport Core, Device, KEY_TAG_BYTES, Pending

cdef enum:
    KEY_BYTES = 32


cdef void tag_of(const Core* w, const uint8_t* static_key, uint8_t* tag) noexcept nogil:
    crypto_generichash(tag, KEY_TAG_BYTES, static_key, KEY_BYTES, w.key_secret, sizeof(w.key_secret))


cdef void device_bind(Core* w, Device* d, const uint8_t* static_key) noexcept nogil:
    memset(d.key_tag, 0, KEY_TAG_BYTES)
    d.has_key = static_key != NULL
    if static_key != NULL:
        tag_of(w, static_key, d.key_tag)


cdef bint key_is_bound(Core* w, const Device* d, Pending* p) noexcept nogil:
    tag_of(w, p.static_key, p.key_tag)
    return d != NULL and d.has_key and sodium_memcmp(d.key_tag, p.key_tag, KEY_TAG_BYTES) == 0


cdef bint still_bound(const Device* d, const Pending* p) noexcept nogil:
    return not d.has_key or sodium_memcmp(d.key_tag, p.key_tag, KEY_TAG_BYTES) == 0
