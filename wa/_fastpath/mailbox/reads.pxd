# cython: language_level=3
"""The reading half of the MailStore vtable over LMDB (mailbox/contract.pxd); `m.state` is an Lmdb."""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from wa._fastpath.mailbox.contract cimport census_fn, MailRow, MailStore

cdef int store_read(MailStore* m, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out, int out_max,
                    uint8_t* arena, size_t arena_n) noexcept nogil
cdef int store_read_receipts(MailStore* m, uint64_t owner, uint64_t after_peer, uint64_t after_id, MailRow* out,
                             int out_max) noexcept nogil
cdef int store_read_victims(MailStore* m, uint64_t recipient, uint32_t now_s, MailRow* out, int out_max) noexcept nogil
cdef int store_contains(MailStore* m, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil
cdef int store_census(MailStore* m, census_fn each, void* context) noexcept nogil
cdef int store_receipt_census(MailStore* m, census_fn each, void* context) noexcept nogil
