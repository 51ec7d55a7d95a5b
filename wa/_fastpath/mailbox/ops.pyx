# cython: language_level=3
# HOT: once per stored envelope, deletion and receipt, in the commit thread.
"""What each mailbox operation does inside a turn of the log (mailbox/log.pxd).  The commit thread alone calls
`apply_op`.

Every function returns 0 or an error (errno, MDB_*) that ends the turn; the result of the operation itself is in
op.result.  Pointers that LMDB gave are dead after the next change.
"""
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy
from wa._fastpath.mailbox.contract cimport *
from wa._fastpath.mailbox.index cimport *
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.tables cimport Handles, NO_ENTRY
from wa._fastpath.wire.frames cimport F_REFUSED

ctypedef struct Found:            # an envelope
    uint32_t entry                # or NO_ENTRY
    bint known                    # its head is legible
    MDB_val row

ctypedef struct Turnover:         # of what expires in one second: the order in which it does
    uint64_t recipient, seq
    uint32_t entry
    uint8_t rest                  # 255 - priority

wa_crc_init()


# --- envelopes ----------------------------------------------------------------------------------------

cdef int find(Lmdb* s, StoreOp* op, Found* found) noexcept nogil:
    """By identity, which the row confirms; one whose row says nothing is the one that priority and seq name."""
    cdef Index* x = &s.index
    cdef Entry* e
    cdef uint8_t* p
    cdef uint32_t i = index_first(x, index_hash(x, op.env.recipient, op.env.sender, op.env.id))
    cdef int rc
    found.entry = NO_ENTRY
    while i != NO_ENTRY:
        e = &x.entries[i]
        if not e.flags & FLAG_DYING and e.flags & KIND_MASK != KIND_BODY and x.boxes[e.box].owner == op.env.recipient:
            rc = row_get(s, entry_place(e), &found.row, &found.known)
            if rc:
                return rc
            p = <uint8_t*>found.row.mv_data
            if (get64(p + AT_SENDER) == op.env.sender and get64(p + AT_ID) == op.env.id if found.known
                    else e.rank == op.env.priority and e.order == op.seq):
                found.entry = i
                return 0
        i = index_after(x, i)
    return 0


cdef int whole(Lmdb* s, Found* found, bint* intact) noexcept nogil:
    """Whether a found envelope can be read with its body; reports it when not."""
    cdef MDB_val row = found.row
    cdef uint8_t* p = <uint8_t*>row.mv_data
    cdef uint32_t body
    cdef bint known
    cdef int rc
    intact[0] = found.known and body_intact(p, row.mv_size)
    if not intact[0]:
        report_entry(s, found.entry)
    elif p[0] == ROW_SHARED:
        body = body_find(&s.index, get64(p + AT_NUMBER), False)
        intact[0] = False
        if body != NO_ENTRY:
            rc = row_get(s, entry_place(&s.index.entries[body]), &row, &known)
            if rc:
                return rc
            intact[0] = known and body_intact(<uint8_t*>row.mv_data, row.mv_size)
        if not intact[0]:
            report_number(s, CORRUPT_BODY, get64(p + AT_NUMBER))
    return 0


cdef int write_envelope(Lmdb* s, StoreOp* op, uint32_t body) noexcept nogil:
    cdef bint shared = op.what == OP_PUT_SHARED
    cdef size_t n = SHARED_HEAD + CRC_BYTES if shared else ENVELOPE_HEAD + 2 * CRC_BYTES + <size_t>op.env.body_n
    cdef uint64_t place
    cdef uint8_t* p
    cdef int rc = row_append(s, n, &p, &place)
    if rc:
        return rc
    p[0] = ROW_SHARED if shared else ROW_ENVELOPE
    envelope_put(p, &op.env, op.seq)
    if shared:
        put64(p + AT_NUMBER, s.index.entries[body].order)
    else:
        memcpy(p + ENVELOPE_HEAD + CRC_BYTES, op + 1, op.env.body_n)
    seal(place, p, n)
    rc = added(s, add_envelope(&s.index, KIND_SHARED if shared else KIND_ENVELOPE,
                               index_hash(&s.index, op.env.recipient, op.env.sender, op.env.id), op.env.recipient,
                               op.env.priority, op.seq,
                               place, n, op.env.expires_s))
    return body_need(s, body, 1) if rc == 0 and shared else rc


