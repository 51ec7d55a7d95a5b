# HOT: every record of every connection is opened and sealed here, so it is C structs and nogil functions.
# cython: language_level=3
"""Noise Protocol Framework (revision 34): handshake and transport.  Contract: noise/noise.pxd.

Theory of operation.  A handshake is a row of the token table below, walked one message at a time by
`noise_write` and `noise_read`; the symmetric state (h, ck, k, n) is section 5.2 of the specification.  When
all messages are done `noise_split` leaves the 80 bytes that `noise_seal` and `noise_open` work on.

A step that fails because of the peer ends the handshake and zeroes its keys; the one exception is the
responder of IK whose first message did not authenticate: it keeps what `noise_fallback` needs.  A step
that fails because of the caller (NOISE_E_STATE, NOISE_E_SPACE) changes nothing; the debug build aborts there,
except where a peer's payload is longer than the room that the caller has for it.

Not here: records, hello, certificates, suite choice, deadlines.  The Python twin is `wa.noise`.
"""
from libc.stdint cimport int64_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.bounds cimport NOISE_MESSAGE_BYTES_MAX, NOISE_TAG_BYTES, REKEY_MESSAGES
from wa._fastpath.base.sodium cimport (
    crypto_aead_aes256gcm_decrypt, crypto_aead_aes256gcm_encrypt, crypto_aead_aes256gcm_is_available,
    crypto_aead_chacha20poly1305_ietf_decrypt, crypto_aead_chacha20poly1305_ietf_encrypt, crypto_scalarmult,
    crypto_scalarmult_base, sodium_init, sodium_memzero,
)
from wa._fastpath.noise.curve cimport x25519_public
from wa._fastpath.noise.hkdf cimport hkdf, sha256


include "noise_patterns.pxi"


cdef enum:
    KEY_N = 32
    STEP_ENDED = 255              # no further message: failed, wiped or split


# --- cipher functions (specification, section 12) -------------------------------------------------------

cdef inline void nonce_of(int suite, uint64_t n, uint8_t* out) noexcept nogil:
    """Four zero bytes, then n: little-endian for ChaChaPoly, big-endian for AESGCM."""
    cdef int i
    memset(out, 0, 4)
    for i in range(8):
        if suite == NOISE_SUITE_CHACHA:
            out[4 + i] = <uint8_t>(n >> (8 * i))
        else:
            out[11 - i] = <uint8_t>(n >> (8 * i))


cdef inline int aead_seal(int suite, const uint8_t* k, uint64_t n, const uint8_t* ad, size_t ad_n,
                          const uint8_t* plain, size_t plain_n, uint8_t* out) noexcept nogil:
    cdef uint8_t[12] nonce
    nonce_of(suite, n, nonce)
    if suite == NOISE_SUITE_CHACHA:
        return crypto_aead_chacha20poly1305_ietf_encrypt(out, NULL, plain, plain_n, ad, ad_n, NULL, nonce, k)
    return crypto_aead_aes256gcm_encrypt(out, NULL, plain, plain_n, ad, ad_n, NULL, nonce, k)


cdef inline int aead_open(int suite, const uint8_t* k, uint64_t n, const uint8_t* ad, size_t ad_n,
                          const uint8_t* cipher, size_t cipher_n, uint8_t* out) noexcept nogil:
    cdef uint8_t[12] nonce
    nonce_of(suite, n, nonce)
    if suite == NOISE_SUITE_CHACHA:
        return crypto_aead_chacha20poly1305_ietf_decrypt(out, NULL, NULL, cipher, cipher_n, ad, ad_n, nonce, k)
    return crypto_aead_aes256gcm_decrypt(out, NULL, NULL, cipher, cipher_n, ad, ad_n, nonce, k)


# --- symmetric state (section 5.2) ------------------------------------------------------------------------

cdef inline void mix_hash(NoiseHandshake* hs, const uint8_t* data, size_t n) noexcept nogil:
    sha256(hs.h, hs.h, 32, data, n)


