# cython: language_level=3
# HOT: once per stored envelope, deletion and receipt, in the commit thread.
"""What each mailbox operation does inside a write transaction of LMDB.  The commit thread alone calls `apply_op`.

Every function returns 0 or an error (errno, MDB_*) that ends the transaction; the result of the operation itself is
in op.result.  Pointers that LMDB gave are dead after the next change: keys and values are copied before one.
"""
from libc.errno cimport EINVAL, ENOMEM
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from wa._fastpath.lmdb_c cimport *
from wa._fastpath.lmdb_layout cimport *
from wa._fastpath.mailbox cimport *

cdef enum:
    LEVEL_DELIVERED = 0x21
    LEVEL_READ = 0x22
    LEVEL_REFUSED = 0x23

wa_crc_init()


# --- small things -----------------------------------------------------------------------------------

cdef inline int level_rank(uint8_t level) noexcept nogil:
    # A receipt only rises: accepted, refused, delivered, read.
    if level == LEVEL_READ:
        return 3
    if level == LEVEL_DELIVERED:
        return 2
    return 1 if level == LEVEL_REFUSED else 0


cdef void report_corrupt(Lmdb* s, uint8_t letter, const void* key, size_t key_n) noexcept nogil:
    cdef Stats* st = &s.stats
    cdef CorruptKey entry
    cdef uint32_t i
    memset(&entry, 0, sizeof(CorruptKey))
    entry.letter = letter
    entry.key_n = <uint8_t>(key_n if key_n < KEY_MAX else KEY_MAX)
    memcpy(entry.key, key, entry.key_n)
    pthread_mutex_lock(&s.stats_lock)
    st.corrupt_n += 1
    for i in range(st.corrupt_kept):
        if memcmp(&st.corrupt[i], &entry, sizeof(CorruptKey)) == 0:
            break
    else:
        if st.corrupt_kept < CORRUPT_KEPT_MAX:
            st.corrupt[st.corrupt_kept] = entry
            st.corrupt_kept += 1
    pthread_mutex_unlock(&s.stats_lock)


cdef bint intact(Lmdb* s, uint8_t letter, MDB_val* key, MDB_val* value, size_t size_min) noexcept nogil:
    if value.mv_size >= size_min + CRC_BYTES and sealed(letter, <uint8_t*>key.mv_data, key.mv_size,
                                                        <uint8_t*>value.mv_data, value.mv_size):
        return True
    report_corrupt(s, letter, key.mv_data, key.mv_size)
    return False


# --- operations inside a write transaction; 0 or an error that ends the transaction -----------------

cdef int drop(MDB_txn* t, MDB_dbi table, const uint8_t* k, size_t n, bint* found) noexcept nogil:
    cdef MDB_val key = val(k, n)
    cdef int rc = mdb_del(t, table, &key, NULL)
    if rc == 0:
        found[0] = True
    return 0 if rc == MDB_NOTFOUND else rc


cdef int drop_mail(Lmdb* s, MDB_txn* t, uint64_t recipient, uint8_t priority, uint64_t seq, uint32_t expires_s,
                   bint* found) noexcept nogil:
    # The envelope and its expiry; the identity is the caller's.
    cdef uint8_t k[KEY_MAX]
    cdef bint ignored = False
    cdef int rc
    mail_key(k, recipient, priority, seq)
    rc = drop(t, s.mail, k, MAIL_KEY, found)
    if rc == 0 and expires_s:
        expiry_key(k, expires_s, recipient, priority, seq)
        rc = drop(t, s.expiry, k, EXPIRY_KEY, &ignored)
    return rc