cdef int do_put(Lmdb* s, StoreOp* op) noexcept nogil:
    cdef Found found
    cdef uint64_t number
    cdef uint32_t body = NO_ENTRY
    cdef bint intact
    cdef int rc = find(s, op, &found)
    if rc:
        return rc
    if found.entry != NO_ENTRY:
        rc = whole(s, &found, &intact)
        if rc:
            return rc
        if intact:
            op.result = RESULT_DUPLICATE
            return 0
    if op.what == OP_PUT_SHARED:
        memcpy(&number, op + 1, sizeof(number))
        body = body_find(&s.index, number, False)
        if body == NO_ENTRY:
            op.result = RESULT_MISSING
            return 0
    if seq_taken(&s.index, op.env.recipient, op.env.priority, op.seq) and (
            found.entry == NO_ENTRY or s.index.entries[found.entry].order != op.seq
            or s.index.entries[found.entry].rank != op.env.priority):
        op.result = RESULT_FAILED     # two envelopes with one seq: the caller's fault, and the stored one must stay
        return 0
    op.result = RESULT_OK
    rc = write_envelope(s, op, body)
    # A stored copy that is damaged makes room for the good one; after it, since its body may be the last that needs
    # one.
    return end_entry(s, found.entry) if rc == 0 and found.entry != NO_ENTRY else rc


cdef int do_body(Lmdb* s, StoreOp* op) noexcept nogil:
    cdef size_t n = BODY_HEAD + 2 * CRC_BYTES + <size_t>op.env.body_n
    cdef uint64_t place
    cdef uint8_t* p
    cdef int rc
    if body_find(&s.index, op.env.id, False) != NO_ENTRY:
        op.result = RESULT_FAILED
        return 0
    rc = row_append(s, n, &p, &place)
    if rc:
        return rc
    p[0] = ROW_BODY
    put64(p + AT_BODY_NUMBER, op.env.id)
    memcpy(p + BODY_HEAD + CRC_BYTES, op + 1, op.env.body_n)
    seal(place, p, n)
    op.result = RESULT_OK
    return added(s, add_body(&s.index, op.env.id, place, n))


cdef int drop_unneeded(Lmdb* s, StoreBatch* b) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    cdef uint32_t body
    cdef int rc
    while op != NULL:
        if op.what == OP_BODY:
            body = body_find(&s.index, op.env.id, False)
            if body != NO_ENTRY and s.index.entries[body].box == 0:
                rc = end_entry(s, body)
                if rc:
                    return rc
        op = batch_next(b, op)
    return 0


cdef int do_delete(Lmdb* s, StoreOp* op) noexcept nogil:
    cdef Found found
    cdef int rc = find(s, op, &found)
    op.result = RESULT_MISSING
    if rc or found.entry == NO_ENTRY:
        return rc
    op.result = RESULT_OK
    return end_entry(s, found.entry)


# --- receipts -----------------------------------------------------------------------------------------

cdef int receipt_intact(Lmdb* s, uint32_t entry, bint* intact) noexcept nogil:
    cdef MDB_val row
    cdef int rc = row_get(s, entry_place(&s.index.entries[entry]), &row, intact)
    if rc == 0 and not intact[0]:
        report_entry(s, entry)
    return rc


