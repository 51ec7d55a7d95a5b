"""Devices with a clock and a random source of their own making, and the server's part of the key exchange."""

import hashlib

from wa import ids
from wa.e2e.keys import PreKeyBundle
from wa.e2e.sessions import Sessions
from wa.e2e.stores import MemoryStore, SessionStore

START_S = 1_700_000_000
ALICE = ids.address_of(15551230001, 1)
BOB = ids.address_of(15551230002, 1)


class Clock:
    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> int:
        return self.now_s


class SeededRandom:
    """SHA-256 over seed and counter: the same bytes on every run."""

    def __init__(self, seed: str) -> None:
        self._seed = seed.encode()
        self._counter = 0

    def __call__(self, count: int) -> bytes:
        out = b""
        while len(out) < count:
            out += hashlib.sha256(self._seed + self._counter.to_bytes(8, "big")).digest()
            self._counter += 1
        return out[:count]


class Device:
    """A `Sessions` with what the server holds for it: its newest signed prekey and one-time prekeys."""

    def __init__(
        self, address: int, clock: Clock, *, store: SessionStore | None = None, seed: str | None = None
    ) -> None:
        self.address = address
        self.clock = clock
        self.store = MemoryStore() if store is None else store
        self.random = SeededRandom(seed or str(address))
        self.sessions = Sessions(self.store, address, now=clock, random=self.random)
        self.sessions.create_identity()
        self.stock: list[tuple[int, bytes]] = []
        self.publish()

    def publish(self) -> None:
        self.upload = self.sessions.prekey_upload(stock_on_server=len(self.stock))
        self.stock += self.upload.one_time

    def bundle(self, *, one_time: bool = True) -> PreKeyBundle:
        """As the server hands it out: each one-time prekey once."""
        prekey_id, prekey = self.stock.pop(0) if one_time else (None, None)
        upload = self.upload
        return PreKeyBundle(
            self.address,
            upload.identity_key,
            upload.signed_prekey_id,
            upload.signed_prekey,
            upload.signed_prekey_signature,
            prekey_id,
            prekey,
        )

    def reopened(self) -> Sessions:
        """The same store after a restart of the client."""
        return Sessions(self.store, self.address, now=self.clock, random=self.random)


def pair() -> tuple[Device, Device]:
    clock = Clock()
    return Device(ALICE, clock), Device(BOB, clock)


def established() -> tuple[Device, Device]:
    """Two devices with one session that both have sent on; Alice initiated."""
    alice, bob = pair()
    alice.sessions.start_session(bob.bundle())
    exchange(alice, bob)
    exchange(bob, alice)
    return alice, bob


def exchange(sender: Device, receiver: Device, text: bytes = b"hello") -> None:
    body = sender.sessions.encrypt(receiver.address, text)
    assert receiver.sessions.decrypt(sender.address, body) == text
