# cython: language_level=3
# COLD: only simulations load this.
"""X25519 that remembers: a simulation meets the same few hundred key pairs in every seed.

Importing this module with its symbols global, before `noise` and `curve` are loaded, puts a `crypto_scalarmult` and
both multiplications of a base point in front of libsodium's.  They are pure functions, so a remembered result is the
computed one; the code that calls them runs as it is.  `sim/__init__.py` does the import.
"""
from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #define _GNU_SOURCE 1
    #include <dlfcn.h>
    #include <stdint.h>
    #include <string.h>

    int sodium_init(void);                     /* sodium.h would declare what is defined below */

    #define WA_SLOTS 32768u                    /* 3.2 MiB; a full slot is simply replaced */

    enum wa_what { WA_UNUSED, WA_POINT, WA_BASE, WA_EDWARDS_BASE };
    struct wa_slot { unsigned char n[32], p[32], q[32]; enum wa_what what; };
    static struct wa_slot wa_slots[WA_SLOTS];
    static uint64_t wa_hits, wa_misses;

    typedef int (*wa_of_point)(unsigned char *, const unsigned char *, const unsigned char *);
    typedef int (*wa_of_base)(unsigned char *, const unsigned char *);

    static struct wa_slot *wa_slot_of(enum wa_what what, const unsigned char *n, const unsigned char *p) {
        uint64_t a, b = what, c, d = 0;
        memcpy(&a, n, 8);
        memcpy(&c, n + 16, 8);
        if (p) { memcpy(&b, p, 8); memcpy(&d, p + 16, 8); }
        a = (a ^ (c << 7) ^ (c >> 57)) * 0x9e3779b97f4a7c15ULL ^ b ^ (d << 13) ^ (d >> 51);
        a = (a ^ (a >> 31)) * 0xbf58476d1ce4e5b9ULL;
        return &wa_slots[(a >> 40) % WA_SLOTS];
    }

    /* The remembered result, or that of the function of this name that comes behind ours. */
    static int wa_product(enum wa_what what, const char *name, void **real,
                          unsigned char *q, const unsigned char *n, const unsigned char *p) {
        struct wa_slot *s = wa_slot_of(what, n, p);
        int status;
        if (s->what == what && !memcmp(s->n, n, 32) && (!p || !memcmp(s->p, p, 32))) {
            memcpy(q, s->q, 32);
            wa_hits++;
            return 0;
        }
        if (!*real) *real = dlsym(RTLD_NEXT, name);
        if (!*real) return -1;
        status = p ? ((wa_of_point)*real)(q, n, p) : ((wa_of_base)*real)(q, n);
        if (status != 0) return status;
        wa_misses++;
        memcpy(s->n, n, 32);
        if (p) memcpy(s->p, p, 32);
        memcpy(s->q, q, 32);
        s->what = what;
        return 0;
    }

    __attribute__((visibility("default")))
    int crypto_scalarmult(unsigned char *q, const unsigned char *n, const unsigned char *p) {
        static void *real;
        return wa_product(WA_POINT, "crypto_scalarmult", &real, q, n, p);
    }

    __attribute__((visibility("default")))
    int crypto_scalarmult_base(unsigned char *q, const unsigned char *n) {
        static void *real;
        return wa_product(WA_BASE, "crypto_scalarmult_base", &real, q, n, 0);
    }

    __attribute__((visibility("default")))
    int crypto_scalarmult_ed25519_base(unsigned char *q, const unsigned char *n) {
        static void *real;
        return wa_product(WA_EDWARDS_BASE, "crypto_scalarmult_ed25519_base", &real, q, n, 0);
    }
    """
    uint64_t wa_hits, wa_misses
    int sodium_init()


def counts() -> tuple:
    """(remembered, computed)"""
    return wa_hits, wa_misses


if sodium_init() < 0:             # and it makes libsodium a dependency of this module, where RTLD_NEXT finds it
    raise ImportError("libsodium cannot be initialised")
