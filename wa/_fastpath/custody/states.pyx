# cython: language_level=3
# HOT: every envelope in custody passes here two to four times.
"""States of an entry; see custody/states.pxd for the picture and the counts."""
from libc.stdint cimport uint8_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.slab cimport slab_give
from wa._fastpath.custody.entries cimport custody_remove, entry_free, linger_remove
from wa._fastpath.state.core cimport Core, Entry, NONE_INDEX

cdef extern from *:
    """
    /* What may follow what: bit n is state 0x30 + n. */
    #define TO(n) (1u << (n))
    static const unsigned short wa_entry_transitions[9] = {
        /* NEW        */ TO(1) | TO(3) | TO(5) | TO(7),
        /* LINGER     */ TO(2) | TO(4) | TO(8),
        /* COMMITTING */ TO(3) | TO(4) | TO(6),
        /* STORED     */ TO(4) | TO(6) | TO(8),
        /* REFUSED    */ TO(2) | TO(4) | TO(8),    /* 2: its sender sent it again; 4: refused again */
        /* RECEIPT    */ TO(8),
        /* DELETING   */ TO(8),
        /* DROPPING   */ TO(8),
        /* ENDED      */ 0,
    };
    """
    const unsigned short wa_entry_transitions[9]

cdef enum:
    FIRST = 0x30


cdef inline bint may_follow(uint8_t before, uint8_t after) noexcept nogil:
    if before == ENTRY_NEW:
        before = FIRST
    return before >= FIRST and before <= ENTRY_ENDED and after > FIRST and after <= ENTRY_ENDED and (
        wa_entry_transitions[before - FIRST] >> (after - FIRST) & 1
    ) != 0


def transitions() -> set:
    """{(before, after)} as the table has it, for tests."""
    names = ("NEW", "LINGER", "COMMITTING", "STORED", "REFUSED", "RECEIPT", "DELETING", "DROPPING", "ENDED")
    return {(names[b], names[a]) for b in range(9) for a in range(1, 9) if may_follow(FIRST + b if b else 0, FIRST + a)}


cdef void entry_to(Core* w, Entry* e, uint8_t state) noexcept nogil:
    wa_assert(may_follow(e.state, state), b"this state follows that one")
    wa_assert((state != ENTRY_LINGER and state != ENTRY_COMMITTING) or e.body != NULL,
              b"what is not on disk has its body")
    wa_assert((state != ENTRY_DELETING and state != ENTRY_DROPPING) or e.conn == NONE_INDEX,
              b"on no connection any more")
    if state == ENTRY_DELETING or state == ENTRY_DROPPING:
        w.custody.deleting += 1
        w.custody.dropping += state == ENTRY_DROPPING
    e.state = state


cdef void entry_drop_body(Core* w, Entry* e) noexcept nogil:
    if e.body != NULL:
        slab_give(&w.slab, e.body, e.body_capacity)
        e.body = NULL


cdef void entry_end(Core* w, Entry* e) noexcept nogil:
    wa_assert(may_follow(e.state, ENTRY_ENDED), b"this state may end")
    linger_remove(&w.custody, e)
    if e.state != ENTRY_RECEIPT:
        custody_remove(&w.custody, e)
    if e.state == ENTRY_DELETING or e.state == ENTRY_DROPPING:
        wa_assert(w.custody.deleting > 0, b"what is being deleted is counted")
        w.custody.deleting -= 1
        w.custody.dropping -= e.state == ENTRY_DROPPING
    entry_drop_body(w, e)
    e.state = ENTRY_ENDED
    entry_free(&w.custody, e)
