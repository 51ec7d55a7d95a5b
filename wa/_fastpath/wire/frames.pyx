# cython: language_level=3
# HOT: every frame of every connection is read and written here, without Python and without allocation.
"""Frame codec: the plaintext of a transport record <-> frames.  The layout is docs/protocol.md, section 2.

The whole wire format is the table F_LAYOUT, a row for each type byte.  frame_parse() and frame_write() walk the same
row and know no frame by name, so a new frame is a new row.

Comes in: bytes that were opened and authenticated, or a Frame to be written.
Must hold: one reading of every frame.  Varints stand in their shortest form, every field is inside its range, every
body inside its bound.  What frame_parse() accepts, frame_write() writes back byte for byte, and the other way round.
Is called: nothing.

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
    enum { BODY_MAX = 65408, MAP_MAX = 32768, TEXT_MAX = 1024, PSK = 32, TICKET_MAX = 255, RANGE_MAX = 64 };

    /* The fields, in the order of the wire.  All frames share that order, so a row is a set of fields, and reading and
       writing are a straight line of tests.  (A loop over a list of fields took a quarter longer on mixed frames.) */
    enum {
        NUMBER = 0x001,               /* varint */
        EXTRA = 0x002,                /* varint */
        LEVEL = 0x004,                /* u8, in Frame.extra */
        ADDRESS = 0x008,              /* u64 */
        ID = 0x010,                   /* u64 */
        LATE_NUMBER = 0x020,          /* varint, in Frame.number */
        LATE_EXTRA = 0x040,           /* varint, in Frame.extra */
        CODE = 0x080,                 /* varint of at most 16 bits */
        BODY = 0x100,                 /* varint length, then so many bytes */
        BEHIND_ID = LATE_NUMBER | LATE_EXTRA | CODE
    };
    /* What must hold between the fields of one frame. */
    enum {
        ANY,                          /* nothing */
        ONE,                          /* extra is 1, which is not on the wire: a range of one */
        RANGE,                        /* extra sequence numbers from number on: 1..64, the last still a u64 */
        RECEIPT                       /* extra is a level, and code is 0 but at the last level */
    };

    typedef struct {
        uint8_t kind_bits;            /* of the type byte; the others are the base type, an F_ constant */
        uint8_t rule;
        uint16_t fields;              /* none: the type is unknown */
        uint32_t body_min, body_max;  /* bytes, both included */
    } FrameLayout;

    static const FrameLayout F_LAYOUT[256] = {
        /* type            kind  rule     fields, body_min, body_max                                  name */
        [0x01]          = {0x00, ANY,     NUMBER | EXTRA},                                         /* open */
        [0x02]          = {0x00, ANY,     NUMBER},                                                 /* ping */
        [0x03]          = {0x00, ANY,     NUMBER},                                                 /* pong */
        [0x04]          = {0x00, ANY,     NUMBER | EXTRA},                                         /* close */
        [0x05]          = {0x00, ANY,     NUMBER | EXTRA | ADDRESS},                               /* ready */
        [0x06]          = {0x00, ANY,     NUMBER | BODY, 0, TEXT_MAX},                             /* error */
        [0x07]          = {0x00, ANY,     NUMBER | BODY, PSK + 1, PSK + TICKET_MAX},               /* ticket */
        [0x10]          = {0x00, ANY,     NUMBER | EXTRA | BODY, 0, MAP_MAX},                      /* request */
        [0x11]          = {0x00, ANY,     NUMBER | EXTRA | BODY, 0, MAP_MAX},                      /* response */
        [0x12]          = {0x00, ANY,     NUMBER | BODY, 0, MAP_MAX},                              /* notice */
        [0x20]          = {0x00, ANY,     ADDRESS | ID},                                           /* accepted */
        [0x21]          = {0x00, ANY,     ADDRESS | ID},                                           /* delivered */
        [0x22]          = {0x00, ANY,     ADDRESS | ID},                                           /* read */
        [0x23]          = {0x00, ANY,     ADDRESS | ID | LATE_NUMBER},                             /* refused */
        [0x28]          = {0x00, RECEIPT, NUMBER | LEVEL | ADDRESS | ID | CODE},                   /* stored_receipt */
        [0x30]          = {0x00, ONE,     NUMBER},                                                 /* ack */
        [0x31]          = {0x00, RANGE,   NUMBER | EXTRA},                                         /* ack_range */
        [0x32]          = {0x00, ANY,     ADDRESS | ID},                                           /* mark_read */
        [0x40 ... 0x4F] = {0x0F, ANY,     ADDRESS | ID | BODY, 0, BODY_MAX},                       /* send */
        [0x50 ... 0x5F] = {0x0F, ANY,     ADDRESS | ID | LATE_EXTRA | BODY, 0, BODY_MAX},          /* send_ttl */
        [0x60 ... 0x6F] = {0x0F, ANY,     NUMBER | ADDRESS | ID | BODY, 0, BODY_MAX},              /* deliver */
        [0x70 ... 0x7F] = {0x0F, ANY,     NUMBER | ADDRESS | ID | LATE_EXTRA | BODY, 0, BODY_MAX}, /* deliver_queued */
        [0x80 ... 0xFF] = {0x7F, ANY,     BODY, 0, BODY_MAX},                                      /* extension */
    };
    """
    enum:
        BODY_MAX, MAP_MAX, TEXT_MAX, TICKET_MAX, RANGE_MAX
        NUMBER, EXTRA, LEVEL, ADDRESS, ID, LATE_NUMBER, LATE_EXTRA, CODE, BODY, BEHIND_ID
        ANY, ONE, RANGE, RECEIPT
    ctypedef struct FrameLayout:
        uint8_t kind_bits
        uint8_t rule
        uint16_t fields
        uint32_t body_min, body_max
    const FrameLayout[256] F_LAYOUT
    bint likely(bint) nogil           # of Cython's own C; 5 % of a write

