# cython: language_level=3
# HOT: the batches, one call per operation without allocation; the Python face below them is for tests and tools.
"""What every mailbox store shares: batches of operations and the Python face.

The contract is mailbox/contract.pxd.  The stores are mailbox/store.pyx and sim/_native/memory_store.pyx.
"""
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy, memset
from wa._fastpath.os.poller cimport Poller

import os
from enum import IntEnum
from typing import NamedTuple

cdef extern from *:
    """
    #ifdef WA_DEBUG
    static long long wa_live_batches = 0;
    #define WA_LIVE(n) __atomic_add_fetch(&wa_live_batches, (n), __ATOMIC_RELAXED)
    #else
    #define WA_LIVE(n) 0
    #endif
    """
    int64_t WA_LIVE(int n) nogil

cdef enum:
    BATCH_BYTES_MIN = 4096

assert sizeof(Envelope) == 40 and sizeof(StoreOp) == 64    # no padding


# --- batches ----------------------------------------------------------------------------------------

cdef inline bint has_body(uint8_t what) noexcept nogil:
    return what == OP_PUT or what == OP_PUT_SHARED or what == OP_BODY


cdef inline uint64_t body_room(uint8_t what, uint32_t body_n) noexcept nogil:
    return (<uint64_t>body_n + 7) & ~<uint64_t>7 if has_body(what) else 0


cdef StoreBatch* batch_new(uint32_t capacity) noexcept nogil:
    cdef StoreBatch* b = <StoreBatch*>calloc(1, sizeof(StoreBatch))
    if b == NULL:
        return NULL
    b.capacity = capacity if capacity > BATCH_BYTES_MIN else BATCH_BYTES_MIN
    b.data = <uint8_t*>malloc(b.capacity)
    if b.data == NULL:
        free(b)
        return NULL
    WA_LIVE(1)
    return b


cdef StoreOp* batch_add(StoreBatch* b, uint8_t what, uint32_t body_n) noexcept nogil:
    cdef uint64_t need = <uint64_t>b.used + sizeof(StoreOp) + body_room(what, body_n)
    cdef uint64_t capacity = b.capacity
    cdef uint8_t* data
    cdef StoreOp* op
    if need > 0xffffffffULL:
        return NULL
    if need > capacity:
        while capacity < need:
            capacity *= 2
        if capacity > 0xffffffffULL:
            capacity = need
        data = <uint8_t*>realloc(b.data, capacity)
        if data == NULL:
            return NULL
        b.data = data
        b.capacity = <uint32_t>capacity
    op = <StoreOp*>(b.data + b.used)
    memset(op, 0, sizeof(StoreOp))
    op.what = what
    op.env.body_n = body_n
    b.used = <uint32_t>need
    b.ops_n += 1
    return op


cdef StoreOp* batch_first(StoreBatch* b) noexcept nogil:
    return <StoreOp*>b.data if b.used else NULL


cdef StoreOp* batch_next(StoreBatch* b, StoreOp* op) noexcept nogil:
    cdef uint8_t* p = <uint8_t*>(op + 1) + body_room(op.what, op.env.body_n)
    return <StoreOp*>p if p < b.data + b.used else NULL


cdef StoreOp* batch_add_expired(StoreBatch* b) noexcept nogil:
    # Doubles at 8, 16, 32 …; StoreBatch keeps no capacity.
    cdef uint32_t n = b.expired_n
    cdef StoreOp* grown
    if n == 0 or (n >= 8 and (n & (n - 1)) == 0):
        grown = <StoreOp*>realloc(b.expired, (<size_t>n * 2 if n else 8) * sizeof(StoreOp))
        if grown == NULL:
            return NULL
        b.expired = grown
    b.expired_n = n + 1
    memset(&b.expired[n], 0, sizeof(StoreOp))
    b.expired[n].what = OP_EXPIRED
    b.expired[n].result = RESULT_OK
    return &b.expired[n]


cdef void batch_free(StoreBatch* b) noexcept nogil:
    if b == NULL:
        return
    WA_LIVE(-1)
    free(b.expired)
    free(b.data)
    free(b)


