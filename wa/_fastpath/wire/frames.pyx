# cython: language_level=3
# HOT: every frame of every connection is read and written here, without Python and without allocation.
"""Frame codec: the plaintext of a transport record <-> frames.  The layout is docs/protocol.md, section 2.

Comes in: bytes that were opened and authenticated, or a Frame to be written.
Must hold: one reading of every frame.  Varints stand in their shortest form, every field is inside its range, every
body inside its bound.  What frame_parse() accepts, frame_write() writes back byte for byte, and the other way round.
Is called: nothing.  Both walk the row of F_LAYOUT that belongs to the type byte; a new frame is a new row.

`wa/wire/frames.py` is the twin in Python with the same table; the two agree on every input.
"""
from libc.string cimport memcpy, memset
from wa._fastpath.base.bounds cimport (
    DELIVERY_WINDOW_MAX, ENVELOPE_BODY_BYTES_MAX, ERROR_TEXT_BYTES_MAX, REQUEST_BODY_BYTES_MAX, TICKET_BYTES_MAX,
)

from wa.errors import Code, LocalError, RemoteError

cdef extern from *:
    """
    #include <stdint.h>
    /* Those of base/bounds.pxd, for the initialisers of the table; compared below. */
    enum {
        ENVELOPE_BODY_BYTES = 65408,
        REQUEST_BODY_BYTES = 32768,
        ERROR_TEXT_BYTES = 1024,
        PSK_BYTES = 32,
        TICKET_BYTES = 255,
        ACK_RANGE = 64
    };
    /* One field: how it stands on the wire, then the member of Frame that holds it. */
    enum { END, VARINT_NUMBER, VARINT_EXTRA, VARINT_CODE, U8_EXTRA, U64_ADDRESS, U64_ID, BYTES_BODY };
    /* What the fields of one frame must be to each other, see rule_holds(). */
    enum { NO_RULE, ONE_SEQ, SEQ_RANGE, RECEIPT };

    typedef struct {
        uint8_t base;                 /* F_ constant: the type byte without its kind bits */
        uint8_t kind_bits;            /* of the type byte */
        uint16_t rule;
        uint8_t fields[8];            /* in wire order; zeros behind the last are END */
        uint16_t body_min, body_max;  /* bytes, both included */
    } FrameLayout;

    /* The wire format.  A row for each type byte; what has none is unknown. */
    static const FrameLayout F_LAYOUT[256] = {
        /* type            base  kind  rule       fields                             body at least, at most */
        [0x01]          = {0x01, 0x00, NO_RULE,   {VARINT_NUMBER, VARINT_EXTRA}},
        [0x02]          = {0x02, 0x00, NO_RULE,   {VARINT_NUMBER}},
        [0x03]          = {0x03, 0x00, NO_RULE,   {VARINT_NUMBER}},
        [0x04]          = {0x04, 0x00, NO_RULE,   {VARINT_NUMBER, VARINT_EXTRA}},
        [0x05]          = {0x05, 0x00, NO_RULE,   {VARINT_NUMBER, VARINT_EXTRA, U64_ADDRESS}},
        [0x06]          = {0x06, 0x00, NO_RULE,   {VARINT_NUMBER, BYTES_BODY}, 0, ERROR_TEXT_BYTES},
        [0x07]          = {0x07, 0x00, NO_RULE,   {VARINT_NUMBER, BYTES_BODY}, PSK_BYTES + 1, PSK_BYTES + TICKET_BYTES},
        [0x10]          = {0x10, 0x00, NO_RULE,   {VARINT_NUMBER, VARINT_EXTRA, BYTES_BODY}, 0, REQUEST_BODY_BYTES},
        [0x11]          = {0x11, 0x00, NO_RULE,   {VARINT_NUMBER, VARINT_EXTRA, BYTES_BODY}, 0, REQUEST_BODY_BYTES},
        [0x12]          = {0x12, 0x00, NO_RULE,   {VARINT_NUMBER, BYTES_BODY}, 0, REQUEST_BODY_BYTES},
        [0x20]          = {0x20, 0x00, NO_RULE,   {U64_ADDRESS, U64_ID}},
        [0x21]          = {0x21, 0x00, NO_RULE,   {U64_ADDRESS, U64_ID}},
        [0x22]          = {0x22, 0x00, NO_RULE,   {U64_ADDRESS, U64_ID}},
        [0x23]          = {0x23, 0x00, NO_RULE,   {U64_ADDRESS, U64_ID, VARINT_NUMBER}},
        [0x28]          = {0x28, 0x00, RECEIPT,   {VARINT_NUMBER, U8_EXTRA, U64_ADDRESS, U64_ID, VARINT_CODE}},
        [0x30]          = {0x30, 0x00, ONE_SEQ,   {VARINT_NUMBER}},
        [0x31]          = {0x31, 0x00, SEQ_RANGE, {VARINT_NUMBER, VARINT_EXTRA}},
        [0x32]          = {0x32, 0x00, NO_RULE,   {U64_ADDRESS, U64_ID}},
        [0x40 ... 0x4F] = {0x40, 0x0F, NO_RULE,   {U64_ADDRESS, U64_ID, BYTES_BODY}, 0, ENVELOPE_BODY_BYTES},
        [0x50 ... 0x5F] = {0x50, 0x0F, NO_RULE,   {U64_ADDRESS, U64_ID, VARINT_EXTRA, BYTES_BODY},
                           0, ENVELOPE_BODY_BYTES},
        [0x60 ... 0x6F] = {0x60, 0x0F, NO_RULE,   {VARINT_NUMBER, U64_ADDRESS, U64_ID, BYTES_BODY},
                           0, ENVELOPE_BODY_BYTES},
        [0x70 ... 0x7F] = {0x70, 0x0F, NO_RULE,   {VARINT_NUMBER, U64_ADDRESS, U64_ID, VARINT_EXTRA, BYTES_BODY},
                           0, ENVELOPE_BODY_BYTES},
        [0x80 ... 0xFF] = {0x80, 0x7F, NO_RULE,   {BYTES_BODY}, 0, ENVELOPE_BODY_BYTES},
    };
    """
    enum:
        ENVELOPE_BODY_BYTES, REQUEST_BODY_BYTES, ERROR_TEXT_BYTES, PSK_BYTES, TICKET_BYTES, ACK_RANGE
        END, VARINT_NUMBER, VARINT_EXTRA, VARINT_CODE, U8_EXTRA, U64_ADDRESS, U64_ID, BYTES_BODY
        NO_RULE, ONE_SEQ, SEQ_RANGE, RECEIPT
    ctypedef struct FrameLayout:
        uint8_t base
        uint8_t kind_bits
        uint16_t rule
        uint8_t[8] fields
        uint16_t body_min, body_max
    const FrameLayout[256] F_LAYOUT

