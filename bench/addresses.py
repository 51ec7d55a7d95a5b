"""The devices of a run: numbers, owners, keys, and the source addresses they connect from.

Device i is (BASE + i, device 1).  Its Noise key is key i modulo KEYS_N of a pool: the server does the same work for a
shared key, and two million different ones would only take the generator's time.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pysodium

from wa import limits

U64 = npt.NDArray[np.uint64]
U32 = npt.NDArray[np.uint32]
U16 = npt.NDArray[np.uint16]

BASE = 99_000_000_000_000  # outside every country's numbering plan
DEVICE = 1
KEYS_N = 1_024
FIRST_SOURCE = 0x7F000002  # 127.0.0.2


def addresses(first: int, count: int) -> U64:
    """Of devices first..first+count-1."""
    numbers = np.arange(BASE + first, BASE + first + count, dtype=np.uint64)
    return (numbers << np.uint64(8)) | np.uint64(DEVICE)


def key_index(device_addresses: U64) -> U16:
    return (((device_addresses >> np.uint64(8)) - np.uint64(BASE)) % np.uint64(KEYS_N)).astype(np.uint16)


def owners(device_addresses: U64, workers: int) -> U32:
    """wa.routing.shards.worker_of, for many at once."""
    x = (device_addresses >> np.uint64(8)) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return ((x & np.uint64(limits.SHARDS - 1)) % np.uint64(workers)).astype(np.uint32)


@dataclass(frozen=True)
class KeyPool:
    """private and public keys, 32 bytes each, one after the other."""

    private: bytes
    public: bytes

    def public_of(self, index: int) -> bytes:
        return self.public[32 * index : 32 * index + 32]


def key_pool(count: int = KEYS_N) -> KeyPool:
    """The same pool in every run: nothing here is secret."""
    secrets = [hashlib.sha256(b"bench device key %d" % i).digest() for i in range(count)]
    publics = [pysodium.crypto_scalarmult_curve25519_base(secret) for secret in secrets]
    return KeyPool(b"".join(secrets), b"".join(publics))


class Devices:
    """Hands out unused devices, also by owner."""

    def __init__(self, count: int, workers: int) -> None:
        self.all = addresses(0, count)
        self.workers = workers
        self._owner = owners(self.all, workers)
        self._taken = np.zeros(count, dtype=bool)

    def take(self, count: int, worker: int | None = None) -> U64:
        """`count` of them, of one worker if it is named.  Raises ValueError when there are not so many left."""
        free = ~self._taken if worker is None else ~self._taken & (self._owner == worker)
        chosen = np.flatnonzero(free)[:count]
        if len(chosen) < count:
            raise ValueError(f"{count} devices wanted, {len(chosen)} left: plan for more")
        self._taken[chosen] = True
        return self.all[chosen]


def sources(count: int) -> Iterator[int]:
    """`count` source addresses 127.0.0.2, 127.0.0.3, …"""
    return iter(range(FIRST_SOURCE, FIRST_SOURCE + count))
