"""Custody rules 1 to 6 and 8 (docs/semantics of delivery) on real loops, real sockets and a real mailbox."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.rig import Rig, running, until
from wa.errors import Code
from wa.routing.shards import worker_of
from wa.wire.frames import (
    Accepted,
    Ack,
    AckRange,
    Deliver,
    Delivered,
    MarkRead,
    Read,
    Refused,
    Send,
    StoredReceipt,
)

ALICE, BOB = 15551230001, 15551230002


@pytest.fixture(params=[1, 3])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, request.param)
    for number in (ALICE, BOB):
        rig.add_device(number)
    yield rig
    rig.stop()


A, B = ALICE << 8 | 1, BOB << 8 | 1


def test_the_two_live_on_different_workers() -> None:
    assert worker_of(A, 3) != worker_of(B, 3)


def test_acknowledged_inside_the_linger_window_is_never_written(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 7, b"hello"))
    assert bob.expect(Deliver) == Deliver(1, 1, A, 7, b"hello")
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    assert alice.quiet(0.15)
    assert rig.stat("linger_commits") == rig.stat("stored") == 0
    assert rig.stat("custody_entries") == 0


def test_accepted_once_it_is_on_disk_and_delivered_after_the_ack(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 7, b"hello"))
    bob.expect(Deliver)
    assert alice.expect(Accepted) == Accepted(B, 7)
    assert rig.stat("linger_commits") == 1
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    bob.close()
    assert rig.phone(B).ready.queued == 0


def test_a_late_duplicate_ack_means_nothing(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 1, b"one"), Send(1, B, 2, b"two"))
    bob.collect(2, Deliver)
    bob.send(Ack(1), Ack(1), AckRange(1, 2), AckRange(1, 2))
    assert alice.collect(2, Delivered) == [Delivered(B, 1), Delivered(B, 2)]
    bob.ping()
    assert alice.quiet(0.1)


def test_an_ack_of_something_never_sent_ends_the_connection(rig: Rig) -> None:
    rig.start()
    bob = rig.phone(B)
    bob.send(Ack(1))
    assert bob.closed_with() == Code.PROTOCOL_ERROR


def test_offline_messages_drain_by_priority_then_age(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    kinds = [8, 1, 2, 1, 5, 0, 6, 2]
    for i, kind in enumerate(kinds):
        alice.send(Send(kind, B, i, bytes([i])))
    assert {frame.id for frame in alice.collect(len(kinds), Accepted)} == set(range(len(kinds)))
    bob = rig.phone(B)
    assert bob.ready.queued == len(kinds)
    got = bob.collect(len(kinds), Deliver)
    assert [frame.id for frame in got] == [6, 4, 2, 7, 1, 3, 5, 0]
    assert [frame.body for frame in got] == [bytes([frame.id]) for frame in got]
    assert all(frame.accepted_at_s is not None for frame in got)
    bob.send(AckRange(1, len(kinds)))
    alice.collect(len(kinds), Delivered)
    bob.close()
    assert rig.phone(B).ready.queued == 0


def test_what_was_in_flight_on_a_cut_connection_comes_again(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(*(Send(1, B, i, b"x") for i in range(10)))
    bob.collect(10, Deliver)
    bob.send(Ack(3))
    assert alice.expect(Delivered) == Delivered(B, 2)
    bob.close()
    alice.collect(9, Accepted)
    bob = rig.phone(B)
    assert [frame.id for frame in bob.collect(9, Deliver)] == [0, 1, 3, 4, 5, 6, 7, 8, 9]
    bob.send(AckRange(1, 9))
    alice.collect(9, Delivered)


def test_the_same_envelope_again_is_delivered_once(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    twice = Send(1, B, 5, b"x")
    alice.send(twice, twice)
    bob.expect(Deliver)
    alice.expect(Accepted)
    alice.send(twice)  # on disk and in flight
    assert alice.expect(Accepted) == Accepted(B, 5)
    assert bob.quiet(0.1)
    bob.close()
    alice.send(twice)  # on disk, its device offline
    assert alice.expect(Accepted) == Accepted(B, 5)
    bob = rig.phone(B)
    assert bob.ready.queued == 1
    bob.expect(Deliver)
    bob.send(Ack(1))
    alice.expect(Delivered)
    assert bob.quiet(0.1)


def test_beyond_the_window_messages_wait_in_the_mailbox_and_keep_their_order(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    for i in range(300):
        alice.send(Send(1, B, i, str(i).encode()))
    got = bob.collect(64, Deliver)
    assert bob.quiet(0.1)
    while len(got) < 300:
        bob.send(Ack(got[0].seq if len(got) == 64 else len(got) - 63))
        got.append(bob.expect(Deliver))
    assert [frame.id for frame in got] == list(range(300))
    assert [frame.seq for frame in got] == list(range(1, 301))
    for first in range(237, 301):
        bob.send(Ack(first))
    until(lambda: rig.stat("acknowledged") == 300)
    bob.close()
    assert rig.phone(B).ready.queued == 0


def test_what_lingers_goes_to_disk_before_a_younger_one(tmp_path: Path) -> None:
    """Were the younger one alone on disk, a crash would turn the order of the two round."""
    rig = Rig(tmp_path, 1, delivery_window_max=1, linger_ms=4_000)
    for number in (ALICE, BOB):
        rig.add_device(number)
    with running(rig):
        alice, bob = rig.phone(A), rig.phone(B)
        alice.send(Send(1, B, 1, b"x"))
        bob.expect(Deliver)
        alice.send(Send(1, B, 2, b"y"))
        assert [frame.id for frame in alice.collect(2, Accepted, timeout=2.0)] == [1, 2]


def test_after_the_backlog_the_direct_way_is_open_again(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    alice.send(Send(1, B, 1, b"queued"))
    alice.expect(Accepted)
    bob = rig.phone(B)
    bob.expect(Deliver)
    bob.send(Ack(1))
    alice.expect(Delivered)
    alice.send(Send(1, B, 2, b"direct"))
    assert bob.expect(Deliver).accepted_at_s is None
    bob.send(Ack(2))
    assert alice.expect(Delivered) == Delivered(B, 2)


def test_unacknowledged_is_resent_three_times_then_the_connection_is_dead(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, resend_after_ms=60)
    for number in (ALICE, BOB):
        rig.add_device(number)
    with running(rig):
        alice, bob = rig.phone(A), rig.phone(B)
        alice.send(Send(1, B, 9, b"again"))
        got = bob.collect(4, Deliver)
        assert {(frame.seq, frame.id, frame.body) for frame in got} == {(1, 9, b"again")}
        assert bob.closed_with() == Code.NOT_RESPONDING
        alice.expect(Accepted)
        bob = rig.phone(B)
        assert bob.ready.queued == 1
        assert bob.expect(Deliver).body == b"again"


def test_a_sender_beyond_its_window_is_not_read(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, linger_ms=3000, sender_window_max=8)
    for number in (ALICE, BOB):
        rig.add_device(number)
    with running(rig):
        alice, bob = rig.phone(A), rig.phone(B)
        for i in range(20):
            alice.send(Send(1, B, i, b"x"))
        bob.collect(8, Deliver)
        assert bob.quiet(0.1)
        bob.send(AckRange(1, 8))
        alice.collect(8, Delivered)
        bob.collect(8, Deliver)
        assert bob.quiet(0.1)
        bob.send(AckRange(9, 8))
        bob.collect(4, Deliver)


def test_the_newer_connection_of_a_device_takes_over(rig: Rig) -> None:
    rig.start()
    alice, old = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 1, b"x"))
    old.expect(Deliver)
    new = rig.phone(B)
    assert old.closed_with() == Code.REPLACED
    alice.expect(Accepted)
    assert new.expect(Deliver).id == 1
    new.send(Ack(1))
    alice.expect(Delivered)


def test_receipts_wait_for_an_offline_sender(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 1, b"x"), Send(1, B, 2, b"y"))
    bob.collect(2, Deliver)
    alice.close()
    until(lambda: rig.stat("connections") == 1)
    bob.send(AckRange(1, 2), MarkRead(A, 2))
    until(lambda: rig.stat("receipts_stored") >= 3)
    alice = rig.phone(A)
    got = alice.collect(2, StoredReceipt)
    assert {(frame.level, frame.recipient, frame.id) for frame in got} == {(0x21, B, 1), (0x22, B, 2)}
    alice.close()
    alice = rig.phone(A)
    assert len(alice.collect(2, StoredReceipt)) == 2  # not acknowledged yet
    alice.send(AckRange(1, 2))
    alice.ping()
    alice.close()
    alice = rig.phone(A)
    assert alice.quiet(0.1)


def test_read_reaches_a_connected_sender(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(Send(1, B, 1, b"x"))
    bob.expect(Deliver)
    bob.send(Ack(1), MarkRead(A, 1))
    alice.expect(Delivered)
    assert alice.expect(Read) == Read(B, 1)


def test_a_full_mailbox_refuses_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, mailbox_envelopes_max=3)
    for number in (ALICE, BOB):
        rig.add_device(number)
    with running(rig):
        alice = rig.phone(A)
        for i in range(3):
            alice.send(Send(1, B, i, b"x"))
        alice.collect(3, Accepted)
        alice.send(Send(1, B, 3, b"x"))
        assert alice.expect(Refused) == Refused(B, 3, Code.MAILBOX_FULL)
        bob = rig.phone(B)
        bob.collect(3, Deliver)
        bob.send(Ack(1))
        alice.expect(Delivered)
        until(lambda: rig.stat("custody_deleting") == 0)  # its place is free once its row is gone
        alice.send(Send(1, B, 3, b"x"))
        assert bob.expect(Deliver).id == 3


def test_refusals_have_names(rig: Rig) -> None:
    rig.start()
    alice = rig.phone(A)
    stranger = 15559999999 << 8 | 1
    alice.send(Send(1, stranger, 1, b"x"), Send(9, B, 2, b"x"), Send(1, B, 3, b"x", ttl_s=0))
    alice.send(Send(1, B, 4, b"x", ttl_s=31 * 86400), Send(1, BOB << 8, 5, b"x"))
    got = {frame.id: frame.code for frame in alice.collect(5, Refused)}
    assert got == {
        1: Code.ADDRESS_UNKNOWN,
        2: Code.KIND_INVALID,
        3: Code.TTL_INVALID,
        4: Code.TTL_INVALID,
        5: Code.ADDRESS_UNKNOWN,
    }
    alice.ping()


def test_the_largest_body_passes_and_a_larger_one_is_refused_by_name(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    body = bytes(range(256)) * 256
    alice.send(Send(1, B, 1, body[:65408]))
    assert bob.expect(Deliver).body == body[:65408]
    bob.send(Ack(1))
    alice.expect(Delivered)
    bob.close()
    alice.send(Send(1, B, 2, body[:65408]))
    alice.expect(Accepted)
    assert rig.phone(B).expect(Deliver).body == body[:65408]


def test_everything_accepted_survives_a_stop_and_is_delivered_once(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    alice.send(*(Send(1, B, i, b"x") for i in range(5)))
    bob.collect(5, Deliver)
    bob.send(Ack(2))
    alice.expect(Delivered)
    rig.stop()
    rig.start()
    alice = rig.phone(A)
    stored = {(f.level, f.id) for f in alice.collect(4, StoredReceipt)} if alice.queue else set()
    assert all(level == 0x20 for level, _ in stored)
    bob = rig.phone(B)
    assert [frame.id for frame in bob.collect(4, Deliver)] == [0, 2, 3, 4]
    bob.send(AckRange(1, 4))
    bob.ping()
    bob.close()
    assert rig.phone(B).ready.queued == 0


def test_idle_connections_hold_no_buffers(rig: Rig) -> None:
    rig.start()
    alice, bob = rig.phone(A), rig.phone(B)
    for i in range(200):
        alice.send(Send(1, B, i, b"x" * 100))
        bob.send(Ack(bob.expect(Deliver).seq))
        alice.expect(Delivered)
    until(lambda: rig.stat("slab_used_bytes") == 0)


def test_a_device_registered_anew_has_the_counts_of_its_own_mail(tmp_path: Path) -> None:
    """The rows of the removed one are still being purged when the first envelope for the new one comes."""
    rig = Rig(tmp_path, 1)
    for number in (ALICE, BOB):
        rig.add_device(number)
    with running(rig):
        alice = rig.phone(A)
        alice.send(Send(1, B, 1, b"for the old one"), Send(1, B, 2, b"for the old one"))
        alice.collect(2, Accepted)
        (loop,), (door,) = rig.loops, rig.doors

        def anew() -> None:
            loop.remove_device(B, Code.REPLACED)
            loop.add_device(B)
            alice.send(Send(1, B, 3, b"for the new one"))  # read before the purge is answered

        door.asked.append(anew)
        loop.wake()
        gone = [alice.expect(StoredReceipt) for _ in range(2)]
        assert {(receipt.id, receipt.code) for receipt in gone} == {(id, Code.ADDRESS_UNKNOWN) for id in (1, 2)}
        assert alice.expect(Accepted) == Accepted(B, 3)
        bob = rig.phone(B)
        assert bob.ready.queued == 1
        assert bob.expect(Deliver).body == b"for the new one"
