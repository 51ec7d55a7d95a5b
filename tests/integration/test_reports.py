"""Rules 4 and 10: what ends undelivered is told to its sender, for certain; what gives way in a full mailbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.rig import Rig, running, until
from wa._fastpath.mailbox.contract import Op, What
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.errors import Code
from wa.wire.frames import Accepted, Ack, AckRange, Deliver, Refused, Send, StoredReceipt
from wa.wire.methods import Kind

ALICE, BOB, CAROL = 15551230001, 15551230002, 15551230003
A, B, C = ALICE << 8 | 1, BOB << 8 | 1, CAROL << 8 | 1
REFUSED = 0x23


@pytest.fixture(params=[1, 3])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, request.param)
    for number in (ALICE, BOB, CAROL):
        rig.add_device(number)
    yield rig
    rig.stop()


def test_expiry_is_told_until_the_sender_has_acknowledged_it(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    alice.send(Send(1, B, 1, b"x", ttl_s=1), Send(1, B, 2, b"stays"))
    alice.collect(2, Accepted)
    assert alice.expect(StoredReceipt) == StoredReceipt(1, REFUSED, B, 1, Code.EXPIRED)
    alice.close()
    alice = rig.phone(A)
    report = alice.expect(StoredReceipt)
    assert (report.recipient, report.id, report.code) == (B, 1, Code.EXPIRED)
    alice.send(Ack(report.seq))
    alice.ping()
    alice.close()
    assert rig.phone(A).quiet(0.1)
    bob = rig.phone(B)
    assert bob.ready.queued == 1
    assert bob.expect(Deliver).id == 2


def test_expiry_waits_for_a_sender_who_is_away_and_for_a_restart(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    alice.send(Send(1, B, 1, b"x", ttl_s=1))
    alice.expect(Accepted)
    alice.close()
    until(lambda: rig.stat("expired") == 1)
    rig.stop()
    rig.start()
    alice = rig.phone(A)
    assert alice.expect(StoredReceipt) == StoredReceipt(1, REFUSED, B, 1, Code.EXPIRED)


def test_no_worker_keeps_a_report_that_the_senders_worker_has(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    for number in range(200):
        alice.send(Send(1, B if number % 2 else C, number, b"x", ttl_s=1))
    alice.collect(200, Accepted)
    ids = set()
    while ids != set(range(200)):  # one that is acknowledged may come again before its deletion is on disk
        report = alice.expect(StoredReceipt)
        ids.add(report.id)
        alice.send(Ack(report.seq))
    until(lambda: not any(store.receipt_census() for store in rig.stores))


def test_nobody_is_told_of_the_envelopes_of_a_removed_sender(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    alice.send(Send(1, B, 1, b"x", ttl_s=1))
    alice.expect(Accepted)
    owner = rig.doors[[loop.is_connected(A) for loop in rig.loops].index(True)]
    owner.asked.append(lambda: owner.loop.remove_device(A, 11))
    owner.loop.wake()
    until(lambda: rig.stat("expired") == 1)
    until(lambda: not any(store.receipt_census() for store in rig.stores))


def full(tmp_path: Path, **overrides: int) -> Rig:
    rig = Rig(tmp_path, 1, mailbox_envelopes_max=3, **overrides)
    for number in (ALICE, BOB):
        rig.add_device(number)
    return rig


def test_at_the_cap_status_gives_way_and_its_sender_is_told(tmp_path: Path) -> None:
    with running(full(tmp_path)) as rig:
        alice = rig.phone(A)
        alice.send(Send(Kind.TEXT, B, 1, b"x"), Send(Kind.STATUS, B, 2, b"x"), Send(Kind.STATUS, B, 3, b"x"))
        alice.collect(3, Accepted)
        alice.send(Send(Kind.TEXT, B, 4, b"x"))
        dropped, accepted = sorted(alice.collect(2, (Accepted, StoredReceipt)), key=lambda frame: frame.id)
        assert (dropped.id, dropped.level, dropped.code) == (2, REFUSED, Code.DROPPED)
        assert accepted == Accepted(B, 4)
        alice.send(Ack(dropped.seq), Send(Kind.STATUS, B, 5, b"newer"))
        dropped, accepted = sorted(alice.collect(2, (Accepted, StoredReceipt)), key=lambda frame: frame.id)
        assert (dropped.id, accepted.id) == (3, 5)
        alice.send(Ack(dropped.seq), Send(Kind.TEXT, B, 6, b"x"))
        alice.collect(2, (Accepted, StoredReceipt))
        alice.send(Send(Kind.CALL, B, 7, b"x"))
        assert alice.expect(Refused) == Refused(B, 7, Code.MAILBOX_FULL)
        assert [frame.id for frame in rig.phone(B).collect(3, Deliver)] == [1, 4, 6]


def test_at_the_cap_what_has_expired_goes_first(tmp_path: Path) -> None:
    with running(full(tmp_path)) as rig:
        alice = rig.phone(A)
        alice.send(*(Send(Kind.TEXT, B, number, b"x", ttl_s=1 if number == 2 else None) for number in (1, 2, 3)))
        alice.collect(3, Accepted)
        until(lambda: rig.stat("expired") == 1)  # by the sweep, or by the next envelope
        alice.send(Send(Kind.TEXT, B, 4, b"x"))
        report, accepted = sorted(alice.collect(2, (Accepted, StoredReceipt)), key=lambda frame: frame.id)
        assert (report.id, report.code, accepted.id) == (2, Code.EXPIRED, 4)


def test_prune_drops_the_lowest_priority_oldest_first_but_never_above_the_newcomer(tmp_path: Path) -> None:
    with running(full(tmp_path, overflow_prune=1)) as rig:
        alice = rig.phone(A)
        alice.send(Send(Kind.CALL, B, 1, b"x"), Send(Kind.TEXT, B, 2, b"x"), Send(Kind.TEXT, B, 3, b"x"))
        alice.collect(3, Accepted)
        for newcomer, victim in ((4, 2), (5, 3)):
            alice.send(Send(Kind.VOICE, B, newcomer, b"x"))
            dropped, accepted = sorted(alice.collect(2, (Accepted, StoredReceipt)), key=lambda frame: frame.id)
            assert (dropped.id, dropped.code, accepted.id) == (victim, Code.DROPPED, newcomer)
        alice.send(AckRange(1, 2), Send(Kind.TEXT, B, 6, b"x"))
        assert alice.expect(Refused) == Refused(B, 6, Code.MAILBOX_FULL)
        assert rig.stat("dropped") == 2
        bob = rig.phone(B)
        assert [frame.id for frame in bob.collect(3, Deliver)] == [1, 4, 5]


def test_a_burst_at_the_cap_never_goes_over_it(tmp_path: Path) -> None:
    with running(full(tmp_path, overflow_prune=1)) as rig:
        alice = rig.phone(A)
        alice.send(*(Send(Kind.TEXT, B, number, b"x") for number in range(40)))
        told = {}
        while len(told) < 40 - 3:
            frame = alice.next()
            if isinstance(frame, StoredReceipt):
                assert frame.code == Code.DROPPED
                told[frame.id] = "dropped"
                alice.send(Ack(frame.seq))
            elif isinstance(frame, Refused):
                assert frame.code == Code.MAILBOX_FULL
                told[frame.id] = "refused"
            assert len(rig.stores[0].census()) <= 3
        left = sorted(set(range(40)) - told.keys())
        assert sorted(frame.id for frame in rig.phone(B).collect(3, Deliver)) == left


def test_dropping_what_is_in_flight_is_not_done(tmp_path: Path) -> None:
    with running(full(tmp_path, overflow_prune=1)) as rig:
        alice, bob = rig.phone(A), rig.phone(B)
        alice.send(*(Send(Kind.STATUS, B, number, b"x") for number in (1, 2, 3)))
        bob.collect(3, Deliver)
        alice.collect(3, Accepted)
        alice.send(Send(Kind.TEXT, B, 4, b"x"))
        assert alice.expect(Refused) == Refused(B, 4, Code.MAILBOX_FULL)


@pytest.mark.parametrize("policy", [0, 1])
def test_the_same_envelope_again_is_not_its_own_victim(tmp_path: Path, policy: int) -> None:
    with running(full(tmp_path, overflow_prune=policy)) as rig:
        alice = rig.phone(A)
        alice.send(*(Send(Kind.STATUS, B, number, b"x") for number in (1, 2, 3)))
        alice.collect(3, Accepted)
        alice.send(Send(Kind.STATUS, B, 1, b"x"))
        assert alice.expect(Refused) == Refused(B, 1, Code.MAILBOX_FULL)
        assert len(rig.stores[0].census()) == 3


def test_what_has_expired_is_not_delivered_while_the_sweep_is_behind(tmp_path: Path) -> None:
    """A sweep takes 4,096 envelopes a second, in the order of their recipients."""
    rig = Rig(tmp_path, 1)
    absent = [rig.add_device(BOB + number) for number in range(1, 6)]
    last = rig.add_device(BOB + 99)
    store = LmdbMailStore(tmp_path / "mail-0")
    store.start()
    for recipient in (*absent, last):
        store.apply([Op(What.PUT, recipient, A, n, n + 1, 10, Kind.TEXT, 0, 1, 2, b"too late") for n in range(900)])
    store.close()
    with running(rig):
        bob = rig.phone(last)
        assert bob.ready.queued > 0
        assert bob.quiet(0.5)
        until(lambda: rig.stat("expired") == 6 * 900)
        assert bob.quiet(0.1)
