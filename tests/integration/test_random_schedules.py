"""Random schedules of sends, acknowledgements, cuts, reconnects and restarts against real loops; one checker.

What must hold afterwards: every envelope told accepted was delivered; nothing was shown twice (devices deduplicate, as
rule 3 says); from one sender, messages of one priority were first seen in the order they were sent; receipts only rise;
nothing is left in any mailbox.  A failing run prints its seed.
"""

import random
from collections import defaultdict
from pathlib import Path

import pytest

from tests.integration.rig import Closed, Phone, Rig
from wa.wire.frames import Accepted, Ack, Deliver, Delivered, Read, Refused, Send, StoredReceipt

NUMBERS = [15551230001 + i for i in range(5)]
LEVEL = {Accepted: 1, Delivered: 2, Read: 3}


class Device:
    """A person's device with a memory that survives connections."""

    def __init__(self, address: int) -> None:
        self.address = address
        self.phone: Phone | None = None
        self.outbox: dict[tuple[int, int], bytes] = {}  # (recipient, id) not answered yet, in order
        self.sent: dict[int, list[int]] = defaultdict(list)  # per recipient, in order
        self.level: dict[tuple[int, int], int] = {}
        self.seen: dict[int, list[int]] = defaultdict(list)  # per sender, in order of first sight
        self.unacked: list[int] = []
        self.next_id = 1


class World:
    def __init__(self, rig: Rig, seed: int) -> None:
        self.rig = rig
        self.random = random.Random(seed)
        self.devices = [Device(rig.add_device(number)) for number in NUMBERS]
        rig.start()

    def connect(self, d: Device) -> None:
        if d.phone is None:
            d.unacked = []
            d.phone = self.rig.phone(d.address)
            for (recipient, id_), body in d.outbox.items():
                d.phone.send(Send(1, recipient, id_, body))

    def cut(self, d: Device) -> None:
        if d.phone is not None:
            d.phone.close()
            d.phone = None

    def send(self, d: Device) -> None:
        if d.phone is None:
            return
        to = self.random.choice([other for other in self.devices if other is not d])
        body = self.random.randbytes(self.random.choice([0, 10, 100, 3000]))
        if len(d.outbox) >= 60:
            return
        d.outbox[to.address, d.next_id] = body
        d.sent[to.address].append(d.next_id)
        d.phone.send(Send(1, to.address, d.next_id, body))
        if self.random.random() < 0.1:
            d.phone.send(Send(1, to.address, d.next_id, body))
        d.next_id += 1

    def read(self, d: Device, wait: float = 0.0005) -> bool:
        """Takes what has come; True when there was something."""
        if d.phone is None:
            return False
        try:
            frame = d.phone.next(wait)
        except TimeoutError:
            return False
        except Closed:
            self.cut(d)
            return True
        if isinstance(frame, Deliver):
            d.unacked.append(frame.seq)
            if frame.id not in d.seen[frame.sender]:
                d.seen[frame.sender].append(frame.id)
        elif isinstance(frame, StoredReceipt):
            d.phone.send(Ack(frame.seq))
            self.receipt(d, frame.recipient, frame.id, frame.level - 0x1F)
        elif isinstance(frame, Refused):
            raise AssertionError(frame)
        else:
            self.receipt(d, frame.recipient, frame.id, LEVEL[type(frame)])
        return True

    def receipt(self, d: Device, recipient: int, id_: int, level: int) -> None:
        d.outbox.pop((recipient, id_), None)
        d.level[recipient, id_] = max(level, d.level.get((recipient, id_), 0))

    def ack(self, d: Device) -> None:
        if d.phone is not None and d.unacked:
            seq = d.unacked.pop(self.random.randrange(len(d.unacked)))
            d.phone.send(Ack(seq))

    def step(self) -> None:
        d = self.random.choice(self.devices)
        action = self.random.choices(
            [self.send, self.read, self.ack, self.connect, self.cut], [30, 40, 25, 8, 3]
        )[0]
        try:
            action(d)
        except (ConnectionError, Closed):
            self.cut(d)

    def restart(self) -> None:
        for d in self.devices:
            self.cut(d)
        self.rig.stop()
        self.rig.start()

    def settle(self) -> None:
        for d in self.devices:
            self.connect(d)
        busy = True
        while busy:
            busy = False
            for d in self.devices:
                while self.read(d, 0.02):
                    busy = True
                    while d.unacked:
                        self.ack(d)
            busy = busy or any(d.outbox for d in self.devices)

    def check(self) -> None:
        for d in self.devices:
            for other in self.devices:
                assert other.seen[d.address] == d.sent[other.address], "lost, doubled or out of order"
            assert d.outbox == {}
        self.restart()
        for d in self.devices:
            self.connect(d)
            assert d.phone is not None and d.phone.ready.queued == 0


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("seed", range(6))
def test_nothing_is_lost_doubled_or_reordered(tmp_path: Path, workers: int, seed: int) -> None:
    rig = Rig(tmp_path, workers, linger_ms=5, delivery_window_max=8)
    world = World(rig, seed)
    try:
        for d in world.devices:
            world.connect(d)
        for i in range(1500):
            world.step()
            if i % 600 == 599:
                world.restart()
        world.settle()
        world.check()
    finally:
        rig.stop()