def live_batches() -> int:
    """Batches made and not freed; counted in the debug build, always 0 in the other."""
    return WA_LIVE(0)


# --- the Python face --------------------------------------------------------------------------------

class What(IntEnum):
    """StoreOp.what"""
    PUT = OP_PUT
    DELETE = OP_DELETE
    RECEIPT_PUT = OP_RECEIPT_PUT
    RECEIPT_DELETE = OP_RECEIPT_DELETE
    SWEEP = OP_SWEEP
    EXPIRED = OP_EXPIRED
    PURGE = OP_PURGE
    DROP = OP_DROP
    BODY = OP_BODY
    PUT_SHARED = OP_PUT_SHARED


class Result(IntEnum):
    """StoreOp.result and StoreBatch.status"""
    PENDING = RESULT_PENDING
    OK = RESULT_OK
    DUPLICATE = RESULT_DUPLICATE
    MISSING = RESULT_MISSING
    FULL = RESULT_FULL
    FAILED = RESULT_FAILED


class Op(NamedTuple):
    """One operation, one stored envelope or one receipt; fields as in StoreOp (mailbox/contract.pxd)."""
    what: What
    recipient: int = 0
    sender: int = 0
    id: int = 0
    seq: int = 0
    priority: int = 0
    kind: int = 0
    code: int = 0
    accepted_s: int = 0
    expires_s: int = 0
    body: bytes = b""
    count_max: int = 0
    level: int = 0


class Applied(NamedTuple):
    """A batch that came back: its status, the result of each operation, what expired."""
    status: Result
    results: list
    expired: list


def rank_of(level: int) -> int:
    return receipt_rank(<uint8_t>level)


def body_number(uint64_t number) -> bytes:
    return PyBytes_FromStringAndSize(<const char*>&number, sizeof(number))


cdef int add_op(StoreBatch* b, object op) except -1:
    cdef bytes body = op.body
    cdef uint32_t body_n = len(body) if has_body(op.what) else 0
    cdef StoreOp* to = batch_add(b, op.what, body_n)
    if to == NULL:
        raise MemoryError()
    to.env.recipient, to.env.sender, to.env.id, to.seq = op.recipient, op.sender, op.id, op.seq
    to.env.priority, to.env.kind, to.level, to.code = op.priority, op.kind, op.level, op.code
    to.env.accepted_s, to.env.expires_s, to.count = op.accepted_s, op.expires_s, op.count_max
    if body_n:
        memcpy(to + 1, PyBytes_AS_STRING(body), body_n)
    return 0


cdef object face_of(what, const Envelope* v, uint64_t seq, uint8_t level, uint16_t code, bytes body):
    return Op(what, v.recipient, v.sender, v.id, seq, v.priority, v.kind, code, v.accepted_s, v.expires_s, body,
              level=level)


cdef object expired_of(const StoreOp* op):
    return face_of(What(op.what), &op.env, op.seq, op.level, op.code, b"")


cdef list rows_of(what, const MailRow* rows, int n):
    return [face_of(what, &rows[i].env, rows[i].seq, rows[i].level, rows[i].code,
                    PyBytes_FromStringAndSize(<const char*>rows[i].body, rows[i].env.body_n if rows[i].body else 0))
            for i in range(n)]


cdef object applied_of(StoreBatch* b):
    cdef StoreOp* op = batch_first(b)
    cdef uint32_t i
    results = []
    while op != NULL:
        results.append(Result(op.result))
        op = batch_next(b, op)
    return Applied(Result(b.status), results, [expired_of(&b.expired[i]) for i in range(b.expired_n)])


cdef int check(int rc) except -1:
    if rc < 0:
        raise OSError(-rc, os.strerror(-rc))
    return rc


cdef void collect_key(void* context, uint64_t recipient, uint8_t priority, uint64_t seq) noexcept nogil:
    with gil:
        (<list>context).append((recipient, priority, seq))


cdef void count_wake(Poller* p) noexcept nogil:
    cdef uint64_t* n = <uint64_t*>&p.state
    n[0] += 1


