# cython: language_level=3
"""Contract of the frame codec: plaintext of transport records <-> frames.  See docs/protocol.md.

A parsed Frame is a view: `body` points into the caller's buffer and lives only as long as that.  When parsing fails,
the Frame means nothing.  What stands on the wire, and in which order, is the table F_LAYOUT of frames.pyx.
"""
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t

cdef enum:
    F_OPEN = 0x01                 # number = client version, extra = flags
    F_PING = 0x02                 # number = token
    F_PONG = 0x03
    F_CLOSE = 0x04                # number = code, extra = retry_after_ms
    F_READY = 0x05                # number = server version, extra = queued envelopes, address = wall ms
    F_ERROR = 0x06                # number = code, body = UTF-8 text
    F_TICKET = 0x07               # number = lifetime in seconds, body = psk 32, then the ticket
    F_REQUEST = 0x10              # number = request id, extra = method, body = msgpack
    F_RESPONSE = 0x11             # number = request id, extra = status code, body = msgpack
    F_NOTICE = 0x12               # number = notice kind, body = msgpack
    F_ACCEPTED = 0x20             # address = recipient, id
    F_DELIVERED = 0x21
    F_READ = 0x22
    F_REFUSED = 0x23              # address, id, number = code
    F_STORED_RECEIPT = 0x28       # number = seq, extra = level (frame type 0x20..0x23) , address, id, code
    F_ACK = 0x30                  # number = seq, extra = 1
    F_ACK_RANGE = 0x31            # number = first seq, extra = count
    F_MARK_READ = 0x32            # address = sender of the message, id
    F_SEND = 0x40                 # | kind; address = recipient, id, body
    F_SEND_TTL = 0x50             # | kind; extra = ttl seconds
    F_DELIVER = 0x60              # | kind; number = seq, address = sender, id, body
    F_DELIVER_QUEUED = 0x70       # | kind; extra = Unix seconds of acceptance
    F_EXTENSION = 0x80            # 0x80..0xff: varint length, payload; an unknown one is skipped with F_ERROR

    FRAME_MALFORMED = -1
    FRAME_UNKNOWN = -2
    FRAME_SPACE = -3              # output buffer too small: the caller's fault
    FRAME_HEADER_BYTES_MAX = 48   # header of any frame, without body

ctypedef struct Frame:
    uint8_t type                  # SEND and DELIVER families: the base type, kind taken out
    uint8_t kind                  # 0..15 in those families; extensions: the low seven bits of the type
    uint16_t code                 # F_STORED_RECEIPT only
    uint32_t body_n
    uint64_t address
    uint64_t id
    uint64_t number
    uint64_t extra
    const uint8_t* body

cdef int varint_put(uint8_t* out, uint64_t value) noexcept nogil                       # bytes written, 1..10
cdef int varint_get(const uint8_t* p, const uint8_t* end, uint64_t* value) noexcept nogil
# bytes read or FRAME_MALFORMED
cdef int64_t frame_parse(const uint8_t* p, size_t n, Frame* out) noexcept nogil  # bytes consumed, > 0, or negative
cdef int64_t frame_write(uint8_t* out, size_t cap, const Frame* f) noexcept nogil      # bytes written or negative
cdef int64_t frame_write_header(uint8_t* out, size_t cap, const Frame* f) noexcept nogil # all but the body itself
