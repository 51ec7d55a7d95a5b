# cython: language_level=3
# HOT: the loop waits for these reads; they run for every device that comes back online.
"""The synchronous reads of the mailbox store over LMDB, called by the loop's thread.

A read holds map_lock from renewing its transaction to resetting it (see lmdb_store.pyx), copies, and pins nothing.
"""
from libc.errno cimport EIO, EMSGSIZE, ESHUTDOWN
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from wa._fastpath.lmdb_c cimport *
from wa._fastpath.lmdb_layout cimport *
from wa._fastpath.lmdb_ops cimport *
from wa._fastpath.mailbox cimport *


cdef inline int errno_of(int rc) noexcept nogil:
    # For the vtable: LMDB's own codes become EIO; which one it was is in stats.
    return -rc if rc > 0 else -EIO


cdef int begin_read(Lmdb* s) noexcept nogil:
    """Takes map_lock and starts a snapshot; end_read() must follow unless it failed (-errno)."""
    cdef int rc
    pthread_mutex_lock(&s.map_lock)
    if s.env == NULL:
        rc = ESHUTDOWN if s.closed else EIO
    elif s.read_txn == NULL:
        rc = mdb_txn_begin(s.env, NULL, MDB_RDONLY, &s.read_txn)
    else:
        rc = mdb_txn_renew(s.read_txn)
    if rc:
        pthread_mutex_unlock(&s.map_lock)
        return errno_of(rc)
    return 0


cdef void end_read(Lmdb* s) noexcept nogil:
    mdb_txn_reset(s.read_txn)     # keeps the reader slot, pins no page
    pthread_mutex_unlock(&s.map_lock)


cdef int read_rows(Lmdb* s, MDB_cursor* c, const uint8_t* from_key, MailRow* out, int out_max, uint8_t* arena,
                   size_t arena_n) noexcept nogil:
    cdef MDB_val key = val(from_key, MAIL_KEY)
    cdef MDB_val value
    cdef uint8_t* p
    cdef StoreOp* head
    cdef size_t body_n, used = 0
    cdef int n = 0
    cdef int rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE)
    while rc == 0 and n < out_max:
        if key.mv_size != MAIL_KEY or memcmp(key.mv_data, from_key, 9) != 0:
            break
        if intact(s, LETTER_MAIL, &key, &value, MAIL_HEAD):
            body_n = value.mv_size - MAIL_HEAD - CRC_BYTES
            if body_n > arena_n - used:
                return n if n else -EMSGSIZE
            p = <uint8_t*>value.mv_data
            head = &out[n].head
            memset(head, 0, sizeof(StoreOp))
            head.what, head.result = OP_PUT, RESULT_OK
            head.recipient, head.priority = get64(from_key), 255 - from_key[8]
            head.seq = get64(<uint8_t*>key.mv_data + 9)
            head.sender, head.id, head.kind = get64(p), get64(p + 8), p[24]
            head.accepted_s, head.expires_s = get32(p + 16), get32(p + 20)
            head.body_n = <uint32_t>body_n
            memcpy(arena + used, p + MAIL_HEAD, body_n)
            out[n].body = arena + used
            used += body_n
            n += 1
        rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
    return n if rc == 0 or rc == MDB_NOTFOUND else errno_of(rc)


cdef int store_read(MailStore* m, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out, int out_max,
                    uint8_t* arena, size_t arena_n) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef MDB_cursor* c = NULL
    cdef uint8_t k[MAIL_KEY]
    cdef int rc
    if after_seq == <uint64_t>-1:
        return 0
    mail_key(k, recipient, priority, after_seq + 1)
    rc = begin_read(s)
    if rc:
        return rc
    rc = mdb_cursor_open(s.read_txn, s.mail, &c)
    if rc:
        rc = errno_of(rc)
    else:
        rc = read_rows(s, c, k, out, out_max, arena, arena_n)
        mdb_cursor_close(c)
    end_read(s)
    return rc


cdef void fill_receipt(StoreOp* out, const uint8_t* k, const uint8_t* v) noexcept nogil:
    memset(out, 0, sizeof(StoreOp))
    out.what, out.result = OP_RECEIPT_PUT, RESULT_OK
    out.recipient, out.sender, out.id = get64(k), get64(k + 8), get64(k + 16)
    out.kind = v[0]
    out.code = <uint16_t>(<uint32_t>v[1] << 8 | v[2])
    out.accepted_s, out.expires_s = get32(v + 3), get32(v + 7)


cdef int store_read_receipts(MailStore* m, uint64_t owner, uint64_t after_peer, uint64_t after_id, StoreOp* out,
                             int out_max) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef MDB_cursor* c = NULL
    cdef uint8_t k[RECEIPT_KEY]
    cdef MDB_val key = val(k, RECEIPT_KEY)
    cdef MDB_val value
    cdef int n = 0
    cdef int rc = begin_read(s)
    if rc:
        return rc
    triple_key(k, owner, after_peer, after_id)
    rc = mdb_cursor_open(s.read_txn, s.receipts, &c)
    if rc == 0:
        rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE)
        if rc == 0 and memcmp(key.mv_data, k, RECEIPT_KEY) == 0:
            rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
        while rc == 0 and n < out_max and key.mv_size == RECEIPT_KEY and get64(<uint8_t*>key.mv_data) == owner:
            if intact(s, LETTER_RECEIPT, &key, &value, RECEIPT_VALUE):
                fill_receipt(&out[n], <uint8_t*>key.mv_data, <uint8_t*>value.mv_data)
                n += 1
            rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
        mdb_cursor_close(c)
    end_read(s)
    return n if rc == 0 or rc == MDB_NOTFOUND else errno_of(rc)


cdef int store_contains(MailStore* m, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef uint8_t k[IDENT_KEY]
    cdef MDB_val key = val(k, IDENT_KEY)
    cdef MDB_val value
    cdef int rc = begin_read(s)
    if rc:
        return rc
    triple_key(k, recipient, sender, id)
    rc = mdb_get(s.read_txn, s.ident, &key, &value)
    end_read(s)
    return 1 if rc == 0 else 0 if rc == MDB_NOTFOUND else errno_of(rc)


cdef int census(Lmdb* s, bint receipts, census_fn each, void* context) noexcept nogil:
    cdef MDB_cursor* c = NULL
    cdef MDB_val key, value
    cdef uint8_t* k
    cdef int rc = begin_read(s)
    if rc:
        return rc
    rc = mdb_cursor_open(s.read_txn, s.receipts if receipts else s.mail, &c)
    if rc == 0:
        rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
        while rc == 0:
            k = <uint8_t*>key.mv_data
            if receipts and key.mv_size == RECEIPT_KEY and value.mv_size == RECEIPT_VALUE + CRC_BYTES:
                each(context, get64(k), (<uint8_t*>value.mv_data)[0], 0)
            elif not receipts and key.mv_size == MAIL_KEY:
                each(context, get64(k), 255 - k[8], get64(k + 9))
            rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
        mdb_cursor_close(c)
    end_read(s)
    return 0 if rc == MDB_NOTFOUND else errno_of(rc)


cdef int store_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    return census(<Lmdb*>m.state, False, each, context)


cdef int store_receipt_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    return census(<Lmdb*>m.state, True, each, context)
