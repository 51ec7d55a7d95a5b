# cython: language_level=3
# HOT for logins: a reconnect storm runs through here.
"""From the hello to an authenticated connection at its owner; see session/handshake.pxd, and docs/protocol.md,
section 1."""
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport HELLO_BYTES
from wa._fastpath.base.codes cimport (
    CODE_BUSY, CODE_HANDSHAKE_FAILED, CODE_INTERNAL, CODE_PATTERN_UNSUPPORTED, CODE_PROTOCOL_ERROR,
    CODE_SUITE_UNSUPPORTED, CODE_VERSION_UNSUPPORTED,
)
from wa._fastpath.base.sodium cimport sodium_memzero
from wa._fastpath.base.timers cimport timer_set
from wa._fastpath.bus.messages cimport BUS_HANDOVER
from wa._fastpath.conn.flags cimport conn_asked, conn_doom, conn_gone, conn_pause
from wa._fastpath.conn.lists cimport mark_dirty
from wa._fastpath.conn.output cimport buffer_reserve, conn_active, conn_flush, out_pending, out_raw
from wa._fastpath.noise.noise cimport (
    noise_done, NOISE_E_AUTH, noise_fallback, NOISE_IK, NOISE_NNPSK0, noise_read, noise_split, noise_start,
    noise_suite_available, noise_write, NOISE_XX,
)
from wa._fastpath.session.binding cimport key_is_bound
from wa._fastpath.session.form cimport (
    ConnForm, form_apply, FORM_E_VALUE, FORM_FIXED_BYTES_MAX, form_of, form_read, form_write,
)
from wa._fastpath.session.lifecycle cimport admission, begin_close, busy_slot_ms, conn_adopt, go_live, live_on
from wa._fastpath.session.records cimport be32, session_kept, session_resume
from wa._fastpath.session.ticket cimport TICKET_ELSEWHERE, ticket_first, TICKET_GOOD, TICKET_MALFORMED, TICKET_REFUSED
from wa._fastpath.state.cold cimport cold_push
from wa._fastpath.state.core cimport (
    Active, COLD_LOGIN, Conn, CONN_ADMITTED, CONN_CLAIMED, CONN_CLOSING, CONN_HANDSHAKE, CONN_HELLO, CONN_LIVE,
    CONN_REGISTERING, Core, FLAG_DOOMED, FLAG_EOF, Pending,
)
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.route cimport owner_of

cdef enum:
    LOGIN_BYTES = 9               # Pending.login
    RECORD_NOISE = 1
    RECORD_FALLBACK = 2
    RECORD_TICKET = 4
    RECORD_TICKET_REFUSED = 5


# --- hello and handshake --------------------------------------------------------------------------------------

cdef void on_hello(Core* w, Conn* c, const uint8_t* hello) noexcept nogil:
    cdef const uint8_t* magic = <const uint8_t*>b"wa\r\n"
    if memcmp(hello, magic, 4) != 0 or hello[7] != 0:
        begin_close(w, c, CODE_PROTOCOL_ERROR, 0)
    elif hello[4] != 1:
        begin_close(w, c, CODE_VERSION_UNSUPPORTED, 0)
    elif not noise_suite_available(hello[5]):
        begin_close(w, c, CODE_SUITE_UNSUPPORTED, 0)
    elif (hello[6] != NOISE_XX and hello[6] != NOISE_IK
          and (hello[6] != NOISE_NNPSK0 or c.pending.ticket_refused)):
        begin_close(w, c, CODE_PATTERN_UNSUPPORTED, 0)
    else:
        memcpy(c.pending.hello, hello, HELLO_BYTES)
        c.suite = hello[5]
        c.state = CONN_HANDSHAKE


cdef int send_handshake(Core* w, Conn* c, uint8_t kind, const uint8_t* payload, uint32_t payload_n) noexcept nogil:
    cdef uint8_t out[5 + 512]
    cdef uint8_t ephemeral[32]
    cdef int64_t n
    w.poller.random(w.poller, ephemeral, 32)
    n = noise_write(&c.pending.hs, ephemeral, payload, payload_n, out + 5, 512)
    sodium_memzero(ephemeral, 32)
    if n < 0:
        return -1
    out[0] = 0
    out[1] = 0
    out[2] = <uint8_t>((n + 1) >> 8)
    out[3] = <uint8_t>(n + 1)
    out[4] = kind
    return out_raw(w, c, out, <uint32_t>(n + 5))