assert ENVELOPE_BODY_BYTES == ENVELOPE_BODY_BYTES_MAX and REQUEST_BODY_BYTES == REQUEST_BODY_BYTES_MAX
assert ERROR_TEXT_BYTES == ERROR_TEXT_BYTES_MAX and TICKET_BYTES == TICKET_BYTES_MAX
assert ACK_RANGE == DELIVERY_WINDOW_MAX

RawFrame = tuple[int, int, int, int, int, int, int, bytes]   # the Python face of Frame, see parse()


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


cdef inline bint rule_holds(int rule, const Frame* f) noexcept nogil:
    if rule == SEQ_RANGE:         # 1..64 sequence numbers, the last of which is still a u64
        return 1 <= f.extra <= ACK_RANGE and f.number + (f.extra - 1) >= f.number
    if rule == RECEIPT:
        return F_ACCEPTED <= f.extra <= F_REFUSED and (f.code == 0 or f.extra == F_REFUSED)
    return True


cdef inline uint64_t load_u64(const uint8_t* p) noexcept nogil:
    return (
        <uint64_t>p[0] << 56 | <uint64_t>p[1] << 48 | <uint64_t>p[2] << 40 | <uint64_t>p[3] << 32
        | <uint64_t>p[4] << 24 | <uint64_t>p[5] << 16 | <uint64_t>p[6] << 8 | p[7]
    )


