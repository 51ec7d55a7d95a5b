# cython: language_level=3
# COLD: at every start, once per stored row; half a second for a million is the aim.
"""The index of a mailbox store is built from its log: first what was ended, then what is left.

The log may say one thing twice when a row that ended another is damaged: then the later row counts, and the earlier one
is ended with the next commit.  A row of which nothing is legible is reported, is nobody's, and goes with the next
cleaning.
"""
from libc.errno cimport ENOMEM
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, qsort
from libc.string cimport memset
from wa._fastpath.mailbox.index cimport *
from wa._fastpath.mailbox.layout cimport *
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.tables cimport NO_ENTRY

wa_crc_init()

ctypedef struct Ended:            # places in order
    uint64_t* at
    uint32_t n, capacity
    uint32_t next                 # the first one that was not passed yet


cdef enum:
    COMING_MAX = 24               # rows read ahead of the index, so that its memory is there when it is their turn

ctypedef struct Coming:
    const uint8_t* p
    size_t n
    uint64_t place
    uint32_t hash


cdef int by_place(const void* a, const void* b) noexcept nogil:
    cdef uint64_t x = (<const uint64_t*>a)[0], y = (<const uint64_t*>b)[0]
    return (x > y) - (x < y)


cdef inline bint is_ended(Ended* ended, uint64_t place) noexcept nogil:
    # Legible rows come in order.
    while ended.next < ended.n and ended.at[ended.next] < place:
        ended.next += 1
    return ended.next < ended.n and ended.at[ended.next] == place


cdef bint was_ended(const Ended* ended, uint64_t place) noexcept nogil:
    # Illegible ones may lie about their place.
    cdef uint32_t low = 0, high = ended.n, middle
    while low < high:
        middle = low + (high - low) // 2
        if ended.at[middle] < place:
            low = middle + 1
        else:
            high = middle
    return low < ended.n and ended.at[low] == place


cdef int read_ended(Lmdb* s, MDB_cursor* c, Ended* ended) noexcept nogil:
    cdef MDB_val key, value
    cdef uint8_t* p
    cdef uint64_t place
    cdef size_t at
    cdef int rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
    if rc == 0:
        s.tail = get64(<uint8_t*>key.mv_data) if key.mv_size == 8 else 0
    while rc == 0:
        p = <uint8_t*>value.mv_data
        s.log_bytes += class_bytes(size_class(value.mv_size))
        place = get64(<uint8_t*>key.mv_data) if key.mv_size == 8 else <uint64_t>-1
        if place >> PLACE_BITS:
            s.append_flag = 0     # a damaged key that is above all that can come
        else:
            if place >= s.place:
                s.place = place + 1
            if value.mv_size and p[0] == ROW_ENDED and legible(place, p, value.mv_size):
                if get64(p + AT_CUT) > s.cut:
                    s.cut = get64(p + AT_CUT)
                at = ENDED_HEAD
                while at + 8 + CRC_BYTES <= value.mv_size:
                    if not push_place(&ended.at, &ended.n, &ended.capacity, get64(p + at)):
                        return ENOMEM
                    at += 8
        rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
    if rc != MDB_NOTFOUND:
        return rc
    if ended.n:
        qsort(ended.at, ended.n, sizeof(uint64_t), by_place)
    if s.cut < s.tail:
        s.cut = s.tail
    return 0


# --- what is left -------------------------------------------------------------------------------------

cdef int replace(Lmdb* s, uint32_t entry) noexcept nogil:
    """A later row says the same: the earlier one goes."""
    if not push_place(&s.stale, &s.stale_n, &s.stale_capacity, entry_place(&s.index.entries[entry])):
        return ENOMEM
    s.live_bytes -= entry_bytes(&s.index.entries[entry])
    entry_remove(&s.index, entry)
    return 0


