"""Where is my message: the recorded stages of an envelope tell its story, in order, over workers."""

import resource
from pathlib import Path

import pytest

from tests.integration.rig import Rig, running
from wa.errors import LocalError
from wa.runtime import trace
from wa.wire.frames import Accepted, Ack, Deliver, Delivered, Refused, Send

A, B = 15551230001 << 8 | 1, 15551230002 << 8 | 1


def story(path: Path, envelope_id: int) -> list[str]:
    return [f"{step.stage} {step.detail}".strip() for step in trace.steps(path, envelope_id)]


@pytest.mark.parametrize("workers", [1, 3])
def test_the_story_of_messages(tmp_path: Path, workers: int) -> None:
    rig = Rig(tmp_path, workers)
    rig.add_device(A >> 8)
    rig.add_device(B >> 8)
    with running(rig):
        alice = rig.phone(A)
        alice.send(Send(1, B, 1, b"secret words"))
        alice.expect(Accepted)
        bob = rig.phone(B)
        bob.expect(Deliver)
        bob.send(Ack(1))
        alice.expect(Delivered)
        alice.send(Send(1, B, 2, b"x"))
        bob.expect(Deliver)
        bob.send(Ack(2))
        alice.expect(Delivered)
        alice.send(Send(9, B, 3, b"x"))
        alice.expect(Refused)
    queued = [
        "received",
        "device offline or behind, going to disk",
        "custody: on disk, fsync done",
        "sender told accepted",
        "sent to the device from its mailbox",
        "acknowledged by the device",
        "sender told delivered",
    ]
    live = ["received", "sent to the device", "acknowledged by the device", "sender told delivered"]
    assert [line for line in story(tmp_path, 1) if "worker" not in line] == queued
    assert [line for line in story(tmp_path, 2) if "worker" not in line] == live
    assert story(tmp_path, 3) == ["received", "refused kind_invalid"]
    assert any("worker" in line for line in story(tmp_path, 1)) == (workers > 1)
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.glob("*.ring"))


def test_the_ring_keeps_the_newest(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.add_device(A >> 8)
    with running(rig):
        alice = rig.phone(A)
        for i in range(40_000):
            alice.send(Send(9, B, i, b""))
            if i % 500 == 499:
                alice.collect(500, Refused)
    found = trace.steps(tmp_path)
    assert len(found) == trace.RECORDS_DEFAULT
    assert found[-1].id == 39_999 and found[0].id == 40_000 - trace.RECORDS_DEFAULT // 2


def test_a_ring_without_room_is_none_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands in for the full disk: it fails the same write."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            trace.create_ring(tmp_path, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_without_rings_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="--trace"):
        trace.steps(tmp_path)