cdef inline const uint8_t* take_varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Behind the varint, or NULL."""
    cdef int n
    if at != end and at[0] < 0x80:
        value[0] = at[0]
        return at + 1
    n = varint_get(at, end, value)
    return at + n if n > 0 else NULL


cdef inline const uint8_t* take_u64(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    if end - at < 8:
        return NULL
    value[0] = load_u64(at)
    return at + 8


cdef int64_t frame_parse(const uint8_t* p, size_t n, Frame* out) noexcept nogil:
    cdef const FrameLayout* row
    cdef const uint8_t* field
    cdef const uint8_t* at = p + 1
    cdef const uint8_t* end = p + n
    cdef uint64_t value = 0
    memset(out, 0, sizeof(Frame))
    if n == 0:
        return FRAME_MALFORMED
    row = &F_LAYOUT[p[0]]
    if row.base == 0:
        return FRAME_UNKNOWN
    out.type = row.base
    out.kind = p[0] & row.kind_bits
    field = row.fields
    while field[0] != END:
        if field[0] == VARINT_NUMBER:
            at = take_varint(at, end, &out.number)
        elif field[0] == VARINT_EXTRA:
            at = take_varint(at, end, &out.extra)
        elif field[0] == U64_ADDRESS:
            at = take_u64(at, end, &out.address)
        elif field[0] == U64_ID:
            at = take_u64(at, end, &out.id)
        elif field[0] == U8_EXTRA:
            if at == end:
                return FRAME_MALFORMED
            out.extra = at[0]
            at += 1
        elif field[0] == VARINT_CODE:
            at = take_varint(at, end, &value)
            if value > 0xFFFF:
                return FRAME_MALFORMED
            out.code = <uint16_t>value
        else:
            at = take_varint(at, end, &value)
            if at == NULL or not row.body_min <= value <= row.body_max or value > <uint64_t>(end - at):
                return FRAME_MALFORMED
            out.body = at
            out.body_n = <uint32_t>value
            at += value
        if at == NULL:
            return FRAME_MALFORMED
        field += 1
    if row.rule != NO_RULE:
        if row.rule == ONE_SEQ:
            out.extra = 1
        elif not rule_holds(row.rule, out):
            return FRAME_MALFORMED
    return at - p


cdef inline uint8_t* put_u64(uint8_t* out, uint64_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 56)
    out[1] = <uint8_t>(value >> 48)
    out[2] = <uint8_t>(value >> 40)
    out[3] = <uint8_t>(value >> 32)
    out[4] = <uint8_t>(value >> 24)
    out[5] = <uint8_t>(value >> 16)
    out[6] = <uint8_t>(value >> 8)
    out[7] = <uint8_t>value
    return out + 8


cdef inline uint8_t* put_varint(uint8_t* out, uint64_t value) noexcept nogil:
    if value < 0x80:
        out[0] = <uint8_t>value
        return out + 1
    return out + varint_put(out, value)


cdef int64_t frame_write_header(uint8_t* out, size_t cap, const Frame* f) noexcept nogil:
    cdef const FrameLayout* row = &F_LAYOUT[f.type]
    cdef const uint8_t* field = row.fields
    cdef uint8_t scratch[FRAME_HEADER_BYTES_MAX]
    cdef uint8_t* start = out if cap >= FRAME_HEADER_BYTES_MAX else scratch
    cdef uint8_t* at = start + 1
    if row.base != f.type or field[0] == END:
        return FRAME_MALFORMED if f.body_n else FRAME_UNKNOWN
    if not row.body_min <= f.body_n <= row.body_max or (row.kind_bits and f.kind > row.kind_bits):
        return FRAME_MALFORMED
    if row.rule != NO_RULE and not rule_holds(row.rule, f):
        return FRAME_MALFORMED
    start[0] = f.type | (f.kind & row.kind_bits)
    while field[0] != END:
        if field[0] == VARINT_NUMBER:
            at = put_varint(at, f.number)
        elif field[0] == VARINT_EXTRA:
            at = put_varint(at, f.extra)
        elif field[0] == U64_ADDRESS:
            at = put_u64(at, f.address)
        elif field[0] == U64_ID:
            at = put_u64(at, f.id)
        elif field[0] == U8_EXTRA:
            at[0] = <uint8_t>f.extra
            at += 1
        elif field[0] == VARINT_CODE:
            at = put_varint(at, f.code)
        else:
            at = put_varint(at, f.body_n)
        field += 1
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


def layout() -> list:
    """F_LAYOUT by type byte: None, or (base, kind bits, fields, shortest body, longest body), for tests."""
    names = {VARINT_NUMBER: "varint", VARINT_EXTRA: "varint", VARINT_CODE: "varint", U8_EXTRA: "u8", U64_ADDRESS: "u64",
             U64_ID: "u64", BYTES_BODY: "bytes"}
    rows = []
    for type in range(256):
        row = F_LAYOUT[type]
        fields = [names[field] for field in row.fields if field != END]
        rows.append((row.base, row.kind_bits, fields, row.body_min, row.body_max) if row.base else None)
    return rows


def parse(data: bytes) -> list:
    """All frames of one record's plaintext, as (type, kind, code, address, id, number, extra, body).

    The meaning of each field by type is in frames.pxd.  Raises RemoteError(FRAME_MALFORMED or UNKNOWN_FRAME).
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