cdef void symmetric_start(NoiseHandshake* hs, const uint8_t* prologue, size_t prologue_n) noexcept nogil:
    """InitializeSymmetric(protocol name) and MixHash(prologue)."""
    cdef const char* name = NAMES[hs.suite][hs.pattern]
    cdef size_t n = 0
    while name[n] != 0:
        n += 1
    if n <= 32:
        memset(hs.h, 0, 32)
        memcpy(hs.h, name, n)
    else:
        sha256(hs.h, <const uint8_t*>name, n, NULL, 0)
    memcpy(hs.ck, hs.h, 32)
    sodium_memzero(hs.k, KEY_N)
    hs.n = 0
    hs.has_k = 0
    hs.step = 0
    hs.done = 0
    mix_hash(hs, prologue, prologue_n)


cdef void mix_key(NoiseHandshake* hs, const uint8_t* material) noexcept nogil:
    hkdf(hs.ck, material, KEY_N, hs.ck, hs.k, NULL)
    hs.n = 0
    hs.has_k = 1


cdef void mix_psk(NoiseHandshake* hs) noexcept nogil:
    """MixKeyAndHash(psk): HKDF with three outputs, to ck, h and k."""
    cdef uint8_t[32] second
    hkdf(hs.ck, hs.psk, KEY_N, hs.ck, second, hs.k)
    mix_hash(hs, second, KEY_N)
    hs.n = 0
    hs.has_k = 1
    sodium_memzero(second, KEY_N)


cdef inline void mix_ephemeral(NoiseHandshake* hs, const uint8_t* public) noexcept nogil:
    """Where a pattern has a psk, the ephemeral key is mixed into the key too: no psk ever makes the same key twice
    (section 9.2)."""
    mix_hash(hs, public, KEY_N)
    if hs.pattern == NOISE_NNPSK0:
        mix_key(hs, public)


cdef int mix_dh(NoiseHandshake* hs, const uint8_t* private, const uint8_t* public) noexcept nogil:
    """MixKey(DH(private, public)); NOISE_E_FORMAT when the shared secret is all zero."""
    cdef uint8_t[32] shared
    if crypto_scalarmult(shared, private, public) != 0:
        sodium_memzero(shared, KEY_N)
        return NOISE_E_FORMAT
    mix_key(hs, shared)
    sodium_memzero(shared, KEY_N)
    return 0


cdef int mix_token(NoiseHandshake* hs, int token) noexcept nogil:
    """The psk, or the Diffie-Hellman of a token (section 5.3)."""
    if token == T_PSK:
        mix_psk(hs)
        return 0
    if token == T_EE:
        return mix_dh(hs, hs.e_priv, hs.re)
    if token == T_SS:
        return mix_dh(hs, hs.s_priv, hs.rs)
    if (token == T_ES) == (hs.initiator != 0):
        return mix_dh(hs, hs.e_priv, hs.rs)
    return mix_dh(hs, hs.s_priv, hs.re)


cdef size_t encrypt_and_hash(NoiseHandshake* hs, const uint8_t* plain, size_t n, uint8_t* out) noexcept nogil:
    """Bytes written, n or n + 16."""
    if not hs.has_k:
        if n > 0:
            memcpy(out, plain, n)
        mix_hash(hs, out, n)
        return n
    aead_seal(hs.suite, hs.k, hs.n, hs.h, 32, plain, n, out)
    hs.n += 1
    mix_hash(hs, out, n + NOISE_TAG_BYTES)
    return n + NOISE_TAG_BYTES


cdef int decrypt_and_hash(NoiseHandshake* hs, const uint8_t* data, size_t n, uint8_t* out) noexcept nogil:
    """Reads n bytes, tag included, and writes n or n - 16."""
    cdef uint8_t nothing
    if not hs.has_k:
        if n > 0:
            memcpy(out, data, n)
        mix_hash(hs, data, n)
        return 0
    # libsodium takes a null output for "verify only", and an empty payload may come with one.
    if aead_open(hs.suite, hs.k, hs.n, hs.h, 32, data, n, &nothing if n == NOISE_TAG_BYTES else out) != 0:
        return NOISE_E_AUTH
    hs.n += 1
    mix_hash(hs, data, n)
    return 0