assert BODY_MAX == ENVELOPE_BODY_BYTES_MAX and MAP_MAX == REQUEST_BODY_BYTES_MAX and TEXT_MAX == ERROR_TEXT_BYTES_MAX
assert TICKET_MAX == TICKET_BYTES_MAX and RANGE_MAX == DELIVERY_WINDOW_MAX

RawFrame = tuple[int, int, int, int, int, int, int, bytes]   # the Python face of Frame, see parse()
Row = tuple[int, str, list[str], int, int]                   # the Python face of FrameLayout, see layout()
FIELDS = [
    (NUMBER, "varint number"), (EXTRA, "varint extra"), (LEVEL, "u8 extra"), (ADDRESS, "u64 address"), (ID, "u64 id"),
    (LATE_NUMBER, "varint number"), (LATE_EXTRA, "varint extra"), (CODE, "varint code"), (BODY, "bytes body"),
]
RULES = {ANY: "ANY", ONE: "ONE", RANGE: "RANGE", RECEIPT: "RECEIPT"}


# --- fields ---------------------------------------------------------------------------------------------------

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


cdef inline const uint8_t* take_varint(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Behind the varint, or NULL."""
    cdef int n
    if likely(at != end and at[0] < 0x80):
        value[0] = at[0]
        return at + 1
    n = varint_get(at, end, value)
    return at + n if n > 0 else NULL


cdef inline const uint8_t* take_u64(const uint8_t* at, const uint8_t* end, uint64_t* value) noexcept nogil:
    """Behind the number, or NULL.  One load and one bswap; written as a loop it is neither to the compiler."""
    if end - at < 8:
        return NULL
    value[0] = (
        <uint64_t>at[0] << 56 | <uint64_t>at[1] << 48 | <uint64_t>at[2] << 40 | <uint64_t>at[3] << 32
        | <uint64_t>at[4] << 24 | <uint64_t>at[5] << 16 | <uint64_t>at[6] << 8 | <uint64_t>at[7]
    )
    return at + 8


cdef inline uint8_t* put_varint(uint8_t* out, uint64_t value) noexcept nogil:
    if likely(value < 0x80):
        out[0] = <uint8_t>value
        return out + 1
    return out + varint_put(out, value)


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


# --- frames ---------------------------------------------------------------------------------------------------

cdef inline bint rule_holds(int rule, const Frame* f) noexcept nogil:
    if rule == RANGE:
        return 1 <= f.extra <= RANGE_MAX and f.number + (f.extra - 1) >= f.number
    if rule == RECEIPT:
        return F_ACCEPTED <= f.extra <= F_REFUSED and (f.code == 0 or f.extra == F_REFUSED)
    return True


cdef inline const uint8_t* take_body(
    const uint8_t* at, const uint8_t* end, const FrameLayout* row, Frame* f
) noexcept nogil:
    cdef uint64_t n = 0
    at = take_varint(at, end, &n)
    if at == NULL or not row.body_min <= n <= row.body_max or n > <uint64_t>(end - at):
        return NULL
    f.body = at
    f.body_n = <uint32_t>n
    return at + n


cdef inline const uint8_t* take_behind_id(
    unsigned int fields, const uint8_t* at, const uint8_t* end, Frame* f
) noexcept nogil:
    cdef uint64_t code = 0
    if fields & LATE_NUMBER:
        at = take_varint(at, end, &f.number)
        if at == NULL:
            return NULL
    if fields & LATE_EXTRA:
        at = take_varint(at, end, &f.extra)
        if at == NULL:
            return NULL
    if fields & CODE:
        at = take_varint(at, end, &code)
        if code > 0xFFFF:
            return NULL
        f.code = <uint16_t>code
    return at


cdef int64_t frame_parse(const uint8_t* p, size_t n, Frame* out) noexcept nogil:
    cdef const FrameLayout* row
    cdef const uint8_t* at = p + 1
    cdef const uint8_t* end = p + n
    cdef unsigned int fields
    memset(out, 0, sizeof(Frame))
    if n == 0:
        return FRAME_MALFORMED
    row = F_LAYOUT + p[0]
    fields = row.fields
    if fields == 0:
        return FRAME_UNKNOWN
    out.type = p[0] & ~row.kind_bits
    out.kind = p[0] & row.kind_bits
    if fields & NUMBER:
        at = take_varint(at, end, &out.number)
        if at == NULL:
            return FRAME_MALFORMED
    if fields & EXTRA:
        at = take_varint(at, end, &out.extra)
        if at == NULL:
            return FRAME_MALFORMED
    if fields & LEVEL:
        if at == end:
            return FRAME_MALFORMED
        out.extra = at[0]
        at += 1
    if fields & ADDRESS:
        at = take_u64(at, end, &out.address)
        if at == NULL:
            return FRAME_MALFORMED
    if fields & ID:
        at = take_u64(at, end, &out.id)
        if at == NULL:
            return FRAME_MALFORMED
    if fields & BEHIND_ID:
        at = take_behind_id(fields, at, end, out)
        if at == NULL:
            return FRAME_MALFORMED
    if fields & BODY:
        at = take_body(at, end, row, out)
        if at == NULL:
            return FRAME_MALFORMED
    if row.rule != ANY:
        if row.rule == ONE:
            out.extra = 1
        elif not rule_holds(row.rule, out):
            return FRAME_MALFORMED
    return at - p


cdef inline int check_writable(const FrameLayout* row, const Frame* f) noexcept nogil:
    """0 if frame_parse() would accept what is written for f, else its error."""
    if row.fields == 0 or f.type & row.kind_bits:
        return FRAME_UNKNOWN if f.body_n == 0 else FRAME_MALFORMED
    if not row.body_min <= f.body_n <= row.body_max:
        return FRAME_MALFORMED
    if row.kind_bits and f.kind > row.kind_bits:
        return FRAME_MALFORMED
    return 0 if row.rule == ANY or rule_holds(row.rule, f) else FRAME_MALFORMED


cdef inline int64_t put_header(uint8_t* out, const Frame* f) noexcept nogil:
    """out has space for FRAME_HEADER_BYTES_MAX."""
    cdef const FrameLayout* row = F_LAYOUT + f.type
    cdef unsigned int fields = row.fields
    cdef uint8_t* at = out + 1
    cdef int status = check_writable(row, f)
    if status < 0:
        return status
    out[0] = f.type | (f.kind & row.kind_bits)
    if fields & NUMBER:
        at = put_varint(at, f.number)
    if fields & EXTRA:
        at = put_varint(at, f.extra)
    if fields & LEVEL:
        at[0] = <uint8_t>f.extra
        at += 1
    if fields & ADDRESS:
        at = put_u64(at, f.address)
    if fields & ID:
        at = put_u64(at, f.id)
    if fields & BEHIND_ID:
        if fields & LATE_NUMBER:
            at = put_varint(at, f.number)
        if fields & LATE_EXTRA:
            at = put_varint(at, f.extra)
        if fields & CODE:
            at = put_varint(at, f.code)
    if fields & BODY:
        at = put_varint(at, f.body_n)
    return at - out


cdef int64_t frame_write_header(uint8_t* out, size_t cap, const Frame* f) noexcept nogil:
    cdef uint8_t scratch[FRAME_HEADER_BYTES_MAX]
    cdef int64_t n
    if likely(cap >= FRAME_HEADER_BYTES_MAX):
        return put_header(out, f)
    n = put_header(scratch, f)
    if n > <int64_t>cap:
        return FRAME_SPACE
    if n > 0:
        memcpy(out, scratch, n)
    return n


cdef int64_t frame_write(uint8_t* out, size_t cap, const Frame* f) noexcept nogil:
    cdef int64_t n
    n = put_header(out, f) if likely(cap >= FRAME_HEADER_BYTES_MAX) else frame_write_header(out, cap, f)
    if n < 0 or f.body_n == 0:    # body may be NULL then
        return n
    if f.body_n > cap - <size_t>n:
        return FRAME_SPACE
    memcpy(out + n, f.body, f.body_n)
    return n + f.body_n


# --- the Python face ------------------------------------------------------------------------------------------

def layout() -> dict:
    """F_LAYOUT by type byte, unknown types left out: (kind bits, rule, fields, least and greatest body), for tests."""
    return {
        type: (
            F_LAYOUT[type].kind_bits,
            RULES[F_LAYOUT[type].rule],
            [name for bit, name in FIELDS if F_LAYOUT[type].fields & bit],
            F_LAYOUT[type].body_min,
            F_LAYOUT[type].body_max,
        )
        for type in range(256)
        if F_LAYOUT[type].fields
    }


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
    if len(body) > BODY_MAX:
        raise LocalError(f"a body of {len(body)} bytes is over the limit of {BODY_MAX}")
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
