"""The Double Ratchet byte for byte against the PyPI package doubleratchet, under arbitrary schedules."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import limits
from wa.e2e.double_ratchet import DoubleRatchet, Header
from wa.e2e.keys import KeyPair

from .reference_ratchet import ReferencePeer
from .world import START_S, SeededRandom

SECRET = bytes(range(32))
ASSOCIATED_DATA = b"associated data of the session"


@dataclass
class Side:
    """Our ratchet and the package's, fed with the same random bytes."""

    ours: DoubleRatchet
    theirs: ReferencePeer
    random: SeededRandom
    inbox: list[tuple[Header, bytes, bytes]] = field(default_factory=list)
    can_send: bool = True

    def send(self, to: "Side", text: bytes) -> None:
        """Both encrypt; header and ciphertext are equal, and so are key, tag and associated data."""
        header, ciphertext = self.ours.encrypt(text, ASSOCIATED_DATA)
        assert self.theirs.encrypt(text, ASSOCIATED_DATA) == (header, ciphertext)
        to.inbox.append((header, ciphertext, text))

    def receive(self, which: int) -> None:
        """Both decrypt one message of the inbox, in any order; the kept message keys are equal."""
        header, ciphertext, text = self.inbox.pop(which % len(self.inbox))
        self.ours = DoubleRatchet.decode(self.ours.encode())
        plaintext = self.ours.decrypt(header, ciphertext, ASSOCIATED_DATA, now=START_S, random=self.random)
        assert plaintext == text
        assert self.theirs.decrypt(header, ciphertext, ASSOCIATED_DATA) == text
        kept = {place: bytes(skipped.key) for place, skipped in self.ours.skipped.items()}
        assert list(kept.items()) == list(self.theirs.skipped().items())
        assert self.ours.encode()[1:33] == self.theirs.root_key()
        self.can_send = True


def sides() -> tuple[Side, Side]:
    signed = KeyPair.of(bytes(range(32, 64)))
    bounds = (limits.RATCHET_SKIP_MAX, limits.RATCHET_SKIPPED_STORED_MAX)
    alice_random, bob_random = SeededRandom("alice"), SeededRandom("bob")
    alice_theirs = ReferencePeer(SeededRandom("alice"), *bounds)
    bob_theirs = ReferencePeer(SeededRandom("bob"), *bounds)
    alice_theirs.initiate(SECRET, signed.public)
    bob_theirs.accept(SECRET, signed.private)
    alice = Side(
        DoubleRatchet.initiate(bytearray(SECRET), signed.public, alice_random), alice_theirs, alice_random
    )
    bob = Side(DoubleRatchet.accept(bytearray(SECRET), signed), bob_theirs, bob_random, can_send=False)
    return alice, bob


steps = st.lists(
    st.tuples(
        st.sampled_from(["alice sends", "bob sends", "alice receives", "bob receives"]), st.integers(0, 99)
    ),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_both_agree_byte_for_byte_under_any_schedule(steps: list[tuple[str, int]]) -> None:
    alice, bob = sides()
    for count, (step, number) in enumerate(steps):
        me, other = (alice, bob) if step.startswith("alice") else (bob, alice)
        if step.endswith("receives"):
            if me.inbox:
                me.receive(number)
        elif me.can_send:
            me.send(other, b"message %d " % count * (number % 5))
    for me in (alice, bob):
        while me.inbox:
            me.receive(0)


@pytest.mark.parametrize("lost", [0, 1, 200])
def test_both_keep_the_same_keys_over_long_gaps(lost: int) -> None:
    alice, bob = sides()
    for turn in range(3):
        for number in range(lost + 1):
            alice.send(bob, b"%d in turn %d" % (number, turn))
        bob.receive(lost)
        bob.send(alice, b"reply")
        alice.receive(0)
    for _ in range(3 * lost):
        bob.receive(0)
