# cython: language_level=3
# HOT: loops around the primitives alone, to know what libsodium itself costs on this machine, now.
"""The cost of the cryptography without a server around it."""
from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.sodium cimport (
    crypto_aead_aes256gcm_decrypt, crypto_aead_aes256gcm_encrypt, crypto_aead_chacha20poly1305_ietf_decrypt,
    crypto_aead_chacha20poly1305_ietf_encrypt, crypto_scalarmult, crypto_scalarmult_base, sodium_init, sodium_memcmp,
)
from wa._fastpath.noise.noise cimport (
    NOISE_IK, noise_open, noise_read, noise_seal, noise_split, noise_start, NOISE_SUITE_CHACHA, noise_write,
    NoiseHandshake, NoiseTransport,
)

cdef extern from "sodium.h" nogil:
    ctypedef struct crypto_auth_hmacsha256_state:
        pass
    ctypedef struct crypto_hash_sha256_state:
        pass
    void randombytes_buf(void* out, size_t n)
    int crypto_hash_sha256_init(crypto_hash_sha256_state* s)
    int crypto_hash_sha256_update(crypto_hash_sha256_state* s, const uint8_t* p, unsigned long long n)
    int crypto_hash_sha256_final(crypto_hash_sha256_state* s, uint8_t* out)
    int crypto_auth_hmacsha256_init(crypto_auth_hmacsha256_state* s, const uint8_t* key, size_t n)
    int crypto_auth_hmacsha256_update(crypto_auth_hmacsha256_state* s, const uint8_t* p, unsigned long long n)
    int crypto_auth_hmacsha256_final(crypto_auth_hmacsha256_state* s, uint8_t* out)

import time

cdef enum:
    LOGIN_BYTES = 9


cdef void mix_hash(uint8_t* h, const uint8_t* data, size_t n) noexcept nogil:
    cdef crypto_hash_sha256_state s
    crypto_hash_sha256_init(&s)
    crypto_hash_sha256_update(&s, h, 32)
    crypto_hash_sha256_update(&s, data, n)
    crypto_hash_sha256_final(&s, h)


cdef void hmac(const crypto_auth_hmacsha256_state* keyed, uint8_t* out, const uint8_t* a, size_t n,
               uint8_t b) noexcept nogil:
    cdef crypto_auth_hmacsha256_state s = keyed[0]
    crypto_auth_hmacsha256_update(&s, a, n)
    if b:
        crypto_auth_hmacsha256_update(&s, &b, 1)
    crypto_auth_hmacsha256_final(&s, out)


cdef void hkdf(uint8_t* ck, const uint8_t* ikm, size_t n, uint8_t* k) noexcept nogil:
    """ck, k = HKDF(ck, ikm)"""
    cdef crypto_auth_hmacsha256_state s
    cdef uint8_t[32] temp
    crypto_auth_hmacsha256_init(&s, ck, 32)
    hmac(&s, temp, ikm, n, 0)
    crypto_auth_hmacsha256_init(&s, temp, 32)
    hmac(&s, ck, NULL, 0, 1)
    hmac(&s, k, ck, 32, 2)


cdef int mix_dh(uint8_t* ck, uint8_t* k, const uint8_t* private, const uint8_t* public) noexcept nogil:
    cdef uint8_t[32] shared
    if crypto_scalarmult(shared, private, public) != 0:
        return -1
    hkdf(ck, shared, 32, k)
    return 0


cdef int tag(int suite, bint sealing, uint8_t* text, size_t n, const uint8_t* h, const uint8_t* k,
             uint8_t nonce) noexcept nogil:
    """In place: seals n bytes of text, or opens n bytes and their tag."""
    cdef uint8_t[12] counter
    memset(counter, 0, 12)
    counter[4 if suite == NOISE_SUITE_CHACHA else 11] = nonce
    if suite == NOISE_SUITE_CHACHA:
        if sealing:
            return crypto_aead_chacha20poly1305_ietf_encrypt(text, NULL, text, n, h, 32, NULL, counter, k)
        return crypto_aead_chacha20poly1305_ietf_decrypt(text, NULL, NULL, text, n + 16, h, 32, counter, k)
    if sealing:
        return crypto_aead_aes256gcm_encrypt(text, NULL, text, n, h, 32, NULL, counter, k)
    return crypto_aead_aes256gcm_decrypt(text, NULL, NULL, text, n + 16, h, 32, counter, k)


