"""Sessions between two devices: prekeys, replay, identity changes, backups, refusal without change."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import ids, limits
from wa.e2e.errors import (
    DuplicateMessage,
    E2EError,
    IdentityChanged,
    InvalidBundle,
    InvalidMessage,
    NoIdentity,
    NoSession,
    ReplayedBaseKey,
    UnknownPreKey,
)
from wa.e2e.prekeys import ROTATE_AFTER_S
from wa.e2e.sessions import PLAINTEXT_BYTES_MAX, Sessions
from wa.e2e.stores import MemoryStore, Table
from wa.errors import LocalError

from .world import ALICE, BOB, Clock, Device, SeededRandom, established, exchange, pair

DAY_S = 86_400


def refused_unchanged(receiver: Device, sender: int, body: bytes, error: type[Exception]) -> None:
    before = receiver.store.snapshot()
    with pytest.raises(error):
        receiver.sessions.decrypt(sender, body)
    assert receiver.store.snapshot() == before


def is_initial(body: bytes) -> bool:
    return body[1] == 1


# --- the ordinary life of a session ---------------------------------------------------------------------


@pytest.mark.parametrize("one_time", [True, False])
def test_messages_are_initial_until_the_first_reply(one_time: bool) -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle(one_time=one_time))
    bodies = [alice.sessions.encrypt(BOB, b"%d" % number) for number in range(3)]
    assert all(is_initial(body) for body in bodies)
    for number in (2, 0, 1):
        assert bob.sessions.decrypt(ALICE, bodies[number]) == b"%d" % number
    reply = bob.sessions.encrypt(ALICE, b"reply")
    assert not is_initial(reply)
    assert is_initial(alice.sessions.encrypt(BOB, b"not answered yet"))
    assert alice.sessions.decrypt(BOB, reply) == b"reply"
    assert not is_initial(alice.sessions.encrypt(BOB, b"answered"))


def test_empty_and_longest_plaintexts() -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    exchange(alice, bob, b"")
    longest = bytes(PLAINTEXT_BYTES_MAX)
    body = alice.sessions.encrypt(BOB, longest)
    assert len(body) == limits.ENVELOPE_BODY_BYTES_MAX
    assert bob.sessions.decrypt(ALICE, body) == longest
    before = alice.store.snapshot()
    with pytest.raises(LocalError, match="media"):
        alice.sessions.encrypt(BOB, longest + b"\0")
    assert alice.store.snapshot() == before


def test_out_of_order_across_dh_steps() -> None:
    alice, bob = established()
    held = []
    for turn in range(4):
        held += [(b"%d.%d" % (turn, n), alice.sessions.encrypt(BOB, b"%d.%d" % (turn, n))) for n in range(3)]
        text, body = held.pop(-2)
        assert bob.sessions.decrypt(ALICE, body) == text
        exchange(bob, alice)
    for text, body in reversed(held):
        assert bob.sessions.decrypt(ALICE, body) == text
    for _, body in held:
        refused_unchanged(bob, ALICE, body, DuplicateMessage)


def test_starting_anew_leaves_the_old_session_at_both_ends() -> None:
    for skipped in range(4):  # whichever base key is the greater
        alice, bob = established()
        in_flight = bob.sessions.encrypt(ALICE, b"on the old session")
        alice.random(32 * skipped)
        alice.sessions.start_session(bob.bundle())
        assert alice.sessions.decrypt(BOB, in_flight) == b"on the old session"
        body = alice.sessions.encrypt(BOB, b"anew")
        assert is_initial(body)
        assert bob.sessions.decrypt(ALICE, body) == b"anew"
        exchange(bob, alice)
        assert not is_initial(alice.sessions.encrypt(BOB, b"answered on the new session"))


def test_a_duplicate_initial_message_is_a_duplicate() -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    body = alice.sessions.encrypt(BOB, b"once")
    bob.sessions.decrypt(ALICE, body)
    refused_unchanged(bob, ALICE, body, DuplicateMessage)
    exchange(bob, alice)
    exchange(alice, bob)
    refused_unchanged(bob, ALICE, body, DuplicateMessage)


def test_without_a_session() -> None:
    alice, bob = established()
    stranger = ids.address_of(15551230003, 1)
    assert alice.sessions.has_session(BOB)
    assert not alice.sessions.has_session(stranger)
    with pytest.raises(NoSession):
        alice.sessions.encrypt(stranger, b"?")
    refused_unchanged(bob, stranger, alice.sessions.encrypt(BOB, b"misdelivered"), NoSession)


def test_a_body_delivered_as_from_another_address_does_not_decrypt() -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    refused_unchanged(bob, ids.address_of(15551230003, 1), alice.sessions.encrypt(BOB, b"hi"), InvalidMessage)


def test_misuse_is_a_local_error() -> None:
    store = MemoryStore()
    sessions = Sessions(store, ALICE, now=Clock(), random=SeededRandom("x"))
    with pytest.raises(NoIdentity):
        sessions.identity_key()
    with pytest.raises(NoIdentity):
        sessions.prekey_upload(stock_on_server=0)
    sessions.create_identity()
    with pytest.raises(LocalError, match="already"):
        sessions.create_identity()
    with pytest.raises(LocalError):
        sessions.prekey_upload(stock_on_server=-1)
    with pytest.raises(LocalError, match="not changed"):
        sessions.acknowledge_identity(BOB)
    with pytest.raises(LocalError, match="address"):
        Sessions(store, ids.address_of(15551230001, 0), now=Clock(), random=SeededRandom("x"))


def test_a_refused_bundle_changes_nothing() -> None:
    alice, bob = pair()
    bundle = bob.bundle()
    broken = type(bundle)(**{**vars(bundle), "signed_prekey_signature": bytes(64)})
    before = alice.store.snapshot()
    with pytest.raises(InvalidBundle):
        alice.sessions.start_session(broken)
    assert alice.store.snapshot() == before


# --- prekeys ----------------------------------------------------------------------------------------------


def test_the_stock_is_topped_up_to_its_maximum() -> None:
    alice, _ = pair()
    assert len(alice.stock) == limits.ONE_TIME_PREKEYS_MAX
    assert len({prekey_id for prekey_id, _ in alice.stock}) == limits.ONE_TIME_PREKEYS_MAX
    upload = alice.sessions.prekey_upload(stock_on_server=limits.PREKEYS_LOW)
    assert len(upload.one_time) == limits.ONE_TIME_PREKEYS_MAX - limits.PREKEYS_LOW
    assert not {prekey_id for prekey_id, _ in alice.stock} & {prekey_id for prekey_id, _ in upload.one_time}
    assert alice.sessions.prekey_upload(stock_on_server=limits.ONE_TIME_PREKEYS_MAX).one_time == []


def test_private_one_time_prekeys_are_bounded() -> None:
    alice, _ = pair()
    for _ in range(limits.ONE_TIME_PREKEYS_KEPT_MAX // limits.ONE_TIME_PREKEYS_MAX):
        last = alice.sessions.prekey_upload(stock_on_server=0)
    keys = alice.store.keys(Table.ONE_TIME_PREKEYS)
    assert len(keys) == limits.ONE_TIME_PREKEYS_KEPT_MAX
    assert int.from_bytes(keys[-1], "big") == last.one_time[-1][0]
    assert int.from_bytes(keys[0], "big") == limits.ONE_TIME_PREKEYS_MAX + 1


def test_a_one_time_prekey_goes_only_after_a_successful_decrypt() -> None:
    alice, bob = pair()
    bundle = bob.bundle()
    alice.sessions.start_session(bundle)
    body = alice.sessions.encrypt(BOB, b"hi")
    key = bundle.one_time_prekey_id.to_bytes(4, "big")
    refused_unchanged(bob, ALICE, body[:-1] + bytes([body[-1] ^ 1]), InvalidMessage)
    assert bob.store.get(Table.ONE_TIME_PREKEYS, key) is not None
    assert bob.sessions.decrypt(ALICE, body) == b"hi"
    assert bob.store.get(Table.ONE_TIME_PREKEYS, key) is None


def test_a_lost_one_time_prekey_has_its_own_error_and_a_fresh_bundle_recovers() -> None:
    alice, bob = pair()
    bundle = bob.bundle()
    alice.sessions.start_session(bundle)
    bob.store.delete(Table.ONE_TIME_PREKEYS, bundle.one_time_prekey_id.to_bytes(4, "big"))
    refused_unchanged(bob, ALICE, alice.sessions.encrypt(BOB, b"hi"), UnknownPreKey)
    alice.sessions.start_session(bob.bundle())
    exchange(alice, bob)
    exchange(bob, alice)


def test_the_same_one_time_prekey_serves_one_initiator() -> None:
    """A server that hands it out twice makes the second initiation fail, not the first one readable twice."""
    alice, bob = pair()
    carol = Device(ids.address_of(15551230003, 1), alice.clock)
    bundle = bob.bundle()
    for device in (alice, carol):
        device.sessions.start_session(bundle)
    exchange(alice, bob)
    refused_unchanged(bob, carol.address, carol.sessions.encrypt(BOB, b"hi"), UnknownPreKey)


def test_signed_prekeys_rotate_in_time_and_serve_through_their_grace() -> None:
    alice, bob = pair()
    old = bob.bundle()
    assert not bob.sessions.rotation_due()
    bob.clock.now_s += ROTATE_AFTER_S
    assert ROTATE_AFTER_S <= limits.SIGNED_PREKEY_DAYS_MAX * DAY_S
    assert bob.sessions.rotation_due()
    bob.publish()
    assert not bob.sessions.rotation_due()
    assert bob.upload.signed_prekey_id != old.signed_prekey_id
    assert bob.upload.signed_prekey != old.signed_prekey
    alice.sessions.start_session(old)
    body = alice.sessions.encrypt(BOB, b"in the mailbox for a month")
    bob.clock.now_s += limits.SIGNED_PREKEY_GRACE_S
    bob.sessions.forget_expired()
    snapshot = bob.store.snapshot()
    assert bob.sessions.decrypt(ALICE, body) == b"in the mailbox for a month"
    bob.store.restore(snapshot)
    bob.clock.now_s += 1
    refused_unchanged(bob, ALICE, body, UnknownPreKey)
    bob.sessions.forget_expired()
    assert len(bob.store.keys(Table.SIGNED_PREKEYS)) == 1
    refused_unchanged(bob, ALICE, body, UnknownPreKey)


def test_a_clock_that_steps_back_makes_rotation_due() -> None:
    alice, _ = pair()
    alice.clock.now_s -= DAY_S
    assert alice.sessions.rotation_due()


# --- replay without a one-time prekey ---------------------------------------------------------------------


def replayable() -> tuple[Device, Device, bytes]:
    """An initial message without one-time prekey, decrypted, whose session is gone since."""
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle(one_time=False))
    body = alice.sessions.encrypt(BOB, b"pay 100")
    bob.sessions.decrypt(ALICE, body)
    for _ in range(limits.SESSIONS_PER_PEER_MAX):
        alice.sessions.start_session(bob.bundle())
        exchange(alice, bob)
    return alice, bob, body


def test_a_replayed_base_key_has_its_own_error() -> None:
    _, bob, body = replayable()
    refused_unchanged(bob, ALICE, body, ReplayedBaseKey)


def test_base_keys_are_remembered_until_their_signed_prekey_is_gone() -> None:
    _, bob, body = replayable()
    bob.clock.now_s += ROTATE_AFTER_S
    bob.publish()
    bob.clock.now_s += limits.SIGNED_PREKEY_GRACE_S
    bob.sessions.forget_expired()
    refused_unchanged(bob, ALICE, body, ReplayedBaseKey)
    bob.clock.now_s += 1
    bob.sessions.forget_expired()
    assert bob.store.keys(Table.BASE_KEYS) == []
    refused_unchanged(bob, ALICE, body, UnknownPreKey)


def test_initiations_that_cannot_be_remembered_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BASE_KEYS_REMEMBERED_MAX", 1)
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle(one_time=False))
    exchange(alice, bob)
    alice.sessions.start_session(bob.bundle(one_time=False))
    refused_unchanged(bob, ALICE, alice.sessions.encrypt(BOB, b"hi"), InvalidMessage)


# --- identities -------------------------------------------------------------------------------------------


def reinstalled(bob: Device) -> Device:
    return Device(BOB, bob.clock, seed="bob's new phone")


def test_a_changed_identity_met_by_decrypt_blocks_both_ways_until_acknowledged() -> None:
    alice, bob = established()
    old = bob.sessions.identity_key()
    in_flight = bob.sessions.encrypt(ALICE, b"from the old phone")
    new_bob = reinstalled(bob)
    new_bob.sessions.start_session(alice.bundle())
    body = new_bob.sessions.encrypt(ALICE, b"new phone")
    before = alice.store.snapshot()
    with pytest.raises(IdentityChanged) as caught:
        alice.sessions.decrypt(BOB, body)
    change = caught.value
    assert (change.peer, change.trusted, change.presented) == (BOB, old, new_bob.sessions.identity_key())
    assert alice.store.snapshot() == before
    with pytest.raises(IdentityChanged):
        alice.sessions.encrypt(BOB, b"secret")
    refused_unchanged(alice, BOB, in_flight, IdentityChanged)

    alice.sessions.record_identity_change(change)
    restarted = alice.reopened()
    with pytest.raises(IdentityChanged):
        restarted.encrypt(BOB, b"secret")
    assert restarted.peer_identity(BOB) == old
    assert restarted.pending_identity(BOB) == change.presented
    shown = restarted.safety_number(ids.number_of(BOB))
    assert shown == new_bob.sessions.safety_number(ids.number_of(ALICE))

    restarted.acknowledge_identity(BOB)
    assert restarted.peer_identity(BOB) == change.presented
    assert restarted.pending_identity(BOB) is None
    assert not restarted.has_session(BOB)
    with pytest.raises(NoSession):
        restarted.encrypt(BOB, b"secret")
    assert restarted.decrypt(BOB, body) == b"new phone"
    reply = restarted.encrypt(BOB, b"welcome")
    assert new_bob.sessions.decrypt(ALICE, reply) == b"welcome"
    with pytest.raises(InvalidMessage):
        bob.sessions.decrypt(ALICE, reply)


def test_a_changed_identity_in_a_bundle_sends_nothing_before_the_user_agrees() -> None:
    alice, bob = established()
    new_bob = reinstalled(bob)
    alice.sessions.start_session(new_bob.bundle())
    for sessions in (alice.sessions, alice.reopened()):
        with pytest.raises(IdentityChanged):
            sessions.encrypt(BOB, b"secret")
    refused_unchanged(alice, BOB, bob.sessions.encrypt(ALICE, b"old"), IdentityChanged)
    alice.sessions.acknowledge_identity(BOB)
    exchange(alice, new_bob)
    exchange(new_bob, alice)


def test_acknowledging_works_without_recording_first() -> None:
    alice, bob = established()
    new_bob = reinstalled(bob)
    new_bob.sessions.start_session(alice.bundle())
    body = new_bob.sessions.encrypt(ALICE, b"hi")
    refused_unchanged(alice, BOB, body, IdentityChanged)
    alice.sessions.acknowledge_identity(BOB)
    assert alice.sessions.decrypt(BOB, body) == b"hi"


def test_nobody_can_raise_the_alarm_without_holding_the_key_they_name() -> None:
    alice, bob = established()
    new_bob = reinstalled(bob)
    new_bob.sessions.start_session(alice.bundle())
    body = bytearray(new_bob.sessions.encrypt(ALICE, b"hi"))
    mallory = Device(ids.address_of(15551230009, 1), alice.clock)
    body[2:34] = mallory.sessions.identity_key()
    refused_unchanged(alice, BOB, bytes(body), InvalidMessage)
    exchange(alice, bob)


def test_a_later_bundle_of_the_trusted_identity_does_not_silence_the_alarm() -> None:
    alice, bob = established()
    alice.sessions.start_session(reinstalled(bob).bundle())
    alice.sessions.start_session(bob.bundle())
    with pytest.raises(IdentityChanged):
        alice.sessions.encrypt(BOB, b"secret")


# --- backups ----------------------------------------------------------------------------------------------


def test_a_restored_backup_starts_anew_and_the_peer_follows() -> None:
    alice, bob = established()
    backup = bob.store.snapshot()
    for _ in range(3):
        exchange(bob, alice)
        exchange(alice, bob)
    bob.clock.now_s += DAY_S
    bob.store.restore(backup)
    old_ids = {prekey_id for prekey_id, _ in bob.stock}
    bob.sessions.reset_all_sessions()
    assert bob.sessions.rotation_due()
    for table in (Table.SESSIONS, Table.ONE_TIME_PREKEYS, Table.SIGNED_PREKEYS, Table.BASE_KEYS):
        assert bob.store.keys(table) == []
    assert bob.sessions.peer_identity(ALICE) == alice.sessions.identity_key()
    with pytest.raises(NoSession):
        bob.sessions.encrypt(ALICE, b"?")
    refused_unchanged(bob, ALICE, alice.sessions.encrypt(BOB, b"to the lost session"), NoSession)
    bob.stock.clear()
    bob.publish()
    assert len(bob.stock) == limits.ONE_TIME_PREKEYS_MAX
    assert not old_ids & {prekey_id for prekey_id, _ in bob.stock}
    bob.sessions.start_session(alice.bundle())
    exchange(bob, alice)
    exchange(alice, bob)
    exchange(bob, alice)


def test_a_second_restore_of_the_same_backup_is_followed_too() -> None:
    alice, bob = established()
    backup = bob.store.snapshot()
    for _ in range(2):
        bob.clock.now_s += DAY_S
        bob.store.restore(backup)
        bob.sessions.reset_all_sessions()
        bob.stock.clear()
        bob.publish()
        bob.sessions.start_session(alice.bundle())
        exchange(bob, alice)
        exchange(alice, bob)


# --- anything else is refused, and changes nothing ----------------------------------------------------------


def test_forging_any_byte_of_a_body_leaves_the_store_identical() -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    initial = alice.sessions.encrypt(BOB, b"initial")
    before = bob.store.snapshot()
    for at in range(len(initial)):
        for mask in (0x01, 0x80, 0xFF):
            forged = initial[:at] + bytes([initial[at] ^ mask]) + initial[at + 1 :]
            with pytest.raises(E2EError):
                bob.sessions.decrypt(ALICE, forged)
            assert bob.store.snapshot() == before
    assert bob.sessions.decrypt(ALICE, initial) == b"initial"
    exchange(bob, alice)
    body = alice.sessions.encrypt(BOB, b"ordinary")
    before = bob.store.snapshot()
    for at in range(len(body)):
        for mask in (0x01, 0x80, 0xFF):
            forged = body[:at] + bytes([body[at] ^ mask]) + body[at + 1 :]
            with pytest.raises(E2EError):
                bob.sessions.decrypt(ALICE, forged)
            assert bob.store.snapshot() == before
    assert bob.sessions.decrypt(ALICE, body) == b"ordinary"


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_any_bytes_are_parsed_or_refused(data: st.DataObject) -> None:
    """Mutated, cut, spliced or invented: an E2EError and an unchanged store, never anything else."""
    alice, bob = established()
    carol = Device(ids.address_of(15551230003, 1), alice.clock)
    carol.sessions.start_session(bob.bundle())
    genuine = [alice.sessions.encrypt(BOB, b"text"), carol.sessions.encrypt(BOB, b"text")]
    base = data.draw(st.sampled_from([*genuine, b"\x01\x01", b"\x01\x02", b""]))
    start = data.draw(st.integers(0, len(base)))
    end = data.draw(st.integers(start, len(base)))
    body = base[:start] + data.draw(st.binary(max_size=200)) + base[end:]
    if body in genuine:
        return
    for sender in (ALICE, carol.address):
        refused_unchanged(bob, sender, body, E2EError)


def test_skipped_keys_age_out_of_the_store() -> None:
    alice, bob = established()
    late = alice.sessions.encrypt(BOB, b"late")
    exchange(alice, bob)
    held = bob.store.get(Table.SESSIONS, ALICE.to_bytes(8, "big"))
    bob.clock.now_s += limits.RATCHET_SKIPPED_AGE_S_MAX
    bob.sessions.forget_expired()
    assert bob.store.get(Table.SESSIONS, ALICE.to_bytes(8, "big")) == held
    bob.clock.now_s += 1
    bob.sessions.forget_expired()
    assert len(bob.store.get(Table.SESSIONS, ALICE.to_bytes(8, "big"))) == len(held) - (32 + 4 + 32 + 8)
    refused_unchanged(bob, ALICE, late, DuplicateMessage)
