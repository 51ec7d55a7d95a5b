"""The rules of the Double Ratchet that a reference does not reach: forgery, bounds, stored form."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import limits
from wa.e2e.double_ratchet import DoubleRatchet, Header
from wa.e2e.errors import DuplicateMessage, InvalidKey, InvalidMessage, InvalidState, TooManySkipped
from wa.e2e.keys import KeyPair
from wa.errors import LocalError

from .points import X25519_LOW_ORDER, X25519_NON_CANONICAL
from .world import START_S, SeededRandom

AD = b"associated data"


class Side:
    def __init__(self, ratchet: DoubleRatchet, seed: str) -> None:
        self.ratchet = ratchet
        self.random = SeededRandom(seed)
        self.now_s = START_S

    def send(self, text: bytes = b"text") -> tuple[Header, bytes]:
        return self.ratchet.encrypt(text, AD)

    def receive(self, message: tuple[Header, bytes], associated_data: bytes = AD) -> bytes:
        return self.ratchet.decrypt(*message, associated_data, now=self.now_s, random=self.random)


def sides() -> tuple[Side, Side]:
    signed = KeyPair.of(b"\x07" * 32)
    alice = DoubleRatchet.initiate(bytearray(32), signed.public, SeededRandom("alice"))
    return Side(alice, "alice, later"), Side(DoubleRatchet.accept(bytearray(32), signed), "bob")


def talking() -> tuple[Side, Side]:
    """Several DH steps in, with keys skipped on both sides."""
    alice, bob = sides()
    for _ in range(3):
        alice.send()
        bob.receive(alice.send())
        bob.send()
        alice.receive(bob.send())
    return alice, bob


def refused_unchanged(
    side: Side, message: tuple[Header, bytes], error: type[Exception], ad: bytes = AD
) -> None:
    before = side.ratchet.encode()
    with pytest.raises(error):
        side.receive(message, ad)
    assert side.ratchet.encode() == before


flip = st.tuples(st.integers(0, 1 << 16), st.integers(1, 255))


@settings(max_examples=120, deadline=None)
@given(where=flip, dh_step=st.booleans(), extra_skips=st.integers(0, 3))
def test_a_forged_byte_anywhere_leaves_the_state_identical(
    where: tuple[int, int], dh_step: bool, extra_skips: int
) -> None:
    alice, bob = talking()
    if not dh_step:
        bob.receive(alice.send())
    for _ in range(extra_skips):
        alice.send()
    header, ciphertext = alice.send(b"the real text")
    raw = bytearray(header.encode() + ciphertext)
    raw[where[0] % len(raw)] ^= where[1]
    forged = Header(bytes(raw[:32]), int.from_bytes(raw[32:36], "big"), int.from_bytes(raw[36:40], "big"))
    before = bob.ratchet.encode()
    with pytest.raises((InvalidMessage, DuplicateMessage)):
        bob.receive((forged, bytes(raw[40:])))
    assert bob.ratchet.encode() == before
    assert bob.receive((header, ciphertext)) == b"the real text"


def test_every_header_byte_is_authenticated_for_a_skipped_key_too() -> None:
    alice, bob = talking()
    late, now = alice.send(b"late"), alice.send(b"now")
    bob.receive(now)
    header, ciphertext = late
    refused_unchanged(
        bob,
        (Header(header.ratchet_key, header.previous_length + 1, header.number), ciphertext),
        InvalidMessage,
    )
    refused_unchanged(bob, (header, ciphertext[:-1] + bytes([ciphertext[-1] ^ 1])), InvalidMessage)
    refused_unchanged(bob, late, InvalidMessage, b"other associated data")
    assert bob.receive(late) == b"late"


@pytest.mark.parametrize("point", X25519_LOW_ORDER + X25519_NON_CANONICAL, ids=bytes.hex)
def test_a_bad_ratchet_key_is_refused(point: bytes) -> None:
    alice, bob = talking()
    header, ciphertext = alice.send()
    refused_unchanged(bob, (Header(point, header.previous_length, header.number), ciphertext), InvalidKey)


def test_a_duplicate_is_called_so_in_every_position() -> None:
    alice, bob = sides()
    first, second, third = alice.send(), alice.send(), alice.send()
    bob.receive(third)
    refused_unchanged(bob, third, DuplicateMessage)
    bob.receive(first)  # a skipped key, then gone
    refused_unchanged(bob, first, DuplicateMessage)
    alice.receive(bob.send())
    bob.receive(alice.send())  # the chain of the first three is finished now
    for message in (first, third):
        refused_unchanged(bob, message, DuplicateMessage)
    assert bob.receive(second) == b"text"  # kept across the DH step
    refused_unchanged(bob, second, DuplicateMessage)
    header, ciphertext = third
    beyond = Header(header.ratchet_key, header.previous_length, 3)
    refused_unchanged(bob, (beyond, ciphertext), InvalidMessage)


def test_finished_chains_are_remembered_up_to_their_bound() -> None:
    alice, bob = sides()
    old = [alice.send()]
    bob.receive(old[0])
    for _ in range(limits.RATCHET_CHAINS_REMEMBERED_MAX + 1):
        alice.receive(bob.send())
        old.append(alice.send())
        bob.receive(old[-1])
    refused_unchanged(bob, old[1], DuplicateMessage)
    refused_unchanged(bob, old[0], InvalidMessage)
    assert DoubleRatchet.decode(bob.ratchet.encode()).encode() == bob.ratchet.encode()


def test_one_jump_may_skip_the_limit_and_no_more() -> None:
    alice, bob = sides()
    for _ in range(limits.RATCHET_SKIP_MAX):
        alice.send()
    at_limit, over = alice.send(b"at the limit"), alice.send()
    refused_unchanged(bob, over, TooManySkipped)
    assert bob.receive(at_limit) == b"at the limit"
    assert len(bob.ratchet.skipped) == limits.RATCHET_SKIP_MAX


def test_the_end_of_the_previous_chain_is_a_jump_of_its_own() -> None:
    alice, bob = sides()
    bob.receive(alice.send())
    for _ in range(limits.RATCHET_SKIP_MAX + 1):
        alice.send()
    alice.receive(bob.send())
    refused_unchanged(bob, alice.send(), TooManySkipped)


def test_stored_keys_are_bounded_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RATCHET_SKIP_MAX", 4)
    monkeypatch.setattr(limits, "RATCHET_SKIPPED_STORED_MAX", 6)
    alice, bob = sides()
    sent = [alice.send(b"%d" % number) for number in range(10)]
    bob.receive(sent[4])
    bob.receive(sent[9])
    assert [number for _, number in bob.ratchet.skipped] == [2, 3, 5, 6, 7, 8]
    refused_unchanged(bob, sent[1], DuplicateMessage)
    assert bob.receive(sent[2]) == b"2"


def test_skipped_keys_age_out() -> None:
    alice, bob = sides()
    early, seen, late = alice.send(b"early"), alice.send(), alice.send(b"late")
    bob.receive(seen)
    bob.now_s += limits.RATCHET_SKIPPED_AGE_S_MAX
    bob.receive(alice.send())  # skips `late` now
    assert not bob.ratchet.forget_skipped(bob.now_s)
    assert bob.ratchet.forget_skipped(bob.now_s + 1)
    refused_unchanged(bob, early, DuplicateMessage)
    assert bob.receive(late) == b"late"


def test_a_shrinking_previous_chain_is_refused() -> None:
    """An honest sender's PN is never under what was already received on that chain."""
    alice, bob = sides()
    for _ in range(3):
        bob.receive(alice.send())
    alice.receive(bob.send())
    header, ciphertext = alice.send()
    refused_unchanged(bob, (Header(header.ratchet_key, 2, header.number), ciphertext), InvalidMessage)


