# cython: language_level=3
# HOT: every byte that the generator sends and receives; it must cost less than the server it measures.
"""Connections of the load generator; see line.pxd and docs/protocol.md, sections 1 and 2."""
from libc.errno cimport EAGAIN, EINPROGRESS, errno
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from bench._load.gen cimport (
    Gen, Line, LINE_CONNECTING, LINE_DOWN, LINE_HANDSHAKE, LINE_LIVE, LINE_OPENING, LINE_WAITING, PLAIN_BYTES,
    READ_BYTES,
)
from bench._load.hist cimport hist_add
from wa._fastpath.noise.noise cimport (
    NOISE_IK, NOISE_NNPSK0, noise_open, noise_read, noise_seal, noise_split, noise_start, noise_start_psk, noise_wipe,
    noise_write, NoiseHandshake,
)
from wa._fastpath.os.poller cimport HANGUP, READABLE, WRITABLE
from wa._fastpath.wire.frames cimport (
    F_ACK, F_ACK_RANGE, F_CLOSE, F_OPEN, F_READY, Frame, FRAME_HEADER_BYTES_MAX, frame_parse, frame_write,
)

cdef extern from "<sys/socket.h>" nogil:
    ctypedef int socklen_t
    struct sockaddr:
        pass
    const int AF_INET, SOCK_STREAM, SOCK_NONBLOCK, SOCK_CLOEXEC, SOL_SOCKET, SO_ERROR
    int socket(int, int, int)
    int c_bind "bind"(int, const sockaddr*, socklen_t)
    int c_connect "connect"(int, const sockaddr*, socklen_t)
    int setsockopt(int, int, int, const void*, socklen_t)
    int getsockopt(int, int, int, void*, socklen_t*)
cdef extern from "<netinet/in.h>" nogil:
    struct in_addr:
        uint32_t s_addr
    struct sockaddr_in:
        unsigned short sin_family
        unsigned short sin_port
        in_addr sin_addr
    const int IPPROTO_TCP, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT
cdef extern from "<netinet/tcp.h>" nogil:
    const int TCP_NODELAY
cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int)

cdef enum:
    RECORD_NOISE = 1
    RECORD_REFUSED = 3
    RECORD_TICKET = 4
    RECORD_TICKET_REFUSED = 5
    PSK_BYTES = 32
    CODE_BUSY = 13
    CLIENT_VERSION = 1
    FLOOR_HELLO_BYTES = 16
    RETRY_MS = 200                # after a refused or reset connection that names no time
    TRIES_MAX = 100


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline void put_be32(uint8_t* p, uint32_t v) noexcept nogil:
    p[0] = <uint8_t>(v >> 24)
    p[1] = <uint8_t>(v >> 16)
    p[2] = <uint8_t>(v >> 8)
    p[3] = <uint8_t>v


cdef inline void put_be64(uint8_t* p, uint64_t v) noexcept nogil:
    put_be32(p, <uint32_t>(v >> 32))
    put_be32(p + 4, <uint32_t>v)


# --- up and down ----------------------------------------------------------------------------------------

cdef int open_socket(Gen* g, Line* l) noexcept nogil:
    cdef sockaddr_in name
    cdef int one = 1
    cdef int status
    l.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
    if l.fd < 0:
        return -errno
    setsockopt(l.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one))
    memset(&name, 0, sizeof(name))
    name.sin_family = AF_INET
    if l.source:
        # The port is then chosen at connect(), per destination: one address has room for every ephemeral port.
        setsockopt(l.fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof(one))
        name.sin_addr.s_addr = l.source
        if c_bind(l.fd, <sockaddr*>&name, sizeof(name)) != 0:
            return -errno
    name.sin_port = g.port
    name.sin_addr.s_addr = g.host
    status = c_connect(l.fd, <sockaddr*>&name, sizeof(name))
    return 0 if status == 0 or errno == EINPROGRESS else -errno


cdef int line_connect(Gen* g, Line* l) noexcept nogil:
    cdef int status = open_socket(g, l)
    if status == 0:
        status = g.poller.watch(g.poller, l.fd, WRITABLE, l.index)
    if status < 0:
        if l.fd >= 0:
            c_close(l.fd)
        l.fd = -1
        return status
    if l.began_ns == 0:
        l.began_ns = g.poller.now_ns(g.poller)
    l.state = LINE_CONNECTING
    l.seq_seen = 0
    l.mute_from = 1 if l.mute_from else 0
    g.pending_n += 1
    return 0


