# cython: language_level=3
# HOT: the loop waits for these reads; they run for every device that comes back online.
"""The synchronous reads of the mailbox store over LMDB, called by the loop's thread.

A read takes the places of rows from the index and the rows from a snapshot of the log.  It renews the snapshot while it
holds the lock of the index, so that the two belong together: a row is added before the index shows it, and it is
deleted a commit after the index stopped showing it there.  The lock is released before any row is touched.

map_lock is held from renewing the snapshot to resetting it (see mailbox/store.pyx); a read copies, and pins nothing.
"""
from libc.errno cimport EIO, EMSGSIZE, ENOMEM, ESHUTDOWN
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy, memset
from wa._fastpath.mailbox.contract cimport *
from wa._fastpath.mailbox.index cimport *
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.tables cimport Handles, NO_ENTRY

cdef enum:
    AGAIN = 1                     # the snapshot is older than what the index said later

ctypedef struct Wanted:           # where a row is, and what it should be
    uint64_t place, seq
    uint8_t priority

ctypedef struct Owner:
    uint64_t owner
    uint32_t box

wa_crc_init()


cdef inline int errno_of(int rc) noexcept nogil:
    # For the vtable: LMDB's own codes become EIO; which one it was is in stats.
    return -rc if rc > 0 else -EIO


cdef int begin_read(Lmdb* s) noexcept nogil:
    """Takes map_lock and the lock of the index and starts a snapshot; unless it failed (-errno) the caller unlocks the
    index, and end_read() follows."""
    cdef int rc
    pthread_mutex_lock(&s.map_lock)
    pthread_mutex_lock(&s.index.lock)
    if s.env == NULL:
        rc = ESHUTDOWN if s.closed else EIO
    elif s.read_txn == NULL:
        rc = mdb_txn_begin(s.env, NULL, MDB_RDONLY, &s.read_txn)
    else:
        rc = mdb_txn_renew(s.read_txn)
    if rc:
        pthread_mutex_unlock(&s.index.lock)
        pthread_mutex_unlock(&s.map_lock)
        return errno_of(rc)
    return 0


cdef void end_read(Lmdb* s) noexcept nogil:
    mdb_txn_reset(s.read_txn)     # keeps the reader slot, pins no page
    pthread_mutex_unlock(&s.map_lock)


cdef bint look(Lmdb* s, uint64_t place, MDB_val* row) noexcept nogil:
    """Whether there is a legible row at this place."""
    cdef uint8_t k[8]
    cdef MDB_val key = val(k, 8)
    put64(k, place)
    return mdb_get(s.read_txn, s.log, &key, row) == 0 and legible(place, <uint8_t*>row.mv_data, row.mv_size)


# --- envelopes ----------------------------------------------------------------------------------------

cdef int want_after(Index* x, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out,
                    int out_max) noexcept nogil:
    """Places and seqs of the envelopes that follow.  The index is locked."""
    cdef uint32_t b = box_find(x, recipient), at
    cdef Handles* h
    cdef Entry* e
    cdef int n = 0
    if b == NO_ENTRY or after_seq == <uint64_t>-1:
        return 0
    h = &x.boxes[b].mail
    for at in range(mail_from(x, h, priority, after_seq + 1), h.n):
        e = &x.entries[h.at[h.start + at]]
        if n == out_max or e.rank != priority:
            break
        if entry_visible(x, h.at[h.start + at]):
            out[n].place, out[n].seq = entry_place(e), e.order
            n += 1
    return n


cdef int shared_body(Lmdb* s, uint64_t number, MDB_val* body) noexcept nogil:
    """0: here it is; AGAIN: it is not in this snapshot."""
    cdef uint64_t place = 0
    cdef uint32_t i
    cdef uint8_t* p
    pthread_mutex_lock(&s.index.lock)
    i = body_find(&s.index, number, True)
    if i != NO_ENTRY:
        place = entry_place(&s.index.entries[i])
    pthread_mutex_unlock(&s.index.lock)
    if not look(s, place, body):
        return AGAIN
    p = <uint8_t*>body.mv_data
    if p[0] != ROW_BODY or get64(p + AT_BODY_NUMBER) != number or not body_intact(p, body.mv_size):
        return AGAIN
    body[0] = val(p + BODY_HEAD + CRC_BYTES, body.mv_size - BODY_HEAD - 2 * CRC_BYTES)
    return 0


cdef void fill_envelope(MailRow* out, const uint8_t* p) noexcept nogil:
    memset(out, 0, sizeof(MailRow))
    envelope_of(p, &out.env)
    out.seq = get64(p + AT_SEQ)


ctypedef struct Reading:
    MailRow* out
    int n, out_max
    uint8_t* arena
    size_t used, arena_n
    bint full                     # the arena
    uint64_t again_seq            # a body was not found once; 0: none
    bint again


