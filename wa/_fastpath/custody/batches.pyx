# cython: language_level=3
# HOT: one operation per envelope that is stored, and one per deletion.
"""Mailbox batches; see custody/batches.pxd."""
from libc.stdint cimport uint16_t, uint32_t, uint64_t, uint8_t
from wa._fastpath.base.assertion cimport wa_assert
from wa._fastpath.base.bounds cimport BATCH_OPS_MAX
from wa._fastpath.mailbox.contract cimport batch_add, batch_free, batch_new, StoreOp
from wa._fastpath.state.core cimport Core

cdef enum:
    BATCH_START_BYTES = 65536


cdef StoreOp* batch_op(Core* w, uint8_t what, uint32_t body_n) noexcept nogil:
    if w.batch == NULL:
        w.batch = batch_new(BATCH_START_BYTES)
        if w.batch == NULL:
            return NULL
        w.batch_no += 1
    return batch_add(w.batch, what, body_n)


cdef bint batch_has_room(const Core* w, uint32_t body_n) noexcept nogil:
    return w.batch == NULL or (
        w.batch.used + body_n < w.bounds.batch_bytes and w.batch.ops_n < BATCH_OPS_MAX
    )


cdef uint64_t batch_last(const Core* w) noexcept nogil:
    return w.batch_no if w.batch != NULL else w.batch_submitted_no


cdef bint batches_done(const Core* w) noexcept nogil:
    return w.batch == NULL and w.batch_submitted_no == w.batch_done_no


cdef void batch_submit(Core* w) noexcept nogil:
    # One batch at the disk at a time: what arrives meanwhile shares the next fsync.
    if w.batch == NULL or w.batch_submitted_no != w.batch_done_no:
        return
    wa_assert(w.batch_no > w.batch_submitted_no, b"numbers of batches ascend")
    wa_assert(w.batch.ops_n > 0, b"a batch is begun with its first operation")
    w.stats.batches += 1
    w.stats.batch_ops += w.batch.ops_n
    w.batch_submitted_no = w.batch_no
    if w.store.submit(w.store, w.batch) != 0:
        # Only a store that is being closed refuses; the loop has ended then, and nobody was told anything.
        batch_free(w.batch)
    w.batch = NULL


cdef void ends_with(const Core* w, StoreOp* op, uint16_t code) noexcept nogil:
    op.code = code
    op.env.accepted_s = <uint32_t>(w.wall_ms // 1000)
    op.env.expires_s = op.env.accepted_s + <uint32_t>w.bounds.retention_s[0]
