# cython: language_level=3
# HOT: several times per stored envelope, in the commit thread and in the loop's; no allocation per entry.
"""The index of a mailbox log in memory.  The contract, the threads and the structures are in mailbox/index.pxd.

Memory per queued envelope: 32 bytes of entry, 8 of heap, 2 to 2.7 of chain heads, 4 to 4.5 in its box: under 48.  The
large arrays grow by realloc, so that what they do not use yet was never touched and is no memory.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memset
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.tables cimport *

cdef extern from "sodium.h" nogil:
    int crypto_shorthash(uint8_t* out, const uint8_t* p, unsigned long long n, const uint8_t* key)
    void randombytes_buf(void* p, size_t n)

cdef extern from *:
    void __builtin_prefetch(const void* p) nogil

cdef enum:
    HEAP_ARITY = 4
    TRIMMED_ENTRIES_MIN = 1024    # less is not worth making again

assert sizeof(Entry) == 32 and sizeof(Box) == 64


# --- life ---------------------------------------------------------------------------------------------

cdef int index_init(Index* x) noexcept nogil:
    memset(x, 0, sizeof(Index))
    pthread_mutex_init(&x.lock, NULL)
    randombytes_buf(x.key, sizeof(x.key))
    x.hash_mask = 0xffffffff
    x.entry_free = x.box_free = NO_ENTRY
    return 0 if chains_init(&x.chains) and chains_init(&x.box_chains) else ENOMEM


cdef void index_clear(Index* x) noexcept nogil:
    cdef uint32_t i
    for i in range(x.boxes_n):
        free(x.boxes[i].mail.at)
        free(x.boxes[i].receipts.at)
    x.boxes_n = x.entries_n = 0
    x.entry_free = x.box_free = NO_ENTRY
    x.due_mail.n = x.due_receipts.n = 0
    chains_reset(&x.chains)
    chains_reset(&x.box_chains)
    x.visible = 0
    x.showing = False


cdef void tables_free(Index* x) noexcept nogil:
    table_free(<void**>&x.boxes, &x.boxes_capacity)
    table_free(<void**>&x.entries, &x.entries_capacity)
    table_free(<void**>&x.due_mail.at, &x.due_mail.capacity)
    table_free(<void**>&x.due_receipts.at, &x.due_receipts.capacity)


cdef bint index_trim(Index* x) noexcept nogil:
    if x.chains.n or x.box_chains.n or x.entries_capacity < TRIMMED_ENTRIES_MIN:
        return False
    pthread_mutex_lock(&x.lock)
    index_clear(x)
    tables_free(x)
    chains_shrink(&x.chains)
    chains_shrink(&x.box_chains)
    pthread_mutex_unlock(&x.lock)
    return True


cdef void index_expect(Index* x, uint64_t entries_n) noexcept nogil:
    # When memory is out they are split one by one, as ever.
    cdef uint64_t n = CHAINS_MIN
    while n < entries_n // CHAIN_LOAD_MAX and n < 1 << 28:
        n *= 2
    if room(<void**>&x.chains.heads, &x.chains.capacity, n, sizeof(uint32_t)):
        memset(x.chains.heads, 0xff, n * sizeof(uint32_t))
        x.chains.low_n = <uint32_t>n


cdef void index_free(Index* x) noexcept nogil:
    index_clear(x)
    tables_free(x)
    free(x.chains.heads)
    free(x.box_chains.heads)
    pthread_mutex_destroy(&x.lock)


cdef void index_fetch(Index* x, uint32_t hash, int step) noexcept nogil:
    cdef uint32_t* at = &x.chains.heads[chain_of(&x.chains, hash)]
    if step == 0:
        __builtin_prefetch(at)
        return
    if step == 2 and at[0] != NO_ENTRY:
        at = &x.entries[at[0]].link.next
    if at[0] != NO_ENTRY:
        __builtin_prefetch(&x.entries[at[0]])


# --- finding ------------------------------------------------------------------------------------------

cdef uint32_t index_hash(Index* x, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    # Keyed, since senders choose their ids.
    cdef uint64_t identity[3]
    cdef uint32_t out[2]
    identity[0], identity[1], identity[2] = recipient, sender, id
    crypto_shorthash(<uint8_t*>out, <uint8_t*>identity, sizeof(identity), x.key)
    return out[0] & x.hash_mask


cdef uint32_t body_hash(Index* x, uint64_t number) noexcept nogil:
    cdef uint32_t out[2]
    crypto_shorthash(<uint8_t*>out, <uint8_t*>&number, sizeof(number), x.key)
    return out[0] & x.hash_mask


cdef inline uint32_t same_hash(Index* x, uint32_t i, uint32_t hash) noexcept nogil:
    while i != NO_ENTRY and x.entries[i].link.hash != hash:
        i = x.entries[i].link.next
    return i


cdef uint32_t index_first(Index* x, uint32_t hash) noexcept nogil:
    return same_hash(x, x.chains.heads[chain_of(&x.chains, hash)], hash)


cdef uint32_t index_after(Index* x, uint32_t entry) noexcept nogil:
    return same_hash(x, x.entries[entry].link.next, x.entries[entry].link.hash)


cdef inline uint32_t owner_hash(uint64_t owner) noexcept nogil:
    owner = (owner ^ owner >> 32) * 0x9e3779b97f4a7c15ULL
    return <uint32_t>(owner >> 32)


cdef uint32_t box_find(Index* x, uint64_t owner) noexcept nogil:
    cdef uint32_t i = x.box_chains.heads[chain_of(&x.box_chains, owner_hash(owner))]
    while i != NO_ENTRY and x.boxes[i].owner != owner:
        i = x.boxes[i].link.next
    return i


cdef bint entry_visible(Index* x, uint32_t entry) noexcept nogil:
    return entry_place(&x.entries[entry]) < x.visible and not (x.showing and x.entries[entry].flags & FLAG_DYING)


cdef uint32_t body_find(Index* x, uint64_t number, bint committed) noexcept nogil:
    cdef uint32_t i = index_first(x, body_hash(x, number))
    cdef Entry* e
    while i != NO_ENTRY:
        e = &x.entries[i]
        if e.flags & KIND_MASK == KIND_BODY and e.order == number:
            if entry_visible(x, i) if committed else not e.flags & FLAG_DYING:
                return i
        i = index_after(x, i)
    return NO_ENTRY


cdef uint32_t mail_from(Index* x, Handles* h, uint8_t priority, uint64_t seq) noexcept nogil:
    # The first position whose (255 - priority, seq) is not below the given one.
    cdef uint32_t low = 0, high = h.n, middle
    cdef Entry* e
    if h.n:
        e = &x.entries[h.at[h.start + h.n - 1]]
        if e.rank > priority or (e.rank == priority and e.order < seq):
            return h.n                # mail comes in at the end …
        e = &x.entries[h.at[h.start]]
        if e.rank < priority or (e.rank == priority and e.order >= seq):
            return 0                  # … and goes out at the front
    while low < high:
        middle = low + (high - low) // 2
        e = &x.entries[h.at[h.start + middle]]
        if e.rank > priority or (e.rank == priority and e.order < seq):
            low = middle + 1
        else:
            high = middle
    return low


cdef uint32_t receipts_from(Index* x, Handles* h, uint64_t peer, uint64_t id) noexcept nogil:
    cdef uint32_t low = 0, high = h.n, middle
    cdef Entry* e
    while low < high:
        middle = low + (high - low) // 2
        e = &x.entries[h.at[h.start + middle]]
        if e.order < peer or (e.order == peer and receipt_id(e) < id):
            low = middle + 1
        else:
            high = middle
    return low


cdef uint32_t receipt_find(Index* x, uint64_t owner, uint64_t peer, uint64_t id) noexcept nogil:
    cdef uint32_t b = box_find(x, owner), at, i
    cdef Handles* h
    cdef Entry* e
    if b == NO_ENTRY:
        return NO_ENTRY
    h = &x.boxes[b].receipts
    for at in range(receipts_from(x, h, peer, id), h.n):
        i = h.at[h.start + at]
        e = &x.entries[i]
        if e.order != peer or receipt_id(e) != id:
            return NO_ENTRY
        if not e.flags & FLAG_DYING:
            return i
    return NO_ENTRY


cdef bint seq_taken(Index* x, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    cdef uint32_t b = box_find(x, recipient), at
    cdef Handles* h
    cdef Entry* e
    if b == NO_ENTRY:
        return False
    h = &x.boxes[b].mail
    for at in range(mail_from(x, h, priority, seq), h.n):
        e = &x.entries[h.at[h.start + at]]
        if e.rank != priority or e.order != seq:
            return False
        if not e.flags & FLAG_DYING:
            return True
    return False


# --- the heaps of what expires ------------------------------------------------------------------------

cdef inline Heap* heap_of(Index* x, const Entry* e) noexcept nogil:
    return &x.due_receipts if e.flags & KIND_MASK == KIND_RECEIPT else &x.due_mail


cdef inline void heap_put(Index* x, Heap* h, uint32_t at, Due due) noexcept nogil:
    h.at[at] = due
    x.entries[due.entry].due = at


cdef void heap_rise(Index* x, Heap* h, uint32_t at, Due due) noexcept nogil:
    cdef uint32_t above
    while at:
        above = (at - 1) // HEAP_ARITY
        if h.at[above].expires_s <= due.expires_s:
            break
        heap_put(x, h, at, h.at[above])
        at = above
    heap_put(x, h, at, due)


cdef void heap_sink(Index* x, Heap* h, uint32_t at, Due due) noexcept nogil:
    cdef uint64_t child, best, i
    while True:
        child = <uint64_t>at * HEAP_ARITY + 1
        if child >= h.n:
            break
        best = child
        for i in range(child + 1, child + HEAP_ARITY if child + HEAP_ARITY < h.n else h.n):
            if h.at[i].expires_s < h.at[best].expires_s:
                best = i
        if h.at[best].expires_s >= due.expires_s:
            break
        heap_put(x, h, at, h.at[best])
        at = <uint32_t>best
    heap_put(x, h, at, due)


cdef inline void heap_add(Index* x, Heap* h, uint32_t entry, uint32_t expires_s) noexcept nogil:
    # Its room was made by the caller.
    cdef Due due
    due.expires_s, due.entry = expires_s, entry
    h.n += 1
    heap_rise(x, h, h.n - 1, due)


cdef void heap_take(Index* x, Heap* h, uint32_t at) noexcept nogil:
    cdef Due last = h.at[h.n - 1]
    x.entries[h.at[at].entry].due = NO_ENTRY
    h.n -= 1
    if at == h.n:
        return
    if at and h.at[(at - 1) // HEAP_ARITY].expires_s > last.expires_s:
        heap_rise(x, h, at, last)
    else:
        heap_sink(x, h, at, last)


cdef uint32_t expires_of(Index* x, uint32_t entry) noexcept nogil:
    cdef Entry* e = &x.entries[entry]
    return 0 if e.due == NO_ENTRY else heap_of(x, e).at[e.due].expires_s


cdef int64_t due_first(Index* x, Heap* heap, uint32_t now_s, uint32_t** out) noexcept nogil:
    # Equal ones hang together below the top: walk down from it, with `found` as the list of what is still to be
    # visited.
    cdef uint32_t* found = NULL
    cdef uint32_t capacity = 0, second
    cdef uint64_t n = 0, i = 0, child
    out[0] = NULL
    if heap.n == 0 or heap.at[0].expires_s > now_s:
        return 0
    second = heap.at[0].expires_s
    if not room(<void**>&found, &capacity, 0, sizeof(uint32_t)):
        return -ENOMEM
    found[0] = 0
    n = 1
    while i < n:
        child = <uint64_t>found[i] * HEAP_ARITY + 1
        found[i] = heap.at[found[i]].entry
        for child in range(child, child + HEAP_ARITY):
            if child < heap.n and heap.at[child].expires_s == second:
                if not room(<void**>&found, &capacity, n, sizeof(uint32_t)):
                    free(found)
                    return -ENOMEM
                found[n] = <uint32_t>child
                n += 1
        i += 1
    out[0] = found
    return <int64_t>n


# --- boxes --------------------------------------------------------------------------------------------

cdef uint32_t box_make(Index* x, uint64_t owner) noexcept nogil:
    cdef uint32_t i = box_find(x, owner)
    cdef Box* b
    if i != NO_ENTRY:
        return i
    i = x.box_free
    if i != NO_ENTRY:
        x.box_free = x.boxes[i].link.next
    else:
        if not room(<void**>&x.boxes, &x.boxes_capacity, x.boxes_n, sizeof(Box)):
            return NO_ENTRY
        i = x.boxes_n
        x.boxes_n += 1
    b = &x.boxes[i]
    memset(b, 0, sizeof(Box))
    b.owner = owner
    b.link.hash = owner_hash(owner)
    chain_add(&x.box_chains, box_links(x), sizeof(Box), i)
    return i


cdef void box_leave(Index* x, uint32_t i) noexcept nogil:
    """Gives an empty box back."""
    if x.boxes[i].mail.n or x.boxes[i].receipts.n:
        return
    chain_remove(&x.box_chains, box_links(x), sizeof(Box), i)
    free(x.boxes[i].mail.at)      # made room for an entry that never came
    free(x.boxes[i].receipts.at)
    memset(&x.boxes[i], 0, sizeof(Box))
    x.boxes[i].link.next = x.box_free
    x.box_free = i


# --- changing -----------------------------------------------------------------------------------------

cdef uint32_t entry_new(Index* x, uint8_t kind, uint64_t order, uint8_t rank, uint64_t place,
                        size_t row_n) noexcept nogil:
    cdef uint32_t i = x.entry_free
    cdef Entry* e
    if i != NO_ENTRY:
        x.entry_free = x.entries[i].link.next
    else:
        if not room(<void**>&x.entries, &x.entries_capacity, x.entries_n, sizeof(Entry)):
            return NO_ENTRY
        i = x.entries_n
        x.entries_n += 1
    e = &x.entries[i]
    memset(e, 0, sizeof(Entry))
    e.order, e.rank = order, rank
    e.place_low, e.place_high = <uint32_t>place, <uint16_t>(place >> 32)
    e.flags = kind | size_class(row_n) << SIZE_SHIFT
    e.due = NO_ENTRY
    return i


cdef uint32_t boxed(Index* x, uint32_t b, Handles* h, Heap* heap, uint8_t kind, uint64_t order, uint8_t rank,
                    uint64_t place, size_t row_n, uint32_t expires_s) noexcept nogil:
    """A new entry for box b with all the room it needs, not yet in its place there."""
    cdef uint32_t i = NO_ENTRY
    if handles_room(h) and (expires_s == 0 or room(<void**>&heap.at, &heap.capacity, heap.n, sizeof(Due))):
        i = entry_new(x, kind, order, rank, place, row_n)
    if i == NO_ENTRY:
        box_leave(x, b)
        return NO_ENTRY
    x.entries[i].box = b
    if expires_s:
        heap_add(x, heap, i, expires_s)
    return i


cdef uint32_t add_envelope(Index* x, uint8_t kind, uint32_t hash, uint64_t recipient, uint8_t priority, uint64_t seq,
                           uint64_t place, size_t row_n, uint32_t expires_s) noexcept nogil:
    cdef uint32_t b, i = NO_ENTRY
    cdef Handles* h
    pthread_mutex_lock(&x.lock)
    b = box_make(x, recipient)
    if b != NO_ENTRY:
        h = &x.boxes[b].mail
        i = boxed(x, b, h, &x.due_mail, kind, seq, priority, place, row_n, expires_s)
        if i != NO_ENTRY:
            handles_insert(h, mail_from(x, h, priority, seq), i)
            x.entries[i].link.hash = hash
            chain_add(&x.chains, entry_links(x), sizeof(Entry), i)
    pthread_mutex_unlock(&x.lock)
    return i


cdef uint32_t add_receipt(Index* x, uint64_t owner, uint64_t peer, uint64_t id, uint8_t level, uint64_t place,
                          size_t row_n, uint32_t expires_s) noexcept nogil:
    cdef uint32_t b, i = NO_ENTRY
    cdef Handles* h
    pthread_mutex_lock(&x.lock)
    b = box_make(x, owner)
    if b != NO_ENTRY:
        h = &x.boxes[b].receipts
        i = boxed(x, b, h, &x.due_receipts, KIND_RECEIPT, peer, level, place, row_n, expires_s)
        if i != NO_ENTRY:
            x.entries[i].link.hash, x.entries[i].link.next = <uint32_t>(id >> 32), <uint32_t>id
            handles_insert(h, receipts_from(x, h, peer, id), i)
    pthread_mutex_unlock(&x.lock)
    return i


cdef uint32_t add_body(Index* x, uint64_t number, uint64_t place, size_t row_n) noexcept nogil:
    cdef uint32_t i
    pthread_mutex_lock(&x.lock)
    i = entry_new(x, KIND_BODY, number, 0, place, row_n)
    if i != NO_ENTRY:
        x.entries[i].link.hash = body_hash(x, number)
        chain_add(&x.chains, entry_links(x), sizeof(Entry), i)
    pthread_mutex_unlock(&x.lock)
    return i


cdef void set_place(Index* x, uint32_t entry, uint64_t place) noexcept nogil:
    pthread_mutex_lock(&x.lock)
    x.entries[entry].place_low, x.entries[entry].place_high = <uint32_t>place, <uint16_t>(place >> 32)
    pthread_mutex_unlock(&x.lock)


cdef void show_begin(Index* x, uint64_t visible) noexcept nogil:
    pthread_mutex_lock(&x.lock)
    x.visible = visible
    x.showing = True
    pthread_mutex_unlock(&x.lock)


cdef void show_end(Index* x) noexcept nogil:
    pthread_mutex_lock(&x.lock)
    x.showing = False
    pthread_mutex_unlock(&x.lock)


cdef uint32_t entry_dying(Index* x, uint32_t entry) noexcept nogil:
    cdef Entry* e = &x.entries[entry]
    cdef uint32_t expires_s = expires_of(x, entry)
    pthread_mutex_lock(&x.lock)
    if e.due != NO_ENTRY:
        heap_take(x, heap_of(x, e), e.due)
    e.flags |= FLAG_DYING
    pthread_mutex_unlock(&x.lock)
    return expires_s


cdef void entry_revive(Index* x, uint32_t entry, uint32_t expires_s) noexcept nogil:
    # The heap had room for it before the transaction, and what came since is taken out first.
    cdef Entry* e = &x.entries[entry]
    pthread_mutex_lock(&x.lock)
    e.flags &= <uint8_t>~FLAG_DYING
    if expires_s:
        heap_add(x, heap_of(x, e), entry, expires_s)
    pthread_mutex_unlock(&x.lock)


cdef void entry_remove(Index* x, uint32_t entry) noexcept nogil:
    cdef Entry* e = &x.entries[entry]
    cdef uint8_t kind = e.flags & KIND_MASK
    cdef Handles* h
    cdef uint32_t at
    pthread_mutex_lock(&x.lock)
    if e.due != NO_ENTRY:
        heap_take(x, heap_of(x, e), e.due)
    if kind == KIND_RECEIPT:
        h = &x.boxes[e.box].receipts
        at = receipts_from(x, h, e.order, receipt_id(e))
    elif kind != KIND_BODY:
        h = &x.boxes[e.box].mail
        at = mail_from(x, h, e.rank, e.order)
    if kind != KIND_BODY:
        while h.at[h.start + at] != entry:    # others with the same key: one dying, one that takes its place
            at += 1
        handles_remove(h, at)
        box_leave(x, e.box)
    if kind != KIND_RECEIPT:
        chain_remove(&x.chains, entry_links(x), sizeof(Entry), entry)
    memset(e, 0, sizeof(Entry))
    e.link.next = x.entry_free
    x.entry_free = entry
    pthread_mutex_unlock(&x.lock)
