# cython: language_level=3
# HOT: every frame of every connection is read and written here, without Python and without allocation.
"""Frame codec: the plaintext of a transport record <-> frames.  The layout is docs/protocol.md, section 2.

One reading of every frame: varints in their shortest form only, every field inside its range, every body inside its
bound.  What frame_parse() accepts, frame_write() writes back byte for byte, and the other way round.
`wa/wire/frames.py` is the twin in Python; the two agree on every input.
"""
from libc.string cimport memcpy, memset

from wa import limits
from wa.errors import Code, LocalError, RemoteError

cdef enum:
    TYPE_FAMILY = 0xF0            # of SEND and DELIVER types; the low four bits are the kind
    KIND_MASK = 0x0F
    EXTENSION_MASK = 0x7F
    LEVEL_MIN = F_ACCEPTED
    LEVEL_MAX = F_REFUSED
    # Copies of wa/limits.py, as constants for the C compiler; compared below.
    ENVELOPE_BODY_BYTES = 65408
    REQUEST_BODY_BYTES = 32768
    ERROR_TEXT_BYTES = 1024
    PSK_BYTES = 32
    TICKET_BYTES = 255
    ACK_RANGE = 64

if (ENVELOPE_BODY_BYTES, REQUEST_BODY_BYTES, ERROR_TEXT_BYTES, TICKET_BYTES, ACK_RANGE) != (
    limits.ENVELOPE_BODY_BYTES_MAX,
    limits.REQUEST_BODY_BYTES_MAX,
    limits.ERROR_TEXT_BYTES_MAX,
    limits.TICKET_BYTES_MAX,
    limits.DELIVERY_WINDOW_MAX,
):
    raise LocalError("wire/frames.pyx and limits.py differ: change its copies and build again")

RawFrame = tuple[int, int, int, int, int, int, int, bytes]   # the Python face of Frame, see parse()

ctypedef struct Cursor:           # reads fields in order; after a failure it stays at the end and gives zeros
    const uint8_t* at
    const uint8_t* end
    bint failed


cdef int varint_put(uint8_t* out, uint64_t value) noexcept nogil:
    cdef int n = 0
    while value >= 0x80:
        out[n] = <uint8_t>(value | 0x80)
        value >>= 7
        n += 1
    out[n] = <uint8_t>value
    return n + 1


cdef int varint_get(const uint8_t* p, const uint8_t* end, uint64_t* value) noexcept nogil:
    cdef uint64_t result = 0
    cdef uint8_t byte
    cdef int n = 0
    while p + n < end and n < 10:
        byte = p[n]
        if n == 9 and byte > 1:   # more than 64 bits
            return FRAME_MALFORMED
        result |= <uint64_t>(byte & 0x7F) << (7 * n)
        n += 1
        if byte < 0x80:
            if byte == 0 and n > 1:   # a shorter form exists
                return FRAME_MALFORMED
            value[0] = result
            return n
    return FRAME_MALFORMED


cdef inline uint64_t take_varint(Cursor* c) noexcept nogil:
    cdef uint64_t value = 0
    cdef int n = varint_get(c.at, c.end, &value)
    if n < 0:
        c.failed = True
        c.at = c.end
        return 0
    c.at += n
    return value


cdef inline uint64_t take_u64(Cursor* c) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    if c.end - c.at < 8:
        c.failed = True
        c.at = c.end
        return 0
    for i in range(8):
        value = (value << 8) | c.at[i]
    c.at += 8
    return value


cdef inline uint8_t take_u8(Cursor* c) noexcept nogil:
    if c.at == c.end:
        c.failed = True
        return 0
    c.at += 1
    return (c.at - 1)[0]


cdef inline void take_body(Cursor* c, Frame* f, uint64_t max_bytes) noexcept nogil:
    cdef uint64_t n = take_varint(c)
    if n > max_bytes or n > <uint64_t>(c.end - c.at):
        c.failed = True
        return
    f.body = c.at
    f.body_n = <uint32_t>n
    c.at += n


cdef inline bint range_fits(uint64_t first, uint64_t count) noexcept nogil:
    """1..64 sequence numbers, the last of which is still a u64."""
    return 1 <= count <= ACK_RANGE and first + (count - 1) >= first


cdef inline bint receipt_fits(uint64_t level, uint64_t code) noexcept nogil:
    return LEVEL_MIN <= level <= LEVEL_MAX and code <= (0xFFFF if level == F_REFUSED else 0)


cdef int parse_envelope(uint8_t type, Cursor* c, Frame* f) noexcept nogil:
    f.type = type & TYPE_FAMILY
    f.kind = type & KIND_MASK
    if f.type >= F_DELIVER:
        f.number = take_varint(c)
    f.address = take_u64(c)
    f.id = take_u64(c)
    if f.type == F_SEND_TTL or f.type == F_DELIVER_QUEUED:
        f.extra = take_varint(c)
    take_body(c, f, ENVELOPE_BODY_BYTES)
    return 0


