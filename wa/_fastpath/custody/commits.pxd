# cython: language_level=3
"""Contract of finished commits: what the store did is told, counted and forgotten."""
from wa._fastpath.state.core cimport Core

cdef void take_commits(Core* w) noexcept nogil                            # every batch that is done; every turn
