# cython: language_level=3
"""The part of libsodium's C API that the fast path uses; the shapes are libsodium's own documentation."""
from libc.stdint cimport uint8_t


cdef extern from "sodium.h" nogil:
    int sodium_init()
    void sodium_memzero(void* p, size_t n)
    int sodium_memcmp(const void* a, const void* b, size_t n)
    int crypto_generichash(uint8_t* out, size_t out_n, const uint8_t* p, unsigned long long n, const uint8_t* key,
                           size_t key_n)
    int crypto_scalarmult(uint8_t* q, const uint8_t* n, const uint8_t* p)
    int crypto_scalarmult_base(uint8_t* q, const uint8_t* n)
    int crypto_scalarmult_ed25519_base(uint8_t* q, const uint8_t* n)
    int crypto_aead_aes256gcm_is_available()
    int crypto_aead_aes256gcm_encrypt(
        uint8_t* c, unsigned long long* c_n, const uint8_t* m, unsigned long long m_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* nsec, const uint8_t* npub, const uint8_t* k)
    int crypto_aead_aes256gcm_decrypt(
        uint8_t* m, unsigned long long* m_n, uint8_t* nsec, const uint8_t* c, unsigned long long c_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* npub, const uint8_t* k)
    int crypto_aead_xchacha20poly1305_ietf_encrypt(
        uint8_t* c, unsigned long long* c_n, const uint8_t* m, unsigned long long m_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* nsec, const uint8_t* npub, const uint8_t* k)
    int crypto_aead_xchacha20poly1305_ietf_decrypt(
        uint8_t* m, unsigned long long* m_n, uint8_t* nsec, const uint8_t* c, unsigned long long c_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* npub, const uint8_t* k)
    int crypto_aead_chacha20poly1305_ietf_encrypt(
        uint8_t* c, unsigned long long* c_n, const uint8_t* m, unsigned long long m_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* nsec, const uint8_t* npub, const uint8_t* k)
    int crypto_aead_chacha20poly1305_ietf_decrypt(
        uint8_t* m, unsigned long long* m_n, uint8_t* nsec, const uint8_t* c, unsigned long long c_n,
        const uint8_t* ad, unsigned long long ad_n, const uint8_t* npub, const uint8_t* k)
