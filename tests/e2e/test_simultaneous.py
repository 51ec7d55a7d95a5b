"""Two devices start sessions at the same time, again, or after a loss, under arbitrary delivery orders.

What must hold: every message between devices that lost nothing is decrypted exactly once, and once the
network is quiet three messages to and fro put both on one session, with ordinary messages, for good.
"""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa.e2e.errors import DuplicateMessage, InvalidMessage, NoSession, UnknownPreKey
from wa.e2e.records import SessionRecord
from wa.e2e.stores import Table

from .world import Device, exchange, pair


@dataclass
class Network:
    """Bodies on their way, by recipient; a schedule names which one arrives next."""

    alice: Device
    bob: Device
    on_the_way: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    sent: int = 0
    received: int = 0
    losses_allowed: bool = False

    def sides(self, name: str) -> tuple[Device, Device]:
        return (self.alice, self.bob) if name == "alice" else (self.bob, self.alice)

    def send(self, sender: Device, recipient: Device) -> None:
        if not sender.sessions.has_session(recipient.address):
            sender.sessions.start_session(recipient.bundle(one_time=self.sent % 3 != 0))
        self.sent += 1
        text = b"message %d" % self.sent
        body = sender.sessions.encrypt(recipient.address, text)
        self.on_the_way.setdefault(recipient.address, []).append((body, text))

    def deliver(self, sender: Device, recipient: Device, which: int) -> None:
        waiting = self.on_the_way.get(recipient.address, [])
        if not waiting:
            return
        body, text = waiting.pop(which % len(waiting))
        try:
            assert recipient.sessions.decrypt(sender.address, body) == text
        except (NoSession, UnknownPreKey, InvalidMessage):
            assert self.losses_allowed
            return
        self.received += 1
        with pytest.raises(DuplicateMessage):
            recipient.sessions.decrypt(sender.address, body)

    def restore_backup(self, device: Device) -> None:
        device.clock.now_s += 1
        device.sessions.reset_all_sessions()
        device.stock.clear()
        device.publish()
        self.losses_allowed = True

    def drain(self) -> None:
        for name in ("alice", "bob"):
            me, other = self.sides(name)
            while self.on_the_way.get(me.address):
                self.deliver(other, me, 0)


def sending_base_key(device: Device, peer: Device) -> bytes:
    record = SessionRecord.decode(device.store.get(Table.SESSIONS, peer.address.to_bytes(8, "big")))
    session = record.sending()
    assert session is not None
    return session.base_key


def check_convergence(network: Network, first: Device, second: Device) -> None:
    for sender, recipient in ((first, second), (second, first), (first, second)):
        network.send(sender, recipient)
        network.drain()
    common = sending_base_key(first, second)
    assert sending_base_key(second, first) == common
    for sender, recipient in ((first, second), (second, first)) * 2:
        body = sender.sessions.encrypt(recipient.address, b"settled")
        assert body[1] == 2
        assert recipient.sessions.decrypt(sender.address, body) == b"settled"
    for sender, recipient in ((first, second), (second, first)):
        assert sending_base_key(sender, recipient) == common


actions = st.lists(
    st.tuples(
        st.sampled_from(["alice", "bob"]),
        st.sampled_from(["send", "send", "receive", "receive"]),
        st.integers(0, 30),
    ),
    max_size=40,
)


@settings(max_examples=80, deadline=None)
@given(actions=actions, first=st.sampled_from(["alice", "bob"]))
def test_simultaneous_initiation_loses_nothing_and_converges(
    actions: list[tuple[str, str, int]], first: str
) -> None:
    network = Network(*pair())
    for name, action, number in actions:
        me, other = network.sides(name)
        if action == "send":
            network.send(me, other)
        else:
            network.deliver(other, me, number)
    network.drain()
    assert network.received == network.sent
    check_convergence(network, *network.sides(first))
    assert network.received == network.sent


@settings(max_examples=80, deadline=None)
@given(
    actions=actions,
    upsets=st.lists(
        st.tuples(
            st.integers(0, 40), st.sampled_from(["alice", "bob"]), st.sampled_from(["start anew", "restore"])
        ),
        max_size=5,
    ),
    first=st.sampled_from(["alice", "bob"]),
)
def test_new_starts_and_restored_backups_converge_too(
    actions: list[tuple[str, str, int]], upsets: list[tuple[int, str, str]], first: str
) -> None:
    network = Network(*pair())
    for at, (name, action, number) in enumerate(actions):
        for when, who, upset in upsets:
            if when == at:
                me, other = network.sides(who)
                if upset == "restore":
                    network.restore_backup(me)
                else:
                    me.sessions.start_session(other.bundle())
        me, other = network.sides(name)
        if action == "send":
            network.send(me, other)
        else:
            network.deliver(other, me, number)
    network.drain()
    if not network.losses_allowed:
        assert network.received == network.sent
    # A device whose peer was restored may hold a session that the peer cannot read; the peer's next message
    # tells it, so the restored side speaks first here, as its client does by fetching bundles.
    network.send(*network.sides("alice"))
    network.send(*network.sides("bob"))
    network.drain()
    check_convergence(network, *network.sides(first))


def test_messages_that_cross_for_ever_settle_after_one_crossing() -> None:
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    bob.sessions.start_session(alice.bundle())
    for crossing in range(4):
        from_alice = alice.sessions.encrypt(bob.address, b"a")
        from_bob = bob.sessions.encrypt(alice.address, b"b")
        assert bob.sessions.decrypt(alice.address, from_alice) == b"a"
        assert alice.sessions.decrypt(bob.address, from_bob) == b"b"
        if crossing >= 1:
            assert sending_base_key(alice, bob) == sending_base_key(bob, alice)


def test_a_session_the_peer_never_proved_to_hold_is_not_preferred() -> None:
    """Bob's initiation arrives while Alice's is lost: she answers on his, whichever base key is greater."""
    for seed in range(4):
        alice, bob = pair()
        alice.random(32 * seed)
        alice.sessions.start_session(bob.bundle())
        alice.sessions.encrypt(bob.address, b"lost")
        bob.sessions.start_session(alice.bundle())
        exchange(bob, alice)
        exchange(alice, bob)
        assert sending_base_key(alice, bob) == sending_base_key(bob, alice)
