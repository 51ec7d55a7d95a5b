# cython: language_level=3
# HOT: every live envelope enters and leaves this table once; entries are recycled, never allocated per message.
"""Custody table; see custody/entries.pxd."""
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from wa._fastpath.state.core cimport Custody, Entry

cdef enum:
    BUCKETS_START = 4096
    ENTRIES_CHUNK = 256


cdef inline uint64_t identity_hash(uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    cdef uint64_t x = recipient * <uint64_t>0x9e3779b97f4a7c15 ^ sender
    x = (x ^ (x >> 29)) * <uint64_t>0xbf58476d1ce4e5b9 ^ id
    x = (x ^ (x >> 32)) * <uint64_t>0x94d049bb133111eb
    return x ^ (x >> 31)


cdef int custody_init(Custody* k) noexcept nogil:
    memset(k, 0, sizeof(Custody))
    k.buckets = <Entry**>calloc(BUCKETS_START, sizeof(Entry*))
    k.mask = BUCKETS_START - 1
    return 0 if k.buckets != NULL else -1


cdef uint64_t free_chunks(Custody* k) noexcept nogil:
    # Chunks of entries are chained through their first entry's `older`; see entry_new.
    cdef Entry* chunk = k.chunks
    cdef Entry* following
    cdef uint64_t freed = 0
    while chunk != NULL:
        following = chunk.older
        free(chunk)
        chunk = following
        freed += ENTRIES_CHUNK * sizeof(Entry)
    k.chunks = NULL
    k.free_list = NULL
    return freed


cdef void custody_destroy(Custody* k) noexcept nogil:
    free(k.buckets)
    free_chunks(k)
    memset(k, 0, sizeof(Custody))


cdef uint64_t custody_trim(Custody* k) noexcept nogil:
    cdef Entry** buckets
    cdef uint64_t freed
    if k.live or k.chunks == NULL or k.chunks.older == NULL:
        return 0                          # one chunk is kept: chat that trickles must not make one each second
    freed = free_chunks(k)
    if k.mask + 1 > BUCKETS_START:
        buckets = <Entry**>calloc(BUCKETS_START, sizeof(Entry*))
        if buckets != NULL:
            freed += (k.mask + 1) * sizeof(Entry*)
            free(k.buckets)
            k.buckets = buckets
            k.mask = BUCKETS_START - 1
    return freed


cdef Entry* entry_new(Custody* k) noexcept nogil:
    cdef Entry* chunk
    cdef uint32_t i
    if k.free_list == NULL:
        chunk = <Entry*>calloc(ENTRIES_CHUNK, sizeof(Entry))
        if chunk == NULL:
            return NULL
        chunk.older = k.chunks            # the first entry of a chunk only links the chunks
        k.chunks = chunk
        for i in range(1, ENTRIES_CHUNK):
            chunk[i].hash_next = k.free_list
            k.free_list = &chunk[i]
    cdef Entry* e = k.free_list
    k.free_list = e.hash_next
    memset(e, 0, sizeof(Entry))
    k.live += 1
    return e


cdef void entry_free(Custody* k, Entry* e) noexcept nogil:
    e.hash_next = k.free_list
    k.free_list = e
    k.live -= 1


cdef void rehash(Custody* k) noexcept nogil:
    cdef uint64_t n = (k.mask + 1) * 2
    cdef Entry** buckets = <Entry**>calloc(n, sizeof(Entry*))
    if buckets == NULL:
        return                            # longer chains are slower, not wrong
    cdef uint64_t i, j
    cdef Entry* e
    cdef Entry* following
    for i in range(k.mask + 1):
        e = k.buckets[i]
        while e != NULL:
            following = e.hash_next
            j = identity_hash(e.env.recipient, e.env.sender, e.env.id) & (n - 1)
            e.hash_next = buckets[j]
            buckets[j] = e
            e = following
    free(k.buckets)
    k.buckets = buckets
    k.mask = n - 1


cdef int custody_insert(Custody* k, Entry* e) noexcept nogil:
    if k.used > k.mask:
        rehash(k)
    cdef uint64_t i = identity_hash(e.env.recipient, e.env.sender, e.env.id) & k.mask
    e.hash_next = k.buckets[i]
    k.buckets[i] = e
    k.used += 1
    return 0


cdef void custody_remove(Custody* k, Entry* e) noexcept nogil:
    cdef Entry** link = &k.buckets[identity_hash(e.env.recipient, e.env.sender, e.env.id) & k.mask]
    while link[0] != NULL:
        if link[0] == e:
            link[0] = e.hash_next
            e.hash_next = NULL
            k.used -= 1
            return
        link = &link[0].hash_next


cdef Entry* custody_find(Custody* k, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    cdef Entry* e = k.buckets[identity_hash(recipient, sender, id) & k.mask]
    while e != NULL:
        if e.env.id == id and e.env.sender == sender and e.env.recipient == recipient:
            return e
        e = e.hash_next
    return NULL


cdef void linger_push(Custody* k, Entry* e) noexcept nogil:
    e.older = k.newest
    e.newer = NULL
    if k.newest != NULL:
        k.newest.newer = e
    else:
        k.oldest = e
    k.newest = e


cdef void linger_remove(Custody* k, Entry* e) noexcept nogil:
    if e.older == NULL and e.newer == NULL and k.oldest != e:
        return
    if e.older != NULL:
        e.older.newer = e.newer
    else:
        k.oldest = e.newer
    if e.newer != NULL:
        e.newer.older = e.older
    else:
        k.newest = e.older
    e.older = NULL
    e.newer = NULL
