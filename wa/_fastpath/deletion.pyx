# cython: language_level=3
# HOT: one call per stored envelope that is acknowledged.
"""Deleting what was acknowledged; see deletion.pxd."""
from wa._fastpath.batches cimport batch_op
from wa._fastpath.conntable cimport directory_find
from wa._fastpath.core cimport Core, Device, ENTRY_DELETING, ENTRY_RECEIPT, Entry, NONE_INDEX
from wa._fastpath.custody cimport custody_find
from wa._fastpath.delivery cimport entry_end
from wa._fastpath.mailbox cimport OP_DELETE, OP_RECEIPT_DELETE, RESULT_MISSING, RESULT_OK, StoreOp
from wa._fastpath.slab cimport slab_give


cdef int delete_row(Core* w, const Entry* e) noexcept nogil:
    cdef StoreOp* op = batch_op(w, OP_RECEIPT_DELETE if e.state == ENTRY_RECEIPT else OP_DELETE, 0)
    if op == NULL:
        return -1
    op.kind = e.kind
    op.priority = e.priority
    op.recipient = e.recipient
    op.sender = e.sender
    op.id = e.id
    op.seq = e.mail_seq
    return 0


cdef void delete_envelope(Core* w, Entry* e) noexcept nogil:
    """Its device has it.  Until the row is gone a sweep or a drain may still meet it, and must know that."""
    if e.body != NULL:
        slab_give(&w.slab, e.body, e.body_capacity)
        e.body = NULL
    e.state = ENTRY_DELETING
    w.custody.deleting += 1
    e.conn = NONE_INDEX
    if delete_row(w, e) != 0:
        keep_undeleted(w, e)


cdef void keep_undeleted(Core* w, Entry* e) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, e.recipient)
    e.older = w.custody.undeleted
    w.custody.undeleted = e
    if d != NULL:
        d.undeleted += 1


cdef Entry* take_undeleted(Core* w, Entry* e) noexcept nogil:
    """e, off the list that it was in; returns the one after it."""
    cdef Device* d = directory_find(&w.directory, e.recipient)
    cdef Entry* following = e.older
    e.older = NULL
    if d != NULL and d.undeleted:
        d.undeleted -= 1
    return following


cdef void delete_again(Core* w) noexcept nogil:
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(w, e)
        if delete_row(w, e) != 0:
            keep_undeleted(w, e)
        e = following


cdef void delete_no_more(Core* w) noexcept nogil:
    """The worker stops and the disk still refuses: these rows are delivered and acknowledged once more."""
    cdef Entry* e = w.custody.undeleted
    cdef Entry* following
    w.custody.undeleted = NULL
    while e != NULL:
        following = take_undeleted(w, e)
        entry_end(w, e)
        e = following


cdef void deleted(Core* w, const StoreOp* op) noexcept nogil:
    cdef Entry* e = custody_find(&w.custody, op.recipient, op.sender, op.id)
    if e == NULL or e.state != ENTRY_DELETING or e.mail_seq != op.seq:
        return
    if op.result == RESULT_OK or op.result == RESULT_MISSING:
        entry_end(w, e)
    else:
        keep_undeleted(w, e)
