# cython: language_level=3
"""Bytes on disk of the mailbox environment: the rows of its log and their checksums.  docs/storage.md has the same as
prose.

The key of a row is its place, a u64.  Integers are big-endian, so that LMDB's byte order is their order.  Checksums are
CRC-32 and begin with the place: a row in a wrong place is as corrupt as one with a flipped bit.

    ENVELOPE  type 1, kind 1, priority 1, recipient 8, sender 8, id 8, seq 8, accepted_s 4, expires_s 4, crc 4,
              body, crc 4
    SHARED    the same up to expires_s, number of the body 8, crc 4
    BODY      type 1, number 8, crc 4, body, crc 4
    RECEIPT   type 1, level 1, code 2, owner 8, peer 8, id 8, accepted_s 4, expires_s 4, crc 4
    ENDED     type 1, cut 8, places 8 each, crc 4

The first crc of ENVELOPE and BODY is over the head alone: what is known of a row does not depend on its body.  The
second one goes on from there over the body.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.envelope cimport Envelope

cdef enum:
    FORMAT = 2
    CRC_BYTES = 4

    ROW_ENVELOPE = 1
    ROW_SHARED = 2                # an envelope whose body is a BODY
    ROW_BODY = 3
    ROW_RECEIPT = 4
    ROW_ENDED = 5                 # what is at these places, and everything below the cut, is no more

    ENVELOPE_HEAD = 43            # all heads without their checksum
    SHARED_HEAD = 51
    BODY_HEAD = 9
    RECEIPT_HEAD = 36
    ENDED_HEAD = 9
    ENDED_PLACES_MAX = 240        # of one row: 1,933 bytes stay within LMDB's leaf pages

    AT_KIND = 1                   # ENVELOPE and SHARED
    AT_PRIORITY = 2
    AT_RECIPIENT = 3
    AT_SENDER = 11
    AT_ID = 19
    AT_SEQ = 27
    AT_ACCEPTED = 35
    AT_EXPIRES = 39
    AT_NUMBER = 43                # SHARED
    AT_BODY_NUMBER = 1            # BODY
    AT_LEVEL = 1                  # RECEIPT
    AT_CODE = 2
    AT_OWNER = 4
    AT_PEER = 12
    AT_RECEIPT_ID = 20
    AT_RECEIPT_ACCEPTED = 28
    AT_RECEIPT_EXPIRES = 32
    AT_CUT = 1                    # ENDED

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    /* CRC-32 of ISO 3309 (zlib's), eight bytes a step; little-endian machines only take the fast path. */
    static uint32_t wa_crc_table[8][256];
    __attribute__((unused)) static void wa_crc_init(void) {
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++) c = c & 1 ? 0xedb88320u ^ (c >> 1) : c >> 1;
            wa_crc_table[0][i] = c;
        }
        for (int t = 1; t < 8; t++)
            for (uint32_t i = 0; i < 256; i++) {
                uint32_t c = wa_crc_table[t - 1][i];
                wa_crc_table[t][i] = wa_crc_table[0][c & 255] ^ (c >> 8);
            }
    }
    __attribute__((unused)) static uint32_t wa_crc(uint32_t crc, const uint8_t *p, size_t n) {
        crc = ~crc;
    #if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        while (n >= 8) {
            uint32_t a, b;
            memcpy(&a, p, 4);
            memcpy(&b, p + 4, 4);
            a ^= crc;
            crc = wa_crc_table[7][a & 255] ^ wa_crc_table[6][a >> 8 & 255] ^ wa_crc_table[5][a >> 16 & 255]
                ^ wa_crc_table[4][a >> 24] ^ wa_crc_table[3][b & 255] ^ wa_crc_table[2][b >> 8 & 255]
                ^ wa_crc_table[1][b >> 16 & 255] ^ wa_crc_table[0][b >> 24];
            p += 8;
            n -= 8;
        }
    #endif
        while (n--) crc = wa_crc_table[0][(crc ^ *p++) & 255] ^ (crc >> 8);
        return ~crc;
    }
    """
    void wa_crc_init() nogil
    uint32_t wa_crc(uint32_t crc, const uint8_t* p, size_t n) nogil


cdef inline void put32(uint8_t* p, uint32_t v) noexcept nogil:
    p[0], p[1], p[2], p[3] = <uint8_t>(v >> 24), <uint8_t>(v >> 16), <uint8_t>(v >> 8), <uint8_t>v