cdef int replace_envelope(Lmdb* s, MDB_txn* t, uint32_t hash, const uint8_t* p) noexcept nogil:
    """Takes out an earlier row with the identity of p."""
    cdef Index* x = &s.index
    cdef uint32_t i = index_first(x, hash)
    cdef uint64_t recipient = get64(p + AT_RECIPIENT), sender = get64(p + AT_SENDER), id = get64(p + AT_ID), number
    cdef uint8_t k[8]
    cdef MDB_val key, value
    cdef uint8_t* q
    cdef uint32_t body
    cdef int rc
    while i != NO_ENTRY:
        if x.entries[i].flags & KIND_MASK != KIND_BODY and x.boxes[x.entries[i].box].owner == recipient:
            put64(k, entry_place(&x.entries[i]))
            key = val(k, 8)
            rc = mdb_get(t, s.log, &key, &value)
            if rc:
                return rc
            q = <uint8_t*>value.mv_data
            if get64(q + AT_SENDER) == sender and get64(q + AT_ID) == id:
                if q[0] == ROW_SHARED:
                    body = body_find(x, get64(q + AT_NUMBER), False)
                    x.entries[body].box -= 1
                return replace(s, i)
        i = index_after(x, i)
    return 0


cdef int take_envelope(Lmdb* s, MDB_txn* t, uint64_t place, const uint8_t* p, size_t n, uint32_t hash) noexcept nogil:
    cdef Index* x = &s.index
    cdef uint64_t number
    cdef uint32_t entry, body
    cdef int rc = replace_envelope(s, t, hash, p)
    if rc:
        return rc
    if p[0] == ROW_SHARED:
        number = get64(p + AT_NUMBER)
        body = body_find(x, number, False)
        if body == NO_ENTRY:
            body = add_body(x, number, 0, 0)      # its row comes later, or is lost
            if body == NO_ENTRY:
                return ENOMEM
        x.entries[body].box += 1
    entry = add_envelope(x, KIND_SHARED if p[0] == ROW_SHARED else KIND_ENVELOPE, hash, get64(p + AT_RECIPIENT),
                         p[AT_PRIORITY], get64(p + AT_SEQ), place, n, get32(p + AT_EXPIRES))
    if entry == NO_ENTRY:
        return ENOMEM
    s.live_bytes += entry_bytes(&x.entries[entry])
    return 0


cdef int take_body(Lmdb* s, uint64_t place, const uint8_t* p, size_t n) noexcept nogil:
    cdef Index* x = &s.index
    cdef uint32_t before = body_find(x, get64(p + AT_BODY_NUMBER), False), needed = 0, entry
    cdef int rc
    if before != NO_ENTRY:
        needed = x.entries[before].box
        if entry_place(&x.entries[before]):
            rc = replace(s, before)
            if rc:
                return rc
        else:
            entry_remove(x, before)
    entry = add_body(x, get64(p + AT_BODY_NUMBER), place, n)
    if entry == NO_ENTRY:
        return ENOMEM
    x.entries[entry].box = needed
    s.live_bytes += entry_bytes(&x.entries[entry])
    return 0


cdef int take_receipt(Lmdb* s, uint64_t place, const uint8_t* p, size_t n) noexcept nogil:
    cdef Index* x = &s.index
    cdef uint32_t before = receipt_find(x, get64(p + AT_OWNER), get64(p + AT_PEER), get64(p + AT_RECEIPT_ID)), entry
    cdef int rc = replace(s, before) if before != NO_ENTRY else 0
    if rc:
        return rc
    entry = add_receipt(x, get64(p + AT_OWNER), get64(p + AT_PEER), get64(p + AT_RECEIPT_ID), p[AT_LEVEL], place, n,
                        get32(p + AT_RECEIPT_EXPIRES))
    if entry == NO_ENTRY:
        return ENOMEM
    s.live_bytes += entry_bytes(&x.entries[entry])
    return 0