# --- handshake state (section 5.3) ------------------------------------------------------------------------

cdef bint noise_suite_available(int suite) noexcept nogil:
    if suite == NOISE_SUITE_AESGCM:
        return crypto_aead_aes256gcm_is_available() == 1
    return suite == NOISE_SUITE_CHACHA


cdef int noise_start(NoiseHandshake* hs, int pattern, int suite, bint initiator,
                     const uint8_t* prologue, size_t prologue_n,
                     const uint8_t* s_priv, const uint8_t* s_pub,
                     const uint8_t* rs_pub) noexcept nogil:
    cdef bint knows_peer = pattern == NOISE_IK and initiator
    cdef bint ok = ((pattern == NOISE_XX or pattern == NOISE_IK) and noise_suite_available(suite)
                    and (rs_pub != NULL) == knows_peer)
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    memset(hs, 0, sizeof(NoiseHandshake))
    hs.pattern = <uint8_t>pattern
    hs.suite = <uint8_t>suite
    hs.initiator = 1 if initiator else 0
    memcpy(hs.s_priv, s_priv, KEY_N)
    memcpy(hs.s_pub, s_pub, KEY_N)
    symmetric_start(hs, prologue, prologue_n)
    if knows_peer:
        memcpy(hs.rs, rs_pub, KEY_N)
        hs.has_rs = 1
    if pattern == NOISE_IK:
        mix_hash(hs, <const uint8_t*>hs.rs if initiator else <const uint8_t*>hs.s_pub, KEY_N)
    return 0


cdef int noise_start_psk(NoiseHandshake* hs, int suite, bint initiator,
                         const uint8_t* prologue, size_t prologue_n, const uint8_t* psk) noexcept nogil:
    cdef bint ok = noise_suite_available(suite)
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    memset(hs, 0, sizeof(NoiseHandshake))
    hs.pattern = NOISE_NNPSK0
    hs.suite = <uint8_t>suite
    hs.initiator = 1 if initiator else 0
    memcpy(hs.psk, psk, KEY_N)
    symmetric_start(hs, prologue, prologue_n)
    return 0


cdef inline bint can_fall_back(const NoiseHandshake* hs) noexcept nogil:
    if hs.pattern != NOISE_IK or hs.done:
        return False
    return hs.step == 1 if hs.initiator else (hs.step == STEP_ENDED and hs.has_re)


cdef int noise_fallback(NoiseHandshake* hs, const uint8_t* prologue, size_t prologue_n) noexcept nogil:
    cdef bint ok = can_fall_back(hs)
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    hs.pattern = NOISE_XXFALLBACK
    hs.initiator = not hs.initiator
    sodium_memzero(hs.rs, KEY_N)
    hs.has_rs = 0
    symmetric_start(hs, prologue, prologue_n)
    # The pre-message: the ephemeral key of the side that was the initiator of IK.
    mix_hash(hs, <const uint8_t*>hs.re if hs.initiator else <const uint8_t*>hs.e_pub, KEY_N)
    return 0


cdef inline bint my_turn(const NoiseHandshake* hs) noexcept nogil:
    return hs.step != STEP_ENDED and not hs.done and (hs.step & 1) != hs.initiator


cdef inline bint their_turn(const NoiseHandshake* hs) noexcept nogil:
    return hs.step != STEP_ENDED and not hs.done and (hs.step & 1) == hs.initiator


