# cython: language_level=3
# HOT: loops around single units of the fast path, for bench/micro.
"""Each function does `rounds` operations of one unit without Python in between.  Raises ValueError when one fails."""
from libc.stdint cimport int64_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from wa._fastpath.base.sodium cimport (
    crypto_aead_xchacha20poly1305_ietf_decrypt, crypto_aead_xchacha20poly1305_ietf_encrypt, crypto_scalarmult_base,
    sodium_init,
)
from wa._fastpath.base.timers cimport Timer, timer_set, TimerWheel, wheel_init, wheel_pop
from wa._fastpath.bus.contract cimport Bus as CBus
from wa._fastpath.bus.messages cimport BUS_ENVELOPE, BusEnvelope
from wa._fastpath.bus.unix cimport unix_bus_new, UnixBus
from wa._fastpath.conn.conntable cimport (
    conn_by_handle, conn_handle, conn_new, conn_release, conntable_destroy, conntable_init,
)
from wa._fastpath.noise.noise cimport (
    NOISE_IK, NOISE_NNPSK0, noise_open, noise_read, noise_seal, noise_split, noise_start, noise_start_psk,
    noise_write, NoiseHandshake, NoiseTransport,
)
from wa._fastpath.os.host cimport poller_create
from wa._fastpath.os.poller cimport Poller
from wa._fastpath.state.core cimport Conn, CONN_LIVE, ConnTable, Directory
from wa._fastpath.state.directory cimport directory_add, directory_destroy, directory_find, directory_init
from wa._fastpath.wire.frames cimport Frame, frame_parse, frame_write

import socket

cdef enum:
    BUS_BYTES = 1 << 24


def parse_frames(data: bytes, rounds: int) -> None:
    """Parses the frame at the start of data."""
    cdef const uint8_t* p = data
    cdef size_t n = len(data)
    cdef int count = rounds
    cdef Frame f
    cdef int64_t used = 1
    with nogil:
        for _ in range(count):
            used = frame_parse(p, n, &f)
            if used <= 0:
                break
    if used <= 0:
        raise ValueError("not a frame")


def rewrite_frame(data: bytes, rounds: int) -> None:
    """Writes the frame at the start of data."""
    cdef const uint8_t* p = data
    cdef uint8_t[65536] out
    cdef int count = rounds
    cdef Frame f
    cdef int64_t n = frame_parse(p, len(data), &f)
    if n <= 0:
        raise ValueError("not a frame")
    with nogil:
        for _ in range(count):
            n = frame_write(out, sizeof(out), &f)
            if n <= 0:
                break
    if n <= 0:
        raise ValueError("not a frame that can be written")


def seal_and_open(suite: int, bytes_n: int, rounds: int) -> None:
    """One record sealed and opened again, in place."""
    cdef uint8_t[65600] record
    cdef NoiseTransport sender, receiver
    cdef int count = rounds
    cdef int which = suite
    cdef size_t n = bytes_n
    cdef int64_t got = 0
    if sodium_init() < 0 or not 0 <= bytes_n <= 65519:
        raise ValueError("no such record")
    memset(&sender, 3, sizeof(sender))
    memset(&receiver, 3, sizeof(receiver))
    sender.send_nonce = receiver.recv_nonce = 0
    memset(record, 0, sizeof(record))
    with nogil:
        for _ in range(count):
            noise_seal(&sender, which, record, n, record)
            got = noise_open(&receiver, which, record, n + 16, record)
            if got < 0:
                break
    if got < 0:
        raise ValueError("a record did not open")


