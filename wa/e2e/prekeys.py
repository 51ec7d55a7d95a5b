"""This device's own prekeys: made, handed to the server, found again, used once, retired.

- A replaced signed prekey is kept for `SIGNED_PREKEY_GRACE_S`: an initial message may wait that long in a mailbox.
- A one-time prekey is deleted once a message under it was decrypted.
- Without a one-time prekey nothing in X3DH stops a replay of an initiator's first message.  So the base keys of such
  initiations are remembered for as long as their signed prekey lives (X3DH, section 4.2).
"""

from dataclasses import dataclass

from wa import limits
from wa.e2e.codec import Reader, u32, u64
from wa.e2e.errors import InvalidMessage, InvalidState, ReplayedBaseKey
from wa.e2e.keys import PREKEY_ID_MAX, IdentityKey, KeyPair, Now, PreKeyUpload, Random
from wa.e2e.primitives import KEY_BYTES
from wa.e2e.stores import SessionStore, Table
from wa.errors import LocalError

# A day early: a device that wakes once a day then never exceeds the maximum.
ROTATE_AFTER_S = (limits.SIGNED_PREKEY_DAYS_MAX - 1) * 86_400
_VERSION = 1
_NEXT_SIGNED = b"next_signed_prekey"
_NEXT_ONE_TIME = b"next_one_time_prekey"


@dataclass(frozen=True)
class _SignedPreKey:
    pair: KeyPair
    created_at: int  # seconds
    retired_at: int | None

    def encode(self) -> bytes:
        tail = b"\0" if self.retired_at is None else b"\1" + u64(self.retired_at)
        return bytes([_VERSION]) + self.pair.private + u64(self.created_at) + tail

    @classmethod
    def decode(cls, data: bytes) -> "_SignedPreKey":
        reader = Reader(data, InvalidState)
        if (version := reader.uint(1)) != _VERSION:
            raise InvalidState(f"signed prekey of version {version}")
        pair = KeyPair.of(reader.take(KEY_BYTES))
        signed = cls(pair, reader.uint(8), reader.uint(8) if reader.flag() else None)
        reader.end()
        return signed

    def expired(self, now: int) -> bool:
        return self.retired_at is not None and now - self.retired_at > limits.SIGNED_PREKEY_GRACE_S