cdef int first_message(Core* w, Conn* c, const uint8_t* msg, uint32_t n, uint8_t* payload,
                       int64_t* payload_n) noexcept nogil:
    """The client's first Noise message: start as responder, fall back when IK does not open, answer all but IK."""
    cdef Pending* p = c.pending
    cdef uint8_t pattern = p.hello[6]
    noise_start(&p.hs, pattern, c.suite, False, p.hello, HELLO_BYTES, w.static_private, w.static_public, NULL)
    payload_n[0] = noise_read(&p.hs, msg, n, payload, 64)
    if pattern == NOISE_IK:
        if payload_n[0] == NOISE_E_AUTH:
            payload_n[0] = 0
            if noise_fallback(&p.hs, p.hello, HELLO_BYTES) < 0:
                return -1
            return send_handshake(w, c, RECORD_FALLBACK, w.certificate, w.certificate_n)
        p.answer_due = payload_n[0] >= 0
        return 0 if p.answer_due else -1
    if payload_n[0] < 0:
        return -1
    if payload_n[0] > 0:
        return -1                 # the protocol has no payload there, and nobody has authenticated it
    return send_handshake(w, c, RECORD_NOISE, w.certificate, w.certificate_n)


cdef void step_timer(Core* w, Conn* c) noexcept nogil:
    cdef uint64_t deadline = w.now_ms + w.bounds.handshake_step_ms
    if deadline > c.pending.started_ms + w.bounds.authenticate_ms:
        deadline = c.pending.started_ms + w.bounds.authenticate_ms
    timer_set(&w.wheel, &c.timer, deadline)


cdef bint on_ticket(Core* w, Conn* c, const uint8_t* record, uint32_t n, uint32_t rest_n) noexcept nogil:
    """As on_handshake.  A resumed connection needs no registry: it is admitted here, by the owner."""
    cdef Pending* p = c.pending
    cdef uint8_t[5] refused = [0, 0, 0, 1, RECORD_TICKET_REFUSED]
    cdef int verdict = ticket_first(w, c, record + 1, n - 1)
    if verdict == TICKET_ELSEWHERE:
        w.handshake_slots += TICKET_SLOTS - PASSED_ON_SLOTS
        hand_over(w, c, record - 4, 4 + n + rest_n)   # with its length prefix, and what came behind it
        return True
    if verdict == TICKET_REFUSED:
        w.stats.tickets_refused += 1
        p.ticket_refused = 1
        p.messages = 0
        c.state = CONN_HELLO
        step_timer(w, c)
        out_raw(w, c, refused, sizeof(refused))
    elif verdict == TICKET_GOOD and send_handshake(w, c, RECORD_NOISE, NULL, 0) == 0:
        noise_split(&p.hs, &c.noise)
        w.stats.handshakes += 1
        c.state = CONN_ADMITTED
        timer_set(&w.wheel, &c.timer, p.started_ms + w.bounds.authenticate_ms)
    else:
        w.stats.handshake_failures += 1
        begin_close(w, c, CODE_PROTOCOL_ERROR if verdict == TICKET_MALFORMED else CODE_HANDSHAKE_FAILED, 0)
    return False