cdef int take_one(Lmdb* s, Reading* r, uint64_t recipient, uint8_t priority, uint64_t seq,
                  uint64_t place) noexcept nogil:
    """One row into r.  0, or AGAIN to look for it once more with a new snapshot."""
    cdef MDB_val row, body
    cdef uint8_t* p
    cdef uint64_t number
    if not look(s, place, &row) or not body_intact(<uint8_t*>row.mv_data, row.mv_size):
        report_mail(s, recipient, priority, seq)
        return 0
    p = <uint8_t*>row.mv_data
    if p[0] == ROW_SHARED:
        number = get64(p + AT_NUMBER)
        if shared_body(s, number, &body):
            if not r.again or r.again_seq != seq:
                r.again, r.again_seq = True, seq
                return AGAIN
            report_number(s, CORRUPT_BODY, number)
            return 0
    else:
        body = val(p + ENVELOPE_HEAD + CRC_BYTES, row.mv_size - ENVELOPE_HEAD - 2 * CRC_BYTES)
    if body.mv_size > r.arena_n - r.used:
        r.full = True
        return 0
    fill_envelope(&r.out[r.n], p)
    r.out[r.n].env.body_n = <uint32_t>body.mv_size
    memcpy(r.arena + r.used, body.mv_data, body.mv_size)
    r.out[r.n].body = r.arena + r.used
    r.used += body.mv_size
    r.n += 1
    return 0


cdef int store_read(MailStore* m, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out, int out_max,
                    uint8_t* arena, size_t arena_n) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef Reading r
    cdef int wanted, first, i, rc
    cdef uint64_t seq
    cdef bint again = True
    memset(&r, 0, sizeof(Reading))
    r.out, r.out_max, r.arena, r.arena_n = out, out_max, arena, arena_n
    while again and r.n < out_max and not r.full:
        rc = begin_read(s)
        if rc:
            return rc
        first = r.n
        wanted = want_after(&s.index, recipient, priority, after_seq, out + first, out_max - first)
        pthread_mutex_unlock(&s.index.lock)
        again = wanted == out_max - first     # if some of these are damaged, others may follow
        for i in range(first, first + wanted):
            seq = out[i].seq             # take_one() fills what was passed already
            if take_one(s, &r, recipient, priority, seq, out[i].place):
                again = True
                break
            if r.full:
                break
            after_seq = seq
        end_read(s)
    return -EMSGSIZE if r.full and r.n == 0 else r.n


cdef int store_read_victims(MailStore* m, uint64_t recipient, uint32_t now_s, MailRow* out, int out_max) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef Wanted* wanted = NULL
    cdef MDB_val row
    cdef uint32_t wanted_n = 0, i
    cdef int n = 0
    cdef int rc = begin_read(s)
    if rc:
        return rc
    rc = want_victims(&s.index, recipient, now_s, &wanted, &wanted_n)
    pthread_mutex_unlock(&s.index.lock)
    for i in range(wanted_n):
        if n == out_max:
            break
        if look(s, wanted[i].place, &row) and body_intact(<uint8_t*>row.mv_data, row.mv_size):
            fill_envelope(&out[n], <uint8_t*>row.mv_data)
            n += 1
        else:
            report_mail(s, recipient, wanted[i].priority, wanted[i].seq)
    end_read(s)
    free(wanted)
    return rc if rc else n


cdef int want_victims(Index* x, uint64_t recipient, uint32_t now_s, Wanted** out, uint32_t* n) noexcept nogil:
    """All of a mailbox in the order in which they make room: groups of one priority, the last group first, twice."""
    cdef uint32_t b = box_find(x, recipient), end, start, at, due
    cdef Handles* h
    cdef Entry* e
    cdef int expired
    if b == NO_ENTRY or x.boxes[b].mail.n == 0:
        return 0
    h = &x.boxes[b].mail
    out[0] = <Wanted*>malloc(h.n * sizeof(Wanted))
    if out[0] == NULL:
        return -ENOMEM
    for expired in range(1, -1, -1):
        end = h.n
        while end:
            start = mail_from(x, h, x.entries[h.at[h.start + end - 1]].rank, 0)
            for at in range(start, end):
                e = &x.entries[h.at[h.start + at]]
                due = expires_of(x, h.at[h.start + at])
                if entry_visible(x, h.at[h.start + at]) and (0 < due <= now_s) == expired:
                    out[0][n[0]].place, out[0][n[0]].seq, out[0][n[0]].priority = entry_place(e), e.order, e.rank
                    n[0] += 1
            end = start
    return 0


