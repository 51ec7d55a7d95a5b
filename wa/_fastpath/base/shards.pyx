# cython: language_level=3
# COLD: only the face for tests; the inline functions themselves are in base/shards.pxd.
"""Python face of base/shards.pxd, for the test that it and wa/routing/shards.py say the same."""
from libc.stdint cimport uint64_t

assert SHARDS & (SHARDS - 1) == 0     # a power of two


def c_shard_of(uint64_t number) -> int:
    return shard_of(number)