cdef int parse_receipt(uint8_t type, Cursor* c, Frame* f) noexcept nogil:
    cdef uint64_t code
    if type == F_STORED_RECEIPT:
        f.number = take_varint(c)
        f.extra = take_u8(c)
    f.address = take_u64(c)
    f.id = take_u64(c)
    if type == F_REFUSED:
        f.number = take_varint(c)
    elif type == F_STORED_RECEIPT:
        code = take_varint(c)
        if not receipt_fits(f.extra, code):
            return FRAME_MALFORMED
        f.code = <uint16_t>code
    return 0


cdef int parse_control(uint8_t type, Cursor* c, Frame* f) noexcept nogil:
    if type == F_PING or type == F_PONG:
        f.number = take_varint(c)
    elif type == F_ACK:
        f.number = take_varint(c)
        f.extra = 1
    elif type == F_ACK_RANGE:
        f.number = take_varint(c)
        f.extra = take_varint(c)
        if not range_fits(f.number, f.extra):
            return FRAME_MALFORMED
    elif type == F_OPEN or type == F_CLOSE:
        f.number = take_varint(c)
        f.extra = take_varint(c)
    elif type == F_READY:
        f.number = take_varint(c)
        f.extra = take_varint(c)
        f.address = take_u64(c)
    elif type == F_REQUEST or type == F_RESPONSE:
        f.number = take_varint(c)
        f.extra = take_varint(c)
        take_body(c, f, REQUEST_BODY_BYTES)
    elif type == F_NOTICE:
        f.number = take_varint(c)
        take_body(c, f, REQUEST_BODY_BYTES)
    elif type == F_ERROR:
        f.number = take_varint(c)
        take_body(c, f, ERROR_TEXT_BYTES)
    elif type == F_TICKET:
        f.number = take_varint(c)
        take_body(c, f, PSK_BYTES + TICKET_BYTES)
        if f.body_n <= PSK_BYTES:
            return FRAME_MALFORMED
    else:
        return FRAME_UNKNOWN
    return 0


cdef int64_t frame_parse(const uint8_t* p, size_t n, Frame* out) noexcept nogil:
    cdef Cursor c
    cdef uint8_t type
    cdef int status
    memset(out, 0, sizeof(Frame))
    if n == 0:
        return FRAME_MALFORMED
    type = p[0]
    c.at = p + 1
    c.end = p + n
    c.failed = False
    out.type = type
    if type >= F_EXTENSION:
        out.type = F_EXTENSION
        out.kind = type & EXTENSION_MASK
        take_body(&c, out, ENVELOPE_BODY_BYTES)
        status = 0
    elif type >= F_SEND:
        status = parse_envelope(type, &c, out)
    elif F_ACCEPTED <= type <= F_REFUSED or type == F_STORED_RECEIPT or type == F_MARK_READ:
        status = parse_receipt(type, &c, out)
    else:
        status = parse_control(type, &c, out)
    if status < 0:
        return status
    if c.failed:
        return FRAME_MALFORMED
    return c.at - p


cdef inline uint8_t* put_u64(uint8_t* out, uint64_t value) noexcept nogil:
    cdef int i
    for i in range(8):
        out[i] = <uint8_t>(value >> (56 - 8 * i))
    return out + 8


cdef inline uint8_t* put_varint(uint8_t* out, uint64_t value) noexcept nogil:
    return out + varint_put(out, value)


cdef uint8_t* put_envelope(uint8_t* out, const Frame* f) noexcept nogil:
    if f.type >= F_DELIVER:
        out = put_varint(out, f.number)
    out = put_u64(out, f.address)
    out = put_u64(out, f.id)
    if f.type == F_SEND_TTL or f.type == F_DELIVER_QUEUED:
        out = put_varint(out, f.extra)
    return put_varint(out, f.body_n)


cdef uint8_t* put_receipt(uint8_t* out, const Frame* f) noexcept nogil:
    if f.type == F_STORED_RECEIPT:
        out = put_varint(out, f.number)
        out[0] = <uint8_t>f.extra
        out += 1
    out = put_u64(out, f.address)
    out = put_u64(out, f.id)
    if f.type == F_REFUSED:
        out = put_varint(out, f.number)
    elif f.type == F_STORED_RECEIPT:
        out = put_varint(out, f.code)
    return out


cdef uint8_t* put_control(uint8_t* out, const Frame* f) noexcept nogil:
    out = put_varint(out, f.number)
    if (f.type != F_PING and f.type != F_PONG and f.type != F_ACK and f.type != F_NOTICE and f.type != F_ERROR
            and f.type != F_TICKET):
        out = put_varint(out, f.extra)
    if f.type == F_READY:
        out = put_u64(out, f.address)
    if F_REQUEST <= f.type <= F_NOTICE or f.type == F_ERROR or f.type == F_TICKET:
        out = put_varint(out, f.body_n)
    return out


