"""The safety number: libsignal's published vectors, both sides equal, sensitive to every input."""

import pytest

from wa import ids
from wa.e2e import fingerprint
from wa.e2e.errors import InvalidMessage, NoSession

from .world import ALICE, BOB, Device, established, pair

# libsignal, rust/protocol/src/fingerprint.rs, version 1; its keys carry a type byte.
ALICE_KEY = bytes.fromhex("0506863bc66d02b40d27b8d49ca7c09e9239236f9d7d25d6fcca5ce13c7064d868")
BOB_KEY = bytes.fromhex("05f781b6fb32fed9ba1cf2de978d4d5da28dc34046ae814402b5c0dbd96fda907b")
DISPLAYED = "300354477692869396892869876765458257569162576843440918079131"
ALICE_SCANS = "080112220a201e301a0353dce3dbe7684cb8336e85136cdc0ee96219494ada305d62a7bd61df1a220a20d62cbf73a11592015b6b9f1682ac306fea3aaf3885b84d12bca631e9d4fb3a4d"  # noqa: E501
BOB_SCANS = "080112220a20d62cbf73a11592015b6b9f1682ac306fea3aaf3885b84d12bca631e9d4fb3a4d1a220a201e301a0353dce3dbe7684cb8336e85136cdc0ee96219494ada305d62a7bd61df"  # noqa: E501

ALICE_NUMBER, BOB_NUMBER = ids.number_of(ALICE), ids.number_of(BOB)


def test_libsignal_vectors() -> None:
    alice = fingerprint.account_hash([ALICE_KEY], b"+14152222222")
    bob = fingerprint.account_hash([BOB_KEY], b"+14153333333")
    assert fingerprint.digits(alice, bob) == fingerprint.digits(bob, alice) == DISPLAYED
    assert fingerprint.qr_payload(alice, bob).hex() == ALICE_SCANS
    assert fingerprint.qr_payload(bob, alice).hex() == BOB_SCANS


def test_both_people_see_the_same_twelve_groups() -> None:
    alice, bob = established()
    shown = alice.sessions.safety_number(BOB_NUMBER)
    assert shown == bob.sessions.safety_number(ALICE_NUMBER)
    groups = shown.split(" ")
    assert len(groups) == 12
    assert all(len(group) == 5 and group.isdigit() for group in groups)


def test_scanning_each_other_and_somebody_else() -> None:
    alice, bob = established()
    assert alice.sessions.safety_qr_matches(BOB_NUMBER, bob.sessions.safety_qr(ALICE_NUMBER))
    assert bob.sessions.safety_qr_matches(ALICE_NUMBER, alice.sessions.safety_qr(BOB_NUMBER))
    # One's own screen, and a peer who sees another key for us, do not match.
    assert not alice.sessions.safety_qr_matches(BOB_NUMBER, alice.sessions.safety_qr(BOB_NUMBER))
    mallory = [Device(ALICE, alice.clock, seed="mallory").sessions.identity_key()]
    deceived = bob.sessions.safety_qr(ALICE_NUMBER, peer_identities=mallory)
    assert not alice.sessions.safety_qr_matches(BOB_NUMBER, deceived)


def test_another_key_or_number_gives_another_safety_number() -> None:
    one = fingerprint.account_hash([ALICE_KEY], b"+14152222222")
    bob = fingerprint.account_hash([BOB_KEY], b"+14153333333")
    for keys, identifier in (([BOB_KEY], b"+14152222222"), ([ALICE_KEY], b"+14152222223")):
        assert fingerprint.digits(fingerprint.account_hash(keys, identifier), bob) != fingerprint.digits(
            one, bob
        )


def test_accounts_of_several_devices_compare_all_their_keys_in_any_order() -> None:
    alice, bob = established()
    second = Device(ids.address_of(BOB_NUMBER, 2), alice.clock)
    alice.sessions.start_session(second.bundle())
    keys = [second.sessions.identity_key(), bob.sessions.identity_key()]
    for device in (bob, second):
        shown = device.sessions.safety_number(
            ALICE_NUMBER, own_identities=keys, peer_identities=[alice.sessions.identity_key()]
        )
        assert shown == alice.sessions.safety_number(BOB_NUMBER)
        keys.reverse()


def test_a_stranger_has_no_safety_number() -> None:
    alice, _ = pair()
    with pytest.raises(NoSession):
        alice.sessions.safety_number(BOB_NUMBER)


def test_a_foreign_code_is_refused() -> None:
    alice, bob = established()
    genuine = bob.sessions.safety_qr(ALICE_NUMBER)
    for at in (0, 1, 2, 3, 4, 5, 38, 39, 40, 41):
        with pytest.raises(InvalidMessage):
            alice.sessions.safety_qr_matches(
                BOB_NUMBER, genuine[:at] + bytes([genuine[at] ^ 1]) + genuine[at + 1 :]
            )
    for end in range(len(genuine)):
        with pytest.raises(InvalidMessage):
            alice.sessions.safety_qr_matches(BOB_NUMBER, genuine[:end])
    with pytest.raises(InvalidMessage):
        alice.sessions.safety_qr_matches(BOB_NUMBER, genuine + b"\0")
