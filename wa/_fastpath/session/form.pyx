# cython: language_level=3
# HOT for logins: half of them or more are handed over.
"""The serialised form of a connection; see session/form.pxd, and docs/upgrade.md for the bytes.

Comes in: a connection between two records, or the bytes of one.
Must hold: what form_write() writes form_read() reads to the same values; everything else is refused by name, never half
taken.  Times travel as ages, since clocks of two processes need not agree.
Is called: nothing.
"""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport HELLO_BYTES, PROTOCOL_VERSION, REQUESTS_OPEN_MAX
from wa._fastpath.base.sodium cimport sodium_memzero
from wa._fastpath.noise.noise cimport NOISE_NNPSK0, noise_suite_available
from wa._fastpath.state.core cimport (
    Conn, CONN_CLAIMED, CONN_HANDSHAKE, CONN_LIVE, CONN_REGISTERING, Core, FLAG_ASKED, FLAG_DOOMED, FLAG_EOF,
    Pending,
)

cdef enum:
    MAGIC_0 = 0x77                # "wc"
    MAGIC_1 = 0x63
    HEADER_N = 8                  # magic 2, version 1, sections 1, total length 4
    SECTION_N = 5                 # tag 1, length 4

    SECTION_CONNECTION = 1
    SECTION_CIPHER = 2
    SECTION_PENDING = 3
    SECTION_INPUT = 4

    CONNECTION_N = 26
    CIPHER_N = 80
    PENDING_N = 68
    INPUT_N_MAX = 1 << 20

cdef uint64_t NUMBERS = 1000000000000000  # phone numbers are below
cdef uint64_t NONCE_LAST = 0xffffffffffffffff     # Noise, section 11.3: not a record's

assert HEADER_N + 4 * SECTION_N + CONNECTION_N + CIPHER_N + PENDING_N <= FORM_FIXED_BYTES_MAX


# --- a connection and its values --------------------------------------------------------------------------

cdef void form_of(const Core* w, const Conn* c, ConnForm* f) noexcept nogil:
    wa_assert(not c.flags & (FLAG_DOOMED | FLAG_EOF), b"who is ending is not serialised")
    wa_assert(c.active == NULL or c.active.inflight_n == 0, b"version 1 has no deliveries in flight")
    memset(f, 0, sizeof(ConnForm))
    f.state = c.state
    f.suite = c.suite
    f.requests_open = c.requests_open
    f.asked = c.state == CONN_REGISTERING and c.flags & FLAG_ASKED != 0
    f.outstanding = c.outstanding
    f.seq_next = c.seq_next
    f.address = c.address
    f.heard_age_s = w.now_ms // 1000 - c.heard_s
    if c.state != CONN_HANDSHAKE:
        f.noise = c.noise
    if c.pending != NULL:
        f.intent = c.pending.intent
        memcpy(f.hello, c.pending.hello, HELLO_BYTES)
        memcpy(f.static_key, c.pending.static_key, 32)
        f.peer = c.pending.peer
        f.started_age_ms = w.now_ms - c.pending.started_ms


cdef void form_apply(const Core* w, const ConnForm* f, Conn* c) noexcept nogil:
    cdef uint64_t now_s = w.now_ms // 1000
    wa_assert(c.seq_next == 1 and c.outstanding == 0, b"the connection is fresh")
    wa_assert(f.state == CONN_LIVE or c.pending != NULL, b"what is not live yet has its pending part")
    c.suite = f.suite
    c.requests_open = f.requests_open
    c.outstanding = f.outstanding
    c.seq_next = f.seq_next
    c.address = f.address
    c.noise = f.noise
    c.heard_s = <uint32_t>(now_s - f.heard_age_s) if f.heard_age_s < now_s else 0
    if c.pending != NULL:
        c.pending.intent = f.intent
        memcpy(c.pending.hello, f.hello, HELLO_BYTES)
        memcpy(c.pending.static_key, f.static_key, 32)
        c.pending.peer = f.peer
        c.pending.started_ms = w.now_ms - f.started_age_ms if f.started_age_ms < w.now_ms else 0


# --- bytes ------------------------------------------------------------------------------------------------

cdef inline uint8_t* put(uint8_t* p, uint64_t value, int n) noexcept nogil:
    cdef int i
    for i in range(n):
        p[i] = <uint8_t>(value >> (8 * (n - 1 - i)))
    return p + n