cdef class Logins:
    """The server's side of a login handshake, again and again on one first message: IK, or a ticket and NNpsk0.

    What is timed is what a server does: the ticket is opened and a new one sealed, keys are set up, the message is
    read, the answer written, the transport made.  Random bytes are fixed: drawing them costs both the same.
    """
    cdef uint8_t[32] s_priv, s_pub, e_priv, psk, ticket_key
    cdef uint8_t[8] hello
    cdef uint8_t[24] nonce
    cdef uint8_t[80] ticket
    cdef uint8_t[512] first
    cdef size_t first_n
    cdef int pattern, suite

    def __cinit__(self, int pattern, int suite):
        cdef NoiseHandshake client
        cdef uint8_t[32] c_priv, c_pub
        cdef uint8_t[9] login
        cdef int64_t n
        if sodium_init() < 0 or pattern not in (NOISE_IK, NOISE_NNPSK0):
            raise ValueError("no such handshake")
        self.pattern, self.suite = pattern, suite
        memset(self.s_priv, 1, 32)
        memset(self.e_priv, 2, 32)
        memset(self.psk, 3, 32)
        memset(self.ticket_key, 4, 32)
        memset(c_priv, 5, 32)
        memset(login, 0, 9)
        memset(self.hello, 0, 8)
        memset(self.nonce, 0, 24)
        crypto_scalarmult_base(self.s_pub, self.s_priv)
        crypto_scalarmult_base(c_pub, c_priv)
        self.seal()
        if pattern == NOISE_IK:
            noise_start(&client, NOISE_IK, suite, True, self.hello, 8, c_priv, c_pub, self.s_pub)
        else:
            noise_start_psk(&client, suite, True, self.hello, 8, self.psk)
        n = noise_write(&client, c_priv, login, 9, self.first, sizeof(self.first))
        if n < 0:
            raise ValueError("no such handshake")
        self.first_n = <size_t>n

    cdef void seal(self) noexcept nogil:
        cdef uint8_t[64] grant
        memset(grant, 6, 64)
        crypto_aead_xchacha20poly1305_ietf_encrypt(self.ticket, NULL, grant, 64, NULL, 0, NULL, self.nonce,
                                                   self.ticket_key)

    cdef int once(self) noexcept nogil:
        cdef NoiseHandshake server
        cdef NoiseTransport transport
        cdef uint8_t[512] out
        cdef uint8_t[64] grant
        if self.pattern == NOISE_IK:
            noise_start(&server, NOISE_IK, self.suite, False, self.hello, 8, self.s_priv, self.s_pub, NULL)
        else:
            if crypto_aead_xchacha20poly1305_ietf_decrypt(
                grant, NULL, NULL, self.ticket, 80, NULL, 0, self.nonce, self.ticket_key
            ) != 0:
                return -1
            noise_start_psk(&server, self.suite, False, self.hello, 8, self.psk)
        if noise_read(&server, self.first, self.first_n, out, sizeof(out)) != 9:
            return -1
        if noise_write(&server, self.e_priv, NULL, 0, out, sizeof(out)) < 0:
            return -1
        noise_split(&server, &transport)
        self.seal()                       # both logins end with a new ticket
        return 0

    def run(self, rounds: int) -> None:
        cdef int count = rounds
        cdef int status = 0
        with nogil:
            for _ in range(count):
                status = self.once()
                if status != 0:
                    break
        if status != 0:
            raise ValueError("a handshake failed")


