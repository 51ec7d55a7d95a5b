# cython: language_level=3
# COLD: the reference; it takes the GIL in every call and is written to be obviously right.
"""The reference mailbox store: tables in memory, committed when told to, with the faults a simulator needs.

Single-threaded.  tests/contract/test_mailbox_contract.py holds the LMDB store to it.
"""
from libc.errno cimport EMSGSIZE, ESHUTDOWN
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.string cimport memcpy, memset
from wa._fastpath.mailbox.contract cimport *
from wa._fastpath.os.poller cimport Poller
from wa._fastpath.wire.frames cimport F_REFUSED

import struct
from bisect import bisect_left, bisect_right

from wa._fastpath.mailbox.contract import Result
from sim._native.memory_disk import MemoryMailDisk, Row, prefixed
from wa.errors import LocalError

PUTS = (OP_PUT, OP_PUT_SHARED, OP_BODY, OP_RECEIPT_PUT)


cdef class MemoryMailStore(MailStoreBase):
    """See memory_store.pyi."""
    cdef StoreBatch* queue
    cdef StoreBatch* queue_last
    cdef StoreBatch* done
    cdef StoreBatch* done_last
    cdef Poller* poller
    cdef bint closed
    cdef readonly object disk
    cdef public bint auto
    cdef bint sync
    cdef int fail_n, fail_result
    cdef bint fail_deletes
    cdef int tear_after
    cdef uint64_t commits, batches, ops, full_n, failed_n, corrupt_n
    cdef list corrupt

    def __cinit__(self):
        self.vtable.state = <void*>self
        self.vtable.submit = memory_submit
        self.vtable.collect = memory_collect
        self.vtable.read = memory_read
        self.vtable.read_victims = memory_read_victims
        self.vtable.read_receipts = memory_read_receipts
        self.vtable.contains = memory_contains
        self.vtable.census = memory_census
        self.vtable.receipt_census = memory_receipt_census

    def __init__(self, disk=None, *, bint auto=False, bint sync=True):
        self.disk = disk if disk is not None else MemoryMailDisk()
        self.auto = auto
        self.sync = sync
        self.tear_after = -1
        self.corrupt = []

    def __dealloc__(self):
        self._forget()

    cdef void attach(self, Poller* poller) noexcept:
        self.poller = poller

    cdef void _forget(self) noexcept:
        cdef StoreBatch* b
        while self.queue != NULL:
            b = self.queue
            self.queue = b.next
            batch_free(b)
        while self.done != NULL:
            b = self.done
            self.done = b.next
            batch_free(b)

    # --- committing ---------------------------------------------------------------------------------

    def step(self) -> int:
        cdef StoreBatch* b = self.queue
        cdef StoreBatch* last = self.queue_last
        cdef int n = 0, status
        if b == NULL or self.closed:
            return 0
        self.queue = NULL
        if self.tear_after >= 0:
            self._tear(b)
            return 0
        status = self._transact(b)
        if self.done == NULL:
            self.done = b
        else:
            self.done_last.next = b
        self.done_last = last
        while b != NULL:
            b.status = status
            n += 1
            self.ops += b.ops_n
            b = b.next
        self.batches += n
        if self.poller != NULL:
            self.poller.wake(self.poller)
        return n

    cdef int _transact(self, StoreBatch* first) except -1:
        cdef StoreBatch* b = first
        cdef StoreOp* op
        cdef int refuse = 0
        if self.fail_n > 0:
            self.fail_n -= 1
            refuse = self.fail_result
            self.full_n += refuse == RESULT_FULL
            self.failed_n += refuse == RESULT_FAILED
        while b != NULL:
            op = batch_first(b)
            while op != NULL:
                if refuse and not (self.fail_deletes and op.what not in PUTS):
                    op.result = refuse
                else:
                    self._apply(b, op)
                op = batch_next(b, op)
            op = batch_first(b)
            while op != NULL:
                if op.what == OP_BODY:
                    self.disk.drop_unneeded(op.env.id)
                op = batch_next(b, op)
            b = b.next
        if refuse and not self.fail_deletes:
            return refuse
        self.commits += 1
        if self.sync:
            self.disk.sync()
        return RESULT_OK

    cdef int _tear(self, StoreBatch* first) except -1:
        cdef StoreBatch* b = first
        cdef StoreOp* op
        while b != NULL:
            op = batch_first(b)
            while op != NULL and self.tear_after > 0:
                self._apply(b, op)
                self.tear_after -= 1
                op = batch_next(b, op)
            b = b.next
        self.disk.sync()
        self.queue = first        # so that power_loss frees it
        self.power_loss()
        return 0

    cdef int _apply(self, StoreBatch* b, StoreOp* op) except -1:
        if op.what == OP_PUT or op.what == OP_PUT_SHARED:
            self._put(op)
        elif op.what == OP_BODY:
            self._body(op)
        elif op.what == OP_DROP:
            self._drop(b, op)
        elif op.what == OP_DELETE:
            self._delete(op)
        elif op.what == OP_RECEIPT_PUT:
            self._receipt_put(op)
        elif op.what == OP_RECEIPT_DELETE:
            self._receipt_delete(op)
        elif op.what == OP_SWEEP:
            self._sweep(b, op)
        elif op.what == OP_PURGE:
            self._purge(b, op)
        else:
            raise LocalError(f"not an operation of a mailbox: {op.what}")
        return 0

    def _report(self, table, key):
        self.corrupt_n += 1
        if (table, key) not in self.corrupt and len(self.corrupt) < 64:
            self.corrupt.append((table, key))

    def _mail_intact(self, key):
        if key in self.disk.damaged:
            self._report("mail", struct.pack(">QBQ", *key))
            return False
        return key in self.disk.mail.rows

    def _receipt_intact(self, key):
        if key in self.disk.damaged:
            self._report("receipts", struct.pack(">QQQ", *key))
            return False
        return key in self.disk.receipts.rows

    cdef int _put(self, StoreOp* op) except -1:
        ident = (op.env.recipient, op.env.sender, op.env.id)
        key = (op.env.recipient, 255 - op.env.priority, op.seq)
        stored = self.disk.ident.rows.get(ident)
        if stored is not None:
            stored_key = (op.env.recipient, 255 - stored[0], stored[1])
            if self._mail_intact(stored_key):
                op.result = RESULT_DUPLICATE
                return 0
            self.disk.drop_mail(stored_key)
        if key in self.disk.mail.rows:
            op.result = RESULT_FAILED
            return 0
        body = (<const char*>(op + 1))[:op.env.body_n]
        if op.what == OP_PUT_SHARED:
            body, = struct.unpack("=Q", body)
            if (body,) not in self.disk.bodies.rows:
                op.result = RESULT_MISSING
                return 0
            shared, needed = self.disk.bodies.rows[body,]
            self.disk.bodies.set((body,), (shared, needed + 1))
        self.disk.mail.set(key, Row(op.env.sender, op.env.id, op.env.kind, op.env.accepted_s, op.env.expires_s, body))
        self.disk.ident.set(ident, (op.env.priority, op.seq))
        if op.env.expires_s:
            self.disk.expiry.set((op.env.expires_s, *key), (op.env.sender, op.env.id, op.env.kind))
        op.result = RESULT_OK
        return 0

    cdef int _delete(self, StoreOp* op) except -1:
        ident = (op.env.recipient, op.env.sender, op.env.id)
        stored = self.disk.ident.rows.get(ident)
        found = False
        if stored is not None:
            found = self.disk.drop_mail((op.env.recipient, 255 - stored[0], stored[1]))
            self.disk.ident.set(ident, None)
        op.result = RESULT_OK if found else RESULT_MISSING
        return 0

    cdef int _body(self, StoreOp* op) except -1:
        if (op.env.id,) in self.disk.bodies.rows:
            op.result = RESULT_FAILED
            return 0
        self.disk.bodies.set((op.env.id,), ((<const char*>(op + 1))[:op.env.body_n], 0))
        op.result = RESULT_OK
        return 0

    cdef int _drop(self, StoreBatch* b, StoreOp* op) except -1:
        stored = self.disk.ident.rows.get((op.env.recipient, op.env.sender, op.env.id))
        if stored is None:
            op.result = RESULT_MISSING
            return 0
        self._expire(b, op, (op.env.recipient, 255 - stored[0], stored[1]), (op.env.sender, op.env.id, op.env.kind))
        op.result = RESULT_OK
        return 0

    cdef int _expire(self, StoreBatch* b, StoreOp* cause, object key, object hint) except -1:
        """Takes the envelope out, reports it, and leaves its sender a receipt with the code of `cause`."""
        row = self.disk.mail.rows.get(key)
        if row is None:
            return 0
        intact = self._mail_intact(key)
        self.disk.drop_mail(key)
        out = batch_add_expired(b)
        if out == NULL:
            raise MemoryError()
        out.env.recipient, out.env.priority, out.seq = key[0], 255 - key[1], key[2]
        if intact:
            out.env.sender, out.env.id, out.env.kind, out.env.accepted_s, out.env.expires_s = row[:5]
        elif hint is not None:
            out.env.sender, out.env.id, out.env.kind = hint
        out.code = cause.code
        if out.env.sender:
            self.disk.ident.set((key[0], out.env.sender, out.env.id), None)
            if cause.code:
                self._raise_receipt((out.env.sender, key[0], out.env.id),
                                    (F_REFUSED, cause.code, cause.env.accepted_s, cause.env.expires_s))
        return 0

    cdef int _sweep(self, StoreBatch* b, StoreOp* op) except -1:
        for key in self.disk.expiry.order[:op.count]:
            if key[0] > op.env.accepted_s:
                break
            hint = self.disk.expiry.rows[key]
            self._expire(b, op, key[1:], hint)
            self.disk.expiry.set(key, None)
        self.disk.drop_receipts(op.env.accepted_s, op.count)
        op.result = RESULT_OK
        return 0

    cdef int _purge(self, StoreBatch* b, StoreOp* op) except -1:
        mine = (op.env.recipient,)
        for key in prefixed(self.disk.mail.order, mine):
            self._expire(b, op, key, None)
        for table in (self.disk.ident, self.disk.receipts):
            for key in prefixed(table.order, mine):
                self.disk.damaged.discard(key)
                table.set(key, None)
        op.result = RESULT_OK
        return 0

    cdef int _receipt_put(self, StoreOp* op) except -1:
        op.result = self._raise_receipt((op.env.recipient, op.env.sender, op.env.id),
                                        (op.level, op.code, op.env.accepted_s, op.env.expires_s))
        return 0

    def _raise_receipt(self, key, row):
        result = RESULT_OK
        if self._receipt_intact(key):
            result = RESULT_DUPLICATE
            if receipt_rank(self.disk.receipts.rows[key][0]) >= receipt_rank(row[0]):
                return result
        self.disk.damaged.discard(key)
        self.disk.receipts.set(key, row)
        return result

    cdef int _receipt_delete(self, StoreOp* op) except -1:
        key = (op.env.recipient, op.env.sender, op.env.id)
        row = self.disk.receipts.rows.get(key)
        if row is None:
            op.result = RESULT_MISSING
        elif self._receipt_intact(key) and receipt_rank(row[0]) > receipt_rank(op.level):
            op.result = RESULT_DUPLICATE
        else:
            op.result = RESULT_OK
            self.disk.damaged.discard(key)
            self.disk.receipts.set(key, None)
        return 0

    # --- faults and life ----------------------------------------------------------------------------

    def fail(self, int commits, result=Result.FULL, *, bint deletes=False):
        self.fail_n, self.fail_result, self.fail_deletes = commits, result, deletes

    def tear(self, int ops):
        self.tear_after = ops

    def damage(self, uint64_t recipient, uint8_t priority, uint64_t seq):
        key = (recipient, 255 - priority, seq)
        if key not in self.disk.mail.rows:
            raise LocalError("there is no such envelope")
        self.disk.damaged.add(key)

    def damage_receipt(self, uint64_t owner, uint64_t peer, uint64_t id):
        key = (owner, peer, id)
        if key not in self.disk.receipts.rows:
            raise LocalError("there is no such receipt")
        self.disk.damaged.add(key)

    def power_loss(self):
        self.disk.rollback()
        self.kill()

    def kill(self):
        self.closed = True
        self._forget()

    def start(self):
        pass                      # there is no thread

    def settle(self):
        while self.step():
            pass

    def close(self):
        self.settle()
        self.closed = True

    def stats(self):
        return {"commits": self.commits, "batches": self.batches, "ops": self.ops, "full": self.full_n,
                "failed": self.failed_n, "corrupt": self.corrupt_n}

    def corrupt_keys(self):
        return list(self.corrupt)


