# cython: language_level=3
# HOT: the loop turn.  Between two cold batches it never takes the GIL.
"""One worker is one loop turn, in this order and in this file.

    step_poll         wait for the kernel, the next timer, or a wake
    step_read         read ready sockets; the fast path runs inside: session, custody
    step_cold         hand the batch of cold events to Python, if there are any, or a wake, or the second's tick
    step_after_cold   take what the mailbox thread finished, fire timers, drain mailboxes, read on, submit the batch,
                      flush the bus, flush dirty connections

Each turn serves connected clients first, then does at most half an IK handshake or two ticket handshakes, so a login
storm delays a chat by at most 0.1 ms.
"""
cimport cython
from cpython.exc cimport PyErr_CheckSignals
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from wa._fastpath.base.codes cimport CODE_EXPIRED, CODE_SHUTTING_DOWN
from wa._fastpath.base.timers cimport Timer, wheel_pop, wheel_wait_ms
from wa._fastpath.bus.contract cimport TOKEN_BUS_IN, TOKEN_BUS_LISTENER
from wa._fastpath.conn.conntable cimport conn_at, conn_by_handle
from wa._fastpath.conn.flags cimport conn_gone
from wa._fastpath.conn.lists cimport mark_dirty, next_resume, queue_resume, take_dirty, take_resumes
from wa._fastpath.conn.output cimport conn_flush, conn_quiet
from wa._fastpath.custody.batches cimport batches_done, batch_op, batch_submit, ends_with
from wa._fastpath.custody.commits cimport take_commits
from wa._fastpath.custody.deletion cimport delete_again, delete_no_more
from wa._fastpath.custody.drain cimport drain_all
from wa._fastpath.custody.linger cimport linger_fire
from wa._fastpath.custody.reports cimport reports_say
from wa._fastpath.loop.check cimport core_check, core_leaks, debug_build
from wa._fastpath.loop.control cimport (
    conn_admit, conn_refuse, counters, device_add, device_is_connected, device_remove, device_wake_lost,
    envelope_is_reported, envelope_waits, notice_send, peer_call, request_answer,
)
from wa._fastpath.loop.events cimport cold_batch
from wa._fastpath.loop.giveback cimport give_back
from wa._fastpath.loop.worker cimport (
    core_bounds, core_census, core_clock, core_free, core_identity, core_new, core_owners, core_tickets,
)
from wa._fastpath.mailbox.contract cimport MailStoreBase, OP_SWEEP, StoreOp
from wa._fastpath.os.host cimport Host
from wa._fastpath.os.poller cimport HANGUP, READABLE, WAKE_TOKEN_FD, WRITABLE
from wa._fastpath.session.lifecycle cimport accept_all, begin_close, conn_end
from wa._fastpath.session.records cimport session_handshakes, session_readable, session_resume, session_timer
from wa._fastpath.state.core cimport (
    ColdEvent, Conn, CONN_CLOSING, CONN_FREE, Core, EVENTS_MAX, FLAG_DOOMED, FLAG_EOF, FLAG_PAUSED, FLAG_WANT_WRITE,
    NONE_INDEX, PollEvent, TOKEN_LISTENER,
)
from wa._fastpath.state.trace cimport trace_attach

from wa._fastpath.loop.events import Gone, Login, PeerMessage, Request, Wake
from wa.errors import LocalError

cdef enum:
    TICK_MS = 1000
    CONNECT_MS = 20
    SWEEP_ITEMS = 4096
    TIMERS_PER_TURN = 4096        # a storm of timers must not starve the sockets
    STOP_MS = 5000
    DRAIN_POLL_MS = 20            # while stopping: no tick and no bus retry any more, only sockets and the disk
    CHECK_TURNS = 16              # debug build: turns between two looks at the invariants

