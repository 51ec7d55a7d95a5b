# cython: language_level=3
"""Contract of the mailbox store (one of the two seams): how envelopes become durable.

The worker's loop owns *batches* of operations.  It submits a batch and goes on; a thread of the store applies
every submitted batch in order in one transaction, fsyncs once, fills in the result of each operation,
moves the batches to the done list and wakes the poller.  Reads are synchronous, see the last commit, and copy.

Implementations:  `mailbox/store.pyx` over LMDB's C API;  `sim/_native/memory_store.pyx`, the reference, whose commit
happens when told to.  `mailbox/contract.pyx` holds what they share: the batches and the Python face.
"""
from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.os.poller cimport Poller
from wa._fastpath.wire.frames cimport F_DELIVERED, F_READ, F_REFUSED

cdef enum:
    OP_PUT = 1                    # an envelope; body follows.  Deduplicated on (recipient, sender, id)
    OP_DELETE = 2                 # an envelope, by (recipient, priority, seq, sender, id); one stored under another
                                  # priority or seq with the same (recipient, sender, id) is the same envelope
    OP_RECEIPT_PUT = 3            # whom it waits for = recipient, about whose device = sender; id, level, code
    OP_RECEIPT_DELETE = 4         # only if the stored level is not above `level`
    OP_SWEEP = 5                  # expire up to `count` envelopes, and as many receipts, with expires_s <= now, which
                                  # is accepted_s of the operation.  Receipts go without a word
    OP_EXPIRED = 6                # written by the store into batch.expired: one per envelope that a SWEEP, PURGE or
                                  # DROP
                                  # took out, with the operation's code
    OP_PURGE = 7                  # everything of mailbox `recipient` (a removed device): each envelope reported
    OP_DROP = 8                   # one envelope, found as OP_DELETE finds it, taken out to make room: reported
    OP_BODY = 9                   # a body that several envelopes share; number = id, body follows.  It is kept as long
                                  # as
                                  # an envelope needs it; one that nobody needs at the end of the batch is not kept
    OP_PUT_SHARED = 10            # OP_PUT whose body is that of an OP_BODY; what follows is its number, 8 bytes native.
                                  # RESULT_MISSING when there is no such body
    # SWEEP, PURGE and DROP with a code: in the same transaction every envelope that is taken out leaves a receipt for
    # its sender, F_REFUSED with this code, accepted_s and expires_s of the operation, as RECEIPT_PUT puts it, unless
    # the sender is not known.  So nothing disappears in silence, whatever fails between the commit and the telling.

    ORIGIN_DIRECT = 0x11          # a PUT with no Entry behind it
    ORIGIN_LINGER = 0x12          # a PUT whose Entry is COMMITTING
    ORIGIN_REPORT = 0x13          # a RECEIPT_PUT or RECEIPT_DELETE of custody/reports.pyx
    ORIGIN_UNREPORT = 0x14        # its RECEIPT_DELETE of a report that is not true

    RESULT_PENDING = 0            # no value of the three is one of another
    RESULT_OK = 0x21              # stored / deleted
    RESULT_DUPLICATE = 0x22       # PUT of an envelope that is there already (safe: say accepted); RECEIPT_PUT: a
                                  # receipt was there and has the higher level now; RECEIPT_DELETE: a higher one stays
    RESULT_MISSING = 0x23         # DELETE or DROP of something that is not there (already gone)
    RESULT_FULL = 0x24            # disk or map full: not kept.  Deletes of the same batch may be OK all the same, so
                                  # that a full store can empty: look at each op.result
    RESULT_FAILED = 0x25          # any other storage error: nothing of the transaction was kept

ctypedef struct StoreOp:          # 64 bytes; the next one starts after the body, rounded up to 8: PUT, PUT_SHARED, BODY
    uint8_t what                  # OP_*
    uint8_t result                # RESULT_*
    uint8_t origin                # ORIGIN_*: the loop's own, untouched by the store
    uint8_t level                 # receipts: frame type F_ACCEPTED..F_REFUSED
    uint16_t code                 # receipts: error code
    uint16_t zero
    uint32_t count                # SWEEP
    uint32_t zero_too
    uint64_t seq                  # mailbox order, assigned by the loop, unique and ascending per worker
    Envelope env                  # of what is written or taken out; for a receipt, its times are the receipt's