cdef size_t overhead(const NoiseHandshake* hs) noexcept nogil:
    """Length of the next message without its payload."""
    cdef const uint8_t* token = TOKENS[hs.pattern][hs.step]
    cdef bint keyed = hs.has_k
    cdef size_t n = 0
    while token[0] != T_END:
        if token[0] == T_E:
            n += KEY_N
        elif token[0] == T_S:
            n += KEY_N + (NOISE_TAG_BYTES if keyed else 0)
        else:
            keyed = True
        token += 1
    return n + (NOISE_TAG_BYTES if keyed else 0)


cdef inline void step_done(NoiseHandshake* hs) noexcept nogil:
    hs.step += 1
    hs.done = hs.step == MESSAGES[hs.pattern]


cdef int64_t noise_write(NoiseHandshake* hs, const uint8_t* e_priv,
                         const uint8_t* payload, size_t payload_n,
                         uint8_t* out, size_t out_cap) noexcept nogil:
    cdef bint ok = my_turn(hs) and (e_priv != NULL or TOKENS[hs.pattern][hs.step][0] == T_S)
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    cdef size_t total = overhead(hs) + payload_n
    ok = payload_n <= NOISE_MESSAGE_BYTES_MAX and total <= NOISE_MESSAGE_BYTES_MAX and total <= out_cap
    c_assert(ok)
    if not ok:
        return NOISE_E_SPACE
    cdef const uint8_t* token = TOKENS[hs.pattern][hs.step]
    cdef uint8_t* p = out
    while token[0] != T_END:
        if token[0] == T_E:
            memcpy(hs.e_priv, e_priv, KEY_N)
            x25519_public(hs.e_pub, hs.e_priv)
            memcpy(p, hs.e_pub, KEY_N)
            mix_ephemeral(hs, p)
            p += KEY_N
        elif token[0] == T_S:
            p += encrypt_and_hash(hs, hs.s_pub, KEY_N, p)
        elif mix_token(hs, token[0]) != 0:
            noise_wipe(hs)
            return NOISE_E_FORMAT
        token += 1
    encrypt_and_hash(hs, payload, payload_n, p)
    step_done(hs)
    return <int64_t>total


cdef int read_tokens(NoiseHandshake* hs, const uint8_t** msg) noexcept nogil:
    """The keys at the front of a message; *msg is left at the payload.  The length has been checked."""
    cdef const uint8_t* token = TOKENS[hs.pattern][hs.step]
    cdef size_t n
    cdef int status = 0
    while token[0] != T_END and status == 0:
        if token[0] == T_E:
            memcpy(hs.re, msg[0], KEY_N)
            hs.has_re = 1
            mix_ephemeral(hs, hs.re)
            msg[0] += KEY_N
        elif token[0] == T_S:
            n = KEY_N + (NOISE_TAG_BYTES if hs.has_k else 0)
            status = decrypt_and_hash(hs, msg[0], n, hs.rs)
            hs.has_rs = status == 0
            msg[0] += n
        else:
            status = mix_token(hs, token[0])
        token += 1
    return status


cdef int64_t noise_read(NoiseHandshake* hs, const uint8_t* msg, size_t msg_n,
                        uint8_t* payload, size_t payload_cap) noexcept nogil:
    cdef bint ok = their_turn(hs)
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    cdef size_t cost = overhead(hs)
    if msg_n < cost or msg_n > NOISE_MESSAGE_BYTES_MAX:
        noise_wipe(hs)
        return NOISE_E_FORMAT
    if msg_n - cost > payload_cap:
        return NOISE_E_SPACE      # no assertion here: the length of a payload is the peer's choice
    cdef const uint8_t* p = msg
    cdef int status = read_tokens(hs, &p)
    if status == 0:
        status = decrypt_and_hash(hs, p, <size_t>(msg + msg_n - p), payload)
    if status == NOISE_E_AUTH and hs.pattern == NOISE_IK and hs.step == 0:
        # noise_fallback() starts over from our static key and the ephemeral that came.
        sodium_memzero(hs.ck, KEY_N)
        sodium_memzero(hs.k, KEY_N)
        hs.has_k = 0
        hs.step = STEP_ENDED
        return status
    if status != 0:
        noise_wipe(hs)
        return status
    step_done(hs)
    return <int64_t>(msg_n - cost)


