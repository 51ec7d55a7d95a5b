"""Which identity key each peer device is trusted to have.

The first key seen is trusted (trust on first use).  Another key is *pending* until the user acknowledges it.

A decrypt that raises leaves the store unchanged.  So a pending key met while decrypting is in memory only, until
`record` makes it durable.
"""

from wa.e2e.codec import Reader, u64
from wa.e2e.errors import IdentityChanged, InvalidState
from wa.e2e.primitives import KEY_BYTES
from wa.e2e.stores import SessionStore, Table
from wa.errors import LocalError

_VERSION = 1


class Identities:
    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self._unrecorded: dict[int, bytes] = {}

    def trusted(self, peer: int) -> bytes | None:
        return self._load(peer)[0]

    def pending(self, peer: int) -> bytes | None:
        return self._load(peer)[1]

    def latest(self, peer: int) -> bytes | None:
        """The pending key if there is one, or else the trusted one: what a user is to compare."""
        trusted, pending = self._load(peer)
        return pending or trusted

    def refuse_pending(self, peer: int) -> None:
        """Raises IdentityChanged while a key of this peer awaits acknowledgement."""
        trusted, pending = self._load(peer)
        if trusted is not None and pending is not None:
            raise IdentityChanged(peer, trusted, pending)

    def meet(self, peer: int, key: bytes) -> None:
        """A key proved by an initial message: trusts a first key, raises IdentityChanged for another."""
        trusted = self.trusted(peer)
        if trusted is None:
            self._save(peer, key, None)
        elif key != trusted:
            self._unrecorded[peer] = key
            raise IdentityChanged(peer, trusted, key)

    def record(self, peer: int, key: bytes) -> None:
        """Trusts a first key; keeps another one, durably, until it is acknowledged."""
        trusted = self.trusted(peer)
        if trusted is None:
            self._save(peer, key, None)
        elif key != trusted:
            self._save(peer, trusted, key)
            # Kept in memory too, since the caller's transaction may still be rolled back.
            self._unrecorded[peer] = key

    def acknowledge(self, peer: int) -> bytes:
        """Trusts the pending key from now on and returns it.  Raises LocalError when nothing is pending."""
        key = self.pending(peer)
        if key is None:
            raise LocalError("the identity of this peer has not changed")
        self._save(peer, key, None)
        self._unrecorded.pop(peer, None)
        return key

    def devices(self, number: int) -> list[int]:
        """The known device addresses of an account; they share the first seven bytes."""
        keys = self._store.keys(Table.PEERS, u64(number << 8)[:7])
        return [int.from_bytes(key, "big") for key in keys]

    def _load(self, peer: int) -> tuple[bytes | None, bytes | None]:
        value = self._store.get(Table.PEERS, u64(peer))
        if value is None:
            return None, None
        reader = Reader(value, InvalidState)
        if (version := reader.uint(1)) != _VERSION:
            raise InvalidState(f"identity record of version {version}")
        trusted = reader.take(KEY_BYTES)
        pending = reader.take(KEY_BYTES) if reader.flag() else None
        reader.end()
        return trusted, self._unrecorded.get(peer, pending)

    def _save(self, peer: int, trusted: bytes, pending: bytes | None) -> None:
        tail = b"\0" if pending is None else b"\1" + pending
        self._store.put(Table.PEERS, u64(peer), bytes([_VERSION]) + trusted + tail)
