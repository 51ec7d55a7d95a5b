# cython: language_level=3
# HOT: what everything else is compared with, so it does the least that moves the same bytes.
"""The floor: an epoll relay with the records, frames and ciphers of the protocol and nothing else.

Four hops as in the server: SEND in, DELIVER out, ACK in, DELIVERED out, each opened or sealed with the same cipher.
No handshake (fixed keys), no accounts, no custody, no timers, no bounds, no counters.  A connection starts with

    "floor\\r\\n"  suite u8 (0 = plain)  address u64

Frames that leave for one connection in one turn share a record, as the server's do; with `each` every frame is a record
of its own (what a relay that seals every hop by itself would do).
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, realloc
from libc.string cimport memcmp, memcpy, memmove, memset
from wa._fastpath.base.shards cimport splitmix64
from wa._fastpath.base.sodium cimport sodium_init
from wa._fastpath.noise.noise cimport noise_open, noise_seal, NoiseTransport
from wa._fastpath.wire.frames cimport varint_get, varint_put

cdef extern from "<sys/epoll.h>" nogil:
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    const int EPOLL_CLOEXEC, EPOLL_CTL_ADD, EPOLL_CTL_MOD
    const uint32_t EPOLLIN, EPOLLOUT
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)
cdef extern from "<sys/socket.h>" nogil:
    const int SOCK_NONBLOCK, SOCK_CLOEXEC, MSG_NOSIGNAL
    int accept4(int, void*, void*, int)
    ssize_t c_recv "recv"(int, void*, size_t, int)
    ssize_t c_send "send"(int, const void*, size_t, int)
cdef extern from "<unistd.h>" nogil:
    int c_close "close"(int)

cdef enum:
    HELLO_BYTES = 16
    EVENTS_N = 512
    READ_BYTES = 262144
    RING_N = 256                  # deliveries a connection may have unacknowledged
    TABLE_N = 65536               # addresses, open addressing
    LISTENER = 0xffffffff
    PLAIN_START = 4096
    RECORD_MAX = 65539

ctypedef struct Slot:
    uint32_t sender               # index of its connection
    uint64_t id

ctypedef struct FConn:
    NoiseTransport noise
    Slot ring[256]
    uint64_t address
    int32_t fd
    uint32_t index
    uint32_t dirty_next
    uint32_t seq_next
    uint8_t* in_buf
    uint32_t in_n
    uint8_t* out                  # frames of this turn (each: sealed records of this turn)
    uint32_t out_n, out_capacity
    uint8_t* rest                 # what the socket did not take
    uint32_t rest_n, rest_capacity
    uint8_t suite, dirty, ready

ctypedef struct Relay:
    int epoll_fd
    int listener
    bint each
    FConn** conns
    uint32_t conns_n, conns_capacity
    uint32_t dirty_head
    uint32_t table[65536]         # index + 1 by address
    epoll_event events[512]
    uint8_t read_buf[262144]
    uint8_t record[65539]


cdef inline uint32_t be32(const uint8_t* p) noexcept nogil:
    return <uint32_t>p[0] << 24 | <uint32_t>p[1] << 16 | <uint32_t>p[2] << 8 | p[3]


cdef inline uint64_t be64(const uint8_t* p) noexcept nogil:
    return <uint64_t>be32(p) << 32 | be32(p + 4)


cdef inline void put_be64(uint8_t* p, uint64_t v) noexcept nogil:
    cdef int i
    for i in range(8):
        p[i] = <uint8_t>(v >> (56 - 8 * i))


cdef FConn* find(Relay* r, uint64_t address) noexcept nogil:
    cdef uint32_t at = <uint32_t>(splitmix64(address) & (TABLE_N - 1))
    while r.table[at] and r.conns[r.table[at] - 1].address != address:
        at = (at + 1) & (TABLE_N - 1)
    return r.conns[r.table[at] - 1] if r.table[at] else NULL


cdef void remember(Relay* r, FConn* c) noexcept nogil:
    cdef uint32_t at = <uint32_t>(splitmix64(c.address) & (TABLE_N - 1))
    while r.table[at] and r.conns[r.table[at] - 1].address != c.address:
        at = (at + 1) & (TABLE_N - 1)
    r.table[at] = c.index + 1


# --- out ----------------------------------------------------------------------------------------------------

cdef int seal(FConn* c, const uint8_t* plain, uint32_t n, uint8_t* out) noexcept nogil:
    """One record with its prefix; its length."""
    if c.suite:
        n = <uint32_t>noise_seal(&c.noise, c.suite, plain, n, out + 4)
    else:
        memcpy(out + 4, plain, n)
    out[0] = 0
    out[1] = <uint8_t>(n >> 16)
    out[2] = <uint8_t>(n >> 8)
    out[3] = <uint8_t>n
    return <int>n + 4


cdef uint8_t* room(Relay* r, FConn* c, uint32_t n) noexcept nogil:
    """Where the next frame of at most n bytes goes; the caller adds what it wrote to out_n."""
    if not r.each and c.out_n + n > RECORD_MAX - 20:
        flush(r, c)
    if c.out_n + n > c.out_capacity:
        c.out_capacity = (c.out_n + n) * 2 + PLAIN_START
        c.out = <uint8_t*>realloc(c.out, c.out_capacity)
    if not c.dirty:
        c.dirty = 1
        c.dirty_next = r.dirty_head
        r.dirty_head = c.index
    return c.out + c.out_n


cdef void send_record(Relay* r, FConn* c, const uint8_t* data, uint32_t n) noexcept nogil:
    cdef ssize_t sent = 0
    cdef epoll_event event
    if c.rest_n == 0:
        sent = c_send(c.fd, data, n, MSG_NOSIGNAL)
        if sent == n:
            return
        if sent < 0:
            sent = 0
    data += sent
    n -= <uint32_t>sent
    if c.rest_n + n > c.rest_capacity:
        c.rest_capacity = (c.rest_n + n) * 2
        c.rest = <uint8_t*>realloc(c.rest, c.rest_capacity)
    memcpy(c.rest + c.rest_n, data, n)
    if c.rest_n == 0:
        event.events = EPOLLIN | EPOLLOUT
        event.data.u64 = c.index
        epoll_ctl(r.epoll_fd, EPOLL_CTL_MOD, c.fd, &event)
    c.rest_n += n


cdef void send_rest(Relay* r, FConn* c) noexcept nogil:
    cdef epoll_event event
    cdef ssize_t sent = c_send(c.fd, c.rest, c.rest_n, MSG_NOSIGNAL)
    if sent <= 0:
        return
    memmove(c.rest, c.rest + sent, c.rest_n - sent)
    c.rest_n -= <uint32_t>sent
    if c.rest_n == 0:
        event.events = EPOLLIN
        event.data.u64 = c.index
        epoll_ctl(r.epoll_fd, EPOLL_CTL_MOD, c.fd, &event)


cdef void flush(Relay* r, FConn* c) noexcept nogil:
    cdef uint32_t n = c.out_n
    if n == 0 or c.fd < 0:
        return
    c.out_n = 0
    if r.each:
        send_record(r, c, c.out, n)
    else:
        send_record(r, c, r.record, seal(c, c.out, n, r.record))


cdef void put(Relay* r, FConn* c, const uint8_t* head, uint32_t head_n, const uint8_t* body,
              uint32_t body_n) noexcept nogil:
    cdef uint8_t* at = room(r, c, head_n + body_n + 20)
    cdef uint8_t* plain = <uint8_t*>r.record if r.each else at
    memcpy(plain, head, head_n)
    if body_n:
        memcpy(plain + head_n, body, body_n)
    if r.each:
        c.out_n += seal(c, plain, head_n + body_n, at)
    else:
        c.out_n += head_n + body_n


# --- in -----------------------------------------------------------------------------------------------------

cdef int on_send(Relay* r, FConn* c, const uint8_t* p, const uint8_t* end) noexcept nogil:
    """40+k, u64 recipient, u64 id, bytes body; the length of the frame or -1."""
    cdef uint8_t head[64]
    cdef uint64_t body_n = 0
    cdef int n, head_n
    cdef FConn* to
    cdef Slot* slot
    if end - p < 18:
        return -1
    n = varint_get(p + 17, end, &body_n)
    if n < 0 or body_n > <uint64_t>(end - p - 17 - n):
        return -1
    to = find(r, be64(p + 1))
    if to == NULL:
        return -1
    slot = &to.ring[to.seq_next % RING_N]
    slot.sender = c.index
    slot.id = be64(p + 9)
    head[0] = 0x60 | (p[0] & 15)
    head_n = 1 + varint_put(head + 1, to.seq_next)
    put_be64(head + head_n, c.address)
    memcpy(head + head_n + 8, p + 9, 8)
    head_n += 16
    head_n += varint_put(head + head_n, body_n)
    to.seq_next += 1
    put(r, to, head, head_n, p + 17 + n, <uint32_t>body_n)
    return 17 + n + <int>body_n


cdef int on_ack(Relay* r, FConn* c, const uint8_t* p, const uint8_t* end) noexcept nogil:
    cdef uint8_t head[17]
    cdef uint64_t first = 0
    cdef uint64_t count = 1
    cdef uint64_t seq
    cdef Slot* slot
    cdef int n = varint_get(p + 1, end, &first)
    cdef int m = 0
    if n < 0:
        return -1
    if p[0] == 0x31:
        m = varint_get(p + 1 + n, end, &count)
        if m < 0:
            return -1
    head[0] = 0x21
    put_be64(head + 1, c.address)
    for seq in range(first, first + count):
        slot = &c.ring[seq % RING_N]
        put_be64(head + 9, slot.id)
        put(r, r.conns[slot.sender], head, 17, NULL, 0)
    return 1 + n + m


cdef int on_record(Relay* r, FConn* c, uint8_t* data, uint32_t n) noexcept nogil:
    cdef int64_t plain_n = noise_open(&c.noise, c.suite, data, n, data) if c.suite else n
    cdef int64_t at = 0
    cdef int used
    while at < plain_n:
        if data[at] & 0xf0 == 0x40:
            used = on_send(r, c, data + at, data + plain_n)
        elif data[at] == 0x30 or data[at] == 0x31:
            used = on_ack(r, c, data + at, data + plain_n)
        else:
            return -1             # a close, or something the floor does not know
        if used < 0:
            return -1
        at += used
    return 0 if plain_n >= 0 else -1


cdef void on_hello(Relay* r, FConn* c, const uint8_t* p) noexcept nogil:
    cdef uint8_t ready[11]
    c.suite = p[7]
    c.address = be64(p + 8)
    c.ready = 1
    memset(c.noise.send_key, 2, 32)
    memset(c.noise.recv_key, 1, 32)
    remember(r, c)
    memset(ready, 0, sizeof(ready))
    ready[0] = 5
    put(r, c, ready, 11, NULL, 0)


cdef void gone(FConn* c) noexcept nogil:
    """Closes the socket; the struct stays, for receipts that name it."""
    c_close(c.fd)
    c.fd = -1


cdef void readable(Relay* r, FConn* c) noexcept nogil:
    cdef uint8_t* data = r.read_buf
    cdef uint32_t kept = c.in_n
    cdef uint32_t at = 0
    cdef uint32_t n, length
    cdef ssize_t got
    if kept:
        memcpy(data, c.in_buf, kept)
    got = c_recv(c.fd, data + kept, READ_BYTES - kept, 0)
    if got <= 0:
        if got == 0 or (errno != EAGAIN and errno != EINTR):
            gone(c)
        return
    n = kept + <uint32_t>got
    c.in_n = 0
    if not c.ready and n >= HELLO_BYTES and memcmp(data, <const uint8_t*>b"floor\r\n", 7) == 0:
        on_hello(r, c, data)
        at = HELLO_BYTES
    while c.ready and n - at >= 4:
        length = be32(data + at)
        if length > 65535:
            gone(c)
            return
        if n - at < 4 + length:
            break
        if on_record(r, c, data + at + 4, length) != 0:
            gone(c)
            return
        at += 4 + length
    if at < n:
        c.in_n = n - at
        c.in_buf = <uint8_t*>realloc(c.in_buf, c.in_n)
        memcpy(c.in_buf, data + at, c.in_n)


cdef void accept_all(Relay* r) noexcept nogil:
    cdef epoll_event event
    cdef FConn* c
    cdef int fd
    while True:
        fd = accept4(r.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)
        if fd < 0:
            return
        c = <FConn*>calloc(1, sizeof(FConn))
        if r.conns_n == r.conns_capacity:
            r.conns_capacity = r.conns_capacity * 2 + 64
            r.conns = <FConn**>realloc(r.conns, r.conns_capacity * sizeof(FConn*))
        if c == NULL or r.conns == NULL:
            return
        c.fd = fd
        c.index = r.conns_n
        c.seq_next = 1
        r.conns[r.conns_n] = c
        r.conns_n += 1
        event.events = EPOLLIN
        event.data.u64 = c.index
        epoll_ctl(r.epoll_fd, EPOLL_CTL_ADD, fd, &event)


cdef void turn(Relay* r) noexcept nogil:
    cdef FConn* c
    cdef int i
    cdef int n = epoll_wait(r.epoll_fd, r.events, EVENTS_N, -1)
    for i in range(n):
        if r.events[i].data.u64 == LISTENER:
            accept_all(r)
            continue
        c = r.conns[r.events[i].data.u64]
        if c.fd >= 0 and r.events[i].events & EPOLLOUT:
            send_rest(r, c)
        if c.fd >= 0 and r.events[i].events & ~EPOLLOUT:
            readable(r, c)
    while r.dirty_head != LISTENER:
        c = r.conns[r.dirty_head]
        r.dirty_head = c.dirty_next
        c.dirty = 0
        flush(r, c)


def serve(listener: int, each: bool) -> None:
    """Relays connections of this non-blocking listening socket until the process is killed."""
    cdef Relay* r = <Relay*>calloc(1, sizeof(Relay))
    cdef epoll_event event
    if r == NULL:
        raise MemoryError
    if sodium_init() < 0:
        raise OSError("libsodium cannot be initialised")
    r.listener = listener
    r.each = each
    r.dirty_head = LISTENER
    r.epoll_fd = epoll_create1(EPOLL_CLOEXEC)
    event.events = EPOLLIN
    event.data.u64 = LISTENER
    if r.epoll_fd < 0 or epoll_ctl(r.epoll_fd, EPOLL_CTL_ADD, listener, &event) != 0:
        raise OSError("the listening socket cannot be watched")
    with nogil:
        while True:
            turn(r)