cdef void line_down(Gen* g, Line* l) noexcept nogil:
    if l.state == LINE_LIVE:
        g.live_n -= 1
    elif LINE_CONNECTING <= l.state <= LINE_OPENING:
        g.pending_n -= 1
    elif l.state == LINE_WAITING:
        g.waiting_n -= 1
    if l.fd >= 0:
        g.poller.unwatch(g.poller, l.fd)
        c_close(l.fd)
    if l.hs != NULL:
        noise_wipe(l.hs)
        free(l.hs)
    free(l.in_buf)
    free(l.out)
    l.hs = NULL
    l.in_buf = l.out = NULL
    l.in_n = l.out_n = l.out_at = l.out_capacity = 0
    l.fd = -1
    l.state = LINE_DOWN


cdef void lost(Gen* g, Line* l, uint64_t retry_ms) noexcept nogil:
    """The connection ended.  A live one is a fault of the run; one that logs in tries again."""
    cdef bint was_live = l.state == LINE_LIVE
    line_down(g, l)
    if was_live:
        g.counts.dropped += 1
        return
    l.tries += 1
    if l.tries >= TRIES_MAX:
        g.counts.login_failures += 1
        return
    g.counts.retries += 1
    l.state = LINE_WAITING
    l.retry_at_ns = g.now_ns + (retry_ms if retry_ms else RETRY_MS) * 1000000
    g.waiting_n += 1


# --- handshake --------------------------------------------------------------------------------------------

cdef void connected(Gen* g, Line* l) noexcept nogil:
    cdef int failure = 0
    cdef socklen_t n = sizeof(failure)
    if getsockopt(l.fd, SOL_SOCKET, SO_ERROR, &failure, &n) != 0 or failure != 0:
        lost(g, l, 0)
        return
    if g.poller.change(g.poller, l.fd, READABLE, l.index) < 0:
        lost(g, l, 0)
        return
    if g.is_floor:
        floor_hello(g, l)
    else:
        first_message(g, l)


cdef void floor_hello(Gen* g, Line* l) noexcept nogil:
    memcpy(g.record, <const uint8_t*>b"floor\r\n", 7)
    g.record[7] = g.suite
    put_be64(g.record + 8, l.address)
    memset(l.noise.send_key, 1, 32)       # the floor's keys are no secret: it has no handshake
    memset(l.noise.recv_key, 2, 32)
    l.noise.send_nonce = l.noise.recv_nonce = 0
    l.state = LINE_OPENING
    write_out(g, l, g.record, FLOOR_HELLO_BYTES)


cdef void first_message(Gen* g, Line* l) noexcept nogil:
    """The hello, and message 1 with the login in it: of NNpsk0 behind the ticket where there is one, or of IK."""
    cdef uint8_t ephemeral[32]
    cdef uint8_t login[9]
    cdef uint8_t* out = g.record
    cdef uint32_t at = 13             # where the Noise message begins, behind hello, length and kind
    cdef int64_t n
    memcpy(out, <const uint8_t*>b"wa\r\n\x01", 5)
    out[5] = g.suite
    out[6] = NOISE_NNPSK0 if l.ticket != NULL else NOISE_IK
    out[7] = 0
    login[0] = 0
    put_be64(login + 1, l.address)
    l.hs = <NoiseHandshake*>malloc(sizeof(NoiseHandshake))
    if l.hs == NULL:
        lost(g, l, 0)
        return
    out[12] = RECORD_NOISE
    if l.ticket != NULL:
        noise_start_psk(l.hs, g.suite, True, out, 8, l.ticket)
        n = l.ticket_n - PSK_BYTES
        out[12] = RECORD_TICKET
        out[13] = <uint8_t>(n >> 8)
        out[14] = <uint8_t>n
        memcpy(out + 15, l.ticket + PSK_BYTES, n)
        at = <uint32_t>(15 + n)
        free(l.ticket)                # good once
        l.ticket = NULL
    else:
        noise_start(l.hs, NOISE_IK, g.suite, True, out, 8, g.key_private + 32 * l.key, g.key_public + 32 * l.key,
                    g.server_public)
    g.poller.random(g.poller, ephemeral, 32)
    n = noise_write(l.hs, ephemeral, login, 9, out + at, 512)
    if n < 0:
        lost(g, l, 0)
        return
    put_be32(out + 8, <uint32_t>(at - 12 + n))
    l.state = LINE_HANDSHAKE
    write_out(g, l, out, <uint32_t>(at + n))


