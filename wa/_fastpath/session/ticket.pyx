# cython: language_level=3
# HOT for logins: a reconnect storm runs through here.
"""Resumption tickets; see session/ticket.pxd, and docs/security.md for what they are worth.  The twin is
wa/noise/ticket.py.

No key of the device is inside: its address and the serial stand for it.  A serial is only ever given to a connection
that has proved the device's key, or was itself resumed with such a serial, and it is gone with the directory's entry
as soon as the registry takes the key from the device.
"""
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.base.bounds cimport TICKET_BYTES_MAX
from wa._fastpath.base.sodium cimport (
    crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt, sodium_memzero,
)
from wa._fastpath.conn.output cimport out_frame
from wa._fastpath.noise.noise cimport noise_read, noise_start_psk, noise_wipe
from wa._fastpath.state.core cimport Conn, Core, Device, KEY_TAG_BYTES, Pending
from wa._fastpath.state.directory cimport directory_find
from wa._fastpath.state.route cimport owner_of
from wa._fastpath.wire.frames cimport F_TICKET, Frame

cdef enum:
    TICKET_VERSION = 1
    PSK_N = 32
    NONCE_N = 24
    TAG_N = 16
    LOGIN_N = 9
    MESSAGE_N = 32 + LOGIN_N + TAG_N      # first message of NNpsk0 with a login

ctypedef struct Grant:            # inside a ticket
    uint8_t version
    uint8_t zero[3]
    uint32_t serial
    uint64_t epoch                # of the worker that gave it
    uint64_t address
    uint64_t issued_ms            # Unix time
    uint64_t expires_ms
    uint8_t psk[32]

cdef enum:
    SEALED_N = NONCE_N + 72 + TAG_N

assert sizeof(Grant) == 72 and SEALED_N <= TICKET_BYTES_MAX     # no padding; a ticket fits its bound


cdef int grant_open(const Core* w, const uint8_t* sealed, uint32_t n, Grant* g) noexcept nogil:
    """-1 for everything that our key did not seal, that has expired or that comes from the future."""
    if n != SEALED_N or crypto_aead_xchacha20poly1305_ietf_decrypt(
        <uint8_t*>g, NULL, NULL, sealed + NONCE_N, n - NONCE_N, NULL, 0, sealed, w.ticket_key
    ) != 0:
        return -1
    return 0 if g.version == TICKET_VERSION and g.issued_ms <= w.wall_ms < g.expires_ms else -1


cdef bint login_is(const uint8_t* payload, uint64_t address) noexcept nogil:
    """A log-in (docs/protocol.md, section 1.1) as exactly this device."""
    cdef int i
    for i in range(8):
        if payload[1 + i] != <uint8_t>(address >> (56 - 8 * i)):
            return False
    return payload[0] == 0


cdef int judge(Core* w, Conn* c, const Grant* g, const uint8_t* message) noexcept nogil:
    cdef Pending* p = c.pending
    cdef Device* d
    cdef uint8_t[LOGIN_N] payload
    if owner_of(w, g.address) != w.worker:
        c.address = g.address
        return TICKET_ELSEWHERE
    d = directory_find(&w.directory, g.address)
    if d == NULL or g.epoch != w.ticket_epoch or d.ticket_serial != g.serial:
        return TICKET_REFUSED
    noise_start_psk(&p.hs, c.suite, False, p.hello, sizeof(p.hello), g.psk)
    if noise_read(&p.hs, message, MESSAGE_N, payload, LOGIN_N) != LOGIN_N or not login_is(payload, g.address):
        noise_wipe(&p.hs)
        return TICKET_REFUSED
    c.address = g.address
    p.ticket_serial = g.serial
    return TICKET_GOOD


cdef int ticket_first(Core* w, Conn* c, const uint8_t* content, uint32_t n) noexcept nogil:
    cdef Grant g
    cdef uint32_t ticket_n
    cdef int verdict = TICKET_REFUSED
    if n < 2:
        return TICKET_MALFORMED
    ticket_n = <uint32_t>content[0] << 8 | content[1]
    if ticket_n == 0 or ticket_n > TICKET_BYTES_MAX or n != 2 + ticket_n + MESSAGE_N:
        return TICKET_MALFORMED
    if w.has_tickets and grant_open(w, content + 2, ticket_n, &g) == 0:
        verdict = judge(w, c, &g, content + 2 + ticket_n)
    sodium_memzero(&g, sizeof(Grant))
    return verdict


cdef bint ticket_use(Core* w, Conn* c) noexcept nogil:
    cdef Device* d = directory_find(&w.directory, c.address)
    cdef uint32_t serial = c.pending.ticket_serial
    c.pending.ticket_serial = 0
    if d == NULL or d.ticket_serial != serial:
        return False
    d.ticket_serial = 0
    memcpy(c.pending.key_tag, d.key_tag, KEY_TAG_BYTES)     # the serial stands for the key
    w.stats.resumptions += 1
    return True


cdef uint32_t new_serial(Core* w) noexcept nogil:
    """Never one twice in an epoch: nothing that was once void becomes good again."""
    if w.ticket_serial == <uint32_t>0xffffffff:
        w.ticket_serial = 0
        w.poller.random(w.poller, <uint8_t*>&w.ticket_epoch, sizeof(w.ticket_epoch))
    w.ticket_serial += 1
    return w.ticket_serial


cdef void ticket_issue(Core* w, Conn* c, Device* d) noexcept nogil:
    cdef uint8_t[PSK_N + SEALED_N] body
    cdef uint8_t* sealed = <uint8_t*>body + PSK_N
    cdef Grant g
    cdef Frame f
    if not w.has_tickets:
        return
    memset(&g, 0, sizeof(Grant))
    g.version = TICKET_VERSION
    g.address = c.address
    g.issued_ms = w.wall_ms
    g.expires_ms = w.wall_ms + w.bounds.ticket_lifetime_s * 1000
    g.serial = new_serial(w)
    g.epoch = w.ticket_epoch
    w.poller.random(w.poller, g.psk, PSK_N)
    w.poller.random(w.poller, sealed, NONCE_N)
    crypto_aead_xchacha20poly1305_ietf_encrypt(
        sealed + NONCE_N, NULL, <const uint8_t*>&g, sizeof(Grant), NULL, 0, NULL, sealed, w.ticket_key
    )
    memcpy(body, g.psk, PSK_N)
    d.ticket_serial = g.serial
    memset(&f, 0, sizeof(Frame))
    f.type = F_TICKET
    f.number = w.bounds.ticket_lifetime_s
    f.body = body
    f.body_n = sizeof(body)
    # The psk now lies in the output buffer too, until it is sealed; whoever could read it there has the ticket key.
    out_frame(w, c, &f)
    sodium_memzero(body, sizeof(body))
    sodium_memzero(&g, sizeof(Grant))