cdef int store_contains(MailStore* m, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef Index* x = &s.index
    cdef uint64_t places[MATCHES_MAX]
    cdef uint32_t i
    cdef MDB_val row
    cdef uint8_t* p
    cdef bint more = True, found = False
    cdef uint64_t passed = 0, skipped
    cdef int n, at, rc
    while more and not found:     # in rounds only where very many share a hash
        rc = begin_read(s)
        if rc:
            return rc
        n = 0
        skipped = 0
        i = index_first(x, index_hash(x, recipient, sender, id))
        while i != NO_ENTRY and n < MATCHES_MAX:
            if (x.entries[i].flags & KIND_MASK != KIND_BODY and x.boxes[x.entries[i].box].owner == recipient
                    and entry_visible(x, i)):
                if skipped < passed:
                    skipped += 1
                else:
                    places[n] = entry_place(&x.entries[i])
                    n += 1
            i = index_after(x, i)
        more = i != NO_ENTRY
        pthread_mutex_unlock(&x.lock)
        for at in range(n):
            if look(s, places[at], &row):
                p = <uint8_t*>row.mv_data
                if get64(p + AT_SENDER) == sender and get64(p + AT_ID) == id:
                    found = True
        passed += n
        end_read(s)
    return found


# --- receipts -----------------------------------------------------------------------------------------

cdef void fill_receipt(MailRow* out, const uint8_t* p) noexcept nogil:
    memset(out, 0, sizeof(MailRow))
    out.env.recipient, out.env.sender, out.env.id = get64(p + AT_OWNER), get64(p + AT_PEER), get64(p + AT_RECEIPT_ID)
    out.level = p[AT_LEVEL]
    out.code = <uint16_t>(<uint32_t>p[AT_CODE] << 8 | p[AT_CODE + 1])
    out.env.accepted_s, out.env.expires_s = get32(p + AT_RECEIPT_ACCEPTED), get32(p + AT_RECEIPT_EXPIRES)


cdef int want_receipts(Index* x, uint64_t owner, uint64_t after_peer, uint64_t after_id, MailRow* out,
                       int out_max) noexcept nogil:
    """Identities and places of the receipts that follow.  The index is locked."""
    cdef uint32_t b = box_find(x, owner), at
    cdef Handles* h
    cdef Entry* e
    cdef int n = 0
    if b == NO_ENTRY:
        return 0
    h = &x.boxes[b].receipts
    for at in range(receipts_from(x, h, after_peer, after_id), h.n):
        e = &x.entries[h.at[h.start + at]]
        if n == out_max:
            break
        if entry_visible(x, h.at[h.start + at]) and (e.order != after_peer or receipt_id(e) != after_id):
            out[n].env.sender, out[n].env.id, out[n].place = e.order, receipt_id(e), entry_place(e)
            n += 1
    return n


cdef int store_read_receipts(MailStore* m, uint64_t owner, uint64_t after_peer, uint64_t after_id, MailRow* out,
                             int out_max) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef MDB_val row
    cdef int n = 0, wanted = 1, first, i, rc
    while n < out_max and wanted:
        rc = begin_read(s)
        if rc:
            return rc
        first = n
        wanted = want_receipts(&s.index, owner, after_peer, after_id, out + first, out_max - first)
        pthread_mutex_unlock(&s.index.lock)
        for i in range(first, first + wanted):
            after_peer, after_id = out[i].env.sender, out[i].env.id
            if look(s, out[i].place, &row):
                fill_receipt(&out[n], <uint8_t*>row.mv_data)
                n += 1
            else:
                report_receipt(s, owner, after_peer, after_id)
        end_read(s)
    return n


# --- the census ---------------------------------------------------------------------------------------

cdef int by_owner(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<const Owner*>a).owner, y = (<const Owner*>b).owner
    return (x > y) - (x < y)


cdef int census(Lmdb* s, bint receipts, census_fn each, void* context) noexcept nogil:
    """At start, when nothing is committed: under the lock of the index throughout."""
    cdef Index* x = &s.index
    cdef Owner* owners
    cdef Handles* h
    cdef Entry* e
    cdef uint32_t i, at, n = 0
    cdef int rc = begin_read(s)
    if rc:
        return rc
    owners = <Owner*>malloc(<size_t>x.boxes_n * sizeof(Owner) + 1)
    if owners == NULL:
        rc = -ENOMEM
    else:
        for i in range(x.boxes_n):
            h = &x.boxes[i].receipts if receipts else &x.boxes[i].mail
            if h.n:
                owners[n].owner, owners[n].box = x.boxes[i].owner, i
                n += 1
        qsort(owners, n, sizeof(Owner), by_owner)
        for i in range(n):
            h = &x.boxes[owners[i].box].receipts if receipts else &x.boxes[owners[i].box].mail
            for at in range(h.n):
                e = &x.entries[h.at[h.start + at]]
                if entry_visible(x, h.at[h.start + at]):
                    each(context, owners[i].owner, e.rank, 0 if receipts else e.order)
        free(owners)
    pthread_mutex_unlock(&x.lock)
    end_read(s)
    return rc


cdef int store_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    return census(<Lmdb*>m.state, False, each, context)


cdef int store_receipt_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    return census(<Lmdb*>m.state, True, each, context)
