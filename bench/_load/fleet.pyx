# cython: language_level=3
# HOT: the generator's loop.  Python is called between chunks of a fifth of a second, never per message.
"""A fleet: many client connections of one process to one server or floor, and the ways of loading it."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from bench._load.gen cimport (
    BODY_BYTES_MIN, EVENTS_N, Gen, Line, LINE_DOWN, LINE_LIVE, LINE_WAITING, OUTSTANDING_MAX, Sender,
)
from bench._load.hist cimport bucket_of, BUCKETS_N, Hist
from bench._load.line cimport flush_record, line_connect, line_down, line_event, put_acks, put_simple
from bench._load.traffic cimport begin_one, on_batch, on_frame, top_up
from wa._fastpath.base.sodium cimport crypto_scalarmult_base, sodium_init
from wa._fastpath.os.host cimport poller_create
from wa._fastpath.os.poller cimport READABLE
from wa._fastpath.wire.frames cimport F_CLOSE, F_PING

import os

cdef extern from "<arpa/inet.h>" nogil:
    uint16_t htons(uint16_t)
    uint32_t htonl(uint32_t)

cdef enum:
    COMMAND_TOKEN_BIT = 40
    CHUNK_NS = 200000000          # how long a loop runs without Python
    RETRY_SCAN_NS = 5000000
    PING_AFTER_S = 200            # docs/protocol.md: something every 300 s
    PINGS_PER_SWEEP = 4000

def bucket(value: int) -> int:
    """Index of the histogram bucket of this many nanoseconds."""
    return bucket_of(value)


NO_BOUND = 0xFFFFFFFFFFFFFFFF


cdef class Fleet:
    """Clients of one process.  Not thread-safe.

    suite: 1 ChaCha20-Poly1305, 2 AES-256-GCM, 0 none (a floor only).  server_public: the server's Noise key, b"" for a
    floor.  keys: private device keys, 32 bytes each; line i uses the one it was added with.  sent, heard: u32 per
    stream in memory that all generators share.  tickets: a line that had one comes back with it.
    Raises OSError, MemoryError.
    """
    cdef Gen* g
    cdef readonly object sent, heard
    cdef uint32_t[::1] sent_view, heard_view
    cdef bint commanded
    cdef uint64_t swept_ns, retried_ns
    cdef uint32_t next_down, next_sender
    cdef uint32_t* senders
    cdef uint32_t senders_n

    def __cinit__(
        self, *, int port, int suite, bytes server_public, bytes keys, sent, heard, int body_bytes=100,
        bint tickets=False
    ):
        cdef uint32_t i
        if sodium_init() < 0:
            raise OSError("libsodium cannot be initialised")
        if body_bytes < BODY_BYTES_MIN or body_bytes > 65408:
            raise ValueError(f"a body has {BODY_BYTES_MIN} to 65408 bytes, not {body_bytes}")
        self.g = <Gen*>calloc(1, sizeof(Gen))
        if self.g == NULL:
            raise MemoryError
        cdef Gen* g = self.g
        g.poller = poller_create()
        if g.poller == NULL:
            raise OSError("the event source cannot be made")
        g.suite = suite
        g.is_floor = len(server_public) == 0
        g.use_tickets = tickets
        if not g.is_floor:
            memcpy(g.server_public, <const char*>server_public, 32)
        g.port = htons(port)
        g.host = htonl(0x7F000001)
        g.keys_n = <uint32_t>(len(keys) // 32)
        g.key_private = <uint8_t*>malloc(len(keys) or 1)
        g.key_public = <uint8_t*>malloc(len(keys) or 1)
        if g.key_private == NULL or g.key_public == NULL:
            raise MemoryError
        memcpy(g.key_private, <const char*>keys, len(keys))
        for i in range(g.keys_n):
            crypto_scalarmult_base(g.key_public + 32 * i, g.key_private + 32 * i)
        self.sent, self.heard = sent, heard
        self.sent_view, self.heard_view = sent, heard
        g.stream_sent = &self.sent_view[0]
        g.stream_heard = &self.heard_view[0]
        g.streams_n = len(self.sent_view)
        g.body_bytes = body_bytes
        g.on_frame = on_frame
        g.on_batch = on_batch
        g.now_ns = g.poller.now_ns(g.poller)

    def __dealloc__(self):
        cdef Gen* g = self.g
        cdef uint32_t i
        if g == NULL:
            return
        for i in range(g.lines_n):
            line_down(g, g.lines[i])
            if g.lines[i].sender != NULL:
                free(g.lines[i].sender.targets)
                free(g.lines[i].sender.streams)
                free(g.lines[i].sender)
            free(g.lines[i].ticket)
            free(g.lines[i])
        free(g.lines)
        free(self.senders)
        free(g.key_private)
        free(g.key_public)
        if g.poller != NULL:
            g.poller.destroy(g.poller)
        free(g)

    # --- who ------------------------------------------------------------------------------------------------

    def add(self, const uint64_t[::1] addresses, const uint16_t[::1] keys, uint32_t source) -> int:
        """One line per address, connecting from `source` (an IPv4 address as a number, 0 = any).

        keys: per address, the index of its private key.  Returns the index of the first line.
        """
        cdef Gen* g = self.g
        cdef uint32_t first = g.lines_n
        cdef Line* l
        cdef Line** grown
        for i in range(len(addresses)):
            if g.lines_n == g.lines_capacity:
                grown = <Line**>realloc(g.lines, (g.lines_capacity * 2 + 64) * sizeof(Line*))
                if grown == NULL:
                    raise MemoryError
                g.lines = grown
                g.lines_capacity = g.lines_capacity * 2 + 64
            l = <Line*>calloc(1, sizeof(Line))
            if l == NULL:
                raise MemoryError
            l.fd = -1
            l.address = addresses[i]
            l.key = keys[i]
            l.source = htonl(source)
            l.index = g.lines_n
            g.lines[g.lines_n] = l
            g.lines_n += 1
        return first

    def send_to(self, uint32_t line, const uint64_t[::1] targets, const uint32_t[::1] streams) -> None:
        """Makes a line a sender: to these recipients in turn, each in the stream beside it.

        May be called again while nothing is under way.
        """
        cdef Sender* s = self.g.lines[line].sender
        cdef size_t n = len(targets)
        if n == 0 or len(streams) != n:
            raise ValueError("as many streams as targets, at least one")
        if s == NULL:
            s = <Sender*>calloc(1, sizeof(Sender))
            grown = <uint32_t*>realloc(self.senders, (self.senders_n + 1) * sizeof(uint32_t))
            if s == NULL or grown == NULL:
                free(s)
                raise MemoryError
            self.senders = grown
            self.senders[self.senders_n] = line
            self.senders_n += 1
            s.next_id = 1
            self.g.lines[line].sender = s
        free(s.targets)
        free(s.streams)
        s.targets = <uint64_t*>malloc(n * sizeof(uint64_t))
        s.streams = <uint32_t*>malloc(n * sizeof(uint32_t))
        if s.targets == NULL or s.streams == NULL:
            raise MemoryError
        memcpy(s.targets, &targets[0], n * sizeof(uint64_t))
        memcpy(s.streams, &streams[0], n * sizeof(uint32_t))
        s.targets_n = <uint32_t>n
        s.at = 0

    # --- the loop ----------------------------------------------------------------------------------------------

    cdef void turn(self, int timeout_ms) noexcept nogil:
        cdef Gen* g = self.g
        cdef int i
        cdef int n = g.poller.wait(g.poller, g.events, EVENTS_N, timeout_ms)
        g.now_ns = g.poller.now_ns(g.poller)
        for i in range(n):
            if g.events[i].token >> COMMAND_TOKEN_BIT:
                self.commanded = True
            else:
                line_event(g, g.lines[g.events[i].token], g.events[i].mask)
        if g.now_ns - self.swept_ns > 1000000000:
            self.swept_ns = g.now_ns
            self.ping_quiet()
        if g.waiting_n and g.now_ns - self.retried_ns > RETRY_SCAN_NS:
            self.retried_ns = g.now_ns
            self.retry_due()

    cdef void ping_quiet(self) noexcept nogil:
        cdef Gen* g = self.g
        cdef uint32_t i
        cdef uint32_t pings = 0
        cdef uint32_t now_s = <uint32_t>(g.now_ns // 1000000000)
        for i in range(g.lines_n):
            if g.lines[i].state == LINE_LIVE and now_s - g.lines[i].said_s > PING_AFTER_S:
                g.plain_n = 0
                put_simple(g, g.lines[i], F_PING, 1, 0)
                flush_record(g, g.lines[i])
                g.counts.pings += 1
                pings += 1
                if pings == PINGS_PER_SWEEP:
                    return

    cdef void retry_due(self) noexcept nogil:
        cdef Gen* g = self.g
        cdef uint32_t i
        for i in range(g.lines_n):
            if g.lines[i].state == LINE_WAITING and g.lines[i].retry_at_ns <= g.now_ns:
                g.waiting_n -= 1
                if line_connect(g, g.lines[i]) < 0:
                    g.waiting_n += 1
                    g.lines[i].retry_at_ns = g.now_ns + 100000000

    cdef void chunk(self, uint64_t until_ns) noexcept nogil:
        """Turns until then, at most CHUNK_NS, or until nothing more can happen."""
        cdef Gen* g = self.g
        cdef uint64_t end = g.now_ns + CHUNK_NS
        if until_ns < end:
            end = until_ns
        while g.now_ns < end and not self.commanded:
            self.turn(5 if g.waiting_n else <int>((end - g.now_ns + 999999) // 1000000))
            if g.under_way == 0 and g.pending_n == 0 and g.waiting_n == 0:
                return

    # --- logging in -----------------------------------------------------------------------------------------------

    def start_logins(self, uint32_t concurrent, uint32_t upto) -> int:
        """Begins logins of lines that are down, in order and below line `upto`, until `concurrent` are under way.

        Returns how many were begun.  Raises OSError when descriptors or ports are used up.
        """
        cdef Gen* g = self.g
        cdef int status
        begun = 0
        while self.next_down < min(upto, g.lines_n) and g.pending_n < concurrent:
            if g.lines[self.next_down].state == LINE_DOWN:
                status = line_connect(g, g.lines[self.next_down])
                if status < 0:
                    raise OSError(-status, os.strerror(-status))
                begun += 1
            self.next_down += 1
        return begun

    def login(self, seconds: float, concurrent: int = 256, upto: int | None = None) -> bool:
        """Logs lines in; True when all (below `upto`) are live before `seconds` have passed."""
        cdef Gen* g = self.g
        cdef uint32_t wanted = g.lines_n if upto is None else upto
        cdef uint64_t end
        g.now_ns = g.poller.now_ns(g.poller)
        end = g.now_ns + <uint64_t>(seconds * 1e9)
        while g.now_ns < end:
            self.start_logins(concurrent, wanted)
            if self.next_down >= wanted and g.pending_n == 0 and g.waiting_n == 0:
                break
            with nogil:
                self.turn(5)
        return self.live_below(wanted) == wanted

    def login_chunk(self, concurrent: int, upto: int) -> bool:
        """One fifth of a second of login(); True when nothing is left to do."""
        cdef Gen* g = self.g
        cdef uint32_t wanted = upto
        g.now_ns = g.poller.now_ns(g.poller)
        cdef uint64_t end = g.now_ns + CHUNK_NS
        while g.now_ns < end and not self.commanded:
            self.start_logins(concurrent, wanted)
            if self.next_down >= wanted and g.pending_n == 0 and g.waiting_n == 0:
                return True
            with nogil:
                self.turn(5)
        return False

    cdef uint32_t live_below(self, uint32_t n):
        cdef uint32_t i
        cdef uint32_t live = 0
        for i in range(min(n, self.g.lines_n)):
            live += self.g.lines[i].state == LINE_LIVE
        return live

    def down(self, uint32_t first, uint32_t n) -> None:
        """Says close and closes these lines; they may log in again."""
        cdef Gen* g = self.g
        cdef uint32_t i
        for i in range(first, min(first + n, g.lines_n)):
            if g.lines[i].state == LINE_LIVE:
                g.plain_n = 0
                put_simple(g, g.lines[i], F_CLOSE, 0, 0)
                flush_record(g, g.lines[i])
            line_down(g, g.lines[i])
        self.next_down = min(self.next_down, first)

    def mute(self, uint32_t first, uint32_t n) -> None:
        """From here on these lines check what they receive and acknowledge nothing."""
        cdef Gen* g = self.g
        cdef uint32_t i
        for i in range(first, min(first + n, g.lines_n)):
            if not g.lines[i].mute_from:
                g.lines[i].mute_from = g.lines[i].seq_seen + 1

    def speak(self, uint32_t first, uint32_t n) -> None:
        """Muted lines acknowledge again, and at once what they have kept to themselves."""
        cdef Gen* g = self.g
        cdef uint32_t i
        cdef Line* l
        for i in range(first, min(first + n, g.lines_n)):
            l = g.lines[i]
            if l.mute_from and l.state == LINE_LIVE and l.seq_seen >= l.mute_from:
                g.plain_n = 0
                g.ack_first = l.mute_from
                g.ack_n = l.seq_seen - l.mute_from + 1
                put_acks(g, l)
                flush_record(g, l)
            l.mute_from = 0

    # --- loads ----------------------------------------------------------------------------------------------------

    def begin(self, int window, uint64_t per_sender=NO_BOUND, bint one_tick=False, bint receipts_stray=False) -> None:
        """Sets the rules of the next load and starts no message yet."""
        cdef Gen* g = self.g
        cdef uint32_t i
        if not 0 < window <= OUTSTANDING_MAX:
            raise ValueError(f"a window is 1..{OUTSTANDING_MAX}")
        if g.under_way:
            raise ValueError("envelopes of the last load are still under way")
        g.window = window
        g.one_tick = one_tick
        g.receipts_stray = receipts_stray
        for i in range(self.senders_n):
            g.lines[self.senders[i]].sender.left = per_sender

    def run(self, seconds: float) -> float:
        """Closed loop: every sender keeps its window full.  Ends after `seconds`, or when all said what they may.

        Does not wait for what is under way then (drain() does).  Returns the seconds it took.
        """
        cdef Gen* g = self.g
        cdef uint32_t i
        cdef uint64_t start, end
        g.now_ns = start = g.poller.now_ns(g.poller)
        end = start + <uint64_t>(seconds * 1e9)
        g.topping = 1
        for i in range(self.senders_n):
            g.plain_n = 0
            if g.lines[self.senders[i]].state == LINE_LIVE:
                top_up(g, g.lines[self.senders[i]], g.now_ns)
                flush_record(g, g.lines[self.senders[i]])
        while g.now_ns < end and g.under_way and not self.commanded:
            with nogil:
                self.chunk(end)
        g.topping = 0
        return (g.now_ns - start) / 1e9

    def run_rate(self, rate: float, seconds: float, spin: bool) -> float:
        """Open loop: `rate` messages a second, spread over the senders, whatever the server does.

        A message's time of sending is when it was due (spin) or when it left (not spin: the loop then sleeps until the
        next is due, and its own oversleeping must not be counted).  Returns the seconds it took.
        """
        cdef Gen* g = self.g
        cdef double step_ns = 1e9 / rate
        cdef uint64_t start, end, until, due
        cdef double at = 0
        cdef bint spinning = spin
        g.topping = 0
        g.now_ns = start = g.poller.now_ns(g.poller)
        end = start + <uint64_t>(seconds * 1e9)
        while g.now_ns < end and not self.commanded:
            until = min(end, g.now_ns + CHUNK_NS)
            with nogil:
                while g.now_ns < until:
                    due = start + <uint64_t>at
                    while due <= g.now_ns and due < end:
                        self.send_next(due if spinning else g.now_ns)
                        at += step_ns
                        due = start + <uint64_t>at
                    self.turn(0 if spinning else <int>((min(due, until) - g.now_ns + 999999) // 1000000))
        return (g.now_ns - start) / 1e9

    cdef void send_next(self, uint64_t sent_ns) noexcept nogil:
        """One message from the next sender that has room."""
        cdef Gen* g = self.g
        cdef uint32_t i
        cdef Line* l
        for i in range(self.senders_n):
            self.next_sender = self.next_sender + 1 if self.next_sender + 1 < self.senders_n else 0
            l = g.lines[self.senders[self.next_sender]]
            g.plain_n = 0
            if l.state == LINE_LIVE and begin_one(g, l, sent_ns):
                flush_record(g, l)
                return
        g.counts.late += 1

    def drain(self, seconds: float) -> bool:
        """Waits for every receipt; False when nothing moved for so long and some are missing."""
        cdef Gen* g = self.g
        cdef uint64_t before, end
        g.topping = 0
        g.now_ns = g.poller.now_ns(g.poller)
        before = g.under_way
        end = g.now_ns + <uint64_t>(seconds * 1e9)
        while g.under_way and g.now_ns < end and not self.commanded:
            with nogil:
                self.chunk(end)
            if g.under_way != before:
                before = g.under_way
                end = g.now_ns + <uint64_t>(seconds * 1e9)
        return g.under_way == 0

    def wait_for(self, received: int, delivered: int, seconds: float) -> bool:
        """Until so many messages and delivered receipts have come since the fleet was made.

        False when no message came for `seconds`.
        """
        cdef Gen* g = self.g
        cdef uint64_t end, before
        g.now_ns = g.poller.now_ns(g.poller)
        end = g.now_ns + <uint64_t>(seconds * 1e9)
        before = g.counts.received + g.counts.delivered
        while g.now_ns < end and not self.commanded:
            if g.counts.received >= <uint64_t>received and g.counts.delivered >= <uint64_t>delivered:
                return True
            self.start_logins(256, g.lines_n)
            with nogil:
                self.turn(5)
            if g.counts.received + g.counts.delivered != before:
                before = g.counts.received + g.counts.delivered
                end = g.now_ns + <uint64_t>(seconds * 1e9)
        return False

    def hold(self, seconds: float) -> bool:
        """Answers and pings; True when the command descriptor became readable."""
        cdef Gen* g = self.g
        cdef uint64_t end
        g.now_ns = g.poller.now_ns(g.poller)
        end = g.now_ns + <uint64_t>(seconds * 1e9)
        with nogil:
            while g.now_ns < end and not self.commanded:
                self.turn(5 if g.waiting_n else <int>((end - g.now_ns + 999999) // 1000000))
        return self.take_command()

    def watch_command(self, fd: int) -> None:
        """Loops end as soon as this descriptor is readable."""
        if self.g.poller.watch(self.g.poller, fd, READABLE, <uint64_t>1 << COMMAND_TOKEN_BIT) < 0:
            raise OSError("the command descriptor cannot be watched")

    def take_command(self) -> bool:
        commanded = self.commanded
        self.commanded = False
        return commanded

    # --- results --------------------------------------------------------------------------------------------------

    def counts(self) -> dict[str, int]:
        cdef Gen* g = self.g
        found = dict(g.counts)
        found.update(lines=g.lines_n, live=g.live_n, pending=g.pending_n, waiting=g.waiting_n, under_way=g.under_way,
                     last_close=g.last_close, line_bytes=sizeof(Line))
        return found

    def histograms(self) -> dict[str, bytes]:
        """u64 counts per bucket, as bytes; hist.pxd has the buckets."""
        cdef Gen* g = self.g
        return {
            "to_recipient": (<const char*>g.to_recipient.counts)[:BUCKETS_N * 8],
            "to_receipt": (<const char*>g.to_receipt.counts)[:BUCKETS_N * 8],
            "login": (<const char*>g.login.counts)[:BUCKETS_N * 8],
        }

    def clear_histograms(self) -> None:
        memset(&self.g.to_recipient, 0, sizeof(Hist))
        memset(&self.g.to_receipt, 0, sizeof(Hist))
        memset(&self.g.login, 0, sizeof(Hist))
