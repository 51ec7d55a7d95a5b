# cython: language_level=3
# HOT: every live envelope enters the queue; most are acknowledged before their window is over.
"""The linger window; see custody/linger.pxd."""
from libc.stdint cimport uint32_t, uint8_t
from libc.string cimport memcpy
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.base.codes cimport CODE_TRY_LATER
from wa._fastpath.custody.batches cimport batch_op
from wa._fastpath.custody.entries cimport linger_push, linger_remove
from wa._fastpath.custody.receipts cimport tell
from wa._fastpath.custody.states cimport ENTRY_COMMITTING, ENTRY_LINGER, ENTRY_REFUSED, entry_to
from wa._fastpath.mailbox.contract cimport OP_PUT, ORIGIN_LINGER, StoreOp
from wa._fastpath.state.core cimport Conn, Core, Entry
from wa._fastpath.state.trace cimport trace, TRACE_LINGER_OVER
from wa._fastpath.wire.frames cimport F_REFUSED


cdef void linger_begin(Core* w, Entry* e) noexcept nogil:
    entry_to(w, e, ENTRY_LINGER)
    e.linger_until_ms = w.now_ms + w.bounds.linger_ms
    linger_push(&w.custody, e)


cdef void commit_entry(Core* w, Entry* e) noexcept nogil:
    """The linger window is over, or the connection is: to disk with it."""
    cdef StoreOp* op = batch_op(w, OP_PUT, e.env.body_n)
    wa_assert(e.body != NULL, b"what is to be written is here")
    linger_remove(&w.custody, e)
    if op == NULL:
        entry_to(w, e, ENTRY_REFUSED)
        tell(w, &e.env, F_REFUSED, CODE_TRY_LATER, True)
        return
    op.origin = ORIGIN_LINGER
    op.env = e.env
    op.seq = e.mail_seq
    memcpy(<uint8_t*>(op + 1), e.body, e.env.body_n)
    entry_to(w, e, ENTRY_COMMITTING)
    trace(w, TRACE_LINGER_OVER, e.env.sender, e.env.recipient, e.env.id, 0)
    w.stats.linger_commits += 1


cdef void commit_lingering(Core* w, Conn* c) noexcept nogil:
    """A younger envelope goes to disk: the older ones go with it, or a crash would turn their order round."""
    cdef Entry* e
    cdef uint32_t s
    if c.active == NULL or c.active.ring == NULL:
        return
    for s in range(c.active.seq_base, c.seq_next):
        e = c.active.ring[s % DELIVERY_WINDOW_MAX]
        if e != NULL and e.state == ENTRY_LINGER:
            commit_entry(w, e)


cdef void linger_fire(Core* w) noexcept nogil:
    while w.custody.oldest != NULL and w.custody.oldest.linger_until_ms <= w.now_ms:
        commit_entry(w, w.custody.oldest)
