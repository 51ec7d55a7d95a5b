# cython: language_level=3
# HOT: every byte from a client passes here; records are opened in place in the read buffer.
"""Receiving side of connections; see session/records.pxd and docs/protocol.md, sections 1 and 2."""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy
from wa._fastpath.base.bounds cimport (
    HANDSHAKE_RECORD_BYTES_MAX, HELLO_BYTES, NOISE_MESSAGE_BYTES_MAX, NOISE_TAG_BYTES, REGISTERING_MS_MAX,
)
from wa._fastpath.base.codes cimport (
    CODE_BUSY, CODE_DECRYPT_FAILED, CODE_FRAME_MALFORMED, CODE_HANDSHAKE_TIMEOUT, CODE_IDLE_TIMEOUT, CODE_INTERNAL,
    CODE_RECORD_TOO_LARGE, CODE_SLOW_READER, CODE_TICKET_VOID, CODE_UNKNOWN_FRAME,
)
from wa._fastpath.base.timers cimport timer_set
from wa._fastpath.conn.flags cimport conn_doom, conn_gone, conn_pause, conn_read_on
from wa._fastpath.conn.lists cimport mark_dirty
from wa._fastpath.conn.output cimport buffer_free, buffer_reserve, conn_active, out_pending
from wa._fastpath.custody.flight cimport flight_resend
from wa._fastpath.noise.noise cimport NOISE_NNPSK0, noise_open
from wa._fastpath.session.dispatch cimport on_frame
from wa._fastpath.session.handshake cimport handshake_answer, on_handshake, on_hello, STEP_SLOTS, TICKET_SLOTS
from wa._fastpath.session.lifecycle cimport begin_close, busy_slot_ms, conn_timer
from wa._fastpath.session.ticket cimport ticket_use
from wa._fastpath.session.waiting cimport waiting_add, waiting_first, waiting_remove
from wa._fastpath.state.core cimport (
    Active, Conn, CONN_ADMITTED, CONN_CLAIMED, CONN_CLOSING, CONN_HANDSHAKE, CONN_HELLO, CONN_LIVE, CONN_REGISTERING,
    Core, FLAG_ASKED, FLAG_DOOMED, FLAG_EOF, FLAG_PAUSED, FLAG_WANT_WRITE, READ_CHUNK_BYTES,
)
from wa._fastpath.wire.frames cimport Frame, frame_parse, FRAME_UNKNOWN

cdef enum:
    BACKED_UP_BYTES = 65536       # output that a full socket has not taken: stop reading its requests


# --- bytes ------------------------------------------------------------------------------------------------

cdef void session_readable(Core* w, Conn* c) noexcept nogil:
    cdef Active* a = c.active
    cdef uint8_t* into = w.read_buf
    cdef uint32_t room = READ_CHUNK_BYTES
    cdef int64_t n
    if c.flags & (FLAG_PAUSED | FLAG_DOOMED | FLAG_EOF) or c.state == CONN_CLOSING:
        return
    if a != NULL and a.in_n:
        into = a.in_buf + a.in_n          # keep() made room for the whole record
        room = a.in_capacity - a.in_n
        if room == 0:                     # it waits for its handshake and goes on talking
            conn_pause(w, c)
            return
    n = w.poller.recv(w.poller, c.fd, into, room)
    if n <= 0:
        if n != -EAGAIN and n != -EINTR:
            begin_close(w, c, 0, 0)
        return
    w.stats.bytes_in += n
    if into == w.read_buf:
        keep(w, c, w.read_buf, <uint32_t>n, consume(w, c, w.read_buf, <uint32_t>n))
    else:
        a.in_n += <uint32_t>n
        if c.pending == NULL or not c.pending.waits:
            consume_kept(w, c)


cdef void session_handshakes(Core* w) noexcept nogil:
    cdef Conn* c = waiting_first(w)
    w.handshake_slots = STEP_SLOTS * <uint32_t>w.bounds.handshakes_per_turn
    while c != NULL and slots_of(c) <= w.handshake_slots:     # no skipping: a cheap one waits behind a dear one
        waiting_remove(w, c)
        if c.flags & FLAG_PAUSED:
            session_resume(w, c)
        elif c.active != NULL and c.active.in_n:
            consume_kept(w, c)
        else:                             # an answer is due, and its client rightly waits for it
            keep(w, c, NULL, 0, consume(w, c, NULL, 0))
        c = waiting_first(w)
    w.handshake_slots = 0


