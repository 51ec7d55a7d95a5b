# cython: language_level=3
# HOT: it runs inside commits, a bounded step in each, as long as more than half of the log is dead.
"""Cleaning: the oldest rows of the log are moved to its end if they live, and deleted.

It takes two turns.  The first moves what lives below a new cut and writes the cut; the next ones delete the rows below
it.  In between the loop still finds a moved row in its old place if it looked the place up before the move was shown.

Always the oldest first: when it is the turn of a row that ends others, those are below it and gone already, so it is
never moved.  Between two moves of one row the whole log passes the cleaner, and with it all that was dead at the first
move, at least half of the log: over time not more bytes are moved than died.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy
from wa._fastpath.mailbox.index cimport *
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.tables cimport NO_ENTRY

cdef enum:
    LOG_FLOOR_BYTES = 8 << 20     # under it cleaning is not worth the trouble
    STEP_BYTES = 128 << 10        # of rows in one turn, about 0.3 ms of work, or twice what the turn wrote: it keeps
                                  # ahead
    ROW_COST_BYTES_MAX = 256      # a row that is only passed or deleted costs no more, however long it is
    STEP_MOVED_BYTES = 16 << 10   # when there is no room: what is moved needs some before any is won

wa_crc_init()


cdef bint clean_wanted(Lmdb* s) noexcept nogil:
    cdef uint64_t log = s.log_bytes + <uint64_t>s.turn.log_bytes, live = s.live_bytes + <uint64_t>s.turn.live_bytes
    if s.pressed:
        return 8 * (log - live) > log
    return log > LOG_FLOOR_BYTES and log - live > live


cdef inline uint64_t row_cost(size_t n) noexcept nogil:
    return n if n < ROW_COST_BYTES_MAX else ROW_COST_BYTES_MAX


cdef uint64_t step_bytes(Lmdb* s) noexcept nogil:
    return 2 * s.turn.appended if 2 * s.turn.appended > STEP_BYTES else STEP_BYTES


cdef uint32_t living(Lmdb* s, uint64_t place, const uint8_t* p) noexcept nogil:
    """The entry whose row this legible one is, or NO_ENTRY."""
    cdef Index* x = &s.index
    cdef uint32_t i
    if p[0] == ROW_ENVELOPE or p[0] == ROW_SHARED:
        i = index_first(x, index_hash(x, get64(p + AT_RECIPIENT), get64(p + AT_SENDER), get64(p + AT_ID)))
    elif p[0] == ROW_BODY:
        i = index_first(x, body_hash(x, get64(p + AT_BODY_NUMBER)))
    elif p[0] == ROW_RECEIPT:
        i = receipt_find(x, get64(p + AT_OWNER), get64(p + AT_PEER), get64(p + AT_RECEIPT_ID))
        return i if i != NO_ENTRY and entry_place(&x.entries[i]) == place else NO_ENTRY
    else:
        return NO_ENTRY
    while i != NO_ENTRY and (entry_place(&x.entries[i]) != place or x.entries[i].flags & FLAG_DYING):
        i = index_after(x, i)
    return i


cdef int move(Lmdb* s, uint32_t entry, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t* row
    cdef void* grown
    cdef uint64_t place
    cdef int rc
    if n > s.scratch_n:
        grown = realloc(s.scratch, n)
        if grown == NULL:
            return ENOMEM
        s.scratch = <uint8_t*>grown
        s.scratch_n = n
    memcpy(s.scratch, p, n)       # LMDB may reuse what p points to while it makes room
    rc = row_append(s, n, &row, &place)
    if rc:
        return rc
    memcpy(row, s.scratch, n)
    move_seal(place, row, n)
    s.turn.moved_n += 1
    return note(s, CHANGE_MOVED, entry, place)


cdef int move_tail(Lmdb* s, MDB_cursor* c, uint64_t bytes_max) noexcept nogil:
    cdef uint8_t k[8]
    cdef MDB_val key, value
    cdef uint64_t place, seen = 0, moved = 0
    cdef uint32_t entry
    cdef bint again = True
    cdef int rc = 0
    while seen < bytes_max and moved < (<uint64_t>STEP_MOVED_BYTES if s.pressed else bytes_max):
        if again:
            put64(k, s.turn.cut)
            key = val(k, 8)
        rc = mdb_cursor_get(c, &key, &value, MDB_SET_RANGE if again else MDB_NEXT)
        again = False
        if rc:
            break
        place = get64(<uint8_t*>key.mv_data)
        if place >= s.place:
            break
        entry = NO_ENTRY
        if legible(place, <uint8_t*>value.mv_data, value.mv_size):
            entry = living(s, place, <uint8_t*>value.mv_data)
        if entry == NO_ENTRY:
            seen += row_cost(value.mv_size)
        else:
            if s.pressed and seen > moved:
                break             # first the room of those that were dead in front of it
            seen += value.mv_size
            moved += value.mv_size
            again = True
            rc = move(s, entry, <uint8_t*>value.mv_data, value.mv_size)
            if rc:
                break
        s.turn.cut = place + 1
    return 0 if rc == MDB_NOTFOUND else rc


cdef int drop_tail(Lmdb* s, MDB_cursor* c, uint64_t bytes_max) noexcept nogil:
    """Deletes rows below the cut of an earlier turn."""
    cdef MDB_val key, value
    cdef uint64_t place, bytes = 0
    cdef size_t n
    cdef int rc
    while s.turn.tail < s.cut and bytes < bytes_max:
        rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
        if rc == MDB_NOTFOUND:
            s.turn.tail = s.cut
            break
        if rc:
            return rc
        place = get64(<uint8_t*>key.mv_data)
        if place >= s.cut:
            s.turn.tail = s.cut
            break
        n = value.mv_size
        rc = mdb_cursor_del(c, 0)
        if rc:
            return rc
        bytes += row_cost(n)
        s.turn.log_bytes -= class_bytes(size_class(n))
        s.turn.cleaned_n += 1
        s.turn.tail = place + 1
    return 0


cdef int clean(Lmdb* s) noexcept nogil:
    cdef uint64_t bytes_max = step_bytes(s)
    cdef MDB_cursor* c = NULL
    cdef int rc
    if s.tail >= s.cut and not clean_wanted(s):
        return 0
    rc = mdb_cursor_open(s.turn.t, s.log, &c)
    if rc:
        return rc
    rc = drop_tail(s, c, bytes_max)
    if rc == 0 and s.turn.tail >= s.cut and clean_wanted(s):
        rc = move_tail(s, c, bytes_max)
    mdb_cursor_close(c)
    return rc