def test_the_accepting_side_cannot_send_first() -> None:
    _, bob = sides()
    with pytest.raises(LocalError):
        bob.send()


def test_a_used_up_chain_says_so() -> None:
    alice, _ = sides()
    assert alice.ratchet._sending is not None
    alice.ratchet._sending.length = (1 << 32) - 1
    with pytest.raises(LocalError, match="used up"):
        alice.send()


def test_wiping_zeroes_every_key_of_the_object() -> None:
    _, bob = talking()
    ratchet = bob.ratchet
    buffers = [ratchet._root, ratchet._sending.key, ratchet._receiving.key]
    buffers += [kept.key for kept in ratchet.skipped.values()]
    assert len(buffers) > 3
    assert all(any(buffer) for buffer in buffers)
    ratchet.wipe()
    assert not any(any(buffer) for buffer in buffers)


def test_no_secret_shows_in_a_repr() -> None:
    pair = KeyPair.generate(SeededRandom("pair"))
    alice, bob = talking()
    alice.send()
    bob.receive(alice.send())
    ratchet = bob.ratchet
    shown = [repr(thing) for thing in (pair, ratchet, ratchet._own, ratchet._sending, ratchet._receiving)]
    shown += [repr(kept) for kept in ratchet.skipped.values()]
    for secret in (pair.private, ratchet._own.private, *(kept.key for kept in ratchet.skipped.values())):
        assert not [text for text in shown if repr(bytes(secret)) in text]


def test_used_message_keys_are_zeroed() -> None:
    alice, bob = talking()
    late, now = alice.send(), alice.send()
    bob.receive(now)
    kept = bob.ratchet.skipped[late[0].ratchet_key, late[0].number].key
    assert any(kept)
    bob.receive(late)
    assert not any(kept)


# --- stored form --------------------------------------------------------------------------------------


def test_the_stored_form_is_canonical() -> None:
    for side in (*sides(), *talking()):
        encoded = side.ratchet.encode()
        assert DoubleRatchet.decode(encoded).encode() == encoded


def test_a_cut_or_overlong_state_is_refused() -> None:
    encoded = talking()[0].ratchet.encode()
    for end in range(len(encoded)):
        with pytest.raises(InvalidState):
            DoubleRatchet.decode(encoded[:end])
    with pytest.raises(InvalidState):
        DoubleRatchet.decode(encoded + b"\0")
    with pytest.raises(InvalidState, match="version"):
        DoubleRatchet.decode(b"\x02" + encoded[1:])


@settings(max_examples=120, deadline=None)
@given(data=st.data())
def test_a_damaged_state_is_parsed_whole_or_refused(data: st.DataObject) -> None:
    raw = bytearray(talking()[data.draw(st.integers(0, 1))].ratchet.encode())
    for at, mask in data.draw(st.lists(flip, min_size=1, max_size=4)):
        raw[at % len(raw)] ^= mask
    try:
        decoded = DoubleRatchet.decode(bytes(raw))
    except InvalidState:
        return
    assert decoded.encode() == raw


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused(noise: bytes) -> None:
    try:
        decoded = DoubleRatchet.decode(b"\x01" + noise)
    except InvalidState:
        return
    assert decoded.encode() == b"\x01" + noise
