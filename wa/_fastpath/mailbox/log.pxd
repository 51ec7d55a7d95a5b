# cython: language_level=3
"""What the files of the LMDB store share: its state, and the log as a transaction sees it.

A transaction is a *turn*: rows are appended, places are ended, and the index is changed in such a way that the loop
does not see it (mailbox/index.pxd).  turn_commit() makes LMDB commit and then shows the changes; if LMDB does not, it
takes them back.  The commit thread alone has turns.
"""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.mailbox.contract cimport StoreBatch
from wa._fastpath.mailbox.index cimport Entry, Index
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.os.poller cimport Poller

cdef enum:
    CORRUPT_KEPT_MAX = 64
    CORRUPT_KEY_MAX = 24
    PATH_BYTES_MAX = 4000

    CORRUPT_MAIL = 0x6d           # recipient 8, 255 - priority 1, seq 8
    CORRUPT_RECEIPT = 0x72        # owner 8, peer 8, id 8
    CORRUPT_BODY = 0x62           # number 8
    CORRUPT_ROW = 0x6c            # place 8: nothing of it is legible

    CHANGE_ADDED = 1
    CHANGE_DYING = 2              # value: its expires_s
    CHANGE_MOVED = 3              # value: its place from the commit on
    CHANGE_NEEDED = 4             # value: by how many the envelopes that need this body changed

ctypedef struct CorruptKey:
    uint8_t letter
    uint8_t key_n
    uint8_t key[CORRUPT_KEY_MAX]

ctypedef struct Stats:
    uint64_t commits, batches, ops, grown_n, full_n, failed_n, reopened_n, corrupt_n, moved_n, cleaned_n
    int last_error
    CorruptKey corrupt[CORRUPT_KEPT_MAX]
    uint32_t corrupt_kept

ctypedef struct Change:
    uint64_t value
    uint32_t entry
    uint8_t what

ctypedef struct Turn:
    MDB_txn* t
    MDB_cursor* look              # of row_get()
    uint64_t place                # of the next row
    uint64_t tail, cut
    uint64_t appended             # bytes of new rows
    int64_t log_bytes, live_bytes # differences
    uint64_t moved_n, cleaned_n
    Change* changes
    uint32_t changes_n, changes_capacity
    uint64_t* ended
    uint32_t ended_n, ended_capacity

ctypedef struct Lmdb:
    MDB_env* env                  # NULL: closed, or a reopening failed and is tried again with the next commit
    MDB_dbi log
    MDB_txn* read_txn             # reset between reads
    Index index
    Turn turn
    uint64_t place                # of the next row
    uint64_t tail                 # of the first row that is left
    uint64_t cut                  # below it everything is ended
    uint64_t log_bytes, live_bytes   # of all rows and of those in the index, by size class
    uint64_t* stale               # places that replay() found replaced: ended with the next commit
    uint32_t stale_n, stale_capacity
    unsigned int append_flag
    bint swept                    # since it was looked last whether the index is empty
    bint pressed                  # a put was refused for want of room: clean whatever there is
    uint8_t* scratch
    size_t scratch_n
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

# 0, or an error (errno, MDB_*) that ends the turn.
cdef int turn_begin(Lmdb* s) noexcept nogil
cdef int turn_commit(Lmdb* s) noexcept nogil
cdef void turn_abort(Lmdb* s) noexcept nogil
cdef int row_append(Lmdb* s, size_t n, uint8_t** row, uint64_t* place) noexcept nogil
# n bytes to be written and sealed
cdef int row_get(Lmdb* s, uint64_t place, MDB_val* row, bint* is_legible) noexcept nogil
# A row that is not there is illegible.  It is valid until the next change.
cdef int note(Lmdb* s, uint8_t what, uint32_t entry, uint64_t value) noexcept nogil
cdef int added(Lmdb* s, uint32_t entry) noexcept nogil                    # the error for NO_ENTRY; counts it as live
cdef int body_need(Lmdb* s, uint32_t body, int by) noexcept nogil         # ends the body that nobody needs any more
cdef int end_entry(Lmdb* s, uint32_t entry) noexcept nogil

cdef bint push_place(uint64_t** places, uint32_t* n, uint32_t* capacity, uint64_t place) noexcept nogil
cdef void report_entry(Lmdb* s, uint32_t entry) noexcept nogil            # the commit thread's
cdef void report_mail(Lmdb* s, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil
cdef void report_receipt(Lmdb* s, uint64_t owner, uint64_t peer, uint64_t id) noexcept nogil
cdef void report_number(Lmdb* s, uint8_t letter, uint64_t number) noexcept nogil
