# cython: language_level=3
"""Contract of the start of a mailbox store (mailbox/replay.pyx): the index from the log."""
from wa._fastpath.mailbox.lmdb_c cimport MDB_txn
from wa._fastpath.mailbox.log cimport Lmdb

cdef int replay(Lmdb* s, MDB_txn* t) noexcept nogil
# Builds s.index and everything else that follows from the log.  Nobody else may use s meanwhile.  0, errno or MDB_*.
