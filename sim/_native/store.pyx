# cython: language_level=3
# COLD: simulations only; it takes the GIL in every call, as the store that it wraps does.
"""The simulated disk of one worker: a MemoryMailStore whose commits take virtual time, and the negative controls.

It stands between the loop and the reference store.  Submitting asks the agenda for a wake when the disk is done; the
scheduler then calls step().  Each control makes the store break one promise on purpose, so that a checker which does
not notice is itself found out.
"""
cimport cython
from libc.errno cimport EIO
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy
from sim._native.agenda cimport net_below, net_wake
from sim._native.net cimport Net, SimNet
from wa._fastpath.mailbox.contract cimport (
    batch_first, batch_free, batch_new, batch_next, census_fn, MailRow, MailStore, MailStoreBase, OP_DROP, OP_PURGE,
    OP_PUT, OP_SWEEP, RESULT_OK, StoreBatch, StoreOp,
)
from wa._fastpath.os.poller cimport Poller

from sim._native.memory_store import MemoryMailStore

from wa.errors import LocalError

CONTROLS = ("none", "early", "forgetful", "no_dedup", "silent")


@cython.no_gc_clear               # a loop that goes with it still detaches itself
cdef class SimMailStore(MailStoreBase):
    """See sim/_native/store.pyi."""
    cdef readonly object inner
    cdef MailStoreBase base
    cdef MailStore* m             # of inner
    cdef Poller* poller
    cdef SimNet net
    cdef uint32_t target
    cdef public uint64_t latency_ns, jitter_ns
    cdef public int read_errors   # so many reads to come fail
    cdef bint early, forgetful, no_dedup, silent
    cdef StoreBatch* told         # control "early": said to be done, on no disk yet
    cdef StoreBatch* told_last
    cdef list fresh               # control "no_dedup": identities of the puts that are queued

    def __cinit__(self, SimNet net, uint32_t target, object disk, *, bint sync=True, str control="none"):
        if control not in CONTROLS:
            raise LocalError(f"no control {control!r}: {', '.join(CONTROLS)}")
        self.inner = MemoryMailStore(disk, sync=sync)
        self.base = self.inner
        self.m = self.base.pointer()
        self.net, self.target = net, target
        self.early, self.forgetful, self.no_dedup = control == "early", control == "forgetful", control == "no_dedup"
        self.silent = control == "silent"
        self.fresh = []
        self.vtable.state = <void*>self
        self.vtable.submit = sim_submit
        self.vtable.collect = sim_collect
        self.vtable.read = sim_read
        self.vtable.read_victims = sim_read_victims
        self.vtable.read_receipts = sim_read_receipts
        self.vtable.contains = sim_contains
        self.vtable.census = sim_census
        self.vtable.receipt_census = sim_receipt_census

    def __dealloc__(self):
        cdef StoreBatch* b
        while self.told != NULL:
            b = self.told
            self.told = b.next
            batch_free(b)

    cdef void attach(self, Poller* poller) noexcept:
        self.poller = poller
        self.base.attach(poller)

    def step(self) -> int:
        """Commits what is queued, now."""
        if self.fresh:
            ident = self.inner.disk.ident
            for key in self.fresh:
                if key in ident.rows:
                    ident.set(key, None)          # the store has forgotten that it has this one
            self.fresh = []
        return self.inner.step()

    def kill(self) -> None:
        self.inner.kill()

    def power_loss(self) -> None:
        self.inner.power_loss()

    cdef int say_done(self, StoreBatch* batch) except -1:
        """A copy goes to the disk; the loop is told at once."""
        cdef StoreBatch* copy = batch_new(batch.used + 64)
        cdef StoreOp* op
        if copy == NULL:
            raise MemoryError
        memcpy(copy.data, batch.data, batch.used)
        copy.used, copy.ops_n = batch.used, batch.ops_n
        if self.m.submit(self.m, copy) != 0:
            batch_free(copy)
        op = batch_first(batch)
        while op != NULL:
            op.result = RESULT_OK
            op = batch_next(batch, op)
        batch.status = RESULT_OK
        batch.next = NULL
        if self.told == NULL:
            self.told = batch
        else:
            self.told_last.next = batch
        self.told_last = batch
        self.poller.wake(self.poller)
        return 0

    cdef int note_puts(self, StoreBatch* batch) except -1:
        cdef StoreOp* op = batch_first(batch)
        while op != NULL:
            if op.what == OP_PUT:
                self.fresh.append((op.env.recipient, op.env.sender, op.env.id))
            op = batch_next(batch, op)
        return 0

    cdef int hush(self, StoreBatch* batch) except -1:
        """What is taken out leaves no receipt: what a server does that reports an expiry after its commit, and dies."""
        cdef StoreOp* op = batch_first(batch)
        while op != NULL:
            if op.what == OP_SWEEP or op.what == OP_PURGE or op.what == OP_DROP:
                op.code = 0
            op = batch_next(batch, op)
        return 0

    cdef int forget(self, MailRow* rows, int n) except -1:
        """Deleted because it was read: what a server does that clears its queue before the acknowledgement."""
        cdef int i
        cdef MailRow* row
        disk = self.inner.disk
        for i in range(n):
            row = &rows[i]
            disk.drop_mail((row.env.recipient, 255 - row.env.priority, row.seq))
            disk.ident.set((row.env.recipient, row.env.sender, row.env.id), None)
        disk.sync()
        return 0