cdef int copy_intact(Lmdb* s, MDB_txn* t, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    # 1 when the envelope is there and its checksum is right, else 0; negative never.
    cdef uint8_t k[KEY_MAX]
    cdef MDB_val key = val(k, MAIL_KEY)
    cdef MDB_val value
    mail_key(k, recipient, priority, seq)
    return mdb_get(t, s.mail, &key, &value) == 0 and intact(s, LETTER_MAIL, &key, &value, MAIL_HEAD)


cdef int write_mail(Lmdb* s, MDB_txn* t, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef uint8_t small[KEY_MAX + CRC_BYTES]
    cdef size_t n = MAIL_HEAD + <size_t>op.body_n
    cdef MDB_val key = val(k, MAIL_KEY)
    cdef MDB_val value = val(NULL, n + CRC_BYTES)
    cdef uint8_t* p
    cdef int rc
    mail_key(k, op.recipient, op.priority, op.seq)
    rc = mdb_put(t, s.mail, &key, &value, MDB_RESERVE | MDB_NOOVERWRITE)
    if rc:
        return rc
    p = <uint8_t*>value.mv_data
    put64(p, op.sender)
    put64(p + 8, op.id)
    put32(p + 16, op.accepted_s)
    put32(p + 20, op.expires_s)
    p[24] = op.kind
    memcpy(p + MAIL_HEAD, op + 1, op.body_n)
    seal(LETTER_MAIL, k, MAIL_KEY, p, n)

    triple_key(k, op.recipient, op.sender, op.id)
    small[0] = op.priority
    put64(small + 1, op.seq)
    put32(small + 9, op.expires_s)
    seal(LETTER_IDENT, k, IDENT_KEY, small, IDENT_VALUE)
    key = val(k, IDENT_KEY)
    value = val(small, IDENT_VALUE + CRC_BYTES)
    rc = mdb_put(t, s.ident, &key, &value, 0)
    if rc or op.expires_s == 0:
        return rc

    expiry_key(k, op.expires_s, op.recipient, op.priority, op.seq)
    put64(small, op.sender)
    put64(small + 8, op.id)
    small[16] = op.kind
    seal(LETTER_EXPIRY, k, EXPIRY_KEY, small, EXPIRY_VALUE)
    key = val(k, EXPIRY_KEY)
    value = val(small, EXPIRY_VALUE + CRC_BYTES)
    return mdb_put(t, s.expiry, &key, &value, 0)


cdef int do_put(Lmdb* s, MDB_txn* t, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef MDB_val key = val(k, IDENT_KEY)
    cdef MDB_val value
    cdef uint8_t* p
    cdef bint ignored = False
    cdef int rc
    triple_key(k, op.recipient, op.sender, op.id)
    rc = mdb_get(t, s.ident, &key, &value)
    if rc == 0 and intact(s, LETTER_IDENT, &key, &value, IDENT_VALUE):
        p = <uint8_t*>value.mv_data
        if copy_intact(s, t, op.recipient, p[0], get64(p + 1)):
            op.result = RESULT_DUPLICATE
            return 0
        # The stored copy is damaged and here is a good one: put it in its place.
        rc = drop_mail(s, t, op.recipient, p[0], get64(p + 1), get32(p + 9), &ignored)
    if rc and rc != MDB_NOTFOUND:
        return rc
    rc = write_mail(s, t, op)
    if rc == MDB_KEYEXIST:        # two envelopes with one seq: the caller's fault, and the stored one must stay
        op.result = RESULT_FAILED
        return 0
    op.result = RESULT_OK
    return rc


cdef int do_delete(Lmdb* s, MDB_txn* t, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef MDB_val key = val(k, IDENT_KEY)
    cdef MDB_val value
    cdef uint8_t* p
    cdef bint found = False, ignored = False
    cdef int rc
    triple_key(k, op.recipient, op.sender, op.id)
    rc = mdb_get(t, s.ident, &key, &value)
    if rc == 0:
        if intact(s, LETTER_IDENT, &key, &value, IDENT_VALUE):
            p = <uint8_t*>value.mv_data
            rc = drop_mail(s, t, op.recipient, p[0], get64(p + 1), get32(p + 9), &found)
        if rc == 0:
            rc = drop(t, s.ident, k, IDENT_KEY, &ignored)
    elif rc == MDB_NOTFOUND:
        rc = 0
    if rc == 0 and not found:
        # Its identity may be lost or damaged: look where the operation says it is.
        mail_key(k, op.recipient, op.priority, op.seq)
        key = val(k, MAIL_KEY)
        rc = mdb_get(t, s.mail, &key, &value)
        p = <uint8_t*>value.mv_data
        if rc == 0 and value.mv_size >= MAIL_HEAD and get64(p) == op.sender and get64(p + 8) == op.id:
            rc = drop_mail(s, t, op.recipient, op.priority, op.seq, get32(p + 20), &found)
        elif rc == MDB_NOTFOUND:
            rc = 0
    op.result = RESULT_OK if found else RESULT_MISSING
    return rc


cdef int expire_one(Lmdb* s, MDB_txn* t, StoreBatch* b, const uint8_t* mail_k, MDB_val* hint) noexcept nogil:
    """Removes the envelope under `mail_k` (copied by the caller) with its identity and reports it.

    hint: sender ‖ id ‖ kind from the expiry table, used when the envelope is damaged; NULL when there is none.  An
    envelope of which nothing is legible is reported with sender 0.
    """
    cdef uint8_t k[KEY_MAX]
    cdef MDB_val key = val(mail_k, MAIL_KEY)
    cdef MDB_val value
    cdef StoreOp* out
    cdef uint8_t* p
    cdef bint ignored = False
    cdef int rc = mdb_get(t, s.mail, &key, &value)
    if rc:
        return 0 if rc == MDB_NOTFOUND else rc
    out = batch_add_expired(b)
    if out == NULL:
        return ENOMEM
    out.recipient, out.priority, out.seq = get64(mail_k), 255 - mail_k[8], get64(mail_k + 9)
    if intact(s, LETTER_MAIL, &key, &value, MAIL_HEAD):
        p = <uint8_t*>value.mv_data
        out.sender, out.id, out.kind = get64(p), get64(p + 8), p[24]
        out.accepted_s, out.expires_s = get32(p + 16), get32(p + 20)
    elif hint != NULL:
        p = <uint8_t*>hint.mv_data
        out.sender, out.id, out.kind = get64(p), get64(p + 8), p[16]
    rc = drop_mail(s, t, out.recipient, out.priority, out.seq, out.expires_s, &ignored)
    if rc == 0 and out.sender:
        triple_key(k, out.recipient, out.sender, out.id)
        rc = drop(t, s.ident, k, IDENT_KEY, &ignored)
    return rc


cdef int do_sweep(Lmdb* s, MDB_txn* t, StoreBatch* b, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef uint8_t hint_bytes[EXPIRY_VALUE]
    cdef MDB_val key, value, hint
    cdef MDB_cursor* c = NULL
    cdef bint ignored = False, legible
    cdef uint32_t left = op.body_n
    cdef int rc = mdb_cursor_open(t, s.expiry, &c)
    if rc:
        return rc
    hint = val(hint_bytes, EXPIRY_VALUE)
    while left > 0:
        left -= 1
        rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
        if rc:
            break
        memcpy(k, key.mv_data, EXPIRY_KEY)
        if get32(k) > op.accepted_s:
            break
        legible = intact(s, LETTER_EXPIRY, &key, &value, EXPIRY_VALUE)
        if legible:
            memcpy(hint_bytes, value.mv_data, EXPIRY_VALUE)
        rc = expire_one(s, t, b, k + 4, &hint if legible else NULL)
        if rc == 0:
            rc = drop(t, s.expiry, k, EXPIRY_KEY, &ignored)
        if rc:
            break
    mdb_cursor_close(c)
    op.result = RESULT_OK
    return 0 if rc == MDB_NOTFOUND else rc


cdef int do_purge(Lmdb* s, MDB_txn* t, StoreBatch* b, StoreOp* op) noexcept nogil:
    # Envelopes are reported; identities and waiting receipts of the mailbox go without a word.
    cdef uint8_t k[KEY_MAX]
    cdef MDB_dbi tables[3]
    cdef size_t key_n[3]
    cdef MDB_val key, value
    cdef MDB_cursor* c = NULL
    cdef bint ignored = False
    cdef int i, rc = 0
    tables[0], tables[1], tables[2] = s.mail, s.ident, s.receipts
    key_n[0], key_n[1], key_n[2] = MAIL_KEY, IDENT_KEY, RECEIPT_KEY
    for i in range(3):
        rc = mdb_cursor_open(t, tables[i], &c)
        if rc:
            return rc
        while True:
            put64(k, op.recipient)
            key = val(k, 8)
            rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE)
            if rc or key.mv_size != key_n[i] or get64(<uint8_t*>key.mv_data) != op.recipient:
                break
            memcpy(k, key.mv_data, key_n[i])
            rc = expire_one(s, t, b, k, NULL) if i == 0 else drop(t, tables[i], k, key_n[i], &ignored)
            if rc:
                break
        mdb_cursor_close(c)
        if rc and rc != MDB_NOTFOUND:
            return rc
    op.result = RESULT_OK
    return 0


cdef int do_receipt_put(Lmdb* s, MDB_txn* t, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef uint8_t v[RECEIPT_VALUE + CRC_BYTES]
    cdef MDB_val key = val(k, RECEIPT_KEY)
    cdef MDB_val value
    cdef int rc
    triple_key(k, op.recipient, op.sender, op.id)
    rc = mdb_get(t, s.receipts, &key, &value)
    if rc and rc != MDB_NOTFOUND:
        return rc
    op.result = RESULT_OK
    if rc == 0 and intact(s, LETTER_RECEIPT, &key, &value, RECEIPT_VALUE):
        op.result = RESULT_DUPLICATE
        if level_rank((<uint8_t*>value.mv_data)[0]) >= level_rank(op.kind):
            return 0
    v[0] = op.kind
    v[1], v[2] = <uint8_t>(op.code >> 8), <uint8_t>op.code
    put32(v + 3, op.accepted_s)
    put32(v + 7, op.expires_s)
    seal(LETTER_RECEIPT, k, RECEIPT_KEY, v, RECEIPT_VALUE)
    value = val(v, RECEIPT_VALUE + CRC_BYTES)
    return mdb_put(t, s.receipts, &key, &value, 0)


cdef int do_receipt_delete(Lmdb* s, MDB_txn* t, StoreOp* op) noexcept nogil:
    cdef uint8_t k[KEY_MAX]
    cdef MDB_val key = val(k, RECEIPT_KEY)
    cdef MDB_val value
    cdef bint ignored = False
    cdef int rc
    triple_key(k, op.recipient, op.sender, op.id)
    rc = mdb_get(t, s.receipts, &key, &value)
    if rc:
        op.result = RESULT_MISSING
        return 0 if rc == MDB_NOTFOUND else rc
    if intact(s, LETTER_RECEIPT, &key, &value, RECEIPT_VALUE):
        if level_rank((<uint8_t*>value.mv_data)[0]) > level_rank(op.kind):
            op.result = RESULT_DUPLICATE
            return 0
    op.result = RESULT_OK
    return drop(t, s.receipts, k, RECEIPT_KEY, &ignored)


cdef int apply_op(Lmdb* s, MDB_txn* t, StoreBatch* b, StoreOp* op) noexcept nogil:
    if op.what == OP_PUT:
        return do_put(s, t, op)
    if op.what == OP_DELETE:
        return do_delete(s, t, op)
    if op.what == OP_RECEIPT_PUT:
        return do_receipt_put(s, t, op)
    if op.what == OP_RECEIPT_DELETE:
        return do_receipt_delete(s, t, op)
    if op.what == OP_SWEEP:
        return do_sweep(s, t, b, op)
    if op.what == OP_PURGE:
        return do_purge(s, t, b, op)
    return EINVAL