cdef bint on_handshake(Core* w, Conn* c, const uint8_t* record, uint32_t n, const uint8_t* rest,
                       uint32_t rest_n) noexcept nogil:
    """True when the connection (with `rest`) has gone to its owner or waits for the registry."""
    cdef Pending* p = c.pending
    cdef uint8_t payload[64]
    cdef int64_t payload_n = 0
    cdef bint has_ticket = p.hello[6] == NOISE_NNPSK0
    if record[0] != (RECORD_TICKET if has_ticket else RECORD_NOISE):
        begin_close(w, c, CODE_PROTOCOL_ERROR, 0)
        return False
    p.messages += 1
    if not p.admitted:
        if not admission(w, &p.peer):
            w.stats.sheds += 1
            begin_close(w, c, CODE_BUSY, busy_slot_ms(w))
            return False
        p.admitted = 1
    if has_ticket:
        return on_ticket(w, c, record, n, rest_n)
    if p.messages == 1:
        if first_message(w, c, record + 1, n - 1, payload, &payload_n) != 0:
            payload_n = -1
    else:
        payload_n = noise_read(&p.hs, record + 1, n - 1, payload, 64)
    if payload_n < 0:
        w.stats.handshake_failures += 1
        begin_close(w, c, CODE_HANDSHAKE_FAILED, 0)
        return False
    if p.answer_due:
        p.login_n = <uint8_t>payload_n
        if payload_n == LOGIN_BYTES:
            memcpy(p.login, payload, LOGIN_BYTES)
        return False
    if not noise_done(&p.hs):
        step_timer(w, c)
        return False
    return claims(w, c, payload, payload_n, rest, rest_n)


cdef bint handshake_answer(Core* w, Conn* c, const uint8_t* rest, uint32_t rest_n) noexcept nogil:
    cdef Pending* p = c.pending
    p.answer_due = 0
    if send_handshake(w, c, RECORD_NOISE, NULL, 0) != 0:
        w.stats.handshake_failures += 1
        begin_close(w, c, CODE_HANDSHAKE_FAILED, 0)
        return False
    return claims(w, c, p.login, p.login_n, rest, rest_n)


cdef bint claims(Core* w, Conn* c, const uint8_t* login, int64_t login_n, const uint8_t* rest,
                 uint32_t rest_n) noexcept nogil:
    """The handshake is done, and the peer says whose device it is.  As on_handshake."""
    cdef Pending* p = c.pending
    memcpy(p.static_key, p.hs.rs, 32)
    noise_split(&p.hs, &c.noise)
    w.stats.handshakes += 1
    c.state = CONN_CLAIMED
    if login_n != LOGIN_BYTES or not login_payload_ok(c, login):
        begin_close(w, c, CODE_PROTOCOL_ERROR, 0)
        return False
    if owner_of(w, c.address) == w.worker and recognised(w, c):
        return False
    hand_over(w, c, rest, rest_n)
    return True


cdef bint login_payload_ok(Conn* c, const uint8_t* payload) noexcept nogil:
    cdef uint64_t address = <uint64_t>be32(payload + 1) << 32 | be32(payload + 5)
    cdef uint64_t number = address >> 8
    c.pending.intent = payload[0]
    c.address = address
    if payload[0] > 1 or number == 0 or number >= <uint64_t>1000000000000000:
        return False
    return (address & 0xff == 0) == (payload[0] == 1)


# --- hand-over to the owner --------------------------------------------------------------------------------------

cdef void hand_over(Core* w, Conn* c, const uint8_t* rest, uint32_t rest_n) noexcept nogil:
    cdef uint32_t owner = owner_of(w, c.address)
    cdef ConnForm form
    cdef uint8_t head[FORM_FIXED_BYTES_MAX]
    cdef uint32_t head_n
    cdef int sent
    if owner == w.worker:
        claim(w, c, rest, rest_n)
        return
    # The last handshake message must be out before the owner writes to the socket.
    flush_handshake(w, c)
    if c.flags & FLAG_EOF:
        return
    form_of(w, c, &form)
    form.input_n = rest_n
    head_n = form_write(&form, head)
    sodium_memzero(&form, sizeof(ConnForm))
    w.poller.unwatch(w.poller, c.fd)
    sent = w.bus.send(w.bus, owner, BUS_HANDOVER, head, head_n, rest, rest_n, c.fd)
    sodium_memzero(head, sizeof(head))
    if sent != 0:
        w.poller.watch(w.poller, c.fd, 0, <uint64_t>c.generation << 32 | c.index)
        begin_close(w, c, CODE_BUSY, 500)
        return
    w.stats.hand_overs_out += 1
    c.fd = -1
    conn_gone(c)
    w.conns.half_open_n -= 1
    c.state = CONN_CLOSING
    mark_dirty(w, c)