cdef void keep_ticket(Gen* g, Line* l, const Frame* f) noexcept nogil:
    if not g.use_tickets:
        return
    free(l.ticket)
    l.ticket = <uint8_t*>malloc(f.body_n)
    if l.ticket == NULL:
        return
    memcpy(l.ticket, f.body, f.body_n)
    l.ticket_n = <uint16_t>f.body_n
    g.counts.tickets += 1


cdef void on_handshake(Gen* g, Line* l, const uint8_t* record, uint32_t n) noexcept nogil:
    cdef uint8_t payload[256]
    cdef uint64_t retry_ms = 0
    if record[0] == RECORD_REFUSED and n >= 7:
        g.last_close = <uint32_t>record[1] << 8 | record[2]
        if g.last_close == CODE_BUSY:
            g.counts.busy += 1
            retry_ms = be32(record + 3)
        lost(g, l, retry_ms)
        return
    if record[0] == RECORD_TICKET_REFUSED and l.hs.pattern == NOISE_NNPSK0:
        g.counts.tickets_refused += 1
        noise_wipe(l.hs)
        free(l.hs)
        l.hs = NULL
        first_message(g, l)
        return
    if record[0] != RECORD_NOISE or noise_read(l.hs, record + 1, n - 1, payload, 256) < 0:
        lost(g, l, 0)
        return
    if l.hs.pattern == NOISE_NNPSK0:
        g.counts.resumed += 1
    noise_split(l.hs, &l.noise)
    free(l.hs)
    l.hs = NULL
    l.state = LINE_OPENING
    if put_simple(g, l, F_OPEN, CLIENT_VERSION, 0) == 0:
        flush_record(g, l)


cdef void ready(Gen* g, Line* l) noexcept nogil:
    l.state = LINE_LIVE
    l.tries = 0
    g.pending_n -= 1
    g.live_n += 1
    g.counts.logins += 1
    hist_add(&g.login, g.now_ns - l.began_ns)
    l.began_ns = 0


# --- receiving ------------------------------------------------------------------------------------------------

cdef void line_event(Gen* g, Line* l, uint32_t mask) noexcept nogil:
    if l.state == LINE_CONNECTING:
        if mask & (WRITABLE | HANGUP):
            connected(g, l)
        return
    if mask & WRITABLE and l.out_n:
        write_rest(g, l)
    if mask & (READABLE | HANGUP) and l.fd >= 0:
        readable(g, l)


cdef void readable(Gen* g, Line* l) noexcept nogil:
    cdef uint8_t* data = g.read_buf
    cdef uint32_t kept = l.in_n
    cdef int64_t n
    if kept:
        memcpy(data, l.in_buf, kept)
    n = g.poller.recv(g.poller, l.fd, data + kept, READ_BYTES - kept)
    if n <= 0:
        if n != -EAGAIN:
            lost(g, l, 0)
        return
    g.counts.bytes_in += n
    g.now_ns = g.poller.now_ns(g.poller)
    free(l.in_buf)
    l.in_buf = NULL
    l.in_n = 0
    consume(g, l, data, kept + <uint32_t>n)


cdef void consume(Gen* g, Line* l, uint8_t* data, uint32_t n) noexcept nogil:
    cdef uint32_t at = 0
    cdef uint32_t length
    g.ack_n = 0
    g.plain_n = 0
    while n - at >= 4 and l.fd >= 0:
        length = be32(data + at)
        if length == 0 or length > 65535:
            lost(g, l, 0)
            return
        if n - at < 4 + length:
            break
        if l.state == LINE_HANDSHAKE:
            on_handshake(g, l, data + at + 4, length)
        else:
            on_record(g, l, data + at + 4, length)
        at += 4 + length
    if l.fd < 0:
        return
    if at < n:
        l.in_n = n - at
        l.in_buf = <uint8_t*>malloc(l.in_n)
        if l.in_buf == NULL:
            lost(g, l, 0)
            return
        memcpy(l.in_buf, data + at, l.in_n)
    if g.ack_n:
        put_acks(g, l)
    if l.state == LINE_LIVE:
        g.on_batch(g, l)
    flush_record(g, l)