cdef void consume_kept(Core* w, Conn* c) noexcept nogil:
    """Like a fresh read, but from the connection's own buffer, which what we call must not pull away."""
    cdef Active* a = c.active
    cdef uint8_t* buf = a.in_buf
    cdef uint32_t n = a.in_n
    cdef uint32_t capacity = a.in_capacity
    a.in_buf = NULL
    a.in_n = 0
    a.in_capacity = 0
    keep(w, c, buf, n, consume(w, c, buf, n))
    buffer_free(w, &buf, &capacity)


cdef void keep(Core* w, Conn* c, const uint8_t* data, uint32_t n, uint32_t used) noexcept nogil:
    """Keeps an incomplete record (or records not to be read yet) with room for the whole of it."""
    cdef uint32_t rest = n - used
    cdef uint32_t need = rest
    cdef Active* a
    if c.active != NULL:
        mark_dirty(w, c)
        if rest == 0:
            c.active.partial_since_ms = 0
    if rest == 0 or c.fd < 0 or c.state == CONN_CLOSING or c.flags & (FLAG_DOOMED | FLAG_EOF):
        return
    if c.state == CONN_HELLO:
        need = HELLO_BYTES
    elif rest >= 4:
        need = be32(data + used)          # not checked yet when the connection was paused before it
        need = 4 + (need if need < NOISE_MESSAGE_BYTES_MAX else NOISE_MESSAGE_BYTES_MAX)
    else:
        need = 64
    if need < rest:
        need = rest
    a = conn_active(w, c)
    if a == NULL or buffer_reserve(w, &a.in_buf, &a.in_capacity, 0, need) != 0:
        conn_doom(w, c, CODE_INTERNAL)
        return
    memcpy(a.in_buf, data + used, rest)
    a.in_n = rest
    if used or a.partial_since_ms == 0:
        a.partial_since_ms = w.now_ms
        if c.state == CONN_LIVE:
            conn_timer(w, c)


cdef uint32_t consume(Core* w, Conn* c, uint8_t* data, uint32_t n) noexcept nogil:
    """Everything complete in data; returns how many bytes that was.  Stops when the connection pauses or ends."""
    cdef uint32_t at = 0
    cdef uint32_t length
    while c.fd >= 0 and c.state != CONN_CLOSING and not c.flags & (FLAG_PAUSED | FLAG_DOOMED | FLAG_EOF):
        if c.state == CONN_HELLO:
            if n - at < HELLO_BYTES:
                break
            on_hello(w, c, data + at)
            at += HELLO_BYTES
            continue
        if c.state == CONN_HANDSHAKE and c.pending.answer_due:
            if not takes_slots(w, c):
                break
            if handshake_answer(w, c, data + at, n - at):
                return n
            continue
        if n - at < 4:
            break
        length = be32(data + at)
        if not record_length_ok(c, length):
            begin_close(w, c, CODE_RECORD_TOO_LARGE, 0)
            break
        if n - at < 4 + length:
            break
        if c.state == CONN_HANDSHAKE:
            if not takes_slots(w, c):
                break
            # What follows a finished handshake belongs to the owner: on_handshake takes it along.
            if on_handshake(w, c, data + at + 4, length, data + at + 4 + length, n - at - 4 - length):
                return n
        else:
            on_record(w, c, data + at + 4, length)
        at += 4 + length
    return at


cdef inline uint32_t slots_of(const Conn* c) noexcept nogil:
    return TICKET_SLOTS if c.pending.hello[6] == NOISE_NNPSK0 else STEP_SLOTS


cdef bint takes_slots(Core* w, Conn* c) noexcept nogil:
    """False when this turn has done enough: it waits for another, and keep() holds its record."""
    cdef uint32_t slots = slots_of(c)
    if w.handshake_slots < slots:
        waiting_add(w, c)
        return False
    w.handshake_slots -= slots
    return True


cdef bint record_length_ok(const Conn* c, uint32_t length) noexcept nogil:
    if c.state == CONN_HANDSHAKE:
        return 1 <= length <= HANDSHAKE_RECORD_BYTES_MAX
    return NOISE_TAG_BYTES < length <= NOISE_MESSAGE_BYTES_MAX


