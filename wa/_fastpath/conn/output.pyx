# cython: language_level=3
# HOT: every frame to a client passes here; frames of one turn share one Noise record and one send().
"""Output of connections; see conn/output.pxd."""
from libc.errno cimport EAGAIN, EINTR
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset
from wa._fastpath.base.bounds cimport RECORD_PLAIN_BYTES_MAX
from wa._fastpath.base.codes cimport CODE_INTERNAL, CODE_SLOW_READER
from wa._fastpath.base.slab cimport SLAB_BYTES_MAX, slab_give, slab_take
from wa._fastpath.conn.flags cimport conn_doom, conn_gone, conn_want_write
from wa._fastpath.conn.lists cimport mark_dirty
from wa._fastpath.noise.noise cimport noise_seal
from wa._fastpath.state.core cimport Active, Conn, Core, FLAG_DOOMED, FLAG_EOF, FLAG_WANT_WRITE
from wa._fastpath.wire.frames cimport Frame, FRAME_HEADER_BYTES_MAX, frame_write


cdef int buffer_reserve(Core* w, uint8_t** buf, uint32_t* capacity, uint32_t used, uint32_t need) noexcept nogil:
    """Room for `need` bytes in all, keeping the first `used`.  0, or -1 when the memory bound is reached."""
    cdef uint32_t cap = 0
    cdef uint8_t* p
    if need <= capacity[0]:
        return 0
    if need <= SLAB_BYTES_MAX:
        p = slab_take(&w.slab, need, &cap)
    else:
        # Beyond the slab only backed-up output grows, bounded by limits.OUTPUT_BYTES_MAX.
        cap = need + need // 2
        p = <uint8_t*>malloc(cap)
    if p == NULL:
        return -1
    if used:
        memcpy(p, buf[0], used)
    buffer_free(w, buf, capacity)
    buf[0] = p
    capacity[0] = cap
    return 0


cdef void buffer_free(Core* w, uint8_t** buf, uint32_t* capacity) noexcept nogil:
    if buf[0] == NULL:
        return
    if capacity[0] > SLAB_BYTES_MAX:
        free(buf[0])
    else:
        slab_give(&w.slab, buf[0], capacity[0])
    buf[0] = NULL
    capacity[0] = 0


cdef Active* conn_active(Core* w, Conn* c) noexcept nogil:
    cdef uint32_t capacity = 0
    if c.active == NULL:
        c.active = <Active*>slab_take(&w.slab, sizeof(Active), &capacity)
        if c.active != NULL:
            memset(c.active, 0, sizeof(Active))
            c.active.seq_base = c.seq_next
    return c.active


cdef uint32_t slab_class(uint32_t n) noexcept nogil:
    cdef uint32_t size = 64
    while size < n:
        size <<= 1
    return size


cdef void conn_quiet(Core* w, Conn* c) noexcept nogil:
    cdef Active* a = c.active
    if a == NULL:
        return
    if a.in_n == 0:
        buffer_free(w, &a.in_buf, &a.in_capacity)
    if a.plain_n == 0:
        buffer_free(w, &a.plain, &a.plain_capacity)
    if a.sealed_n == 0:
        buffer_free(w, &a.sealed, &a.sealed_capacity)
    if a.inflight_n == 0 and a.ring != NULL:
        slab_give(&w.slab, <uint8_t*>a.ring, slab_class(64 * sizeof(void*)))
        a.ring = NULL
    if a.in_buf == NULL and a.plain == NULL and a.sealed == NULL and a.ring == NULL and a.drain == NULL:
        slab_give(&w.slab, <uint8_t*>a, slab_class(sizeof(Active)))
        c.active = NULL


cdef void conn_drop_buffers(Core* w, Conn* c) noexcept nogil:
    """Gives back everything.  Deliveries in flight must have been taken off the ring before."""
    if c.active != NULL:
        c.active.in_n = 0
        c.active.plain_n = 0
        c.active.sealed_n = 0
        conn_quiet(w, c)


cdef uint32_t out_pending(const Conn* c) noexcept nogil:
    if c.active == NULL:
        return 0
    return c.active.sealed_n - c.active.sealed_at + c.active.plain_n


cdef int seal_to(Core* w, Conn* c, uint8_t* out) noexcept nogil:
    """Seals the waiting frames as one record; returns its length with the prefix, or -1."""
    cdef Active* a = c.active
    cdef int64_t n = noise_seal(&c.noise, c.suite, a.plain, a.plain_n, out + 4)
    if n < 0:
        return -1
    out[0] = <uint8_t>(n >> 24)
    out[1] = <uint8_t>(n >> 16)
    out[2] = <uint8_t>(n >> 8)
    out[3] = <uint8_t>n
    a.plain_n = 0
    w.stats.records_out += 1
    return <int>(n + 4)


