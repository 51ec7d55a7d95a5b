"""After a burst a worker gives memory back, within a second or two, and goes on as before."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.rig import Phone, Rig, until
from wa.routing.shards import worker_of_number
from wa.wire.frames import Accepted, AckRange, Deliver, Delivered, Send

ALICE = 15551230001
BOB = next(n for n in range(ALICE + 1, ALICE + 1000) if worker_of_number(n, 2) != worker_of_number(ALICE, 2))
A, B = ALICE << 8 | 1, BOB << 8 | 1
BURST_BYTES_MIN = 65_536  # of free buffers that a burst leaves
BODY = bytes(4_000)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 2, sync=False, linger_ms=2_000)
    for number in (ALICE, BOB):
        rig.add_device(number)
    rig.start()
    yield rig
    rig.stop()


def burst(alice: Phone, bob: Phone, first: int) -> None:
    """64 bodies are in custody and in buffers at once."""
    alice.send(*[Send(1, B, first + k, BODY) for k in range(16)])
    for k in range(16, 64):
        alice.send(Send(1, B, first + k, BODY))
    bob.collect(64, Deliver)
    bob.send(AckRange(first, 64))
    told = [alice.next() for _ in range(64)]
    assert {frame.id for frame in told if isinstance(frame, Delivered)} == set(range(first, first + 64))
    assert not any(isinstance(frame, Accepted) for frame in told)


def test_memory_goes_back_and_the_next_burst_finds_new(rig: Rig) -> None:
    alice, bob = rig.phone(A), rig.phone(B)
    burst(alice, bob, 1)
    seen = max(loop.stats()["slab_cached_bytes"] for loop in rig.loops)
    assert seen > BURST_BYTES_MIN
    for first in (65, 129, 193):
        until(lambda: all(loop.stats()["slab_cached_bytes"] == 0 for loop in rig.loops))
        assert rig.stat("slab_used_bytes") == 0
        assert rig.stat("custody_entries") == 0
        burst(alice, bob, first)