ctypedef struct StoreBatch:
    StoreBatch* next
    uint8_t* data                 # StoreOps with their bodies
    uint32_t used, capacity, ops_n
    int32_t status                # RESULT_* of the whole transaction, set by the store
    StoreOp* expired              # malloc'ed by the store, freed by batch_free(); expired_n items, no bodies;
                                  # sender 0 (with id and kind) when a damaged envelope's sender is not known
    uint32_t expired_n

ctypedef struct MailRow:          # one envelope or receipt, read back
    Envelope env
    uint64_t seq                  # envelopes
    uint64_t place                # the store's own
    const uint8_t* body           # envelopes: in the caller's arena; NULL where the read says so
    uint16_t code                 # receipts
    uint8_t level                 # receipts

# census callback: one call per stored envelope key, in key order, at start-up
ctypedef void (*census_fn)(void* context, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil

ctypedef struct MailStore:
    void* state
    # Ownership passes with 0; with -errno (closing) it stays with the caller.
    int (*submit)(MailStore* s, StoreBatch* batch) noexcept nogil
    StoreBatch* (*collect)(MailStore* s) noexcept nogil                   # all done batches, oldest first, or NULL
    # Envelopes of one mailbox and priority with seq > after_seq, oldest first, as many as fit.  Corrupt records are
    # counted in corrupt_n, reported through the store's log, and skipped.  Returns a count or -errno; -EMSGSIZE when
    # the arena has no room for even one.
    int (*read)(MailStore* s, uint64_t recipient, uint8_t priority, uint64_t after_seq,
                MailRow* out, int out_max, uint8_t* arena, size_t arena_n) noexcept nogil
    # Envelopes of one mailbox without their bodies (body_n 0), in the order in which they
    # make room: expired by now_s first, then the lowest priority, then the oldest.  A count or -errno.
    int (*read_victims)(MailStore* s, uint64_t recipient, uint32_t now_s, MailRow* out, int out_max) noexcept nogil
    # Receipts waiting for `owner`, in (peer, id) order after the given one (0, 0 to start).
    int (*read_receipts)(MailStore* s, uint64_t owner, uint64_t after_peer, uint64_t after_id,
                         MailRow* out, int out_max) noexcept nogil
    int (*contains)(MailStore* s, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil  # 1, 0, -errno
    int (*census)(MailStore* s, census_fn each, void* context) noexcept nogil
    int (*receipt_census)(MailStore* s, census_fn each, void* context) noexcept nogil   # owner, level, 0

cdef inline int receipt_rank(uint8_t level) noexcept nogil:
    # A receipt only rises: accepted, refused, delivered, read.
    if level == F_READ:
        return 3
    if level == F_DELIVERED:
        return 2
    return 1 if level == F_REFUSED else 0

cdef StoreBatch* batch_new(uint32_t capacity) noexcept nogil
cdef StoreOp* batch_add(StoreBatch* b, uint8_t what, uint32_t body_n) noexcept nogil
# Zeroed op with room for its body right behind it (op + 1), growing the batch; NULL when memory is out.
cdef StoreOp* batch_first(StoreBatch* b) noexcept nogil
cdef StoreOp* batch_next(StoreBatch* b, StoreOp* op) noexcept nogil       # NULL after the last
cdef StoreOp* batch_add_expired(StoreBatch* b) noexcept nogil             # stores only; NULL when memory is out
cdef void batch_free(StoreBatch* b) noexcept nogil

cdef class MailStoreBase:
    """Python face of any MailStore, for tests, tools and redistribution.  The loop uses `pointer()` only."""
    cdef MailStore vtable
    cdef Poller wake_counter      # of count_wakes(), tests only
    cdef MailStore* pointer(self) noexcept
    cdef void attach(self, Poller* poller) noexcept
    # The store calls poller.wake(poller) from its own thread whenever batches became done; NULL to stop that.
