"""Custody rule 12 in the loop: when a device that is not connected is woken, and how often."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.rig import OpenDoor, Phone, Rig, until
from wa._fastpath.loop.loop import Wake
from wa.errors import Code
from wa.routing.shards import worker_of
from wa.wire.frames import Accepted, Ack, AckRange, Deliver, Delivered, Request, Response, Send
from wa.wire.methods import Kind

ALICE, BOB = 15551230001, 15551230002
A, B, B2 = ALICE << 8 | 1, BOB << 8 | 1, BOB << 8 | 2


class Town:
    """Alice, and two devices of Bob at one worker: the second one tells when the worker's events are through."""

    def __init__(self, path: Path, workers: int, **overrides: int) -> None:
        self.rig = Rig(path, workers, **overrides)
        for number, device in ((ALICE, 1), (BOB, 1), (BOB, 2)):
            self.rig.add_device(number, device)
        self.rig.start()
        self.worker = worker_of(B, workers)
        self.alice, self.witness = self.rig.phone(A), self.rig.phone(B2)
        self.ids = iter(range(1, 1_000))

    @property
    def door(self) -> OpenDoor:
        return self.rig.doors[self.worker]

    def wakes(self) -> list[int]:
        """Whom Bob's worker has woken, once everything that was done before is through."""
        self.witness.send(Request(1, 1, b""))
        self.witness.expect(Response)
        return [event.address for event in self.door.events if isinstance(event, Wake)]

    def store(self, count: int = 1, kind: Kind = Kind.TEXT) -> None:
        """Alice sends to Bob's first device and hears that it is on disk."""
        self.alice.send(*(Send(kind, B, next(self.ids), b"x") for _ in range(count)))
        self.alice.collect(count, Accepted)

    def bob(self) -> Phone:
        return self.rig.phone(B)

    def leave(self, phone: Phone) -> None:
        phone.close()
        until(lambda: not self.rig.loops[self.worker].is_connected(B))

    def tell_loop(self, name: str, *args: Any) -> None:
        loop = self.rig.loops[self.worker]
        self.door.asked.append(lambda: getattr(loop, name)(*args))
        loop.wake()
        until(lambda: not self.door.asked)


@pytest.fixture(params=[1, 3])
def town(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Town]:
    town = Town(tmp_path, request.param)
    yield town
    town.rig.stop()


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Town]:
    """Deliveries are given up, and calls wake again, at once."""
    town = Town(tmp_path, 1, resend_after_ms=60, resends_max=1, linger_ms=10, call_wake_again_ms=0)
    yield town
    town.rig.stop()


def test_many_messages_wake_once_and_again_after_the_device_was_online(town: Town) -> None:
    town.store(20)
    assert town.wakes() == [B]
    town.store()
    assert town.wakes() == [B]
    bob = town.bob()
    for frame in bob.collect(21, Deliver):
        bob.send(Ack(frame.seq))
    town.alice.collect(21, Delivered)
    town.leave(bob)
    assert town.wakes() == [B]  # nothing waits for it
    town.store(3)
    assert town.wakes() == [B, B]
    assert town.rig.stat("wakes") == 2


def test_a_connected_device_is_not_woken(town: Town) -> None:
    bob = town.bob()
    town.store(80)  # over the window: some stay in the mailbox for now
    assert town.wakes() == []
    seen = 0
    while seen < 80:
        bob.send(AckRange(bob.expect(Deliver).seq, 1))
        seen += 1
    town.leave(bob)
    assert town.wakes() == []


def test_what_was_in_flight_when_the_device_left_wakes_it(town: Town) -> None:
    bob = town.bob()
    town.alice.send(Send(Kind.TEXT, B, 900, b"in flight"))
    bob.expect(Deliver)
    town.leave(bob)
    town.alice.expect(Accepted)
    assert town.wakes() == [B]
    town.store(5)
    assert town.wakes() == [B]


def test_what_it_did_not_come_to_fetch_wakes_it_again(town: Town) -> None:
    town.store(70)
    bob = town.bob()
    bob.expect(Deliver)
    town.leave(bob)
    assert town.wakes() == [B, B]


def test_a_device_that_connects_anew_is_not_woken(town: Town) -> None:
    first = town.bob()
    town.alice.send(Send(Kind.TEXT, B, 900, b"in flight"))
    first.expect(Deliver)
    second = town.bob()
    assert first.closed_with() == Code.REPLACED
    second.expect(Deliver)
    assert town.wakes() == []


def test_a_device_that_does_not_respond_is_woken(quick: Town) -> None:
    bob = quick.bob()
    quick.store(2)
    assert bob.closed_with() == Code.NOT_RESPONDING
    assert quick.wakes() == [B]


def test_a_call_wakes_again_when_the_last_wake_is_old_enough(quick: Town) -> None:
    quick.store(kind=Kind.TEXT)
    quick.store(kind=Kind.CALL)
    quick.store(kind=Kind.VIDEO_CALL)
    quick.store(kind=Kind.VOICE)
    assert quick.wakes() == [B, B, B]


def test_a_call_does_not_wake_again_at_once(town: Town) -> None:
    town.store(kind=Kind.CALL)
    town.store(3, kind=Kind.CALL)
    assert town.wakes() == [B]


def test_after_a_lost_wake_the_next_envelope_wakes_again(town: Town) -> None:
    town.store()
    town.tell_loop("wake_lost", B)
    town.tell_loop("wake_lost", A)
    town.tell_loop("wake_lost", 15551239999 << 8 | 1)  # nobody
    assert town.wakes() == [B]
    town.store(2)
    assert town.wakes() == [B, B]


def test_receipts_do_not_wake(town: Town) -> None:
    town.store()
    town.alice.close()
    until(lambda: not any(loop.is_connected(A) for loop in town.rig.loops))
    bob = town.bob()
    bob.send(Ack(bob.expect(Deliver).seq))
    until(lambda: town.rig.stat("receipts_stored") == 1)
    assert town.wakes() == [B]
    assert all(event.address == B for door in town.rig.doors for event in door.events if isinstance(event, Wake))