cdef int respond(int suite, const uint8_t* s_priv, const uint8_t* s_pub, const uint8_t* e_priv, const uint8_t* hello,
                 uint8_t* first, uint8_t* second, uint8_t* keys) noexcept nogil:
    """The responder of Noise IK written straight down over libsodium: first (e, s, login) in, second (48 bytes) and
    two keys of 64 bytes together out.  What a login costs is judged by this, not by code of the server's own."""
    cdef uint8_t[32] h, ck, k, rs
    cdef const char* name = (
        "Noise_IK_25519_ChaChaPoly_SHA256" if suite == NOISE_SUITE_CHACHA else "Noise_IK_25519_AESGCM_SHA256"
    )
    memset(h, 0, 32)
    memcpy(h, name, 32 if suite == NOISE_SUITE_CHACHA else 28)
    memcpy(ck, h, 32)
    mix_hash(h, hello, 8)
    mix_hash(h, s_pub, 32)
    mix_hash(h, first, 32)                                        # e
    if mix_dh(ck, k, s_priv, first) != 0:                         # es
        return -1
    memcpy(second, first + 32, 48)
    if tag(suite, False, first + 32, 32, h, k, 0) != 0:           # s
        return -1
    memcpy(rs, first + 32, 32)
    mix_hash(h, second, 48)
    if mix_dh(ck, k, s_priv, rs) != 0:                            # ss
        return -1
    memcpy(second, first + 80, LOGIN_BYTES + 16)
    if tag(suite, False, first + 80, LOGIN_BYTES, h, k, 0) != 0:
        return -1
    mix_hash(h, second, LOGIN_BYTES + 16)
    crypto_scalarmult_base(second, e_priv)                        # e
    mix_hash(h, second, 32)
    if mix_dh(ck, k, e_priv, first) != 0 or mix_dh(ck, k, e_priv, rs) != 0:     # ee, se
        return -1
    tag(suite, True, second + 32, 0, h, k, 0)
    mix_hash(h, second + 32, 16)
    memcpy(keys, ck, 32)
    hkdf(keys, NULL, 0, keys + 32)
    return 0


def handshake_s(suite: int, rounds: int) -> float:
    """CPU seconds of one IK handshake on the responder's side: read message 1, write message 2, split.

    The client is the SDK's own Noise layer and takes the answer of the last round: the work was the real one.
    """
    cdef uint8_t[32] s_priv, s_pub, c_priv, c_pub, e_priv
    cdef uint8_t[8] hello
    cdef uint8_t[512] first, second, payload, record
    cdef uint8_t[64] keys
    cdef NoiseHandshake client
    cdef NoiseTransport transport
    cdef size_t n = 0
    cdef int i
    cdef int count = rounds
    cdef int which = suite
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    randombytes_buf(s_priv, 32)
    randombytes_buf(c_priv, 32)
    randombytes_buf(e_priv, 32)
    crypto_scalarmult_base(s_pub, s_priv)
    crypto_scalarmult_base(c_pub, c_priv)
    memset(hello, 0, 8)
    memset(payload, 0, 512)
    noise_start(&client, NOISE_IK, which, True, hello, 8, c_priv, c_pub, s_pub)
    n = <size_t>noise_write(&client, e_priv, payload, LOGIN_BYTES, first, 512)
    began = time.process_time()
    with nogil:
        for i in range(count):
            memcpy(record, first, n)
            if respond(which, s_priv, s_pub, e_priv, hello, record, second, keys) != 0:
                break
        else:
            i = count
    took = time.process_time() - began
    if i != count or noise_read(&client, second, 48, payload, 512) != 0:
        raise ValueError("the handshake failed")
    noise_split(&client, &transport)
    if sodium_memcmp(transport.send_key, keys, 32) != 0 or sodium_memcmp(transport.recv_key, keys + 32, 32) != 0:
        raise ValueError("both sides of the handshake have other keys")
    return took / rounds


def scalar_multiplications_s(rounds: int) -> float:
    """CPU seconds of the five multiplications in one IK responder: one of the base point, four of others."""
    cdef uint8_t[32] private, public, shared
    cdef int i, k
    cdef int count = rounds
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    memset(private, 7, 32)
    began = time.process_time()
    with nogil:
        for i in range(count):
            crypto_scalarmult_base(public, private)
            for k in range(4):
                if crypto_scalarmult(shared, private, public) != 0:
                    break
    return (time.process_time() - began) / rounds


def seal_and_open_s(suite: int, bytes_n: int, rounds: int) -> float:
    """CPU seconds of sealing one record of this many plain bytes and opening it again."""
    cdef uint8_t[65600] record
    cdef NoiseTransport sender, receiver
    cdef int i
    cdef int count = rounds
    cdef int which = suite
    cdef size_t n = bytes_n
    if not 0 <= bytes_n <= 65519:
        raise ValueError("a record has at most 65519 plain bytes")
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    memset(&sender, 3, sizeof(sender))
    memset(&receiver, 3, sizeof(receiver))
    sender.send_nonce = receiver.recv_nonce = 0
    memset(record, 0, sizeof(record))
    began = time.process_time()
    with nogil:
        for i in range(count):
            noise_seal(&sender, which, record, n, record)
            if noise_open(&receiver, which, record, n + 16, record) < 0:
                break
        else:
            i = count
    if i != count:
        raise ValueError("a record did not open")
    return (time.process_time() - began) / rounds
