# cython: language_level=3
"""Contract between mailbox/store.pyx (environment, threads) and mailbox/ops.pyx (what an operation does)."""
from wa._fastpath.mailbox.contract cimport StoreBatch, StoreOp
from wa._fastpath.mailbox.log cimport Lmdb

cdef int apply_op(Lmdb* s, StoreBatch* b, StoreOp* op) noexcept nogil
# In the turn under way.  0, or an error that ends it.

cdef int drop_unneeded(Lmdb* s, StoreBatch* b) noexcept nogil
# After the last operation of a batch: its bodies that no envelope needs go.
