# cython: language_level=3
# HOT: the commit thread and the hand-over; every envelope that is stored passes here, none touches the GIL.
"""The mailbox store over LMDB: one commit thread, one transaction and one fsync for everything queued.

The log is mailbox/log.pyx, its bytes are mailbox/layout.pxd and docs/storage.md, and what an operation does is
mailbox/ops.pyx.

Threads and locks:
- queue_lock guards the queue, the done list and `stopping`; it is never held over disk work.
- map_lock guards the memory map: a read holds it from renewing its transaction to resetting it, so that no pointer
  into the map is alive when the commit thread grows or reopens the environment (LMDB forbids either under a
  transaction of this process).  Commits do not take it: reader and writer do not wait for each other.
- index.lock guards the index in memory, see mailbox/index.pxd; it is held for single steps, taken last, and never held
  over disk work.
- stats_lock guards the counters and the list of corrupt keys.
"""
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.errno cimport EIO, ESHUTDOWN
from libc.stdint cimport uint32_t, uint64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset
from wa._fastpath.base.heap cimport wa_heap_trim
from wa._fastpath.mailbox.clean cimport clean, clean_wanted
from wa._fastpath.mailbox.contract cimport *
from wa._fastpath.mailbox.env cimport *
from wa._fastpath.mailbox.index cimport index_bytes, index_free, index_init, index_trim
from wa._fastpath.mailbox.layout cimport FORMAT
from wa._fastpath.mailbox.lmdb_c cimport *
from wa._fastpath.mailbox.log cimport *
from wa._fastpath.mailbox.ops cimport apply_op, drop_unneeded
from wa._fastpath.mailbox.reads cimport *
from wa._fastpath.os.poller cimport Poller

import os
import threading
from pathlib import Path

from wa import limits
from wa._fastpath.os.durable import make_environment, replace_environment
from wa._fastpath.mailbox.upgrade import upgrade
from wa.errors import LocalError

cdef enum:
    COMPACT_BYTES = 64 << 20      # of free pages; under it a file is left as it is


cdef inline void append(StoreBatch** first, StoreBatch** last, StoreBatch* b) noexcept nogil:
    # b may be a chain.
    if first[0] == NULL:
        first[0] = b
    else:
        last[0].next = b
    while b.next != NULL:
        b = b.next
    last[0] = b


# --- the commit thread ------------------------------------------------------------------------------

cdef inline bint is_put(uint8_t what) noexcept nogil:
    return what == OP_PUT or what == OP_PUT_SHARED or what == OP_BODY or what == OP_RECEIPT_PUT


cdef int apply_batch(Lmdb* s, StoreBatch* b, bint puts) noexcept nogil:
    cdef StoreOp* op = batch_first(b)
    cdef int rc = 0
    b.expired_n = 0
    while op != NULL and rc == 0:
        if not puts and is_put(op.what):
            op.result = RESULT_FULL
        else:
            rc = apply_op(s, b, op)
        op = batch_next(b, op)
    return rc if rc else drop_unneeded(s, b)


cdef int transact(Lmdb* s, StoreBatch* first, bint puts, bint cleaning) noexcept nogil:
    """All batches in one turn.  puts=False: everything but what puts, which gets RESULT_FULL."""
    cdef StoreBatch* b = first
    cdef int rc = 0 if s.env != NULL else reopen(s)
    if rc == 0:
        rc = turn_begin(s)
    if rc:
        return rc
    while b != NULL and rc == 0:
        rc = apply_batch(s, b, puts)
        b = b.next
    if rc == 0 and cleaning:
        rc = clean(s)
    if rc:
        turn_abort(s)
        return rc
    return turn_commit(s)


cdef void finish(StoreBatch* b, int status) noexcept nogil:
    cdef StoreOp* op
    while b != NULL:
        b.status = status
        if status != RESULT_OK:
            b.expired_n = 0
            op = batch_first(b)
            while op != NULL:
                op.result = <uint8_t>status
                op = batch_next(b, op)
        b = b.next


cdef bint has_deletes(StoreBatch* b) noexcept nogil:
    cdef StoreOp* op
    while b != NULL:
        op = batch_first(b)
        while op != NULL:
            if not is_put(op.what):
                return True
            op = batch_next(b, op)
        b = b.next
    return False


