# cython: language_level=3
# HOT: called once per frame.
"""Frame dispatch; see session/dispatch.pxd."""
from libc.stdint cimport uint16_t, uint8_t
from libc.string cimport memset
from wa._fastpath.base.bounds cimport REQUESTS_OPEN_MAX
from wa._fastpath.base.codes cimport (
    CODE_BAD_PARAMS, CODE_INTERNAL, CODE_NOT_PERMITTED, CODE_PROTOCOL_ERROR, CODE_TRY_LATER, CODE_UNKNOWN_FRAME,
)
from wa._fastpath.conn.flags cimport conn_asked, conn_doom
from wa._fastpath.conn.output cimport out_frame, out_simple
from wa._fastpath.custody.acks cimport acknowledge, mark_read
from wa._fastpath.custody.intake cimport send_from
from wa._fastpath.session.lifecycle cimport begin_close, go_live
from wa._fastpath.state.cold cimport cold_push
from wa._fastpath.state.core cimport COLD_REQUEST, ColdEvent, Conn, CONN_ADMITTED, CONN_LIVE, CONN_REGISTERING, Core
from wa._fastpath.wire.frames cimport (
    F_ACK, F_ACK_RANGE, F_CLOSE, F_ERROR, F_EXTENSION, F_MARK_READ, F_OPEN, F_PING, F_PONG, F_REQUEST, F_RESPONSE,
    F_SEND, F_SEND_TTL, Frame,
)


cdef void on_frame(Core* w, Conn* c, const Frame* f) noexcept nogil:
    if c.state == CONN_LIVE:
        on_live(w, c, f)
    elif f.type == F_PING:
        out_simple(w, c, F_PONG, f.number, 0)
    elif f.type == F_CLOSE:
        begin_close(w, c, 0, 0)
    elif f.type == F_PONG:
        return
    elif c.state == CONN_ADMITTED and f.type == F_OPEN:
        go_live(w, c)
    elif c.state == CONN_REGISTERING and f.type == F_REQUEST:
        conn_asked(c)
        on_request(w, c, f)
    else:
        begin_close(w, c, CODE_NOT_PERMITTED, 0)


cdef void on_live(Core* w, Conn* c, const Frame* f) noexcept nogil:
    if f.type == F_SEND or f.type == F_SEND_TTL:
        send_from(w, c, f)
    elif f.type == F_ACK or f.type == F_ACK_RANGE:
        if acknowledge(w, c, f.number, f.extra) != 0:
            begin_close(w, c, CODE_PROTOCOL_ERROR, 0)
    elif f.type == F_MARK_READ:
        mark_read(w, c, f.address, f.id)
    elif f.type == F_PING:
        out_simple(w, c, F_PONG, f.number, 0)
    elif f.type == F_PONG:
        return
    elif f.type == F_REQUEST:
        on_request(w, c, f)
    elif f.type == F_CLOSE:
        begin_close(w, c, 0, 0)
    elif f.type == F_EXTENSION:
        say_error(w, c, CODE_UNKNOWN_FRAME)
    else:
        begin_close(w, c, CODE_NOT_PERMITTED, 0)      # OPEN again, or a frame only servers send


cdef void say_error(Core* w, Conn* c, uint16_t code) noexcept nogil:
    out_simple(w, c, F_ERROR, code, 0)


cdef void respond_status(Core* w, Conn* c, const Frame* f, uint16_t code) noexcept nogil:
    cdef Frame r
    cdef uint8_t empty_map = 0x80
    memset(&r, 0, sizeof(Frame))
    r.type = F_RESPONSE
    r.number = f.number
    r.extra = code
    r.body = &empty_map
    r.body_n = 1
    out_frame(w, c, &r)


cdef void on_request(Core* w, Conn* c, const Frame* f) noexcept nogil:
    """Cold: copied out, and handed to Python together with the rest of this turn's batch."""
    cdef ColdEvent* e
    if f.body_n > w.bounds.request_bytes:
        respond_status(w, c, f, CODE_BAD_PARAMS)
        return
    if c.requests_open >= REQUESTS_OPEN_MAX:
        respond_status(w, c, f, CODE_TRY_LATER)
        return
    e = cold_push(w, COLD_REQUEST, c, f.body, f.body_n)
    if e == NULL:
        conn_doom(w, c, CODE_INTERNAL)
        return
    e.request_id = f.number
    e.method = f.extra
    c.requests_open += 1
