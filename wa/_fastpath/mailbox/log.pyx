# cython: language_level=3
# HOT: every row that is written passes here, in the commit thread.
"""The log of a mailbox store, and the turns that change it.  The contract is mailbox/log.pxd, the bytes
mailbox/layout.pxd."""
from libc.errno cimport ENOMEM, EOVERFLOW
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memset
from wa._fastpath.mailbox.index cimport *
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.tables cimport NO_ENTRY, room

wa_crc_init()


# --- damage -------------------------------------------------------------------------------------------

cdef void report(Lmdb* s, CorruptKey* found) noexcept nogil:
    cdef Stats* st = &s.stats
    cdef uint32_t i
    pthread_mutex_lock(&s.stats_lock)
    st.corrupt_n += 1
    for i in range(st.corrupt_kept):
        if memcmp(&st.corrupt[i], found, sizeof(CorruptKey)) == 0:
            break
    else:
        if st.corrupt_kept < CORRUPT_KEPT_MAX:
            st.corrupt[st.corrupt_kept] = found[0]
            st.corrupt_kept += 1
    pthread_mutex_unlock(&s.stats_lock)


cdef void report_mail(Lmdb* s, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    cdef CorruptKey found
    memset(&found, 0, sizeof(found))
    found.letter, found.key_n = CORRUPT_MAIL, 17
    put64(found.key, recipient)
    found.key[8] = 255 - priority
    put64(found.key + 9, seq)
    report(s, &found)


cdef void report_receipt(Lmdb* s, uint64_t owner, uint64_t peer, uint64_t id) noexcept nogil:
    cdef CorruptKey found
    memset(&found, 0, sizeof(found))
    found.letter, found.key_n = CORRUPT_RECEIPT, 24
    put64(found.key, owner)
    put64(found.key + 8, peer)
    put64(found.key + 16, id)
    report(s, &found)


cdef void report_number(Lmdb* s, uint8_t letter, uint64_t number) noexcept nogil:
    cdef CorruptKey found
    memset(&found, 0, sizeof(found))
    found.letter, found.key_n = letter, 8
    put64(found.key, number)
    report(s, &found)


cdef void report_entry(Lmdb* s, uint32_t entry) noexcept nogil:
    cdef Entry* e = &s.index.entries[entry]
    cdef uint8_t kind = e.flags & KIND_MASK
    if kind == KIND_BODY:
        report_number(s, CORRUPT_BODY, e.order)
    elif kind == KIND_RECEIPT:
        report_receipt(s, s.index.boxes[e.box].owner, e.order, receipt_id(e))
    else:
        report_mail(s, s.index.boxes[e.box].owner, e.rank, e.order)


# --- rows ---------------------------------------------------------------------------------------------

cdef int row_append(Lmdb* s, size_t n, uint8_t** row, uint64_t* place) noexcept nogil:
    cdef uint8_t k[8]
    cdef MDB_val key = val(k, 8)
    cdef MDB_val value = val(NULL, n)
    cdef int rc
    if s.turn.place >> PLACE_BITS:
        return EOVERFLOW
    put64(k, s.turn.place)
    rc = mdb_put(s.turn.t, s.log, &key, &value, MDB_RESERVE | s.append_flag)
    if rc:
        return rc
    row[0] = <uint8_t*>value.mv_data
    place[0] = s.turn.place
    s.turn.place += 1
    s.turn.appended += n
    s.turn.log_bytes += class_bytes(size_class(n))
    return 0


cdef int row_get(Lmdb* s, uint64_t place, MDB_val* row, bint* is_legible) noexcept nogil:
    cdef uint8_t k[8]
    cdef MDB_val key = val(k, 8)
    cdef int rc
    put64(k, place)
    rc = mdb_cursor_get(s.turn.look, &key, row, MDB_SET)
    is_legible[0] = rc == 0 and legible(place, <uint8_t*>row.mv_data, row.mv_size)
    return 0 if rc == MDB_NOTFOUND else rc


# --- turns --------------------------------------------------------------------------------------------

cdef bint push_place(uint64_t** places, uint32_t* n, uint32_t* capacity, uint64_t place) noexcept nogil:
    if not room(<void**>places, capacity, n[0], sizeof(uint64_t)):
        return False
    places[0][n[0]] = place
    n[0] += 1
    return True


cdef int note(Lmdb* s, uint8_t what, uint32_t entry, uint64_t value) noexcept nogil:
    cdef Turn* turn = &s.turn
    cdef Change* c
    if not room(<void**>&turn.changes, &turn.changes_capacity, turn.changes_n, sizeof(Change)):
        return ENOMEM
    c = &turn.changes[turn.changes_n]
    c.what, c.entry, c.value = what, entry, value
    turn.changes_n += 1
    return 0


cdef int added(Lmdb* s, uint32_t entry) noexcept nogil:
    if entry == NO_ENTRY:
        return ENOMEM
    if note(s, CHANGE_ADDED, entry, 0):
        entry_remove(&s.index, entry)
        return ENOMEM
    s.turn.live_bytes += entry_bytes(&s.index.entries[entry])
    return 0


cdef int body_need(Lmdb* s, uint32_t body, int by) noexcept nogil:
    cdef Entry* e = &s.index.entries[body]
    cdef int rc = note(s, CHANGE_NEEDED, body, <uint64_t><int64_t>by)
    if rc:
        return rc
    e.box += <uint32_t>by
    return end_entry(s, body) if e.box == 0 else 0


cdef int end_entry(Lmdb* s, uint32_t entry) noexcept nogil:
    cdef Turn* turn = &s.turn
    cdef Entry* e = &s.index.entries[entry]
    cdef MDB_val row
    cdef bint known
    cdef uint32_t body
    cdef int rc
    if e.flags & KIND_MASK == KIND_SHARED:
        rc = row_get(s, entry_place(e), &row, &known)
        if rc:
            return rc
        # Of a damaged row the number is not believed: its body is let go at the next start, which counts anew.
        if known:
            body = body_find(&s.index, get64(<uint8_t*>row.mv_data + AT_NUMBER), False)
            rc = body_need(s, body, -1) if body != NO_ENTRY else 0
            if rc:
                return rc
    rc = note(s, CHANGE_DYING, entry, expires_of(&s.index, entry))
    if rc:
        return rc
    entry_dying(&s.index, entry)
    if entry_place(e) == 0:
        return 0                  # a shared body whose row was lost
    turn.live_bytes -= entry_bytes(e)
    if not push_place(&turn.ended, &turn.ended_n, &turn.ended_capacity, entry_place(e)):
        return ENOMEM
    return 0


cdef int turn_begin(Lmdb* s) noexcept nogil:
    cdef Turn* turn = &s.turn
    cdef int rc
    turn.changes_n = turn.ended_n = 0
    turn.place, turn.tail, turn.cut = s.place, s.tail, s.cut
    turn.appended = turn.moved_n = turn.cleaned_n = 0
    turn.log_bytes = turn.live_bytes = 0
    rc = mdb_txn_begin(s.env, NULL, 0, &turn.t)
    if rc:
        return rc
    rc = mdb_cursor_open(turn.t, s.log, &turn.look)
    if rc:
        mdb_txn_abort(turn.t)
    return rc


cdef int write_ended(Lmdb* s) noexcept nogil:
    """What this turn ended, and what replay() left to be ended, at the end of the log."""
    cdef Turn* turn = &s.turn
    cdef uint64_t total = <uint64_t>s.stale_n + turn.ended_n, at = 0, place
    cdef uint8_t* row
    cdef uint8_t* p
    cdef size_t n, i
    cdef int rc
    while at < total or turn.cut != s.cut:
        n = total - at if total - at < ENDED_PLACES_MAX else ENDED_PLACES_MAX
        rc = row_append(s, ENDED_HEAD + 8 * n + CRC_BYTES, &row, &place)
        if rc:
            return rc
        row[0] = ROW_ENDED
        put64(row + AT_CUT, turn.cut)
        p = row + ENDED_HEAD
        for i in range(n):
            put64(p + 8 * i, s.stale[at + i] if at + i < s.stale_n else turn.ended[at + i - s.stale_n])
        seal(place, row, ENDED_HEAD + 8 * n + CRC_BYTES)
        at += n
        if at == total:
            break
    return 0


cdef void take_back(Lmdb* s) noexcept nogil:
    """The index as it was before the turn, newest change first."""
    cdef Turn* turn = &s.turn
    cdef Change* c
    while turn.changes_n:
        turn.changes_n -= 1
        c = &turn.changes[turn.changes_n]
        if c.what == CHANGE_ADDED:
            entry_remove(&s.index, c.entry)
        elif c.what == CHANGE_DYING:
            entry_revive(&s.index, c.entry, <uint32_t>c.value)
        elif c.what == CHANGE_NEEDED:
            s.index.entries[c.entry].box -= <uint32_t>c.value
    turn.log_bytes = turn.live_bytes = 0


cdef void show(Lmdb* s) noexcept nogil:
    """The loop sees the turn."""
    cdef Turn* turn = &s.turn
    cdef Change* c
    cdef uint32_t i
    s.place, s.tail, s.cut = turn.place, turn.tail, turn.cut
    s.log_bytes += <uint64_t>turn.log_bytes
    s.live_bytes += <uint64_t>turn.live_bytes
    s.stale_n = 0
    show_begin(&s.index, s.place)
    for i in range(turn.changes_n):
        c = &turn.changes[i]
        if c.what == CHANGE_MOVED:
            set_place(&s.index, c.entry, c.value)
        elif c.what == CHANGE_DYING:
            entry_remove(&s.index, c.entry)
    show_end(&s.index)
    pthread_mutex_lock(&s.stats_lock)
    s.stats.moved_n += turn.moved_n
    s.stats.cleaned_n += turn.cleaned_n
    pthread_mutex_unlock(&s.stats_lock)


cdef void turn_abort(Lmdb* s) noexcept nogil:
    mdb_cursor_close(s.turn.look)
    mdb_txn_abort(s.turn.t)
    take_back(s)


cdef int turn_commit(Lmdb* s) noexcept nogil:
    cdef int rc = write_ended(s)
    if rc:
        turn_abort(s)
        return rc
    mdb_cursor_close(s.turn.look)
    rc = mdb_txn_commit(s.turn.t)
    if rc:
        take_back(s)
    else:
        show(s)
    return rc
