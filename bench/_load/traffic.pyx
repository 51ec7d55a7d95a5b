# cython: language_level=3
# HOT: once per message sent, received and receipted.
"""What the generator's lines send and how everything that arrives is checked; see traffic.pxd.

Body of a message: u64 time of sending in ns (of the machine's monotonic clock), u32 stream, u32 n, then bytes that all
are n modulo 256.  n counts the messages of a stream from 1.  A recipient that hears n after n - 1 has lost nothing, got
nothing twice and got it in order.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcmp, memcpy, memset
from bench._load.gen cimport Gen, Line, Sender, Slot, SLOTS_N
from bench._load.hist cimport hist_add
from bench._load.line cimport keep_ticket, put_frame, put_simple
from wa._fastpath.wire.frames cimport (
    F_ACCEPTED, F_ACK, F_ACK_RANGE, F_DELIVER, F_DELIVER_QUEUED, F_DELIVERED, F_PONG, F_REFUSED, F_SEND,
    F_STORED_RECEIPT, F_TICKET, Frame,
)

cdef enum:
    KIND_TEXT = 1
    FILLING_AT = 16


# --- sending ----------------------------------------------------------------------------------------------

cdef int begin_one(Gen* g, Line* l, uint64_t sent_ns) noexcept nogil:
    cdef Sender* s = l.sender
    cdef Slot* slot = &s.slots[s.next_id % SLOTS_N]
    cdef uint8_t[65536] body
    cdef uint32_t stream, n
    cdef Frame f
    if s.left == 0 or s.outstanding >= g.window or slot.id != 0:
        return 0
    stream = s.streams[s.at]
    n = g.stream_sent[stream] + 1
    memset(&f, 0, sizeof(Frame))
    f.type = F_SEND
    f.kind = KIND_TEXT
    f.address = s.targets[s.at]
    f.id = s.next_id
    f.body = body
    f.body_n = g.body_bytes
    memcpy(body, &sent_ns, 8)
    memcpy(body + 8, &stream, 4)
    memcpy(body + 12, &n, 4)
    memset(body + FILLING_AT, <uint8_t>n, g.body_bytes - FILLING_AT)
    if put_frame(g, l, &f) != 0:
        return 0
    g.stream_sent[stream] = n
    slot.id = s.next_id
    slot.sent_ns = sent_ns
    slot.recipient = f.address
    slot.accepted = 0
    s.next_id += 1
    s.at = s.at + 1 if s.at + 1 < s.targets_n else 0
    s.outstanding += 1
    s.left -= 1
    g.under_way += 1
    g.counts.sent += 1
    return 1


cdef int top_up(Gen* g, Line* l, uint64_t sent_ns) noexcept nogil:
    cdef int n = 0
    while begin_one(g, l, sent_ns):
        n += 1
    return n


cdef void on_batch(Gen* g, Line* l) noexcept nogil:
    if g.topping and l.sender != NULL:
        top_up(g, l, g.now_ns)


# --- receiving ----------------------------------------------------------------------------------------------

cdef void acknowledge(Gen* g, Line* l, uint64_t seq) noexcept nogil:
    """Adds seq to the range that the end of this read acknowledges."""
    if l.mute_from:
        return
    if g.ack_n and seq != g.ack_first + g.ack_n:
        put_simple(g, l, F_ACK if g.ack_n == 1 else F_ACK_RANGE, g.ack_first, g.ack_n)
        g.ack_n = 0
    if g.ack_n == 0:
        g.ack_first = <uint32_t>seq
    g.ack_n += 1
    if g.ack_n == 64:
        put_simple(g, l, F_ACK_RANGE, g.ack_first, g.ack_n)
        g.ack_n = 0


cdef void on_delivery(Gen* g, Line* l, const Frame* f) noexcept nogil:
    cdef uint64_t sent_ns
    cdef uint32_t stream, n
    cdef bint again = f.number <= l.seq_seen
    acknowledge(g, l, f.number)
    if again:
        g.counts.resent += 1              # the same delivery once more, as the protocol has it after 5 s
        return
    l.seq_seen = <uint32_t>f.number
    if f.body_n != g.body_bytes:
        g.counts.bad_bodies += 1
        return
    memcpy(&sent_ns, f.body, 8)
    memcpy(&stream, f.body + 8, 4)
    memcpy(&n, f.body + 12, 4)
    if stream >= g.streams_n or f.body[FILLING_AT] != <uint8_t>n or memcmp(
        f.body + FILLING_AT, f.body + FILLING_AT + 1, f.body_n - FILLING_AT - 1
    ) != 0:
        g.counts.bad_bodies += 1
        return
    if n <= g.stream_heard[stream]:
        g.counts.duplicates += 1
        return
    if n != g.stream_heard[stream] + 1:
        g.counts.gaps += 1
    g.stream_heard[stream] = n
    g.counts.received += 1
    hist_add(&g.to_recipient, g.now_ns - sent_ns if g.now_ns > sent_ns else 0)


cdef void on_receipt(Gen* g, Line* l, const Frame* f) noexcept nogil:
    cdef Sender* s = l.sender
    cdef Slot* slot
    if s == NULL:
        g.counts.bad_receipts += 1
        return
    slot = &s.slots[f.id % SLOTS_N]
    if slot.id != f.id or slot.recipient != f.address:
        if not g.receipts_stray:
            g.counts.bad_receipts += 1
        elif f.type == F_DELIVERED:
            g.counts.delivered += 1
        return
    if f.type == F_ACCEPTED:
        if slot.accepted:
            g.counts.bad_receipts += 1
        slot.accepted = 1
        g.counts.accepted += 1
        if not g.one_tick:
            return
    elif f.type == F_REFUSED:
        g.counts.refused += 1
        g.last_close = <uint32_t>f.number
    else:
        g.counts.delivered += 1
    if f.type != F_REFUSED:
        hist_add(&g.to_receipt, g.now_ns - slot.sent_ns if g.now_ns > slot.sent_ns else 0)
    slot.id = 0
    s.outstanding -= 1
    g.under_way -= 1


cdef void on_frame(Gen* g, Line* l, const Frame* f) noexcept nogil:
    if f.type == F_DELIVER or f.type == F_DELIVER_QUEUED:
        on_delivery(g, l, f)
    elif f.type == F_DELIVERED or f.type == F_ACCEPTED or f.type == F_REFUSED:
        on_receipt(g, l, f)
    elif f.type == F_STORED_RECEIPT:
        acknowledge(g, l, f.number)
        if f.number > l.seq_seen:
            l.seq_seen = <uint32_t>f.number
            if f.extra == F_DELIVERED:
                g.counts.delivered += 1
    elif f.type == F_TICKET:
        keep_ticket(g, l, f)
    elif f.type != F_PONG:
        g.counts.bad_receipts += 1
