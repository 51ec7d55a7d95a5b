# cython: language_level=3
# HOT: one acknowledgement per delivery.
"""Acknowledgements; see custody/acks.pxd."""
from libc.stdint cimport uint64_t
from libc.string cimport memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.envelope cimport Envelope
from wa._fastpath.conn.lists cimport mark_dirty, queue_drain
from wa._fastpath.custody.counts cimport counted_at, held_sub
from wa._fastpath.custody.deletion cimport delete_envelope, delete_row
from wa._fastpath.custody.flight cimport flight_take
from wa._fastpath.custody.receipts cimport tell
from wa._fastpath.custody.states cimport (
    ENTRY_COMMITTING, entry_end, ENTRY_LINGER, ENTRY_RECEIPT, ENTRY_REFUSED, ENTRY_STORED,
)
from wa._fastpath.state.core cimport Active, Conn, Core, Device, Entry
from wa._fastpath.state.trace cimport trace, TRACE_ACKNOWLEDGED, TRACE_READ
from wa._fastpath.wire.frames cimport F_DELIVERED, F_READ


cdef void finish(Core* w, Entry* e) noexcept nogil:
    """Its device has it, and it is off the ring."""
    cdef Device* d
    w.stats.acknowledged += 1
    if e.state == ENTRY_RECEIPT:
        delete_row(w, e)      # when that fails it comes again with the next login, and is acknowledged again
        entry_end(w, e)
        return
    wa_assert(ENTRY_LINGER <= e.state <= ENTRY_REFUSED, b"what is in flight can be acknowledged")
    trace(w, TRACE_ACKNOWLEDGED, e.env.sender, e.env.recipient, e.env.id, 0)
    # "delivered" is the first answer unless "accepted" (STORED) or a refusal (REFUSED) was told before.
    tell(w, &e.env, F_DELIVERED, 0, e.state == ENTRY_LINGER or e.state == ENTRY_COMMITTING)
    d = counted_at(w, e.env.recipient, e.mail_seq)
    if d != NULL:
        held_sub(w, d)
    if e.state == ENTRY_COMMITTING or e.state == ENTRY_STORED:
        delete_envelope(w, e)
    else:
        entry_end(w, e)


cdef int acknowledge(Core* w, Conn* c, uint64_t first, uint64_t count) noexcept nogil:
    cdef Active* a = c.active
    cdef uint64_t number
    cdef Entry* e
    if first == 0 or first >= c.seq_next or count > c.seq_next - first:
        return -1
    if a == NULL or a.ring == NULL:
        return 0              # everything was acknowledged before: an answer to a resend
    for number in range(first, first + count):
        e = flight_take(c, number)
        if e != NULL:
            finish(w, e)
    if a.drain != NULL:
        queue_drain(w, c)
    mark_dirty(w, c)          # the flush gives back what is not needed any more
    return 0


cdef void mark_read(Core* w, Conn* c, uint64_t sender, uint64_t id) noexcept nogil:
    cdef Envelope v
    memset(&v, 0, sizeof(Envelope))
    v.sender, v.recipient, v.id = sender, c.address, id
    trace(w, TRACE_READ, sender, c.address, id, 0)
    tell(w, &v, F_READ, 0, False)