class PreKeys:
    def __init__(self, store: SessionStore, *, now: Now, random: Random) -> None:
        self._store = store
        self._now = now
        self._random = random

    def rotation_due(self) -> bool:
        """True without a signed prekey, when it is old, or when the clock is behind its making."""
        current = self._current()
        return current is None or not 0 <= self._now() - current[1].created_at < ROTATE_AFTER_S

    def upload(self, identity: IdentityKey, stock_on_server: int) -> PreKeyUpload:
        """The current signed prekey, rotated when due, and one-time prekeys that fill the stock up."""
        if stock_on_server < 0:
            raise LocalError("the stock on the server cannot be negative")
        if self.rotation_due():
            self._rotate()
        current = self._current()
        assert current is not None
        signed_id, signed = current
        missing = max(0, limits.ONE_TIME_PREKEYS_MAX - stock_on_server)
        one_time = [self._make_one_time() for _ in range(missing)]
        self._bound_one_time()
        return PreKeyUpload(
            identity_key=identity.public,
            signed_prekey_id=signed_id,
            signed_prekey=signed.pair.public,
            signed_prekey_signature=identity.sign(signed.pair.public),
            one_time=one_time,
        )

    def signed(self, prekey_id: int) -> KeyPair | None:
        """The signed prekey of that id unless its grace period is over."""
        data = self._store.get(Table.SIGNED_PREKEYS, u32(prekey_id))
        if data is None:
            return None
        signed = _SignedPreKey.decode(data)
        return None if signed.expired(self._now()) else signed.pair

    def one_time(self, prekey_id: int) -> bytes | None:
        """The private key of that id.  Raises InvalidState when the row is damaged."""
        private = self._store.get(Table.ONE_TIME_PREKEYS, u32(prekey_id))
        if private is not None and len(private) != KEY_BYTES:
            raise InvalidState("a one-time prekey is not 32 bytes")
        return private

    def spend(self, prekey_id: int) -> None:
        self._store.delete(Table.ONE_TIME_PREKEYS, u32(prekey_id))

    def refuse_replay(self, signed_prekey_id: int, base_key: bytes) -> None:
        """Raises ReplayedBaseKey for a remembered base key, InvalidMessage when no more can be remembered."""
        if self._store.get(Table.BASE_KEYS, u32(signed_prekey_id) + base_key) is not None:
            raise ReplayedBaseKey("this base key already made a session without a one-time prekey")
        known = self._store.keys(Table.BASE_KEYS, u32(signed_prekey_id))
        if len(known) >= limits.BASE_KEYS_REMEMBERED_MAX:
            raise InvalidMessage("too many initiations without a one-time prekey")

    def remember_base_key(self, signed_prekey_id: int, base_key: bytes) -> None:
        self._store.put(Table.BASE_KEYS, u32(signed_prekey_id) + base_key, b"")

    def forget_expired(self) -> None:
        """Deletes signed prekeys whose grace is over, and the base keys remembered for them."""
        for key in self._store.keys(Table.SIGNED_PREKEYS):
            if self._read(key).expired(self._now()):
                self._store.delete(Table.SIGNED_PREKEYS, key)
                for base_key in self._store.keys(Table.BASE_KEYS, key):
                    self._store.delete(Table.BASE_KEYS, base_key)

    def reset(self) -> None:
        """Deletes every prekey; ids continue at a random distance, clear of those that a lost state gave out."""
        for table in (Table.SIGNED_PREKEYS, Table.ONE_TIME_PREKEYS, Table.BASE_KEYS):
            for key in self._store.keys(table):
                self._store.delete(table, key)
        for name in (_NEXT_SIGNED, _NEXT_ONE_TIME):
            distance = 1 + int.from_bytes(self._random(3), "big")
            self._store.put(Table.COUNTERS, name, u32(_following(self._counter(name), distance)))

    def _read(self, key: bytes) -> _SignedPreKey:
        data = self._store.get(Table.SIGNED_PREKEYS, key)
        assert data is not None
        return _SignedPreKey.decode(data)

    def _current(self) -> tuple[int, _SignedPreKey] | None:
        for key in self._store.keys(Table.SIGNED_PREKEYS):
            signed = self._read(key)
            if signed.retired_at is None:
                return int.from_bytes(key, "big"), signed
        return None

    def _rotate(self) -> None:
        now = self._now()
        current = self._current()
        if current is not None:
            prekey_id, old = current
            retired = _SignedPreKey(old.pair, old.created_at, now)
            self._store.put(Table.SIGNED_PREKEYS, u32(prekey_id), retired.encode())
        fresh = _SignedPreKey(KeyPair.generate(self._random), now, None)
        self._store.put(Table.SIGNED_PREKEYS, u32(self._next_id(_NEXT_SIGNED)), fresh.encode())

    def _make_one_time(self) -> tuple[int, bytes]:
        pair = KeyPair.generate(self._random)
        prekey_id = self._next_id(_NEXT_ONE_TIME)
        self._store.put(Table.ONE_TIME_PREKEYS, u32(prekey_id), pair.private)
        return prekey_id, pair.public

    def _bound_one_time(self) -> None:
        keys = self._store.keys(Table.ONE_TIME_PREKEYS)
        for key in keys[: max(0, len(keys) - limits.ONE_TIME_PREKEYS_KEPT_MAX)]:
            self._store.delete(Table.ONE_TIME_PREKEYS, key)

    def _next_id(self, name: bytes) -> int:
        prekey_id = self._counter(name)
        self._store.put(Table.COUNTERS, name, u32(_following(prekey_id, 1)))
        return prekey_id

    def _counter(self, name: bytes) -> int:
        value = self._store.get(Table.COUNTERS, name)
        if value is None:
            return 1
        if len(value) != 4 or value == bytes(4):
            raise InvalidState("a prekey counter is damaged")
        return int.from_bytes(value, "big")


def _following(prekey_id: int, distance: int) -> int:
    """The id `distance` further on the circle 1..2^32-1."""
    return (prekey_id - 1 + distance) % PREKEY_ID_MAX + 1