cdef inline uint64_t get(const uint8_t** p, int n) noexcept nogil:
    cdef uint64_t value = 0
    cdef int i
    for i in range(n):
        value = value << 8 | p[0][i]
    p[0] += n
    return value


cdef inline uint8_t* put_bytes(uint8_t* p, const uint8_t* bytes, int n) noexcept nogil:
    memcpy(p, bytes, n)
    return p + n


cdef inline void get_bytes(const uint8_t** p, uint8_t* bytes, int n) noexcept nogil:
    memcpy(bytes, p[0], n)
    p[0] += n


cdef uint8_t* put_connection(uint8_t* p, const ConnForm* f) noexcept nogil:
    p = put(put(p, SECTION_CONNECTION, 1), CONNECTION_N, 4)
    p = put(put(p, f.state, 1), f.suite, 1)
    p = put(put(p, f.requests_open, 1), f.asked, 1)
    p = put(put(p, f.outstanding, 2), f.seq_next, 4)
    return put(put(p, f.address, 8), f.heard_age_s, 8)


cdef void get_connection(const uint8_t* p, ConnForm* f) noexcept nogil:
    f.state, f.suite = <uint8_t>get(&p, 1), <uint8_t>get(&p, 1)
    f.requests_open, f.asked = <uint8_t>get(&p, 1), <uint8_t>get(&p, 1)
    f.outstanding, f.seq_next = <uint16_t>get(&p, 2), <uint32_t>get(&p, 4)
    f.address, f.heard_age_s = get(&p, 8), get(&p, 8)


cdef uint8_t* put_cipher(uint8_t* p, const ConnForm* f) noexcept nogil:
    p = put(put(p, SECTION_CIPHER, 1), CIPHER_N, 4)
    p = put_bytes(put_bytes(p, f.noise.send_key, 32), f.noise.recv_key, 32)
    return put(put(p, f.noise.send_nonce, 8), f.noise.recv_nonce, 8)


cdef void get_cipher(const uint8_t* p, ConnForm* f) noexcept nogil:
    get_bytes(&p, f.noise.send_key, 32)
    get_bytes(&p, f.noise.recv_key, 32)
    f.noise.send_nonce, f.noise.recv_nonce = get(&p, 8), get(&p, 8)


cdef uint8_t* put_pending(uint8_t* p, const ConnForm* f) noexcept nogil:
    p = put(put(p, SECTION_PENDING, 1), PENDING_N, 4)
    p = put_bytes(put_bytes(put(p, f.intent, 1), f.hello, 8), f.static_key, 32)
    p = put_bytes(put(p, f.peer.family, 1), f.peer.address, 16)
    return put(put(p, f.peer.port, 2), f.started_age_ms, 8)


cdef void get_pending(const uint8_t* p, ConnForm* f) noexcept nogil:
    f.intent = <uint8_t>get(&p, 1)
    get_bytes(&p, f.hello, 8)
    get_bytes(&p, f.static_key, 32)
    f.peer.family = <uint8_t>get(&p, 1)
    get_bytes(&p, f.peer.address, 16)
    f.peer.port, f.started_age_ms = <uint16_t>get(&p, 2), get(&p, 8)


cdef inline uint8_t sections_of(uint8_t state, uint32_t input_n) noexcept nogil:
    """Bit n: section n is there."""
    cdef uint8_t found = 1 << SECTION_CONNECTION
    if state != CONN_HANDSHAKE:
        found |= 1 << SECTION_CIPHER
    if state != CONN_LIVE:
        found |= 1 << SECTION_PENDING
    return found | 1 << SECTION_INPUT if input_n else found


cdef uint32_t form_write(const ConnForm* f, uint8_t* out) noexcept nogil:
    cdef uint8_t found = sections_of(f.state, f.input_n)
    cdef uint8_t* p = out + HEADER_N
    cdef uint8_t sections = 1
    wa_assert(fault_of(f) == 0, b"what is written can be read")
    p = put_connection(p, f)
    if found & 1 << SECTION_CIPHER:
        p = put_cipher(p, f)
        sections += 1
    if found & 1 << SECTION_PENDING:
        p = put_pending(p, f)
        sections += 1
    if f.input_n:
        p = put(put(p, SECTION_INPUT, 1), f.input_n, 4)
        sections += 1
    out[0], out[1], out[2], out[3] = MAGIC_0, MAGIC_1, FORM_VERSION, sections
    put(out + 4, <uint64_t>(p - out) + f.input_n, 4)
    wa_assert(p - out <= FORM_FIXED_BYTES_MAX, b"the fixed part has its bound")
    return <uint32_t>(p - out)