cdef bint noise_done(const NoiseHandshake* hs) noexcept nogil:
    return hs.done != 0


cdef int noise_split(NoiseHandshake* hs, NoiseTransport* out) noexcept nogil:
    cdef bint ok = hs.done and hs.step != STEP_ENDED
    c_assert(ok)
    if not ok:
        return NOISE_E_STATE
    if hs.initiator:
        hkdf(hs.ck, NULL, 0, out.send_key, out.recv_key, NULL)
    else:
        hkdf(hs.ck, NULL, 0, out.recv_key, out.send_key, NULL)
    out.send_nonce = 0
    out.recv_nonce = 0
    wipe_secrets(hs)
    return 0


cdef void wipe_secrets(NoiseHandshake* hs) noexcept nogil:
    """All but the peer's static key, the channel binding and the flags."""
    sodium_memzero(hs.ck, KEY_N)
    sodium_memzero(hs.k, KEY_N)
    sodium_memzero(hs.s_priv, KEY_N)
    sodium_memzero(hs.s_pub, KEY_N)
    sodium_memzero(hs.e_priv, KEY_N)
    sodium_memzero(hs.e_pub, KEY_N)
    sodium_memzero(hs.re, KEY_N)
    sodium_memzero(hs.psk, KEY_N)
    hs.n = 0
    hs.has_k = 0
    hs.has_re = 0
    hs.step = STEP_ENDED


cdef void noise_wipe(NoiseHandshake* hs) noexcept nogil:
    wipe_secrets(hs)
    sodium_memzero(hs.rs, KEY_N)
    sodium_memzero(hs.h, KEY_N)
    hs.has_rs = 0
    hs.done = 0


# --- transport (sections 5.1 and 11.3) --------------------------------------------------------------------

cdef void rekey(int suite, uint8_t* key) noexcept nogil:
    """k = the first 32 bytes of ENCRYPT(k, 2^64 - 1, zerolen, 32 zeros)."""
    cdef uint8_t[48] out
    memset(out, 0, 32)
    aead_seal(suite, key, NONCE_LAST, NULL, 0, out, 32, out)
    memcpy(key, out, KEY_N)
    sodium_memzero(out, sizeof(out))


cdef inline void nonce_step(int suite, uint8_t* key, uint64_t* nonce) noexcept nogil:
    nonce[0] += 1
    if (nonce[0] & (REKEY_MESSAGES - 1)) == 0:
        rekey(suite, key)


cdef int64_t noise_seal(NoiseTransport* t, int suite, const uint8_t* plain, size_t n, uint8_t* out) noexcept nogil:
    c_assert(n <= NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES)
    if n > NOISE_MESSAGE_BYTES_MAX - NOISE_TAG_BYTES:
        return NOISE_E_FORMAT
    if t.send_nonce == NONCE_LAST:
        return NOISE_E_NONCE
    aead_seal(suite, t.send_key, t.send_nonce, NULL, 0, plain, n, out)
    nonce_step(suite, t.send_key, &t.send_nonce)
    return <int64_t>(n + NOISE_TAG_BYTES)


cdef int64_t noise_open(NoiseTransport* t, int suite, const uint8_t* cipher, size_t n, uint8_t* out) noexcept nogil:
    if n < NOISE_TAG_BYTES or n > NOISE_MESSAGE_BYTES_MAX:
        return NOISE_E_FORMAT
    if t.recv_nonce == NONCE_LAST:
        return NOISE_E_NONCE
    if aead_open(suite, t.recv_key, t.recv_nonce, NULL, 0, cipher, n, out) != 0:
        return NOISE_E_AUTH
    nonce_step(suite, t.recv_key, &t.recv_nonce)
    return <int64_t>(n - NOISE_TAG_BYTES)


include "noise_face.pxi"