@cython.no_gc_clear               # __dealloc__ needs the store and the host, also when a cycle holds this object
cdef class Loop:
    cdef Core* w
    cdef object store                 # keeps the MailStore alive
    cdef object sink
    cdef str run_dir
    cdef Host host
    cdef object trace_memory          # keeps the ring alive
    cdef bint stopping
    cdef bint interrupted
    cdef bint woken
    cdef bint started
    cdef uint64_t next_tick_ms
    cdef uint64_t next_connect_ms

    def __cinit__(self, *, int worker, int workers, MailStoreBase store, object sink, bytes static_private,
                  bytes certificate, str run_dir, bytes ticket_key=None, dict overrides=None, Host host=None,
                  object trace=None,
                  object owners=None):
        self.host = Host() if host is None else host
        self.w = core_new(self.host.new_poller(), worker, workers)
        self.w.store = store.pointer()
        store.attach(self.w.poller)
        self.store, self.sink, self.run_dir = store, sink, run_dir
        core_identity(self.w, static_private, certificate)
        core_tickets(self.w, ticket_key)
        core_bounds(self.w, overrides or {})
        core_owners(self.w, owners)
        if trace is not None:
            self.attach_trace(trace)
        self.next_tick_ms = self.w.now_ms

    def __dealloc__(self):
        if self.w == NULL:
            return
        if self.store is not None:
            (<MailStoreBase>self.store).attach(NULL)
        core_free(self.w)

    cdef int attach_trace(self, object memory) except -1:
        cdef uint8_t[::1] view = memory
        self.trace_memory = memory
        return trace_attach(self.w, &view[0], view.shape[0])

    # --- the turn ---------------------------------------------------------------------------------------

    cdef int wait_ms(self) noexcept nogil:
        """How long the poll may wait: until the next timer, tick, bus retry or end of a linger window."""
        cdef Core* w = self.w
        cdef int timeout = wheel_wait_ms(&w.wheel, w.now_ms)
        cdef uint64_t until = self.next_tick_ms if self.next_tick_ms < self.next_connect_ms else self.next_connect_ms
        if w.custody.oldest != NULL and w.custody.oldest.linger_until_ms < until:
            until = w.custody.oldest.linger_until_ms
        if timeout < 0 or until < w.now_ms + timeout:
            timeout = <int>(until - w.now_ms) if until > w.now_ms else 0
        if w.resume_head != NONE_INDEX or w.cold_n or w.waiting_n:
            timeout = 0
        return timeout

    cdef void step_poll(self, int timeout_ms) noexcept nogil:
        cdef Core* w = self.w
        cdef int n = w.poller.wait(w.poller, w.events, EVENTS_MAX, timeout_ms)
        core_clock(w)
        w.stats.turns += 1
        # A signal ends the wait with no events, like a time-out: Python looks whether there was one.
        self.interrupted = n <= 0
        if n < 0:
            n = 0
        self.step_read(n)

    cdef void step_read(self, int n) noexcept nogil:
        cdef Core* w = self.w
        cdef PollEvent* e
        cdef Conn* c
        cdef uint32_t what
        cdef int i
        for i in range(n):
            e = &w.events[i]
            if e.fd == WAKE_TOKEN_FD:
                self.woken = True
                continue
            what = <uint32_t>(e.token >> 56)
            if what == 0:
                c = conn_by_handle(&w.conns, e.token)
                if c == NULL or c.fd != e.fd:
                    continue
                self.on_socket(c, e.mask)
            elif what == TOKEN_LISTENER:
                accept_all(w)
            elif TOKEN_BUS_LISTENER <= what <= TOKEN_BUS_IN:
                w.bus.event(w.bus, e.token, e.mask, w.now_ms)
        if w.waiting_n:
            # The curves take longer than all the rest of a turn: what connected clients sent is on its way before.
            batch_submit(w)
            w.bus.flush(w.bus, w.now_ms)
            self.flush_dirty()
            session_handshakes(w)

    cdef void on_socket(self, Conn* c, uint32_t mask) noexcept nogil:
        cdef Core* w = self.w
        if mask & WRITABLE:
            conn_flush(w, c)
            mark_dirty(w, c)
            if not c.flags & FLAG_WANT_WRITE and c.flags & FLAG_PAUSED:
                queue_resume(w, c)
        if mask & READABLE and not c.flags & FLAG_PAUSED:
            session_readable(w, c)
        elif mask & HANGUP:
            # A paused connection is not read, so its end shows only here.
            begin_close(w, c, 0, 0)
            conn_gone(c)
            mark_dirty(w, c)

    cdef int step_cold(self) except -1:
        """Python once per batch."""
        cdef Core* w = self.w
        cdef uint32_t n = w.cold_n
        cdef ColdEvent* events = w.cold
        self.interrupted = False
        PyErr_CheckSignals()
        if n:
            # Handlers push further events (a refused login is Gone); they belong to the next batch.
            w.cold = NULL
            w.cold_n = w.cold_capacity = 0
            self.sink.on_batch(cold_batch(events, n))
        if self.woken:
            self.woken = False
            self.sink.on_wake()
        if w.now_ms >= self.next_tick_ms:
            self.next_tick_ms = w.now_ms + TICK_MS
            delete_again(w)               # before the sweep: what was delivered has not expired
            self.sweep()
            give_back(w)
            if w.listener_full:           # out of descriptors a second ago: perhaps not any more
                w.listener_full = 0
                w.poller.change(w.poller, w.listener, READABLE, <uint64_t>TOKEN_LISTENER << 56)
            self.sink.on_tick()
        if w.now_ms >= self.next_connect_ms:
            self.connect_peers()
        return 0

    cdef void step_after_cold(self) noexcept nogil:
        cdef Core* w = self.w
        take_commits(w)
        reports_say(w)
        self.fire_timers()
        drain_all(w)
        self.resume_all()
        batch_submit(w)
        w.bus.flush(w.bus, w.now_ms)
        self.flush_dirty()
        batch_submit(w)               # connections that ended at the flush commit what they had in flight

    cdef void fire_timers(self) noexcept nogil:
        cdef Core* w = self.w
        cdef Timer* t
        cdef int i
        linger_fire(w)
        for i in range(TIMERS_PER_TURN):
            t = wheel_pop(&w.wheel, w.now_ms)
            if t == NULL:
                return
            session_timer(w, <Conn*>t)

    cdef void resume_all(self) noexcept nogil:
        cdef Core* w = self.w
        cdef uint32_t index = take_resumes(w)
        while index != NONE_INDEX:
            session_resume(w, next_resume(w, &index))

    cdef void flush_dirty(self) noexcept nogil:
        """The one place that writes to clients, and the one that releases connections."""
        cdef Core* w = self.w
        cdef Conn* c
        while True:
            c = take_dirty(w)
            if c == NULL:                 # looked at each time: closing one may write a receipt to another
                return
            if c.flags & FLAG_DOOMED:
                begin_close(w, c, c.doom, 0)
            elif c.flags & FLAG_EOF and c.state != CONN_CLOSING:
                begin_close(w, c, 0, 0)
            conn_flush(w, c)
            if c.flags & FLAG_EOF and c.state != CONN_CLOSING:
                begin_close(w, c, 0, 0)
            if c.state == CONN_CLOSING and (c.flags & FLAG_EOF or not c.flags & FLAG_WANT_WRITE):
                conn_end(w, c)
            else:
                conn_quiet(w, c)

    cdef void connect_peers(self):
        """Reaches every other worker; a dead one is tried again until the supervisor has restarted it."""
        cdef Core* w = self.w
        cdef uint32_t i
        cdef bint missing = False
        cdef int due
        for i in range(w.workers):
            due = w.bus.due(w.bus, i, w.now_ms)
            missing |= due == 0
            if due != 1:
                continue
            try:
                fd = self.host.bus_connect(self.run_dir, i)
            except OSError:
                w.bus.failed(w.bus, i, w.now_ms + CONNECT_MS)
                missing = True
                continue
            w.bus.connected(w.bus, i, fd)
        self.next_connect_ms = w.now_ms + (CONNECT_MS if missing else TICK_MS)

    cdef int sweep(self) except -1:
        cdef StoreOp* op = batch_op(self.w, OP_SWEEP, 0)
        if op != NULL:
            ends_with(self.w, op, CODE_EXPIRED)
            op.count = SWEEP_ITEMS
        return 0

    # --- running ------------------------------------------------------------------------------------------

    def listen(self, fd: int) -> None:
        self.w.listener = fd
        if self.w.poller.watch(self.w.poller, fd, READABLE, <uint64_t>TOKEN_LISTENER << 56) < 0:
            raise OSError("the listening socket cannot be watched")

    def start(self) -> None:
        """Counts what the mailbox holds and opens the bus; `run` does it when it was not done."""
        cdef Core* w = self.w
        if self.started:
            return
        self.started = True
        cdef int status = core_census(w)
        if status < 0:
            # Without it mailboxes would look empty until their devices are gone for good: do not serve.
            raise OSError(-status, "the mailboxes cannot be counted")
        if w.workers > 1:
            if w.bus.listen(w.bus, self.host.bus_listen(self.run_dir, w.worker)) < 0:
                raise OSError("the bus socket cannot be watched")

    def run(self) -> None:
        self.start()
        while not self.stopping:
            self.turn_until_cold()
        self.drain_and_close()

    def turn_until_cold(self) -> None:
        """Turns without the GIL until there is something for Python to do, and does that."""
        cdef Core* w = self.w
        with nogil:
            while True:
                self.step_poll(self.wait_ms())
                if (w.cold_n or self.woken or self.interrupted or self.stopping
                        or w.now_ms >= self.next_tick_ms or w.now_ms >= self.next_connect_ms):
                    break
                self.step_after_cold()
        self.step_cold()
        with nogil:
            self.step_after_cold()
        if debug_build() and w.stats.turns % CHECK_TURNS == 0:
            self.check()

    def turn(self) -> int:
        """One turn that never waits, for a scheduler outside; returns how many ms the next one may wait."""
        self.start()
        with nogil:
            self.step_poll(0)
        self.step_cold()
        with nogil:
            self.step_after_cold()
        return self.wait_ms()

    def check(self) -> None:
        """Raises AssertionError when an invariant of the worker's state does not hold (between two turns)."""
        cdef const char* wrong = core_check(self.w)
        if wrong != NULL:
            raise AssertionError(f"worker {self.w.worker}: {wrong.decode()}")

    cdef int drain_and_close(self) except -1:
        """Every client is told; everything in custody is on disk when this returns."""
        cdef Core* w = self.w
        cdef uint32_t i
        cdef uint64_t deadline = w.now_ms + STOP_MS
        cdef Conn* c
        if w.listener >= 0:
            w.poller.unwatch(w.poller, w.listener)
            w.listener = -1
        for i in range(w.conns.chunks_n * 1024):
            c = conn_at(&w.conns, i)
            if c.state != CONN_FREE:
                begin_close(w, c, CODE_SHUTTING_DOWN, 0)
        with nogil:
            self.step_after_cold()
            while (w.conns.live_n or not batches_done(w)) and w.now_ms < deadline:
                self.step_poll(DRAIN_POLL_MS)
                self.step_after_cold()
        delete_no_more(w)
        w.bus.deaf(w.bus)
        cdef const char* alive = core_leaks(w) if debug_build() and w.now_ms < deadline else NULL
        if alive != NULL:
            raise AssertionError(f"worker {w.worker}: {alive.decode()}")
        return 0

    def stop(self) -> None:
        self.stopping = True
        self.w.poller.wake(self.w.poller)

    def wake(self) -> None:
        self.w.poller.wake(self.w.poller)

    # --- what the cold path asks for (loop/control.pyx) -----------------------------------------------------

    def add_device(self, address: int, static_key: bytes | None = None) -> None:
        device_add(self.w, address, static_key)

    def remove_device(self, address: int, code: int) -> None:
        device_remove(self.w, address, code)

    def admit(self, conn: int, address: int) -> bool:
        return conn_admit(self.w, conn, address)

    def refuse(self, conn: int, code: int, retry_after_ms: int = 0) -> bool:
        return conn_refuse(self.w, conn, code, retry_after_ms)

    def respond(self, conn: int, request_id: int, status: int, body: bytes) -> bool:
        return request_answer(self.w, conn, request_id, status, body)

    def notice(self, address: int, notice: int, body: bytes) -> bool:
        return notice_send(self.w, address, notice, body)

    def is_connected(self, address: int) -> bool:
        return device_is_connected(self.w, address)

    def wake_lost(self, address: int) -> None:
        device_wake_lost(self.w, address)

    def is_waiting(self, recipient: int, sender: int, envelope_id: int) -> bool:
        return envelope_waits(self.w, recipient, sender, envelope_id)

    def is_reported(self, recipient: int, sender: int, envelope_id: int) -> bool:
        return envelope_is_reported(self.w, recipient, sender, envelope_id)

    def call_peer(self, worker: int, body: bytes) -> bool:
        return peer_call(self.w, worker, body)

    def stats(self) -> dict:
        return counters(self.w)