cdef inline uint32_t get32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline void put64(uint8_t* p, uint64_t v) noexcept nogil:
    put32(p, <uint32_t>(v >> 32))
    put32(p + 4, <uint32_t>v)


cdef inline uint64_t get64(const uint8_t* p) noexcept nogil:
    return <uint64_t>get32(p) << 32 | get32(p + 4)


cdef inline void envelope_put(uint8_t* p, const Envelope* v, uint64_t seq) noexcept nogil:
    """The head of an ENVELOPE or SHARED row, but for its type."""
    p[AT_KIND] = v.kind
    p[AT_PRIORITY] = v.priority
    put64(p + AT_RECIPIENT, v.recipient)
    put64(p + AT_SENDER, v.sender)
    put64(p + AT_ID, v.id)
    put64(p + AT_SEQ, seq)
    put32(p + AT_ACCEPTED, v.accepted_s)
    put32(p + AT_EXPIRES, v.expires_s)


cdef inline void envelope_of(const uint8_t* p, Envelope* v) noexcept nogil:
    """The other way; its body is not counted here."""
    memset(v, 0, sizeof(Envelope))
    v.kind, v.priority = p[AT_KIND], p[AT_PRIORITY]
    v.recipient, v.sender, v.id = get64(p + AT_RECIPIENT), get64(p + AT_SENDER), get64(p + AT_ID)
    v.accepted_s, v.expires_s = get32(p + AT_ACCEPTED), get32(p + AT_EXPIRES)


cdef inline uint32_t head_crc(uint64_t place, const uint8_t* p, size_t n) noexcept nogil:
    cdef uint8_t key[8]
    put64(key, place)
    return wa_crc(wa_crc(0, key, 8), p, n)


cdef inline size_t head_bytes(uint8_t type) noexcept nogil:
    # Of a row with a head checksum of its own; 0 for what is no row at all.
    if type == ROW_ENVELOPE:
        return ENVELOPE_HEAD
    if type == ROW_SHARED:
        return SHARED_HEAD
    if type == ROW_BODY:
        return BODY_HEAD
    return RECEIPT_HEAD if type == ROW_RECEIPT else 0


cdef inline bint has_tail(uint8_t type) noexcept nogil:
    return type == ROW_ENVELOPE or type == ROW_BODY


cdef inline bint legible(uint64_t place, const uint8_t* p, size_t n) noexcept nogil:
    """Whether the head of a row can be believed; n: the bytes of the whole row."""
    cdef size_t head
    if n < ENDED_HEAD + CRC_BYTES:
        return False
    if p[0] == ROW_ENDED:
        return (n - ENDED_HEAD - CRC_BYTES) % 8 == 0 and get32(p + n - CRC_BYTES) == head_crc(place, p, n - CRC_BYTES)
    head = head_bytes(p[0])
    if head == 0 or n < head + CRC_BYTES * (2 if has_tail(p[0]) else 1):
        return False
    if not has_tail(p[0]) and n != head + CRC_BYTES:
        return False
    return get32(p + head) == head_crc(place, p, head)


cdef inline uint32_t tail_crc(const uint8_t* p, size_t n, size_t head) noexcept nogil:
    # Of the body of a row of n bytes whose head is legible.
    cdef size_t at = head + CRC_BYTES
    return wa_crc(get32(p + head), p + at, n - at - CRC_BYTES)


cdef inline bint body_intact(const uint8_t* p, size_t n) noexcept nogil:
    """Of a legible row: whether the rest of it is right as well."""
    return not has_tail(p[0]) or get32(p + n - CRC_BYTES) == tail_crc(p, n, head_bytes(p[0]))


cdef inline void seal(uint64_t place, uint8_t* p, size_t n) noexcept nogil:
    """Writes the checksums of a row of n bytes that is complete otherwise."""
    cdef size_t head = n - CRC_BYTES if p[0] == ROW_ENDED else head_bytes(p[0])
    put32(p + head, head_crc(place, p, head))
    if has_tail(p[0]):
        put32(p + n - CRC_BYTES, tail_crc(p, n, head))


cdef inline void move_seal(uint64_t place, uint8_t* p, size_t n) noexcept nogil:
    """The same for a legible row that moves to another place: a damaged body stays as damaged as it was."""
    cdef bint intact = body_intact(p, n)
    seal(place, p, n)
    if not intact:
        put32(p + n - CRC_BYTES, ~get32(p + n - CRC_BYTES))