cdef int raise_receipt(Lmdb* s, uint64_t owner, uint64_t peer, uint64_t id, uint8_t level, const StoreOp* op,
                       bint* was_there) noexcept nogil:
    """code, accepted_s and expires_s are those of the operation."""
    cdef uint32_t before = receipt_find(&s.index, owner, peer, id)
    cdef uint64_t place
    cdef uint8_t* p
    cdef int rc
    was_there[0] = False
    if before != NO_ENTRY:
        rc = receipt_intact(s, before, was_there)
        if rc or (was_there[0] and receipt_rank(s.index.entries[before].rank) >= receipt_rank(level)):
            return rc
        rc = end_entry(s, before)
        if rc:
            return rc
    rc = row_append(s, RECEIPT_HEAD + CRC_BYTES, &p, &place)
    if rc:
        return rc
    p[0] = ROW_RECEIPT
    p[AT_LEVEL] = level
    p[AT_CODE], p[AT_CODE + 1] = <uint8_t>(op.code >> 8), <uint8_t>op.code
    put64(p + AT_OWNER, owner)
    put64(p + AT_PEER, peer)
    put64(p + AT_RECEIPT_ID, id)
    put32(p + AT_RECEIPT_ACCEPTED, op.env.accepted_s)
    put32(p + AT_RECEIPT_EXPIRES, op.env.expires_s)
    seal(place, p, RECEIPT_HEAD + CRC_BYTES)
    return added(s, add_receipt(&s.index, owner, peer, id, level, place, RECEIPT_HEAD + CRC_BYTES, op.env.expires_s))


# --- what is taken out and reported -------------------------------------------------------------------

cdef int expire(Lmdb* s, StoreBatch* b, StoreOp* cause, uint32_t entry, const StoreOp* hint) noexcept nogil:
    """Ends an envelope, reports it, and leaves its sender a receipt with the code of `cause`.

    hint: what the caller knows of it, for when its row says nothing; without one it is reported with sender 0.
    """
    cdef Entry* e = &s.index.entries[entry]
    cdef StoreOp* out = batch_add_expired(b)
    cdef MDB_val row
    cdef uint8_t* p = NULL
    cdef bint known
    cdef int rc
    if out == NULL:
        return ENOMEM
    out.seq, out.code = e.order, cause.code
    rc = row_get(s, entry_place(e), &row, &known)
    if rc:
        return rc
    if known:
        p = <uint8_t*>row.mv_data
        envelope_of(p, &out.env)
    elif hint != NULL:
        out.env.sender, out.env.id, out.env.kind = hint.env.sender, hint.env.id, hint.env.kind
    out.env.recipient, out.env.priority = s.index.boxes[e.box].owner, e.rank
    if not known or not body_intact(p, row.mv_size):
        report_entry(s, entry)
    rc = end_entry(s, entry)
    if rc or out.env.sender == 0 or cause.code == 0:
        return rc
    return raise_receipt(s, out.env.sender, out.env.recipient, out.env.id, F_REFUSED, cause, &known)


cdef int do_drop(Lmdb* s, StoreBatch* b, StoreOp* op) noexcept nogil:
    cdef Found found
    cdef int rc = find(s, op, &found)
    op.result = RESULT_MISSING
    if rc or found.entry == NO_ENTRY:
        return rc
    op.result = RESULT_OK
    return expire(s, b, op, found.entry, op)


cdef int by_key(const void* a, const void* b) noexcept nogil:
    cdef const Turnover* x = <const Turnover*>a
    cdef const Turnover* y = <const Turnover*>b
    if x.recipient != y.recipient:
        return 1 if x.recipient > y.recipient else -1
    if x.rest != y.rest:
        return 1 if x.rest > y.rest else -1
    return (x.seq > y.seq) - (x.seq < y.seq)


cdef int expire_second(Lmdb* s, StoreBatch* b, StoreOp* op, const uint32_t* due, uint32_t n,
                       uint32_t count) noexcept nogil:
    """The first `count` in key order of these n."""
    cdef Turnover* order = <Turnover*>malloc(n * sizeof(Turnover))
    cdef Entry* e
    cdef uint32_t i
    cdef int rc = 0
    if order == NULL:
        return ENOMEM
    for i in range(n):
        e = &s.index.entries[due[i]]
        order[i].recipient, order[i].seq = s.index.boxes[e.box].owner, e.order
        order[i].entry, order[i].rest = due[i], 255 - e.rank
    qsort(order, n, sizeof(Turnover), by_key)
    for i in range(count):
        rc = expire(s, b, op, order[i].entry, NULL)
        if rc:
            break
    free(order)
    return rc