cdef int check_writable(const Frame* f) noexcept nogil:
    """0 if frame_parse() would accept what is written for f, else its error."""
    cdef uint8_t t = f.type
    if t == F_SEND or t == F_SEND_TTL or t == F_DELIVER or t == F_DELIVER_QUEUED:
        return 0 if f.kind <= KIND_MASK and f.body_n <= ENVELOPE_BODY_BYTES else FRAME_MALFORMED
    if t == F_EXTENSION:
        return 0 if f.kind <= EXTENSION_MASK and f.body_n <= ENVELOPE_BODY_BYTES else FRAME_MALFORMED
    if t == F_REQUEST or t == F_RESPONSE or t == F_NOTICE:
        return 0 if f.body_n <= REQUEST_BODY_BYTES else FRAME_MALFORMED
    if t == F_ERROR:
        return 0 if f.body_n <= ERROR_TEXT_BYTES else FRAME_MALFORMED
    if t == F_TICKET:
        return 0 if PSK_BYTES < f.body_n <= PSK_BYTES + TICKET_BYTES else FRAME_MALFORMED
    if f.body_n != 0:             # the others carry none
        return FRAME_MALFORMED
    if t == F_ACK_RANGE:
        return 0 if range_fits(f.number, f.extra) else FRAME_MALFORMED
    if t == F_STORED_RECEIPT:
        return 0 if receipt_fits(f.extra, f.code) else FRAME_MALFORMED
    if F_OPEN <= t <= F_READY or F_ACCEPTED <= t <= F_REFUSED or t == F_ACK or t == F_MARK_READ:
        return 0
    return FRAME_UNKNOWN


cdef int64_t frame_write_header(uint8_t* out, size_t cap, const Frame* f) noexcept nogil:
    cdef uint8_t scratch[FRAME_HEADER_BYTES_MAX]
    cdef uint8_t* start = out if cap >= FRAME_HEADER_BYTES_MAX else scratch
    cdef uint8_t* at
    cdef int status = check_writable(f)
    if status < 0:
        return status
    start[0] = f.type | f.kind if f.type >= F_SEND else f.type
    if f.type == F_EXTENSION:
        at = put_varint(start + 1, f.body_n)
    elif f.type >= F_SEND:
        at = put_envelope(start + 1, f)
    elif F_ACCEPTED <= f.type <= F_STORED_RECEIPT or f.type == F_MARK_READ:
        at = put_receipt(start + 1, f)
    else:
        at = put_control(start + 1, f)
    if start != out:
        if <size_t>(at - start) > cap:
            return FRAME_SPACE
        memcpy(out, scratch, at - start)
    return at - start


cdef int64_t frame_write(uint8_t* out, size_t cap, const Frame* f) noexcept nogil:
    cdef int64_t n = frame_write_header(out, cap, f)
    if n < 0:
        return n
    if f.body_n > cap - <size_t>n:
        return FRAME_SPACE
    if f.body_n != 0:             # body may be NULL then
        memcpy(out + n, f.body, f.body_n)
    return n + f.body_n


def parse(data: bytes) -> list:
    """All frames of one record's plaintext, as (type, kind, code, address, id, number, extra, body).

    The meaning of each field by type is in wire/frames.pxd.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME).
    """
    cdef const uint8_t* p = data
    cdef size_t left = len(data)
    cdef int64_t used
    cdef Frame f
    frames = []
    while left:
        used = frame_parse(p, left, &f)
        if used == FRAME_UNKNOWN:
            raise RemoteError(Code.UNKNOWN_FRAME, f"type 0x{p[0]:02x}")
        if used < 0:
            raise RemoteError(Code.FRAME_MALFORMED, f"type 0x{p[0]:02x} at byte {len(data) - left}")
        frames.append((f.type, f.kind, f.code, f.address, f.id, f.number, f.extra, f.body[:f.body_n]))
        p += used
        left -= used
    return frames


def encode(
    type: int,
    kind: int = 0,
    code: int = 0,
    address: int = 0,
    id: int = 0,
    number: int = 0,
    extra: int = 0,
    body: bytes = b"",
    capacity: int | None = None,
) -> bytes:
    """One frame.  Raises LocalError when a field is outside its range or the frame is over `capacity` bytes.

    OverflowError when a number does not fit its C field at all.
    """
    cdef Frame f
    cdef int64_t n
    if len(body) > ENVELOPE_BODY_BYTES:
        raise LocalError(f"a body of {len(body)} bytes is over the limit of {ENVELOPE_BODY_BYTES}")
    memset(&f, 0, sizeof(f))
    f.type, f.kind, f.code = type, kind, code
    f.address, f.id, f.number, f.extra = address, id, number, extra
    f.body, f.body_n = body, len(body)
    out = bytearray(FRAME_HEADER_BYTES_MAX + len(body) if capacity is None else capacity)
    n = frame_write(out, len(out), &f)
    if n == FRAME_SPACE:
        raise LocalError(f"the frame does not fit {len(out)} bytes")
    if n == FRAME_UNKNOWN:
        raise LocalError(f"0x{type:02x} is not a base frame type")
    if n < 0:
        raise LocalError(f"a field of frame 0x{type:02x} is outside its range: see docs/protocol.md, section 2")
    return bytes(out[:n])
