"""The owner of an account: published vectors, and the C twin says the same."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import ids, limits
from wa._fastpath.base import shards as c
from wa.routing.shards import owners_of, shard_of, splitmix64, worker_of, worker_of_number

U64 = st.integers(0, 2**64 - 1)
WORKERS = st.integers(1, limits.WORKERS_MAX)


def test_splitmix64_gives_the_published_outputs() -> None:
    assert splitmix64(0) == 0xE220A8397B1DCDAF
    assert splitmix64(1234567) == 6457827717110365317


@pytest.mark.parametrize(
    ("number", "shard"),
    [(0, 431), (1, 193), (15551230001, 788), (4915112345678, 484), (999999999999999, 291)],
)
def test_documented_vectors(number: int, shard: int) -> None:
    assert shard_of(number) == c.c_shard_of(number) == shard


@given(U64, WORKERS)
def test_c_and_python_agree(value: int, workers: int) -> None:
    assert c.c_shard_of(value) == shard_of(value)
    assert owners_of(workers)[c.c_shard_of(value)] == worker_of_number(value, workers) < workers


@given(st.integers(1, ids.NUMBER_MAX), st.integers(0, ids.DEVICE_MAX), WORKERS)
def test_every_device_has_its_account_s_owner(number: int, device: int, workers: int) -> None:
    assert worker_of(ids.address_of(number, device), workers) == worker_of_number(number, workers)


def test_consecutive_numbers_spread_evenly() -> None:
    load = Counter(worker_of_number(491_510_000_000 + i, 64) for i in range(64_000))
    assert len(load) == 64
    assert max(load.values()) < 1.25 * 1_000
