"""Each rule of the ledger fails when, and only when, it should: a checker that cannot fail checks nothing."""

from dataclasses import dataclass

import pytest

from sim.history import History
from sim.ledger import ACCEPTED, DELIVERED, READ, REFUSED, Clock, Key, Ledger
from wa.errors import Code
from wa.wire.methods import Kind

A, B = 15551230001 << 8 | 1, 15551230002 << 8 | 1


@dataclass
class Hand(Clock):
    now_ns: int = 0
    wall_ms: int = 1_000_000
    wall_max_s: int = 1_000
    stepped_back_s: int = 0


class Desk:
    """A ledger and what the tests say to it."""

    def __init__(self) -> None:
        self.clock = Hand()
        self.excuses = False
        self.ledger = Ledger(History(), self.clock, False, lambda: self.excuses, lambda: self.excuses)

    def sent(self, id_: int, kind: Kind = Kind.TEXT, ttl_s: int = 0) -> Key:
        key = (A, B, id_)
        self.ledger.sent(key, kind, ttl_s, id_)
        return key

    def delivered(self, key: Key) -> None:
        self.ledger.committed(key)
        self.ledger.shown(key)

    @property
    def rules(self) -> list[str]:
        return [violation.rule for violation in self.ledger.violations]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_accepted_needs_a_disk_or_a_device(desk: Desk) -> None:
    first, second, third = desk.sent(1), desk.sent(2), desk.sent(3)
    desk.ledger.on_disk(first)
    desk.ledger.committed(second)
    for key in (first, second):
        desk.ledger.told(key, ACCEPTED, 0, False)
    assert desk.rules == []
    desk.ledger.told(third, ACCEPTED, 0, False)
    assert desk.rules == ["accepted"]


def test_delivered_needs_the_device(desk: Desk) -> None:
    key = desk.sent(1)
    desk.ledger.on_disk(key)
    desk.ledger.told(key, DELIVERED, 0, False)
    assert desk.rules == ["delivered"]


def test_read_needs_a_reader(desk: Desk) -> None:
    key = desk.sent(1)
    desk.delivered(key)
    desk.ledger.told(key, READ, 0, False)
    assert desk.rules == ["read"]
    desk.ledger.marked_read(key)
    desk.ledger.told(key, READ, 0, False)
    assert desk.rules == ["read"]


def test_receipts_rise(desk: Desk) -> None:
    key = desk.sent(1)
    desk.delivered(key)
    desk.ledger.told(key, DELIVERED, 0, False)
    desk.excuses = True
    desk.ledger.told(key, ACCEPTED, 0, False)
    assert desk.rules == []
    desk.excuses = False
    desk.ledger.told(key, ACCEPTED, 0, False)
    assert desk.rules == ["rising"]


def test_shown_once_and_unaltered(desk: Desk) -> None:
    key = desk.sent(1)
    desk.ledger.arrived(key, Kind.TEXT, True, "")
    desk.delivered(key)
    assert desk.rules == []
    desk.ledger.arrived(key, Kind.TEXT, False, "")
    desk.ledger.arrived(key, Kind.VOICE, True, "")
    desk.ledger.arrived((A, B, 2), Kind.TEXT, True, "")
    desk.ledger.shown(key)
    assert desk.rules == ["altered"] * 3 + ["twice"]


def test_order_within_one_priority(desk: Desk) -> None:
    first, call, second = desk.sent(1), desk.sent(2, Kind.CALL), desk.sent(3)
    for key in (call, second, first):
        desk.delivered(key)
    assert desk.rules == ["order"]


def test_order_is_lost_by_a_refusal(desk: Desk) -> None:
    first, second = desk.sent(1), desk.sent(2)
    desk.ledger.told(first, REFUSED, Code.TRY_LATER, False)
    for key in (second, first):
        desk.delivered(key)
    assert desk.rules == []


def test_refusals_need_a_reason(desk: Desk) -> None:
    key, short = desk.sent(1), desk.sent(2, ttl_s=5)
    desk.clock.wall_max_s += 6
    desk.ledger.told(short, REFUSED, Code.EXPIRED, False)
    desk.ledger.removed.add(B)
    desk.ledger.told(desk.sent(3), REFUSED, Code.ADDRESS_UNKNOWN, False)
    desk.ledger.told(desk.sent(4, kind=Kind.STATUS), REFUSED, Code.DROPPED, False)
    desk.ledger.prunes = True
    desk.ledger.told(desk.sent(5), REFUSED, Code.DROPPED, False)
    desk.ledger.prunes = False
    assert desk.rules == []
    desk.ledger.removed.clear()
    for code in (Code.EXPIRED, Code.ADDRESS_UNKNOWN, Code.DROPPED, Code.TTL_INVALID):
        desk.ledger.told(key, REFUSED, code, False)
    desk.ledger.told((A, B, 9), ACCEPTED, 0, False)
    assert desk.rules == ["refused"] * 5


def test_not_waiting_means_delivered_or_told_how_it_ended(desk: Desk) -> None:
    key = desk.sent(1)
    desk.ledger.not_waiting(key)
    assert desk.rules == ["status"]
    desk.ledger.committed(key)
    desk.ledger.not_waiting(key)
    assert desk.rules == ["status"]


def test_the_end(desk: Desk) -> None:
    lost, waiting, believing, fine, expired = (desk.sent(i, ttl_s=5 * (i == 4)) for i in range(5))
    for key in (lost, believing, fine, expired):
        desk.ledger.on_disk(key)
        desk.ledger.told(key, ACCEPTED, 0, False)
    desk.delivered(believing)
    desk.delivered(fine)
    desk.clock.wall_max_s += 6
    desk.ledger.finish({waiting: "unanswered", believing: "accepted", fine: "delivered"})
    assert desk.rules == ["lost", "unresolved", "unresolved", "lost"]  # an expiry has to be told


def test_the_end_excuses_what_nobody_could_deliver(desk: Desk) -> None:
    damaged, gone = desk.sent(1), desk.sent(2)
    for key in (damaged, gone):
        desk.ledger.on_disk(key)
        desk.ledger.told(key, ACCEPTED, 0, False)
    desk.ledger.envelopes[damaged].damaged = True
    desk.ledger.envelopes[gone].gone = True
    desk.ledger.finish({})
    assert desk.rules == []