cdef void flush_handshake(Core* w, Conn* c) noexcept nogil:
    conn_flush(w, c)
    if out_pending(c):
        begin_close(w, c, 0, 0)           # 100 bytes that a fresh socket does not take: a dead peer


cdef bint recognised(Core* w, Conn* c) noexcept nogil:
    """We are the owner: admits a device that has proved its key.  One that registers has no device number yet."""
    if not key_is_bound(w, directory_find(&w.directory, c.address), c.pending):
        return False
    c.state = CONN_ADMITTED
    timer_set(&w.wheel, &c.timer, c.pending.started_ms + w.bounds.authenticate_ms)
    return True


cdef void claim(Core* w, Conn* c, const uint8_t* rest, uint32_t rest_n) noexcept nogil:
    """We are the owner: wait for the registry, reading nothing meanwhile."""
    cdef Active* a
    c.state = CONN_CLAIMED
    conn_pause(w, c)
    if rest_n:
        a = conn_active(w, c)
        if a == NULL or buffer_reserve(w, &a.in_buf, &a.in_capacity, 0, rest_n) != 0:
            conn_doom(w, c, CODE_INTERNAL)
            return
        memcpy(a.in_buf, rest, rest_n)
        a.in_n = rest_n
    timer_set(&w.wheel, &c.timer, c.pending.started_ms + w.bounds.authenticate_ms)
    if cold_push(w, COLD_LOGIN, c, NULL, 0) == NULL:
        conn_doom(w, c, CODE_INTERNAL)


cdef void handshake_adopted(Core* w, const uint8_t* p, uint32_t n, int32_t fd) noexcept nogil:
    cdef ConnForm form
    cdef int status = form_read(p, n, &form)
    if status == 0 and owner_of(w, form.address) != w.worker:
        status = FORM_E_VALUE
    if status != 0:
        w.stats.hand_overs_refused += 1
        w.poller.close(w.poller, fd)
    else:
        adopt(w, &form, fd)
    sodium_memzero(&form, sizeof(ConnForm))


cdef void adopt(Core* w, const ConnForm* form, int32_t fd) noexcept nogil:
    cdef Conn* c = conn_adopt(w, fd)
    if c == NULL:
        w.poller.close(w.poller, fd)
        return
    w.stats.hand_overs_in += 1
    form_apply(w, form, c)
    if form.state == CONN_CLAIMED and not recognised(w, c):
        claim(w, c, form.input, form.input_n)
        return
    if form.state == CONN_LIVE:
        live_on(w, c)
    elif form.state == CONN_REGISTERING:
        register_on(w, c, form.asked)
    elif form.state == CONN_HANDSHAKE:
        # It shows a ticket and has not been answered: the input begins with the record of it.
        c.state = CONN_HANDSHAKE
        if w.conns.half_open_n > w.bounds.half_open:
            w.stats.sheds += 1
            begin_close(w, c, CODE_BUSY, busy_slot_ms(w))
            return
    session_kept(w, c, form.input, form.input_n)


cdef void register_on(Core* w, Conn* c, bint asked) noexcept nogil:
    wa_assert(c.state == CONN_HELLO, b"it was adopted just now")
    wa_assert(c.pending.intent == 1, b"it registers")
    c.state = CONN_REGISTERING
    if asked:
        conn_asked(c)
    timer_set(&w.wheel, &c.timer, c.pending.started_ms + w.bounds.authenticate_ms)


cdef int handshake_admit(Core* w, Conn* c, uint64_t address) noexcept nogil:
    if c.state == CONN_CLAIMED:
        c.address = address
        c.state = CONN_REGISTERING if c.pending.intent == 1 else CONN_ADMITTED
    elif c.state == CONN_REGISTERING:
        c.address = address
        go_live(w, c)
        return 0
    else:
        return -1
    if not c.flags & FLAG_DOOMED:
        session_resume(w, c)
    return 0