cdef int fault_of(const ConnForm* f) noexcept nogil:
    """0, or FORM_E_VALUE: a value that no connection has."""
    cdef bint asks = f.state == CONN_REGISTERING or f.state == CONN_LIVE
    if (f.state != CONN_HANDSHAKE and f.state != CONN_CLAIMED and f.state != CONN_REGISTERING and f.state != CONN_LIVE):
        return FORM_E_VALUE
    if not noise_suite_available(f.suite) or f.noise.send_nonce == NONCE_LAST or f.noise.recv_nonce == NONCE_LAST:
        return FORM_E_VALUE
    if f.requests_open > (REQUESTS_OPEN_MAX if asks else 0) or f.asked > (f.state == CONN_REGISTERING):
        return FORM_E_VALUE
    if f.seq_next == 0 or f.state != CONN_LIVE and (f.seq_next != 1 or f.outstanding):
        return FORM_E_VALUE
    if f.peer.family != 0 and f.peer.family != 4 and f.peer.family != 6 or f.input_n > INPUT_N_MAX:
        return FORM_E_VALUE
    return 0 if intent_ok(f) and (f.state != CONN_HANDSHAKE or shows_ticket(f)) else FORM_E_VALUE


cdef inline bint intent_ok(const ConnForm* f) noexcept nogil:
    """Who registers has a number and no device yet; everybody else has both."""
    cdef uint64_t number = f.address >> 8
    if f.intent > (f.state == CONN_CLAIMED or f.state == CONN_REGISTERING) or f.intent < (f.state == CONN_REGISTERING):
        return False
    return 0 < number < NUMBERS and (f.address & 0xff == 0) == (f.intent == 1)


cdef inline bint shows_ticket(const ConnForm* f) noexcept nogil:
    """The hello of a handshake that is still to come: what session/handshake.pyx has taken, and no other pattern."""
    return (memcmp(f.hello, <const char*>b"wa\r\n", 4) == 0 and f.hello[4] == PROTOCOL_VERSION
            and f.hello[5] == f.suite and f.hello[6] == NOISE_NNPSK0 and f.hello[7] == 0)


cdef int take_section(const uint8_t* p, uint8_t tag, uint32_t n, ConnForm* f) noexcept nogil:
    if tag == SECTION_CONNECTION and n == CONNECTION_N:
        get_connection(p, f)
    elif tag == SECTION_CIPHER and n == CIPHER_N:
        get_cipher(p, f)
    elif tag == SECTION_PENDING and n == PENDING_N:
        get_pending(p, f)
    elif tag == SECTION_INPUT and n:
        f.input, f.input_n = p, n
    else:
        return FORM_E_SECTION if not SECTION_CONNECTION <= tag <= SECTION_INPUT else FORM_E_LENGTH
    return 0


cdef int form_read(const uint8_t* p, uint32_t n, ConnForm* f) noexcept nogil:
    cdef const uint8_t* end = p + n
    cdef const uint8_t* at = p + 4
    cdef uint8_t found = 0
    cdef uint8_t last = 0
    cdef uint8_t tag
    cdef uint8_t sections
    cdef uint32_t length
    cdef int status
    memset(f, 0, sizeof(ConnForm))
    if n < HEADER_N:
        return FORM_E_LENGTH
    if p[0] != MAGIC_0 or p[1] != MAGIC_1:
        return FORM_E_MAGIC
    if p[2] != FORM_VERSION:
        return FORM_E_VERSION
    if get(&at, 4) != n:
        return FORM_E_LENGTH
    sections = p[3]
    while sections and end - at >= SECTION_N:
        tag, length = <uint8_t>get(&at, 1), <uint32_t>get(&at, 4)
        if length > <uint64_t>(end - at):
            return FORM_E_LENGTH
        status = FORM_E_SECTION if tag <= last else take_section(at, tag, length, f)
        if status != 0:
            return status
        last = tag
        found |= 1 << tag
        at += length
        sections -= 1
    if sections or at != end:
        return FORM_E_LENGTH
    if found != sections_of(f.state, f.input_n):
        return FORM_E_SECTION
    return fault_of(f)


