# cython: language_level=3
"""Contract between lmdb_store.pyx (environment, threads, reads) and lmdb_ops.pyx (what an operation does)."""
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from wa._fastpath.lmdb_c cimport *
from wa._fastpath.lmdb_layout cimport KEY_MAX
from wa._fastpath.mailbox cimport StoreBatch, StoreOp
from wa._fastpath.poller cimport Poller

cdef enum:
    CORRUPT_KEPT_MAX = 64
    PATH_BYTES_MAX = 4000

ctypedef struct CorruptKey:
    uint8_t letter
    uint8_t key_n
    uint8_t key[KEY_MAX]

ctypedef struct Stats:
    uint64_t commits, batches, ops, grown_n, full_n, failed_n, reopened_n, corrupt_n
    int last_error
    CorruptKey corrupt[CORRUPT_KEPT_MAX]
    uint32_t corrupt_kept

ctypedef struct Lmdb:
    MDB_env* env                  # NULL: closed, or a reopening failed and is tried again with the next commit
    MDB_dbi mail, ident, expiry, receipts
    MDB_txn* read_txn             # reset between reads
    size_t map_bytes, map_bytes_max, map_reserve_bytes, txn_bytes_max
    unsigned int flags
    uint32_t found_format
    char path[PATH_BYTES_MAX + 8]
    pthread_mutex_t queue_lock, map_lock, stats_lock
    pthread_cond_t queued, settled
    StoreBatch* queue
    StoreBatch* queue_last
    StoreBatch* done
    StoreBatch* done_last
    uint64_t pending_n            # batches queued or being applied
    bint stopping, closed
    Poller* poller
    Stats stats

cdef inline MDB_val val(const void* p, size_t n) noexcept nogil:
    cdef MDB_val v
    v.mv_data = <void*>p
    v.mv_size = n
    return v

cdef int apply_op(Lmdb* s, MDB_txn* t, StoreBatch* b, StoreOp* op) noexcept nogil
# 0, or an error that ends the transaction.

cdef bint intact(Lmdb* s, uint8_t letter, MDB_val* key, MDB_val* value, size_t size_min) noexcept nogil
# Whether the checksum is right; reports the key when not.  size_min: without the checksum.