# --- the vtable -------------------------------------------------------------------------------------

cdef int memory_submit(MailStore* m, StoreBatch* batch) noexcept nogil:
    with gil:
        store = <MemoryMailStore>m.state
        if store.closed:
            return -ESHUTDOWN
        batch.next = NULL
        batch.status = RESULT_PENDING
        if store.queue == NULL:
            store.queue = batch
        else:
            store.queue_last.next = batch
        store.queue_last = batch
        if store.auto:
            store.step()
    return 0


cdef StoreBatch* memory_collect(MailStore* m) noexcept nogil:
    cdef StoreBatch* b
    with gil:
        store = <MemoryMailStore>m.state
        b = store.done
        store.done = NULL
    return b


cdef int memory_read(MailStore* m, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out, int out_max,
                     uint8_t* arena, size_t arena_n) noexcept nogil:
    with gil:
        store = <MemoryMailStore>m.state
        return -ESHUTDOWN if store.closed else read_rows(store, recipient, priority, after_seq, out, out_max, arena,
                                                         arena_n)


cdef int read_rows(MemoryMailStore store, uint64_t recipient, uint8_t priority, uint64_t after_seq, MailRow* out,
                   int out_max, uint8_t* arena, size_t arena_n) except -1:
    cdef size_t used = 0
    cdef int n = 0
    cdef bytes body
    order = store.disk.mail.order
    for key in order[bisect_right(order, (recipient, 255 - priority, after_seq)):]:
        if key[:2] != (recipient, 255 - priority) or n == out_max:
            break
        if not store._mail_intact(key):
            continue
        sender, id, kind, accepted_s, expires_s, held = store.disk.mail.rows[key]
        body = store.disk.bodies.rows[held,][0] if isinstance(held, int) else held
        if <size_t>len(body) > arena_n - used:
            return n if n else -EMSGSIZE
        memset(&out[n], 0, sizeof(MailRow))
        out[n].env.recipient, out[n].env.priority, out[n].seq = recipient, priority, key[2]
        out[n].env.sender, out[n].env.id, out[n].env.kind = sender, id, kind
        out[n].env.accepted_s, out[n].env.expires_s, out[n].env.body_n = accepted_s, expires_s, len(body)
        memcpy(arena + used, <const char*>body, len(body))
        out[n].body = arena + used
        used += len(body)
        n += 1
    return n


