"""Which shard an account is in, and which worker owns a shard.

    shard  = splitmix64(number) mod SHARDS        fixed for the life of a data directory
    worker = owners[shard]                        a table, so that a shard can move; as a data directory is laid out,
                                                  shard mod workers (storage.layout moves data with their number)

The mixing is needed: phone numbers are not uniform (a country's numbers share their leading digits).  All devices of an
account have the account's owner.  `wa/_fastpath/base/shards.pxd` is the same in C.

Test vectors (number: shard): 0: 431, 1: 193, 15551230001: 788, 4915112345678: 484, 999999999999999: 291.

Source of the mixer: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), with the
constants of Vigna's splitmix64.
"""

from wa import limits

_MASK = (1 << 64) - 1


def splitmix64(x: int) -> int:
    """The first output of splitmix64 seeded with x (u64)."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _MASK
    return x ^ x >> 31


def shard_of(number: int) -> int:
    """0..SHARDS-1.  number: a phone number, or an address without its lowest eight bits (u64)."""
    return splitmix64(number) % limits.SHARDS


def owners_of(workers: int) -> tuple[int, ...]:
    """The table of owners as a data directory is laid out: the worker of each shard, SHARDS of them."""
    return tuple(shard % workers for shard in range(limits.SHARDS))


def worker_of_number(number: int, workers: int) -> int:
    """The worker (0..workers-1) that owns the account `number`."""
    return shard_of(number) % workers


def worker_of(address: int, workers: int) -> int:
    """The worker that owns this address; the device does not matter.

    An address and a bare number cannot be told apart by value: for a number take `worker_of_number`.
    """
    return worker_of_number(address >> 8, workers)