# --- the face for tests -----------------------------------------------------------------------------------

ERRORS = {FORM_E_MAGIC: "magic", FORM_E_VERSION: "version", FORM_E_LENGTH: "length", FORM_E_SECTION: "section",
          FORM_E_VALUE: "value"}
NOW_MS = 2_000_000_000_000    # of the worker whose connection it is in `written_again`
STATES = {"handshake": CONN_HANDSHAKE, "claimed": CONN_CLAIMED, "registering": CONN_REGISTERING, "live": CONN_LIVE}


def write(dict values) -> bytes:
    """The bytes of a connection with these values, as `read` gives them; the rest is zero."""
    cdef ConnForm f
    cdef uint8_t out[FORM_FIXED_BYTES_MAX]
    cdef bytes rest = values.get("input", b"")
    memset(&f, 0, sizeof(f))
    f.state, f.suite, f.seq_next = STATES[values["state"]], values["suite"], values["seq_next"]
    f.requests_open, f.asked, f.outstanding = values["requests_open"], values["asked"], values["outstanding"]
    f.address, f.heard_age_s = values["address"], values["heard_age_s"]
    if f.state != CONN_HANDSHAKE:
        f.noise.send_key, f.noise.recv_key = values["send_key"], values["recv_key"]
        f.noise.send_nonce, f.noise.recv_nonce = values["send_nonce"], values["recv_nonce"]
    if f.state != CONN_LIVE:
        f.intent, f.hello, f.static_key = values["intent"], values["hello"], values["static_key"]
        f.peer.family, f.peer.address, f.peer.port = values["family"], values["peer"], values["port"]
        f.started_age_ms = values["started_age_ms"]
    f.input_n = <uint32_t>len(rest)
    cdef uint32_t n = form_write(&f, out)
    head = (<const char*>out)[:n]
    sodium_memzero(out, sizeof(out))
    return head + rest


def read(bytes data) -> dict:
    """What the bytes say.  Raises ValueError with the word of `ERRORS`."""
    cdef ConnForm f
    cdef int status = form_read(<const uint8_t*><const char*>data, <uint32_t>len(data), &f)
    if status != 0:
        raise ValueError(ERRORS[status])
    values = {
        "state": next(name for name, state in STATES.items() if state == f.state), "suite": f.suite,
        "seq_next": f.seq_next, "requests_open": f.requests_open, "asked": f.asked, "outstanding": f.outstanding,
        "address": f.address, "heard_age_s": f.heard_age_s,
    }
    if f.state != CONN_HANDSHAKE:
        values.update(send_key=(<const char*>f.noise.send_key)[:32], recv_key=(<const char*>f.noise.recv_key)[:32],
                      send_nonce=f.noise.send_nonce, recv_nonce=f.noise.recv_nonce)
    if f.state != CONN_LIVE:
        values.update(intent=f.intent, hello=(<const char*>f.hello)[:8], static_key=(<const char*>f.static_key)[:32],
                      family=f.peer.family, peer=(<const char*>f.peer.address)[:16], port=f.peer.port,
                      started_age_ms=f.started_age_ms)
    if f.input_n:
        values["input"] = (<const char*>f.input)[:f.input_n]
    return values


def written_again(bytes data) -> bytes:
    """The form of a connection to which this one was applied, without its input.  Raises ValueError like `read`."""
    cdef Core* w = <Core*>calloc(1, sizeof(Core))
    cdef ConnForm f
    cdef Conn c
    cdef Pending p
    cdef uint8_t out[FORM_FIXED_BYTES_MAX]
    cdef int status = form_read(<const uint8_t*><const char*>data, <uint32_t>len(data), &f)
    if w == NULL:
        raise MemoryError
    memset(&c, 0, sizeof(Conn))
    memset(&p, 0, sizeof(Pending))
    c.seq_next = 1
    c.pending = &p
    w.now_ms = NOW_MS
    try:
        if status != 0:
            raise ValueError(ERRORS[status])
        form_apply(w, &f, &c)
        c.state = f.state
        c.flags = FLAG_ASKED if f.asked else 0
        c.pending = NULL if f.state == CONN_LIVE else &p
        form_of(w, &c, &f)
        return (<const char*>out)[:form_write(&f, out)]
    finally:
        free(w)