cdef int transact_deletes(Lmdb* s, StoreBatch* first) noexcept nogil:
    # LMDB needs fresh pages to delete, too: a reserve beyond the map's limit lets a full store empty itself.
    cdef size_t before = s.map_bytes
    cdef int rc = resize(s, s.map_bytes_max + s.map_reserve_bytes)
    if rc == 0:
        rc = transact(s, first, False, True)
        if rc and s.env != NULL:
            rc = transact(s, first, False, False)     # not even the little that cleaning needs
    if s.env != NULL:
        resize(s, before)         # never below what is in use
    return rc


cdef void commit(Lmdb* s, StoreBatch* first) noexcept nogil:
    cdef StoreBatch* b = first
    cdef bint full
    cdef int error, rc = transact(s, first, True, True)
    cdef uint64_t grown = 0, reopened = 0, batches = 0, ops = 0
    while rc == MDB_MAP_FULL and s.map_bytes < s.map_bytes_max:
        rc = resize(s, 2 * s.map_bytes if 2 * s.map_bytes < s.map_bytes_max else s.map_bytes_max)
        grown += 1
        if rc == 0:
            rc = transact(s, first, True, True)
    if rc and rc != MDB_MAP_FULL and panicked(s):
        reopened = 1
        reopen(s)                 # now, and not with the next commit: what is stored stays readable
        if rc == MDB_PANIC:
            rc = transact(s, first, True, True)
    error = rc
    full = rc != 0 and is_full(s, rc)
    s.pressed = full
    if full and has_deletes(first):
        rc = transact_deletes(s, first)
    elif full and clean_wanted(s):
        transact_deletes(s, first)    # nothing but cleaning; whatever comes of it, these puts are refused
    finish(first, RESULT_OK if rc == 0 else RESULT_FULL if full else RESULT_FAILED)
    if s.swept:                   # once a second: the tables of a busy index come and go, and the loop waits for the
                                  # heap
        s.swept = False
        if index_trim(&s.index):
            wa_heap_trim()
    while b != NULL:
        batches += 1
        ops += b.ops_n
        b = b.next
    pthread_mutex_lock(&s.stats_lock)
    s.stats.commits += rc == 0
    s.stats.batches += batches
    s.stats.ops += ops
    s.stats.grown_n += grown
    s.stats.reopened_n += reopened
    s.stats.full_n += full
    s.stats.failed_n += error != 0 and not full
    if error:
        s.stats.last_error = error
    pthread_mutex_unlock(&s.stats_lock)


cdef StoreBatch* take(Lmdb* s) noexcept nogil:
    """With queue_lock held: the queued batches, up to txn_bytes_max of them and at least one, as a chain."""
    cdef StoreBatch* first = s.queue
    cdef StoreBatch* last = first
    cdef size_t bytes = first.used
    while last.next != NULL and bytes + last.next.used <= s.txn_bytes_max:
        last = last.next
        bytes += last.used
    s.queue = last.next
    last.next = NULL
    return first


cdef void commit_loop(Lmdb* s) noexcept nogil:
    """The commit thread.  Returns when the store is closing and nothing is queued."""
    cdef StoreBatch* first
    cdef StoreBatch* b
    while True:
        pthread_mutex_lock(&s.queue_lock)
        while s.queue == NULL and not s.stopping:
            pthread_cond_wait(&s.queued, &s.queue_lock)
        if s.queue == NULL:
            pthread_mutex_unlock(&s.queue_lock)
            return
        first = take(s)
        pthread_mutex_unlock(&s.queue_lock)
        commit(s, first)
        pthread_mutex_lock(&s.queue_lock)
        b = first
        while b != NULL:
            s.pending_n -= 1
            b = b.next
        append(&s.done, &s.done_last, first)
        pthread_cond_broadcast(&s.settled)
        if s.poller != NULL:
            s.poller.wake(s.poller)   # under the lock: attach(NULL) returns when no wake is under way
        pthread_mutex_unlock(&s.queue_lock)


# --- the vtable: called by the loop's thread --------------------------------------------------------

cdef int store_submit(MailStore* m, StoreBatch* batch) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef bint refused
    pthread_mutex_lock(&s.queue_lock)
    refused = s.stopping
    if not refused:
        batch.next = NULL
        batch.status = RESULT_PENDING
        append(&s.queue, &s.queue_last, batch)
        s.pending_n += 1
        pthread_cond_broadcast(&s.queued)
    pthread_mutex_unlock(&s.queue_lock)
    return -ESHUTDOWN if refused else 0