cdef class MailStoreBase:
    cdef MailStore* pointer(self) noexcept:
        return &self.vtable

    cdef void attach(self, Poller* poller) noexcept:
        pass

    def settle(self) -> None:
        """Returns when every submitted batch is done (a store that needs telling is told)."""
        raise NotImplementedError

    def submit(self, ops) -> None:
        """Hands one batch of Op to the store.  Raises OSError when the store is closing."""
        cdef StoreBatch* b = batch_new(0)
        if b == NULL:
            raise MemoryError()
        try:
            for op in ops:
                add_op(b, op)
            check(self.vtable.submit(&self.vtable, b))
            b = NULL
        finally:
            batch_free(b)

    def collect(self) -> list:
        """Applied of each batch done since the last call, oldest first."""
        cdef StoreBatch* b = self.vtable.collect(&self.vtable)
        cdef StoreBatch* after
        out = []
        while b != NULL:
            after = b.next
            out.append(applied_of(b))
            batch_free(b)
            b = after
        return out

    def apply(self, ops):
        """Submits one batch and waits for it.  Nothing else may be under way.  Returns Applied."""
        self.submit(ops)
        self.settle()
        applied, = self.collect()
        return applied

    def read(self, uint64_t recipient, uint8_t priority, uint64_t after_seq=0, int count_max=64,
             size_t arena_bytes=1 << 20) -> list:
        """Envelopes as Op(PUT), see MailStore.read.  Raises OSError."""
        cdef MailRow* rows = <MailRow*>malloc(count_max * sizeof(MailRow) + 1)
        cdef uint8_t* arena = <uint8_t*>malloc(arena_bytes + 1)
        cdef int n
        try:
            if rows == NULL or arena == NULL:
                raise MemoryError()
            n = check(self.vtable.read(&self.vtable, recipient, priority, after_seq, rows, count_max, arena,
                                       arena_bytes))
            return rows_of(What.PUT, rows, n)
        finally:
            free(rows)
            free(arena)

    def read_receipts(self, uint64_t owner, uint64_t after_peer=0, uint64_t after_id=0, int count_max=64) -> list:
        """Receipts as Op(RECEIPT_PUT), see MailStore.read_receipts.  Raises OSError."""
        cdef MailRow* out = <MailRow*>malloc(count_max * sizeof(MailRow) + 1)
        cdef int n
        try:
            if out == NULL:
                raise MemoryError()
            n = check(self.vtable.read_receipts(&self.vtable, owner, after_peer, after_id, out, count_max))
            return rows_of(What.RECEIPT_PUT, out, n)
        finally:
            free(out)

    def read_victims(self, uint64_t recipient, uint32_t now_s, int count_max=64) -> list:
        """Envelopes as Op(PUT) without bodies, see MailStore.read_victims.  Raises OSError."""
        cdef MailRow* out = <MailRow*>malloc(count_max * sizeof(MailRow) + 1)
        cdef int n
        try:
            if out == NULL:
                raise MemoryError()
            n = check(self.vtable.read_victims(&self.vtable, recipient, now_s, out, count_max))
            return rows_of(What.PUT, out, n)
        finally:
            free(out)

    def contains(self, uint64_t recipient, uint64_t sender, uint64_t id) -> bool:
        return check(self.vtable.contains(&self.vtable, recipient, sender, id)) == 1

    def census(self) -> list:
        """(recipient, priority, seq) of every stored envelope, in key order."""
        keys = []
        check(self.vtable.census(&self.vtable, collect_key, <void*>keys))
        return keys

    def receipt_census(self) -> list:
        """(owner, level, 0) of every waiting receipt."""
        keys = []
        check(self.vtable.receipt_census(&self.vtable, collect_key, <void*>keys))
        return keys

    def count_wakes(self) -> None:
        """From here on the store wakes a counter, read with `wakes()`: for tests of the waking itself."""
        memset(&self.wake_counter, 0, sizeof(Poller))
        self.wake_counter.wake = count_wake
        self.attach(&self.wake_counter)

    def wakes(self) -> int:
        return (<uint64_t*>&self.wake_counter.state)[0]