cdef class Wheel:
    """A wheel with `n` timers that are set again whenever they are due: the timers of n live connections."""
    cdef TimerWheel* wheel
    cdef Timer* timers
    cdef uint64_t now_ms
    cdef readonly int n

    def __cinit__(self, int n):
        cdef int i
        self.wheel = <TimerWheel*>calloc(1, sizeof(TimerWheel))
        self.timers = <Timer*>calloc(n, sizeof(Timer))
        if self.wheel == NULL or self.timers == NULL:
            raise MemoryError
        self.n = n
        self.now_ms = 1000
        wheel_init(self.wheel, self.now_ms)
        for i in range(n):
            timer_set(self.wheel, &self.timers[i], self.now_ms + 1 + <uint64_t>i * 5000 // n)

    def __dealloc__(self):
        free(self.timers)
        free(self.wheel)

    def pop_and_set(self, rounds: int) -> None:
        cdef int left = rounds
        cdef Timer* t
        with nogil:
            while left:
                t = wheel_pop(self.wheel, self.now_ms)
                if t == NULL:
                    self.now_ms += 4
                    continue
                timer_set(self.wheel, t, self.now_ms + 5000)
                left -= 1


cdef class Tables:
    """A directory with `n` devices, and a connection table with as many connections."""
    cdef Directory directory
    cdef ConnTable conns
    cdef uint64_t* handles
    cdef readonly int n

    def __cinit__(self, addresses):
        cdef Conn* c
        cdef int i
        self.n = len(addresses)
        self.handles = <uint64_t*>calloc(self.n, sizeof(uint64_t))
        if self.handles == NULL or directory_init(&self.directory) != 0 or conntable_init(&self.conns) != 0:
            raise MemoryError
        for i in range(self.n):
            c = conn_new(&self.conns, i)
            if c == NULL or directory_add(&self.directory, addresses[i]) == NULL:
                raise MemoryError
            c.state = CONN_LIVE           # a free one has no handle
            self.handles[i] = conn_handle(c)

    def __dealloc__(self):
        directory_destroy(&self.directory)
        conntable_destroy(&self.conns)
        free(self.handles)

    def find_devices(self, const uint64_t[::1] addresses) -> None:
        cdef size_t i
        cdef bint found = True
        with nogil:
            for i in range(<size_t>addresses.shape[0]):
                found = directory_find(&self.directory, addresses[i]) != NULL
                if not found:
                    break
        if not found:
            raise ValueError("a device is missing")

    def find_connections(self, const uint32_t[::1] which) -> None:
        cdef size_t i
        cdef bint found = True
        with nogil:
            for i in range(<size_t>which.shape[0]):
                found = conn_by_handle(&self.conns, self.handles[which[i]]) != NULL
                if not found:
                    break
        if not found:
            raise ValueError("a connection is missing")

    def new_and_release(self, rounds: int) -> None:
        cdef int count = rounds
        cdef Conn* c = NULL
        with nogil:
            for _ in range(count):
                c = conn_new(&self.conns, 0)
                if c == NULL:
                    break
                conn_release(&self.conns, c)
        if c == NULL:
            raise MemoryError


cdef class Bus:
    """The sending half of the bus from worker 0 to worker 1, into a socket that this class reads empty."""
    cdef Poller* poller
    cdef CBus* bus
    cdef object other

    def __cinit__(self):
        self.poller = poller_create()
        if self.poller == NULL:
            raise MemoryError
        self.bus = unix_bus_new(self.poller, 0, 2, 0, BUS_BYTES)
        if self.bus == NULL:
            raise MemoryError
        ours, self.other = socket.socketpair()
        ours.setblocking(False)
        self.other.setblocking(False)
        self.bus.connected(self.bus, 1, ours.detach())

    def __dealloc__(self):
        if self.bus != NULL:
            self.bus.destroy(self.bus)
        if self.poller != NULL:
            self.poller.destroy(self.poller)

    def close(self) -> None:
        self.other.close()

    def send(self, rounds: int, batch: int, body: bytes) -> None:
        """Envelopes, `batch` of them per flush."""
        cdef const uint8_t* p = body
        cdef uint32_t n = len(body)
        cdef BusEnvelope v
        cdef int in_batch = batch
        cdef int status = 0
        cdef int k
        memset(&v, 0, sizeof(v))
        for _ in range(0, rounds, batch):
            with nogil:
                for k in range(in_batch):
                    status = self.bus.send(self.bus, 1, BUS_ENVELOPE, &v, sizeof(v), p, n, -1)
                    if status != 0:
                        break
                self.bus.flush(self.bus, 0)
            if status != 0:
                raise ValueError("the bus is full")
            self.read_empty()

    cdef object read_empty(self):
        cdef UnixBus* u = <UnixBus*>self.bus.state
        while u.to[1].out_n > u.to[1].out_at:
            self.other.recv(1 << 20)
            self.bus.flush(self.bus, 0)
        try:
            while True:
                self.other.recv(1 << 20)
        except BlockingIOError:
            return