cdef int sim_submit(MailStore* m, StoreBatch* batch) noexcept nogil:
    cdef int status
    cdef Net* n
    with gil:
        store = <SimMailStore>m.state
        n = store.net.n
        net_wake(n, store.target, n.now_ns + store.latency_ns + net_below(n, store.jitter_ns))
        if store.no_dedup:
            store.note_puts(batch)
        if store.silent:
            store.hush(batch)
        if store.early:
            store.say_done(batch)
            status = 0
        else:
            status = store.m.submit(store.m, batch)
    return status


cdef StoreBatch* sim_collect(MailStore* m) noexcept nogil:
    cdef StoreBatch* b
    cdef StoreBatch* following
    with gil:
        store = <SimMailStore>m.state
        b = store.m.collect(store.m)
        if store.early:
            while b != NULL:
                following = b.next
                batch_free(b)
                b = following
            b = store.told
            store.told = NULL
    return b


cdef MailStore* readable(MailStore* m) noexcept nogil:
    """The store inside, or NULL: this read fails."""
    with gil:
        store = <SimMailStore>m.state
        if store.read_errors > 0:
            store.read_errors -= 1
            return NULL
        return store.m


cdef int sim_read(MailStore* m, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out, int out_max,
                  uint8_t* arena, size_t arena_n) noexcept nogil:
    cdef MailStore* inner = readable(m)
    cdef int got
    if inner == NULL:
        return -EIO
    got = inner.read(inner, recipient, priority, after_seq, out, out_max, arena, arena_n)
    with gil:
        store = <SimMailStore>m.state
        if store.forgetful and got > 0:
            store.forget(out, got)
    return got


cdef int sim_read_victims(MailStore* m, uint64_t recipient, uint32_t now_s, MailRow* out, int out_max) noexcept nogil:
    cdef MailStore* inner = readable(m)
    return -EIO if inner == NULL else inner.read_victims(inner, recipient, now_s, out, out_max)


cdef int sim_read_receipts(MailStore* m, uint64_t owner, uint64_t after_peer, uint64_t after_id, MailRow* out,
                           int out_max) noexcept nogil:
    cdef MailStore* inner = readable(m)
    return -EIO if inner == NULL else inner.read_receipts(inner, owner, after_peer, after_id, out, out_max)


cdef int sim_contains(MailStore* m, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    cdef MailStore* inner
    with gil:
        inner = (<SimMailStore>m.state).m
    return inner.contains(inner, recipient, sender, id)


cdef int sim_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    cdef MailStore* inner
    with gil:
        inner = (<SimMailStore>m.state).m
    return inner.census(inner, each, context)


cdef int sim_receipt_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    cdef MailStore* inner
    with gil:
        inner = (<SimMailStore>m.state).m
    return inner.receipt_census(inner, each, context)