cdef int sweep_kind(Lmdb* s, StoreBatch* b, StoreOp* op, Heap* heap, bint receipts) noexcept nogil:
    cdef uint32_t left = op.count, count, i
    cdef uint32_t* due
    cdef int64_t n
    cdef int rc = 0
    while left and rc == 0:
        n = due_first(&s.index, heap, op.env.accepted_s, &due)
        if n <= 0:
            return ENOMEM if n else 0
        count = <uint32_t>n if n < left else left
        left -= count
        if receipts:
            for i in range(count):
                rc = end_entry(s, due[i])
                if rc:
                    break
        else:
            rc = expire_second(s, b, op, due, <uint32_t>n, count)
        free(due)
    return rc


cdef int do_sweep(Lmdb* s, StoreBatch* b, StoreOp* op) noexcept nogil:
    cdef int rc = sweep_kind(s, b, op, &s.index.due_mail, False)
    op.result = RESULT_OK
    return rc if rc else sweep_kind(s, b, op, &s.index.due_receipts, True)


cdef int do_purge(Lmdb* s, StoreBatch* b, StoreOp* op) noexcept nogil:
    # Envelopes are reported; waiting receipts of the mailbox go without a word.  Nothing leaves its box before the
    # commit.
    cdef uint32_t box = box_find(&s.index, op.env.recipient), at = 0, entry
    cdef Handles* h
    cdef int rc
    op.result = RESULT_OK
    while box != NO_ENTRY and at < s.index.boxes[box].mail.n:
        h = &s.index.boxes[box].mail
        entry = h.at[h.start + at]
        at += 1
        if not s.index.entries[entry].flags & FLAG_DYING:
            rc = expire(s, b, op, entry, NULL)
            if rc:
                return rc
    at = 0
    while box != NO_ENTRY and at < s.index.boxes[box].receipts.n:
        h = &s.index.boxes[box].receipts
        entry = h.at[h.start + at]
        at += 1
        if not s.index.entries[entry].flags & FLAG_DYING:
            rc = end_entry(s, entry)
            if rc:
                return rc
    return 0


# --- operations on receipts ---------------------------------------------------------------------------

cdef int do_receipt_put(Lmdb* s, StoreOp* op) noexcept nogil:
    cdef bint was_there
    cdef int rc = raise_receipt(s, op.env.recipient, op.env.sender, op.env.id, op.level, op, &was_there)
    op.result = RESULT_DUPLICATE if was_there else RESULT_OK
    return rc


cdef int do_receipt_delete(Lmdb* s, StoreOp* op) noexcept nogil:
    cdef uint32_t entry = receipt_find(&s.index, op.env.recipient, op.env.sender, op.env.id)
    cdef bint intact
    cdef int rc
    op.result = RESULT_MISSING
    if entry == NO_ENTRY:
        return 0
    if receipt_rank(s.index.entries[entry].rank) > receipt_rank(op.level):
        rc = receipt_intact(s, entry, &intact)
        if rc:
            return rc
        if intact:
            op.result = RESULT_DUPLICATE
            return 0
    op.result = RESULT_OK
    return end_entry(s, entry)


cdef int apply_op(Lmdb* s, StoreBatch* b, StoreOp* op) noexcept nogil:
    if op.what == OP_PUT or op.what == OP_PUT_SHARED:
        return do_put(s, op)
    if op.what == OP_BODY:
        return do_body(s, op)
    if op.what == OP_DELETE:
        return do_delete(s, op)
    if op.what == OP_DROP:
        return do_drop(s, b, op)
    if op.what == OP_RECEIPT_PUT:
        return do_receipt_put(s, op)
    if op.what == OP_RECEIPT_DELETE:
        return do_receipt_delete(s, op)
    if op.what == OP_SWEEP:
        s.swept = True
        return do_sweep(s, b, op)
    if op.what == OP_PURGE:
        return do_purge(s, b, op)
    return EINVAL