cdef int memory_read_victims(MailStore* m, uint64_t recipient, uint32_t now_s, MailRow* out,
                             int out_max) noexcept nogil:
    cdef int n = 0
    with gil:
        store = <MemoryMailStore>m.state
        if store.closed:
            return -ESHUTDOWN
        for key, row in store.disk.victims(recipient, now_s)[:out_max]:
            memset(&out[n], 0, sizeof(MailRow))
            out[n].env.recipient, out[n].env.priority, out[n].seq = recipient, 255 - key[1], key[2]
            out[n].env.sender, out[n].env.id, out[n].env.kind, out[n].env.accepted_s, out[n].env.expires_s = row[:5]
            n += 1
    return n


cdef int memory_read_receipts(MailStore* m, uint64_t owner, uint64_t after_peer, uint64_t after_id, MailRow* out,
                              int out_max) noexcept nogil:
    cdef int n = 0
    with gil:
        store = <MemoryMailStore>m.state
        if store.closed:
            return -ESHUTDOWN
        order = store.disk.receipts.order
        for key in order[bisect_left(order, (owner, after_peer, after_id)):]:
            if key[0] != owner or n == out_max:
                break
            if key == (owner, after_peer, after_id) or not store._receipt_intact(key):
                continue
            memset(&out[n], 0, sizeof(MailRow))
            out[n].env.recipient, out[n].env.sender, out[n].env.id = key
            out[n].level, out[n].code, out[n].env.accepted_s, out[n].env.expires_s = store.disk.receipts.rows[key]
            n += 1
    return n


cdef int memory_contains(MailStore* m, uint64_t recipient, uint64_t sender, uint64_t id) noexcept nogil:
    with gil:
        store = <MemoryMailStore>m.state
        return -ESHUTDOWN if store.closed else (recipient, sender, id) in store.disk.ident.rows


cdef int memory_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    with gil:
        store = <MemoryMailStore>m.state
        if store.closed:
            return -ESHUTDOWN
        for recipient, rest, seq in list(store.disk.mail.order):
            each(context, recipient, 255 - <int>rest, seq)
    return 0


cdef int memory_receipt_census(MailStore* m, census_fn each, void* context) noexcept nogil:
    with gil:
        store = <MemoryMailStore>m.state
        if store.closed:
            return -ESHUTDOWN
        for key in list(store.disk.receipts.order):
            each(context, key[0], store.disk.receipts.rows[key][0], 0)
    return 0