cdef int seal_append(Core* w, Conn* c) noexcept nogil:
    """Seals the waiting frames behind what the socket has not taken yet."""
    cdef Active* a = c.active
    cdef int n
    if a.sealed_at:
        memmove(a.sealed, a.sealed + a.sealed_at, a.sealed_n - a.sealed_at)
        a.sealed_n -= a.sealed_at
        a.sealed_at = 0
    if buffer_reserve(w, &a.sealed, &a.sealed_capacity, a.sealed_n, a.sealed_n + a.plain_n + 20) != 0:
        return -1
    n = seal_to(w, c, a.sealed + a.sealed_n)
    if n < 0:
        return -1
    a.sealed_n += n
    return 0


cdef int out_frame(Core* w, Conn* c, const Frame* f) noexcept nogil:
    if c.flags & (FLAG_DOOMED | FLAG_EOF):
        return -1
    cdef Active* a = conn_active(w, c)
    cdef uint32_t need = FRAME_HEADER_BYTES_MAX + f.body_n
    cdef int64_t n
    if a == NULL:
        return conn_doom(w, c, CODE_INTERNAL)
    if out_pending(c) + need > w.bounds.output_bytes:
        return conn_doom(w, c, CODE_SLOW_READER)
    if a.plain_n + need > RECORD_PLAIN_BYTES_MAX and a.plain_n and seal_append(w, c) != 0:
        return conn_doom(w, c, CODE_INTERNAL)
    if need > RECORD_PLAIN_BYTES_MAX:
        need = RECORD_PLAIN_BYTES_MAX  # the header bound is generous; limits.py asserts that real ones fit
    if buffer_reserve(w, &a.plain, &a.plain_capacity, a.plain_n, a.plain_n + need) != 0:
        return conn_doom(w, c, CODE_INTERNAL)
    n = frame_write(a.plain + a.plain_n, a.plain_capacity - a.plain_n, f)
    if n < 0:
        return conn_doom(w, c, CODE_INTERNAL)
    a.plain_n += <uint32_t>n
    mark_dirty(w, c)
    return 0


cdef int out_simple(Core* w, Conn* c, uint8_t type, uint64_t number, uint64_t extra) noexcept nogil:
    cdef Frame f
    memset(&f, 0, sizeof(Frame))
    f.type = type
    f.number = number
    f.extra = extra
    return out_frame(w, c, &f)


cdef int out_raw(Core* w, Conn* c, const uint8_t* data, uint32_t n) noexcept nogil:
    if c.flags & FLAG_EOF:
        return -1
    cdef Active* a = conn_active(w, c)
    if a == NULL or buffer_reserve(w, &a.sealed, &a.sealed_capacity, a.sealed_n, a.sealed_n + n) != 0:
        return conn_doom(w, c, CODE_INTERNAL)
    memcpy(a.sealed + a.sealed_n, data, n)
    a.sealed_n += n
    mark_dirty(w, c)
    return 0


cdef void keep_rest(Core* w, Conn* c, const uint8_t* data, uint32_t n) noexcept nogil:
    """The socket is full: keep what it did not take and wait until it is writable."""
    cdef Active* a = c.active
    if data != a.sealed + a.sealed_at:
        if buffer_reserve(w, &a.sealed, &a.sealed_capacity, 0, n) != 0:
            conn_gone(c)
            return
        memcpy(a.sealed, data, n)
        a.sealed_at = 0
        a.sealed_n = n
    if not c.flags & FLAG_WANT_WRITE:
        a.stalled_since_ms = w.now_ms
        conn_want_write(w, c, True)


cdef void conn_flush(Core* w, Conn* c) noexcept nogil:
    """Seals what is waiting and sends with one system call.  May set FLAG_EOF."""
    cdef Active* a = c.active
    cdef uint8_t* data
    cdef int64_t n, sent
    if a == NULL or c.flags & FLAG_EOF:
        return
    if a.sealed_n > a.sealed_at:
        if a.plain_n and seal_append(w, c) != 0:
            conn_gone(c)
            return
        data = a.sealed + a.sealed_at
        n = a.sealed_n - a.sealed_at
    elif a.plain_n:
        # The common case never copies: sealed into scratch, taken whole by the socket.
        data = w.seal_buf
        n = seal_to(w, c, data)
        if n < 0:
            conn_gone(c)
            return
    else:
        return
    sent = w.poller.send(w.poller, c.fd, data, <size_t>n)
    if sent < 0:
        if sent != -EAGAIN and sent != -EINTR:
            conn_gone(c)
            return
        sent = 0
    w.stats.bytes_out += sent
    if sent and a.stalled_since_ms:
        a.stalled_since_ms = w.now_ms
    if sent < n:
        if data == w.seal_buf:
            keep_rest(w, c, data + sent, <uint32_t>(n - sent))
        else:
            a.sealed_at += <uint32_t>sent
            keep_rest(w, c, a.sealed + a.sealed_at, <uint32_t>(n - sent))
        return
    a.sealed_n = 0
    a.sealed_at = 0
    a.stalled_since_ms = 0
    conn_want_write(w, c, False)
