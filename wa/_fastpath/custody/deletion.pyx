# cython: language_level=3
# HOT: one call per stored envelope that is acknowledged.
"""Deleting what was acknowledged; see custody/deletion.pxd."""
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.custody.batches cimport batch_op
from wa._fastpath.custody.counts cimport counted_at, undeleted_add, undeleted_sub
from wa._fastpath.custody.entries cimport custody_find
from wa._fastpath.custody.states cimport ENTRY_DELETING, entry_drop_body, entry_end, ENTRY_RECEIPT, entry_to
from wa._fastpath.mailbox.contract cimport OP_DELETE, OP_RECEIPT_DELETE, RESULT_MISSING, RESULT_OK, StoreOp
from wa._fastpath.state.core cimport Core, Device, Entry


cdef int delete_row(Core* w, const Entry* e) noexcept nogil:
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_DELETE if e.state == ENTRY_RECEIPT else OP_DELETE, 0)
    if op == NULL:
        return -1
    op.env = e.env
    op.env.body_n = 0
    op.level = e.level
    op.seq = e.mail_seq
    return 0


cdef void delete_envelope(Core* w, Entry* e) noexcept nogil:
    """Its device has it.  Until the row is gone a sweep or a drain may still meet it, and must know that; and its place
    in the mailbox is taken."""
    cdef Device* d = counted_at(w, e.env.recipient, e.mail_seq)
    entry_drop_body(w, e)
    entry_to(w, e, ENTRY_DELETING)
    if d != NULL:
        undeleted_add(w, d)
    if delete_row(w, e) != 0:
        keep_undeleted(w, e)


cdef void keep_undeleted(Core* w, Entry* e) noexcept nogil:
    wa_assert(e.state == ENTRY_DELETING, b"only deletions are tried again")
    e.older = w.custody.undeleted
    w.custody.undeleted = e


cdef Entry* take_undeleted(Entry* e) noexcept nogil:
    """e, off the list that it was in; returns the one after it."""
    cdef Entry* following = e.older
    e.older = NULL
    return following


cdef void delete_again(Core* w) noexcept nogil:
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(e)
        if delete_row(w, e) != 0:
            keep_undeleted(w, e)
        e = following


cdef void delete_no_more(Core* w) noexcept nogil:
    """The worker stops and the disk still refuses: these rows are delivered and acknowledged once more."""
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(e)
        delete_end(w, e)
        e = following


cdef void delete_end(Core* w, Entry* e) noexcept nogil:
    cdef Device* d = counted_at(w, e.env.recipient, e.mail_seq)
    if d != NULL:
        undeleted_sub(w, d)
    entry_end(w, e)


cdef void settle_delete(Core* w, const StoreOp* op) noexcept nogil:
    cdef Entry* e = custody_find(&w.custody, op.env.recipient, op.env.sender, op.env.id)
    if e == NULL or e.state != ENTRY_DELETING or e.mail_seq != op.seq:
        return
    if op.result == RESULT_OK or op.result == RESULT_MISSING:
        delete_end(w, e)
    else:
        keep_undeleted(w, e)
