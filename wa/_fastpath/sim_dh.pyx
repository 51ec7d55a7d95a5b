# cython: language_level=3
# COLD: only simulations load this.
"""X25519 that remembers: a simulation meets the same few hundred key pairs in every seed.

Importing this module with its symbols global, before `noise` is loaded, puts a `crypto_scalarmult` and a
`crypto_scalarmult_base` in front of libsodium's.  They are pure functions, so a remembered result is the computed one;
the code that calls them runs as it is.  `sim/__init__.py` does the import.
"""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <dlfcn.h>
    #include <stdint.h>
    #include <string.h>

    int sodium_init(void);                     /* sodium.h would declare what is defined below */

    #define WA_SLOTS 32768u                    /* 3 MiB; a full slot is simply replaced */

    struct wa_slot { unsigned char n[32], p[32], q[32]; unsigned char base, used; };
    static struct wa_slot wa_slots[WA_SLOTS];
    static uint64_t wa_hits, wa_misses;

    static struct wa_slot *wa_slot_of(const unsigned char *n, const unsigned char *p) {
        uint64_t a, b = 0, c, d = 0;
        memcpy(&a, n, 8);
        memcpy(&c, n + 16, 8);
        if (p) { memcpy(&b, p, 8); memcpy(&d, p + 16, 8); }
        a = (a ^ (c << 7) ^ (c >> 57)) * 0x9e3779b97f4a7c15ULL ^ b ^ (d << 13) ^ (d >> 51);
        a = (a ^ (a >> 31)) * 0xbf58476d1ce4e5b9ULL;
        return &wa_slots[(a >> 40) % WA_SLOTS];
    }

    static int wa_known(struct wa_slot *s, const unsigned char *n, const unsigned char *p, unsigned char *q) {
        if (!s->used || s->base != (p == 0) || memcmp(s->n, n, 32) || (p && memcmp(s->p, p, 32)))
            return 0;
        memcpy(q, s->q, 32);
        wa_hits++;
        return 1;
    }

    static void wa_keep(struct wa_slot *s, const unsigned char *n, const unsigned char *p, const unsigned char *q) {
        wa_misses++;
        memcpy(s->n, n, 32);
        if (p) memcpy(s->p, p, 32);
        memcpy(s->q, q, 32);
        s->base = p == 0;
        s->used = 1;
    }

    __attribute__((visibility("default")))
    int crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p) {
        static int (*real)(unsigned char *, const unsigned char *, const unsigned char *);
        struct wa_slot *s = wa_slot_of(n, p);
        int status;
        if (wa_known(s, n, p, q)) return 0;
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, "crypto_scalarmult");
        if (!real) return -1;
        status = real(q, n, p);
        if (status == 0) wa_keep(s, n, p, q);
        return status;
    }

    __attribute__((visibility("default")))
    int crypto_scalarmult_base(unsigned char *q, const unsigned char *n) {
        static int (*real)(unsigned char *, const unsigned char *);
        struct wa_slot *s = wa_slot_of(n, 0);
        int status;
        if (wa_known(s, n, 0, q)) return 0;
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, "crypto_scalarmult_base");
        if (!real) return -1;
        status = real(q, n);
        if (status == 0) wa_keep(s, n, 0, q);
        return status;
    }
    """
    uint64_t wa_hits, wa_misses
    int sodium_init()


def counts() -> tuple:
    """(remembered, computed)"""
    return wa_hits, wa_misses


if sodium_init() < 0:             # and it makes libsodium a dependency of this module, where RTLD_NEXT finds it
    raise ImportError("libsodium cannot be initialised")