cdef StoreBatch* store_collect(MailStore* m) noexcept nogil:
    cdef Lmdb* s = <Lmdb*>m.state
    cdef StoreBatch* b
    pthread_mutex_lock(&s.queue_lock)
    b = s.done
    s.done = NULL
    s.done_last = NULL
    pthread_mutex_unlock(&s.queue_lock)
    return b


# --- the thin class ---------------------------------------------------------------------------------

cdef void free_chain(StoreBatch* b) noexcept nogil:
    cdef StoreBatch* after
    while b != NULL:
        after = b.next
        batch_free(b)
        b = after


WHAT_OF_LETTER = {CORRUPT_MAIL: "mail", CORRUPT_RECEIPT: "receipts", CORRUPT_BODY: "bodies", CORRUPT_ROW: "log"}


cdef class LmdbMailStore(MailStoreBase):
    """The mailbox environment of one worker; see mailbox/store.pyi."""
    cdef Lmdb* s
    cdef object thread

    def __cinit__(self):
        self.s = <Lmdb*>calloc(1, sizeof(Lmdb))
        if self.s == NULL:
            raise MemoryError()
        if index_init(&self.s.index):
            raise MemoryError()
        pthread_mutex_init(&self.s.queue_lock, NULL)
        pthread_mutex_init(&self.s.map_lock, NULL)
        pthread_mutex_init(&self.s.stats_lock, NULL)
        pthread_cond_init(&self.s.queued, NULL)
        pthread_cond_init(&self.s.settled, NULL)
        self.s.closed = self.s.stopping = True
        self.vtable.state = self.s
        self.vtable.submit = store_submit
        self.vtable.collect = store_collect
        self.vtable.read = store_read
        self.vtable.read_victims = store_read_victims
        self.vtable.read_receipts = store_read_receipts
        self.vtable.contains = store_contains
        self.vtable.census = store_census
        self.vtable.receipt_census = store_receipt_census

    def __init__(self, path, *, size_t map_bytes=256 << 20, size_t map_bytes_max=1 << 40, bint sync=True,
                 uint32_t hash_bits=32):
        if len(os.fsencode(path)) + len(".new") > PATH_BYTES_MAX:
            raise LocalError(f"the path of a store has at most {PATH_BYTES_MAX - 4} bytes")
        if not 0 < map_bytes <= map_bytes_max:
            raise LocalError("map_bytes is between 1 and map_bytes_max")
        self.s.index.hash_mask = <uint32_t>((<uint64_t>1 << hash_bits) - 1)
        self.s.map_bytes = map_bytes
        self.s.map_bytes_max = map_bytes_max
        self.s.map_reserve_bytes = max(map_bytes_max >> 3, 1 << 20)
        self.s.txn_bytes_max = 8 * limits.BATCH_BYTES_MAX
        self.s.flags = MDB_NOTLS | MDB_NORDAHEAD | (0 if sync else MDB_NOSYNC)
        make_environment(Path(path), self._make)
        self._open(path)
        self._compact(path)
        self.s.closed = self.s.stopping = False

    def _make(self, beside):
        self._open(beside)
        close_env(self.s)

    def _open(self, path):
        cdef bytes encoded = os.fsencode(path)
        cdef int rc
        memset(self.s.path, 0, sizeof(self.s.path))
        memcpy(self.s.path, <const char*>encoded, len(encoded))
        rc = open_env(self.s)
        if rc == FORMAT_OTHER and self.s.found_format == 1:
            replace_environment(Path(path), lambda beside: upgrade(Path(path), beside))
            rc = open_env(self.s)
        if rc == FORMAT_OTHER:
            raise LocalError(f"{os.fspath(path)} holds mailbox format {self.s.found_format}, this version reads"
                             f" {FORMAT}: start the version of wa that wrote it, or follow docs/storage.md, Upgrades")
        if rc:
            raise OSError(rc if rc > 0 else EIO, f"cannot open the mailbox: {mdb_strerror(rc).decode()}",
                          os.fspath(path))

    def _compact(self, path):
        """A file that is mostly free pages gives them back, if there is room for the new one."""
        cdef uint64_t free_n = 0, all_n = 0
        cdef uint32_t page_bytes = 0
        cdef int rc = free_pages(self.s, &free_n, &all_n, &page_bytes)
        if rc == 0 and (free_n * page_bytes < COMPACT_BYTES or free_n * 2 < all_n):
            return
        if rc:
            raise OSError(rc if rc > 0 else EIO, f"cannot open the mailbox: {mdb_strerror(rc).decode()}",
                          os.fspath(path))
        try:
            replace_environment(Path(path), self._copy)
        except OSError as error:
            self.s.stats.last_error = error.errno or EIO      # large as it is, it holds what it holds
        close_env(self.s)
        self._open(path)

    def _copy(self, beside):
        cdef bytes encoded = os.fsencode(beside)
        cdef const char* to = encoded
        cdef int rc
        with nogil:
            rc = mdb_env_copy2(self.s.env, to, MDB_CP_COMPACT)
            close_env(self.s)
        if rc:
            raise OSError(rc if rc > 0 else EIO, f"cannot make the mailbox smaller: {mdb_strerror(rc).decode()}",
                          os.fspath(beside))

    def __dealloc__(self):
        if self.s == NULL:
            return
        close_env(self.s)         # the thread is gone: while it runs it holds a reference to this object
        free_chain(self.s.queue)
        free_chain(self.s.done)
        pthread_cond_destroy(&self.s.queued)
        pthread_cond_destroy(&self.s.settled)
        pthread_mutex_destroy(&self.s.queue_lock)
        pthread_mutex_destroy(&self.s.map_lock)
        pthread_mutex_destroy(&self.s.stats_lock)
        index_free(&self.s.index)
        free(self.s.turn.changes)
        free(self.s.turn.ended)
        free(self.s.stale)
        free(self.s.scratch)
        free(self.s)

    cdef void attach(self, Poller* poller) noexcept:
        pthread_mutex_lock(&self.s.queue_lock)
        self.s.poller = poller
        pthread_mutex_unlock(&self.s.queue_lock)

    def _commit_thread(self):
        with nogil:
            commit_loop(self.s)

    def start(self):
        if self.s.closed or self.thread is not None:
            raise LocalError("a store is started once, and not after it was closed")
        self.thread = threading.Thread(target=self._commit_thread, name="mailbox-commit", daemon=True)
        self.thread.start()

    def settle(self):
        if self.thread is None:
            raise LocalError("start() the store first: nothing is applied without its thread")
        with nogil:
            pthread_mutex_lock(&self.s.queue_lock)
            while self.s.pending_n > 0:
                pthread_cond_wait(&self.s.settled, &self.s.queue_lock)
            pthread_mutex_unlock(&self.s.queue_lock)

    def close(self):
        cdef Lmdb* s = self.s
        with nogil:
            pthread_mutex_lock(&s.queue_lock)
            s.stopping = True
            pthread_cond_broadcast(&s.queued)
            pthread_mutex_unlock(&s.queue_lock)
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        with nogil:
            pthread_mutex_lock(&s.map_lock)
            s.closed = True
            close_env(s)
            pthread_mutex_unlock(&s.map_lock)

    def stats(self):
        cdef Stats st
        cdef MDB_envinfo info
        cdef MDB_stat stat
        memset(&info, 0, sizeof(info))
        memset(&stat, 0, sizeof(stat))
        pthread_mutex_lock(&self.s.stats_lock)
        st = self.s.stats
        pthread_mutex_unlock(&self.s.stats_lock)
        pthread_mutex_lock(&self.s.map_lock)
        if self.s.env != NULL:
            mdb_env_info(self.s.env, &info)
            mdb_env_stat(self.s.env, &stat)
        pthread_mutex_unlock(&self.s.map_lock)
        return {
            "commits": st.commits, "batches": st.batches, "ops": st.ops, "grown": st.grown_n, "full": st.full_n,
            "failed": st.failed_n, "reopened": st.reopened_n, "corrupt": st.corrupt_n, "last_error": st.last_error,
            "moved": st.moved_n, "cleaned": st.cleaned_n,
            "map_bytes": info.me_mapsize, "used_bytes": (info.me_last_pgno + 1) * stat.ms_psize,
            "index_bytes": index_bytes(&self.s.index),
        }

    def corrupt_keys(self):
        cdef Stats st
        pthread_mutex_lock(&self.s.stats_lock)
        st = self.s.stats
        pthread_mutex_unlock(&self.s.stats_lock)
        return [(WHAT_OF_LETTER[st.corrupt[i].letter],
                 PyBytes_FromStringAndSize(<const char*>st.corrupt[i].key, st.corrupt[i].key_n))
                for i in range(st.corrupt_kept)]
