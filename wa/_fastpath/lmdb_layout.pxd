# cython: language_level=3
"""Bytes on disk of the mailbox environment: keys, values, checksums.  docs/storage.md has the same as prose.

Integers are big-endian, so that LMDB's byte order is their order.  Every value ends with a CRC-32 over
table letter ‖ key ‖ value: a value under a wrong key or in a wrong table is as corrupt as one with a flipped bit.
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef enum:
    FORMAT = 1
    CRC_BYTES = 4
    MAIL_KEY = 17                 # recipient 8 ‖ 255 - priority 1 ‖ seq 8
    MAIL_HEAD = 25                # sender 8 ‖ id 8 ‖ accepted_s 4 ‖ expires_s 4 ‖ kind 1; then body, CRC
    IDENT_KEY = 24                # recipient 8 ‖ sender 8 ‖ id 8
    IDENT_VALUE = 13              # priority 1 ‖ seq 8 ‖ expires_s 4; then CRC
    EXPIRY_KEY = 21               # expires_s 4 ‖ mail key 17
    EXPIRY_VALUE = 17             # sender 8 ‖ id 8 ‖ kind 1; then CRC
    RECEIPT_KEY = 24              # owner 8 ‖ peer 8 ‖ id 8
    RECEIPT_VALUE = 11            # level 1 ‖ code 2 ‖ accepted_s 4 ‖ expires_s 4; then CRC
    KEY_MAX = 24

    LETTER_MAIL = 0x6d            # m
    LETTER_IDENT = 0x69           # i
    LETTER_EXPIRY = 0x65          # e
    LETTER_RECEIPT = 0x72         # r

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


cdef inline uint32_t record_crc(uint8_t letter, const uint8_t* key, size_t key_n,
                                const uint8_t* value, size_t n) noexcept nogil:
    return wa_crc(wa_crc(wa_crc(0, &letter, 1), key, key_n), value, n)


cdef inline void seal(uint8_t letter, const uint8_t* key, size_t key_n, uint8_t* value, size_t n) noexcept nogil:
    # Appends the checksum to the n bytes at value.
    put32(value + n, record_crc(letter, key, key_n, value, n))


cdef inline bint sealed(uint8_t letter, const uint8_t* key, size_t key_n,
                        const uint8_t* value, size_t n) noexcept nogil:
    # n: the whole stored value, checksum included.
    return n >= CRC_BYTES and get32(value + n - CRC_BYTES) == record_crc(letter, key, key_n, value, n - CRC_BYTES)


cdef inline void mail_key(uint8_t* key, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    put64(key, recipient)
    key[8] = 255 - priority
    put64(key + 9, seq)


cdef inline void triple_key(uint8_t* key, uint64_t first, uint64_t second, uint64_t third) noexcept nogil:
    # ident: recipient, sender, id.  receipts: owner, peer, id.
    put64(key, first)
    put64(key + 8, second)
    put64(key + 16, third)


cdef inline void expiry_key(uint8_t* key, uint32_t expires_s, uint64_t recipient, uint8_t priority,
                            uint64_t seq) noexcept nogil:
    put32(key, expires_s)
    mail_key(key + 4, recipient, priority, seq)
