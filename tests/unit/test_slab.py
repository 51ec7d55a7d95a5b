"""The buffer slab: classes, bounds and reuse, and every buffer given back."""

import gc
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from wa._fastpath.base.slab import SlabFace
from wa.errors import LocalError

SLAB_BYTES_MAX = 131_072
MIB = 1_048_576


def size_class(n: int) -> int:
    return max(64, 1 << (n - 1).bit_length()) if n > 0 else 64


@given(st.integers(0, SLAB_BYTES_MAX))
def test_capacity_is_the_smallest_class_that_fits(n: int) -> None:
    slab = SlabFace(MIB, 0)
    name = slab.take(n)
    assert name is not None
    assert slab.capacity(name) == size_class(n)


@pytest.mark.parametrize("n", [SLAB_BYTES_MAX + 1, 2**32, 2**40])
def test_over_the_largest_class_is_refused(n: int) -> None:
    assert SlabFace(2**50, 0).take(n) is None


def test_limit_counts_capacity_handed_out() -> None:
    slab = SlabFace(192, 1024)
    first = slab.take(100)  # a class of 128
    assert first is not None
    assert slab.take(65) is None
    assert slab.take(64) is not None
    assert slab.take(1) is None
    slab.give(first)
    assert slab.take(1) is not None  # what is cached does not count


def test_a_given_buffer_is_the_next_one_taken_of_its_class() -> None:
    slab = SlabFace(MIB, MIB)
    name = slab.take(1000)
    assert name is not None
    address = slab.address(name)
    slab.give(name)
    assert slab.cached_bytes == 1024
    other_class = slab.take(64)
    again = slab.take(1024)
    assert other_class is not None
    assert again is not None
    assert slab.address(again) == address
    assert slab.address(other_class) != address
    assert slab.cached_bytes == 0


def test_trim_frees_the_largest_first() -> None:
    slab = SlabFace(MIB, MIB)
    names = [slab.take(n) for n in (64, 128, 4096, 4096)]
    for name in names:
        assert name is not None
        slab.give(name)
    assert slab.cached_bytes == 64 + 128 + 8192
    slab.trim(5000)
    assert slab.cached_bytes == 64 + 128 + 4096
    slab.trim(200)
    assert slab.cached_bytes == 64 + 128
    slab.trim(0)
    assert slab.cached_bytes == 0


def test_trim_does_so_much_at_a_time() -> None:
    slab = SlabFace(MIB, MIB)
    names = [slab.take(64) for _ in range(10)]
    for name in names:
        assert name is not None
        slab.give(name)
    slab.trim(0, 7)
    assert slab.cached_bytes == 3 * 64


def test_giving_nothing_is_allowed() -> None:
    slab = SlabFace(MIB, MIB)
    slab.give_null()
    assert (slab.takes, slab.gives, slab.used_bytes, slab.cached_bytes) == (0, 0, 0, 0)


def test_the_face_refuses_to_give_twice() -> None:
    slab = SlabFace(MIB, MIB)
    name = slab.take(1)
    assert name is not None
    slab.give(name)
    with pytest.raises(LocalError):
        slab.give(name)


def test_a_face_in_a_reference_cycle_frees_its_live_buffers() -> None:
    """Collection may clear attributes before __dealloc__; an error there fails the test as a warning."""
    slab = SlabFace(MIB, MIB)
    assert slab.take(100) is not None
    cycle: list[object] = [slab]
    cycle.append(cycle)
    del slab, cycle
    gc.collect()


class SlabMachine(RuleBasedStateMachine):
    """Against a dictionary: what is live, what may be cached, what must be refused."""

    LIMIT = 300_000
    CACHED_MAX = 150_000
    buffers: Bundle[int] = Bundle("buffers")

    def __init__(self) -> None:
        super().__init__()
        self.slab = SlabFace(self.LIMIT, self.CACHED_MAX)
        self.live: dict[int, int] = {}
        self.cached = 0

    @rule(target=buffers, n=st.one_of(st.integers(0, 300), st.integers(0, SLAB_BYTES_MAX)))
    def take(self, n: int) -> int:
        cached = self.slab.cached_bytes
        name = self.slab.take(n)
        if sum(self.live.values()) + size_class(n) > self.LIMIT:
            assert name is None
            return 0
        assert name is not None
        assert self.slab.cached_bytes in (cached, cached - size_class(n))
        self.live[name] = size_class(n)
        return name

    @rule(name=consumes(buffers))
    def give(self, name: int) -> None:
        if name == 0:
            return
        cached = self.slab.cached_bytes
        capacity = self.live.pop(name)
        self.slab.give(name)
        kept = cached + capacity <= self.CACHED_MAX
        assert self.slab.cached_bytes == cached + (capacity if kept else 0)

    @rule(keep=st.integers(0, CACHED_MAX))
    def trim(self, keep: int) -> None:
        self.slab.trim(keep)
        assert self.slab.cached_bytes <= keep

    @precondition(lambda self: len(self.live) > 1)
    @rule()
    def live_buffers_do_not_overlap(self) -> None:
        spans = sorted((self.slab.address(name), capacity) for name, capacity in self.live.items())
        for (start, capacity), (following, _) in pairwise(spans):
            assert start + capacity <= following

    @invariant()
    def counters_agree(self) -> None:
        assert self.slab.used_bytes == sum(self.live.values()) <= self.LIMIT
        assert self.slab.takes - self.slab.gives == len(self.live)
        assert self.slab.cached_bytes <= self.CACHED_MAX


TestSlabMachine = SlabMachine.TestCase
