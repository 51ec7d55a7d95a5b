# cython: language_level=3
"""The index of a mailbox log, in memory: what is stored, for whom, in which order, until when, and at which place.

It knows no bytes: rows are in the log (mailbox/log.pyx), and an identity is here as a hash of 32 bits only, so who
finds an envelope by its hash confirms it by its row.  Receipts are here with their whole identity.

Tables are as large as the index ever was, until it is empty (index_trim): an entry cannot move while others name it.

The commit thread alone changes it, each time under `lock`; it reads without.  The loop's thread reads under `lock`.
Inside a transaction the two see different things: an entry that is being added is at a place from `visible` on and is
there for the commit thread only; one that is being ended is `dying` and there for the loop only.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.mailbox.lmdb_c cimport pthread_mutex_lock, pthread_mutex_t, pthread_mutex_unlock
from wa._fastpath.mailbox.tables cimport Chains, Handles, Link

cdef enum:
    KIND_ENVELOPE = 0
    KIND_SHARED = 1               # an envelope whose body is a BODY
    KIND_BODY = 2
    KIND_RECEIPT = 3
    KIND_MASK = 3
    FLAG_DYING = 4
    SIZE_SHIFT = 3                # five bits: size class of the row
    PLACE_BITS = 48               # 89 years of 100,000 rows a second
    MATCHES_MAX = 16

ctypedef struct Entry:            # 32 bytes
    uint64_t order                # envelope: seq; receipt: peer; body: number
    uint32_t place_low
    uint16_t place_high
    uint8_t rank                  # envelope: priority; receipt: level
    uint8_t flags
    Link link
    uint32_t box                  # body: how many envelopes need it
    uint32_t due                  # place in its heap, or NO_ENTRY

ctypedef struct Due:
    uint32_t expires_s
    uint32_t entry

ctypedef struct Heap:             # four children each; by expires_s alone
    Due* at
    uint32_t n, capacity

ctypedef struct Box:              # 64 bytes, while it has an entry
    uint64_t owner
    Link link
    Handles mail                  # by priority, highest first, then seq
    Handles receipts              # by peer, then id

ctypedef struct Index:
    pthread_mutex_t lock
    uint8_t key[16]
    uint32_t hash_mask            # all bits, or few in a test of collisions
    Entry* entries
    uint32_t entries_n, entries_capacity, entry_free
    Chains chains
    Box* boxes
    uint32_t boxes_n, boxes_capacity, box_free
    Chains box_chains
    Heap due_mail, due_receipts
    uint64_t visible
    bint showing                  # a turn's changes are being shown: what is dying is gone already

cdef inline uint8_t* entry_links(Index* x) noexcept nogil:
    return <uint8_t*>x.entries + <size_t>&(<Entry*>NULL).link


cdef inline uint8_t* box_links(Index* x) noexcept nogil:
    return <uint8_t*>x.boxes + <size_t>&(<Box*>NULL).link


cdef inline uint64_t index_bytes(Index* x) noexcept nogil:
    """Of the entries and boxes, from whatever thread."""
    cdef uint64_t n
    pthread_mutex_lock(&x.lock)
    n = x.entries_capacity * sizeof(Entry) + x.boxes_capacity * sizeof(Box)
    pthread_mutex_unlock(&x.lock)
    return n


cdef inline uint64_t entry_place(const Entry* e) noexcept nogil:
    return <uint64_t>e.place_high << 32 | e.place_low


cdef inline uint64_t receipt_id(const Entry* e) noexcept nogil:
    return <uint64_t>e.link.hash << 32 | e.link.next


cdef inline uint8_t size_class(size_t n) noexcept nogil:
    # Steps of half an octave from 16 bytes on.  The same for a row when it comes and when it goes, so sums stay right.
    cdef uint8_t e = 4
    while e < 19 and n >> (e + 1):
        e += 1
    return 2 * (e - 4) + (n >= <size_t>3 << (e - 1))


cdef inline uint64_t class_bytes(uint8_t c) noexcept nogil:
    return <uint64_t>3 << ((c >> 1) + 3) if c & 1 else <uint64_t>1 << ((c >> 1) + 4)


cdef inline uint64_t entry_bytes(const Entry* e) noexcept nogil:
    return class_bytes(e.flags >> SIZE_SHIFT)


cdef int index_init(Index* x) noexcept nogil                              # 0 or ENOMEM; once
cdef void index_clear(Index* x) noexcept nogil                            # everything out; it stays usable
cdef bint index_trim(Index* x) noexcept nogil  # frees the tables if nothing is in them any more
cdef void index_free(Index* x) noexcept nogil
cdef void index_expect(Index* x, uint64_t entries_n) noexcept nogil       # while it is empty: chains for so many
cdef void index_fetch(Index* x, uint32_t hash, int step) noexcept nogil
# Tells the processor that the chain of this hash will be walked: 0 its head, later 1 its first entry, later 2 the next
cdef uint32_t index_hash(Index* x, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil
cdef uint32_t body_hash(Index* x, uint64_t number) noexcept nogil
cdef uint32_t index_first(Index* x, uint32_t hash) noexcept nogil         # entries of one hash, or NO_ENTRY
cdef uint32_t index_after(Index* x, uint32_t entry) noexcept nogil
cdef uint32_t box_find(Index* x, uint64_t owner) noexcept nogil
cdef uint32_t body_find(Index* x, uint64_t number, bint committed) noexcept nogil
# committed: as the loop sees it; otherwise as the commit thread does
cdef uint32_t receipt_find(Index* x, uint64_t owner, uint64_t peer, uint64_t id) noexcept nogil   # the commit thread's
cdef bint seq_taken(Index* x, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil
cdef uint32_t expires_of(Index* x, uint32_t entry) noexcept nogil         # 0: never

# The entry, or NO_ENTRY when memory is out.
cdef uint32_t add_envelope(Index* x, uint8_t kind, uint32_t hash, uint64_t recipient, uint8_t priority, uint64_t seq,
                           uint64_t place, size_t row_n, uint32_t expires_s) noexcept nogil
cdef uint32_t add_receipt(Index* x, uint64_t owner, uint64_t peer, uint64_t id, uint8_t level, uint64_t place,
                          size_t row_n, uint32_t expires_s) noexcept nogil
cdef uint32_t add_body(Index* x, uint64_t number, uint64_t place, size_t row_n) noexcept nogil
cdef void set_place(Index* x, uint32_t entry, uint64_t place) noexcept nogil
cdef void show_begin(Index* x, uint64_t visible) noexcept nogil           # in one step for the loop
cdef void show_end(Index* x) noexcept nogil
cdef uint32_t entry_dying(Index* x, uint32_t entry) noexcept nogil        # its expires_s, for entry_revive()
cdef void entry_revive(Index* x, uint32_t entry, uint32_t expires_s) noexcept nogil
cdef void entry_remove(Index* x, uint32_t entry) noexcept nogil

# Entries that expire first, all of the same second, appended to out (malloc'ed by the callee, freed by the caller), if
# that second is not after now_s.  How many, or -ENOMEM.
cdef int64_t due_first(Index* x, Heap* heap, uint32_t now_s, uint32_t** out) noexcept nogil

# For the loop, under `lock`.  Position in a box from which on entries come after the given ones.
cdef uint32_t mail_from(Index* x, Handles* h, uint8_t priority, uint64_t seq) noexcept nogil
cdef uint32_t receipts_from(Index* x, Handles* h, uint64_t peer, uint64_t id) noexcept nogil
cdef bint entry_visible(Index* x, uint32_t entry) noexcept nogil
