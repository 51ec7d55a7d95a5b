# cython: language_level=3
# COLD: debug builds and simulations only.
"""Invariants of the worker core; see loop/check.pxd."""
from libc.stdint cimport int64_t, uint32_t, uint64_t
from wa._fastpath.base.bounds cimport DELIVERY_WINDOW_MAX
from wa._fastpath.conn.conntable cimport conn_at
from wa._fastpath.custody.states cimport ENTRY_COMMITTING, ENTRY_DELETING, ENTRY_DROPPING, ENTRY_LINGER, ENTRY_RECEIPT
from wa._fastpath.state.core cimport (
    Active, Conn, CONN_CLOSING, CONN_FREE, CONN_HANDSHAKE, CONN_LIVE, Core, Device, Entry, NONE_INDEX,
)
from wa._fastpath.state.directory cimport directory_find

cdef extern from *:
    """
    #ifdef WA_DEBUG
    #define WA_DEBUG_BUILD 1
    #else
    #define WA_DEBUG_BUILD 0
    #endif
    """
    int WA_DEBUG_BUILD


cdef bint debug_build() noexcept nogil:
    return WA_DEBUG_BUILD


cdef const char* ring_check(Core* w, Conn* c, uint64_t* in_flight) noexcept nogil:
    cdef Active* a = c.active
    cdef Entry* e
    cdef uint32_t i
    cdef uint32_t n = 0
    cdef uint32_t size = 0
    if a.ring == NULL:
        if a.inflight_n or a.inflight_bytes:
            return b"deliveries in flight without a ring"
        return NULL
    if c.seq_next - a.seq_base > DELIVERY_WINDOW_MAX:
        return b"more delivery numbers open than the window has slots"
    for i in range(DELIVERY_WINDOW_MAX):
        e = a.ring[i]
        if e == NULL:
            continue
        n += 1
        size += e.env.body_n
        if e.conn != c.index or e.seq % DELIVERY_WINDOW_MAX != i or e.seq - a.seq_base >= c.seq_next - a.seq_base:
            return b"an entry in a ring slot that is not its own"
        if e.state != ENTRY_RECEIPT and e.env.recipient != c.address:
            return b"an entry in flight to another device"
    if n != a.inflight_n or size != a.inflight_bytes:
        return b"the counts of what is in flight"
    in_flight[0] += n
    return NULL


cdef const char* conns_check(Core* w, uint64_t* in_flight) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t live = 0
    cdef uint32_t half_open = 0
    cdef uint32_t waiting = 0
    cdef Conn* c
    cdef Device* d
    cdef const char* wrong
    for i in range(w.conns.chunks_n * 1024):
        c = conn_at(&w.conns, i)
        if c.index != i:
            return b"a connection knows its index"
        if c.state == CONN_FREE:
            if c.active != NULL or c.pending != NULL or c.fd != -1 or c.timer.next != NULL:
                return b"a free connection owns nothing"
            continue
        live += 1
        half_open += c.state != CONN_LIVE and c.state != CONN_CLOSING
        d = directory_find(&w.directory, c.address)
        if (d != NULL and d.conn == i) != (c.state == CONN_LIVE):
            return b"a device's connection is the live one of its address"
        if c.state == CONN_LIVE and c.pending != NULL:
            return b"a live connection is past its handshake"
        if c.active != NULL:
            if c.state != CONN_LIVE and (c.active.inflight_n or c.active.drain != NULL):
                return b"deliveries on a connection that is not live"
            wrong = ring_check(w, c, in_flight)
            if wrong != NULL:
                return wrong
        if c.pending != NULL and c.pending.waits:
            waiting += 1
            if c.state != CONN_HANDSHAKE:
                return b"who waits for a handshake is in one"
            if not c.pending.answer_due and (c.active == NULL or c.active.in_n < 5):
                return b"who waits for a handshake has its record here, or is owed an answer"
        elif c.pending != NULL and c.pending.answer_due:
            return b"who is owed an answer waits for its turn"
    if waiting != w.waiting_n:
        return b"the count of those that wait for a handshake"
    if live != w.conns.live_n or half_open != w.conns.half_open_n:
        return b"the counts of connections"
    return NULL


cdef const char* custody_check(Core* w, uint64_t in_flight) noexcept nogil:
    cdef uint64_t in_table = 0
    cdef uint64_t detached = 0
    cdef int64_t deleting = 0
    cdef uint64_t i
    cdef Entry* e
    for i in range(w.custody.mask + 1):
        e = w.custody.buckets[i]
        while e != NULL:
            in_table += 1
            if e.conn == NONE_INDEX:
                detached += 1
                if e.state != ENTRY_COMMITTING and e.state != ENTRY_DELETING and e.state != ENTRY_DROPPING:
                    return b"an entry without a connection is on its way to disk or off it"
                deleting += e.state == ENTRY_DELETING
            if (e.state == ENTRY_LINGER or e.state == ENTRY_COMMITTING) and e.body == NULL:
                return b"what is not on disk is in memory"
            e = e.hash_next
    if in_table != w.custody.used or w.custody.live != in_flight + detached:
        return b"every entry is in flight, on its way to disk, or off it"
    for i in range(w.directory.slots_n):
        deleting -= w.directory.slots[i].undeleted
    if deleting < 0:
        return b"no more rows are counted as undeleted than are being deleted"
    e = w.custody.oldest
    while e != NULL:
        if e.state != ENTRY_LINGER or (e.newer != NULL and e.newer.linger_until_ms < e.linger_until_ms):
            return b"the linger queue holds lingering entries, oldest first"
        e = e.newer
    return NULL


cdef const char* core_check(Core* w) noexcept nogil:
    cdef uint64_t in_flight = 0
    cdef uint64_t i
    cdef Device* d
    cdef const char* wrong = conns_check(w, &in_flight)
    if wrong == NULL:
        wrong = custody_check(w, in_flight)
    if wrong != NULL:
        return wrong
    for i in range(w.directory.slots_n):
        d = &w.directory.slots[i]
        if d.address and d.undrained > d.held + w.custody.dropping + 1:
            return b"no more is undrained than is held or on its way out"
        if d.address and d.conn == NONE_INDEX and d.undrained:
            return b"a device that is not connected has no drain"
    if w.stats.miscounts:
        return b"no count of a device left its range"
    if w.dirty_head != NONE_INDEX:
        return b"everything dirty was flushed"
    return NULL


cdef const char* core_leaks(Core* w) noexcept nogil:
    if w.conns.live_n or w.conns.half_open_n:
        return b"connections outlived the loop"
    if w.custody.live:
        return b"custody entries outlived the loop"
    if w.slab.takes != w.slab.gives or w.slab.used_bytes:
        return b"buffers outlived the loop"
    return NULL