cdef void on_record(Core* w, Conn* c, uint8_t* data, uint32_t n) noexcept nogil:
    """One transport record, opened in place; its frames are views that die with this call."""
    cdef int64_t plain_n = noise_open(&c.noise, c.suite, data, n, data)
    cdef uint32_t at = 0
    cdef int64_t used
    cdef Frame f
    if plain_n < 0:
        w.stats.decrypt_failures += 1
        begin_close(w, c, CODE_DECRYPT_FAILED, 0)
        return
    if c.state == CONN_ADMITTED and c.pending.ticket_serial and not ticket_use(w, c):
        begin_close(w, c, CODE_TICKET_VOID, 0)
        return
    w.stats.records_in += 1
    c.heard_s = <uint32_t>(w.now_ms // 1000)     # a whole record: bytes alone keep nobody alive
    while at < plain_n and c.state != CONN_CLOSING and not c.flags & (FLAG_DOOMED | FLAG_EOF):
        used = frame_parse(data + at, <size_t>(plain_n - at), &f)
        if used <= 0:
            w.stats.protocol_errors += 1
            begin_close(w, c, CODE_UNKNOWN_FRAME if used == FRAME_UNKNOWN else CODE_FRAME_MALFORMED, 0)
            return
        w.stats.frames_in += 1
        on_frame(w, c, &f)
        at += <uint32_t>used
    if c.flags & FLAG_WANT_WRITE and out_pending(c) > BACKED_UP_BYTES and not c.flags & FLAG_PAUSED:
        conn_pause(w, c)


cdef void session_kept(Core* w, Conn* c, const uint8_t* data, uint32_t n) noexcept nogil:
    keep(w, c, data, n, 0)
    if c.active != NULL and c.active.in_n:
        consume_kept(w, c)


cdef void session_resume(Core* w, Conn* c) noexcept nogil:
    if c.state == CONN_CLOSING or c.fd < 0 or not c.flags & FLAG_PAUSED:
        return
    if c.state == CONN_CLAIMED or c.outstanding >= w.bounds.sender_window:
        return
    if c.flags & FLAG_WANT_WRITE and out_pending(c) > BACKED_UP_BYTES:
        return
    conn_read_on(w, c)
    if c.active != NULL and c.active.in_n:
        c.active.partial_since_ms = w.now_ms       # it was we who did not read
        consume_kept(w, c)


# --- time -------------------------------------------------------------------------------------------------------

cdef void session_timer(Core* w, Conn* c) noexcept nogil:
    cdef uint64_t quiet_ms
    if c.state == CONN_CLOSING:
        conn_gone(c)               # its close frame did not leave in time
        mark_dirty(w, c)
        return
    if c.state == CONN_REGISTERING:
        quiet_ms = w.now_ms - <uint64_t>c.heard_s * 1000
        if quiet_ms < REGISTERING_MS_MAX and c.flags & FLAG_ASKED:
            timer_set(&w.wheel, &c.timer, w.now_ms + REGISTERING_MS_MAX - quiet_ms)
            return
    if c.state != CONN_LIVE:
        if c.pending.waits:               # it was we who were too slow
            w.stats.sheds += 1
            begin_close(w, c, CODE_BUSY, busy_slot_ms(w))
            return
        begin_close(w, c, CODE_HANDSHAKE_TIMEOUT, 0)
        return
    if w.now_ms >= <uint64_t>c.heard_s * 1000 + w.bounds.idle_ms:
        begin_close(w, c, CODE_IDLE_TIMEOUT, 0)
        return
    if c.active != NULL and c.active.in_n and not c.flags & FLAG_PAUSED and (
        w.now_ms >= c.active.partial_since_ms + w.bounds.authenticate_ms
    ):
        begin_close(w, c, CODE_IDLE_TIMEOUT, 0)
        return
    if c.active != NULL and c.active.stalled_since_ms and (
        w.now_ms >= c.active.stalled_since_ms + w.bounds.authenticate_ms
    ):
        begin_close(w, c, CODE_SLOW_READER, 0)
        return
    flight_resend(w, c)
    conn_timer(w, c)