cdef void on_record(Gen* g, Line* l, uint8_t* data, uint32_t n) noexcept nogil:
    cdef int64_t plain_n = noise_open(&l.noise, g.suite, data, n, data) if g.suite else n
    cdef int64_t at = 0
    cdef int64_t used
    cdef uint64_t retry_ms
    cdef Frame f
    g.counts.records_in += 1
    if plain_n < 0:
        lost(g, l, 0)
        return
    while at < plain_n and l.fd >= 0:
        used = frame_parse(data + at, <size_t>(plain_n - at), &f)
        if used <= 0:
            lost(g, l, 0)
            return
        at += used
        if f.type == F_READY and l.state == LINE_OPENING:
            ready(g, l)
        elif f.type == F_CLOSE:
            g.last_close = <uint32_t>f.number
            g.counts.closes += 1
            retry_ms = 0
            if f.number == CODE_BUSY:
                g.counts.busy += 1
                retry_ms = f.extra
            lost(g, l, retry_ms)
        else:
            g.on_frame(g, l, &f)


cdef void put_acks(Gen* g, Line* l) noexcept nogil:
    """One acknowledgement for what one read brought, as a device does after one commit."""
    cdef uint32_t n
    while g.ack_n and l.fd >= 0:
        n = g.ack_n if g.ack_n < 64 else 64
        put_simple(g, l, F_ACK if n == 1 else F_ACK_RANGE, g.ack_first, n)
        g.ack_first += n
        g.ack_n -= n


# --- sending --------------------------------------------------------------------------------------------------

cdef int put_frame(Gen* g, Line* l, const Frame* f) noexcept nogil:
    cdef int64_t n
    if g.plain_n + FRAME_HEADER_BYTES_MAX + f.body_n > PLAIN_BYTES:
        flush_record(g, l)
    n = frame_write(g.plain + g.plain_n, PLAIN_BYTES - g.plain_n, f)
    if n < 0:
        return -1
    g.plain_n += <uint32_t>n
    return 0


cdef int put_simple(Gen* g, Line* l, int type, uint64_t number, uint64_t extra) noexcept nogil:
    cdef Frame f
    memset(&f, 0, sizeof(Frame))
    f.type = <uint8_t>type
    f.number = number
    f.extra = extra
    return put_frame(g, l, &f)


cdef void flush_record(Gen* g, Line* l) noexcept nogil:
    cdef int64_t n = g.plain_n
    if n == 0 or l.fd < 0:
        g.plain_n = 0
        return
    g.plain_n = 0
    if g.suite:
        n = noise_seal(&l.noise, g.suite, g.plain, <size_t>n, g.record + 4)
        if n < 0:
            lost(g, l, 0)
            return
    else:
        memcpy(g.record + 4, g.plain, <size_t>n)
    put_be32(g.record, <uint32_t>n)
    g.counts.records_out += 1
    write_out(g, l, g.record, <uint32_t>(n + 4))


cdef void write_out(Gen* g, Line* l, const uint8_t* data, uint32_t n) noexcept nogil:
    """Sends what the socket takes and keeps the rest until it is writable."""
    cdef int64_t sent = 0
    cdef uint8_t* grown
    l.said_s = <uint32_t>(g.now_ns // 1000000000)
    g.counts.bytes_out += n
    if l.out_n == 0:
        sent = g.poller.send(g.poller, l.fd, data, n)
        if sent == n:
            return
        if sent < 0 and sent != -EAGAIN:
            lost(g, l, 0)
            return
        if sent < 0:
            sent = 0
    data += sent
    n -= <uint32_t>sent
    if l.out_n + n > l.out_capacity:
        grown = <uint8_t*>realloc(l.out, l.out_n + n)
        if grown == NULL:
            lost(g, l, 0)
            return
        l.out = grown
        l.out_capacity = l.out_n + n
    memcpy(l.out + l.out_n, data, n)
    if l.out_n == 0:
        g.poller.change(g.poller, l.fd, READABLE | WRITABLE, l.index)
    l.out_n += n


cdef void write_rest(Gen* g, Line* l) noexcept nogil:
    cdef int64_t sent = g.poller.send(g.poller, l.fd, l.out + l.out_at, l.out_n - l.out_at)
    if sent < 0:
        if sent != -EAGAIN:
            lost(g, l, 0)
        return
    l.out_at += <uint32_t>sent
    if l.out_at == l.out_n:
        free(l.out)
        l.out = NULL
        l.out_n = l.out_at = l.out_capacity = 0
        g.poller.change(g.poller, l.fd, READABLE, l.index)