cdef int take(Lmdb* s, MDB_txn* t, const Coming* row) noexcept nogil:
    if row.p[0] == ROW_ENVELOPE or row.p[0] == ROW_SHARED:
        return take_envelope(s, t, row.place, row.p, row.n, row.hash)
    if row.p[0] == ROW_BODY:
        return take_body(s, row.place, row.p, row.n)
    return take_receipt(s, row.place, row.p, row.n) if row.p[0] == ROW_RECEIPT else 0


cdef int take_rows(Lmdb* s, MDB_txn* t, MDB_cursor* c, Ended* ended) noexcept nogil:
    cdef MDB_val key, value
    cdef Coming coming[COMING_MAX]
    cdef Coming* row
    cdef uint64_t came = 0, taken = 0
    cdef int rc = mdb_cursor_get(c, &key, &value, MDB_FIRST)
    while rc == 0:
        row = &coming[came % COMING_MAX]
        row.p, row.n = <uint8_t*>value.mv_data, value.mv_size
        row.place = get64(<uint8_t*>key.mv_data) if key.mv_size == 8 else <uint64_t>-1
        if row.place >> PLACE_BITS or not legible(row.place, row.p, row.n):
            if row.place >= s.cut and not was_ended(ended, row.place):
                report_number(s, CORRUPT_ROW, row.place)
        elif row.place >= s.cut and not is_ended(ended, row.place):
            if row.p[0] == ROW_ENVELOPE or row.p[0] == ROW_SHARED:
                row.hash = index_hash(&s.index, get64(row.p + AT_RECIPIENT), get64(row.p + AT_SENDER),
                                      get64(row.p + AT_ID))
                index_fetch(&s.index, row.hash, 0)
            else:
                row.hash = 0
            came += 1
            if came >= COMING_MAX:
                index_fetch(&s.index, coming[(came - COMING_MAX // 3) % COMING_MAX].hash, 1)
                index_fetch(&s.index, coming[(came - 2 * COMING_MAX // 3) % COMING_MAX].hash, 2)
            if came - taken == COMING_MAX:
                rc = take(s, t, &coming[taken % COMING_MAX])
                taken += 1
                if rc:
                    return rc
        rc = mdb_cursor_get(c, &key, &value, MDB_NEXT)
    if rc != MDB_NOTFOUND:
        return rc
    while taken < came:
        rc = take(s, t, &coming[taken % COMING_MAX])
        taken += 1
        if rc:
            return rc
    return 0


cdef int drop_unneeded(Lmdb* s) noexcept nogil:
    """Bodies that no envelope needs: they came back with a damaged row that ended them."""
    cdef Entry* e
    cdef uint32_t i
    cdef int rc
    for i in range(s.index.entries_n):
        e = &s.index.entries[i]
        if e.flags & KIND_MASK != KIND_BODY or e.box:
            continue
        if entry_place(e):
            rc = replace(s, i)
            if rc:
                return rc
        else:
            entry_remove(&s.index, i)
    return 0


cdef int replay(Lmdb* s, MDB_txn* t) noexcept nogil:
    cdef MDB_cursor* c = NULL
    cdef Ended ended
    cdef MDB_stat stat
    cdef int rc
    memset(&ended, 0, sizeof(Ended))
    index_clear(&s.index)
    s.stale_n = 0
    s.log_bytes = s.live_bytes = s.cut = s.tail = 0
    s.place = 1
    s.append_flag = MDB_APPEND
    s.index.visible = <uint64_t>-1
    rc = mdb_cursor_open(t, s.log, &c)
    if rc:
        return rc
    rc = mdb_stat(t, s.log, &stat)
    if rc == 0:
        rc = read_ended(s, c, &ended)
    if rc == 0:
        index_expect(&s.index, stat.ms_entries - ended.n if stat.ms_entries > ended.n else 0)
        rc = take_rows(s, t, c, &ended)
    if rc == 0:
        rc = drop_unneeded(s)
    mdb_cursor_close(c)
    free(ended.at)
    s.index.visible = s.place
    return rc
