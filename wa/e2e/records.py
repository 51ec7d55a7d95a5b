"""The session record of one peer device: a few sessions, and the rule for which of them sends.

Two devices may start sessions at the same time, start one anew, or lose theirs with a restored backup.  Then both hold
several sessions, and must settle on one without negotiation.  Each side numbers its *generation* towards the peer: 0 at
first, higher whenever it abandons its earlier sessions.  Every message carries the sender's generation, encrypted.  A
session is *alive* when we have not abandoned it and, as far as we heard, the peer has not either:

    alive      own generation of the session = our generation now, and nothing was received on it yet (we
               started it: pending) or the newest thing received on it came from the peer's newest generation
    sends      the alive session with the greatest base key among those that something was received on,
               since both sides hold these; without any, the newest pending one

The choice depends on the set of sessions only, not on the order of arrival.  It prefers a session that the peer has
proved to hold, so a reply can always be read.  A side that has heard the other on both of two simultaneous sessions
uses the greater; the other side follows with the next message it receives.  Sessions that do not send still receive,
until they fall out of a list bounded by `SESSIONS_PER_PEER_MAX`.
"""

from dataclasses import dataclass, field

from wa import limits
from wa.e2e.codec import Reader, u32
from wa.e2e.double_ratchet import DoubleRatchet
from wa.e2e.errors import InvalidState
from wa.e2e.primitives import KEY_BYTES

_RECORD_VERSION = 1


@dataclass(eq=False)
class Session:
    """One X3DH agreement and the ratchet that grew from it."""

    initiated: bool  # by this device
    peer_identity: bytes
    base_key: bytes
    signed_prekey_id: int  # of the responder; with the next field, what initial messages repeat
    one_time_prekey_id: int | None
    own_generation: int
    peer_generation: int | None  # None: pending, nothing received on it yet
    ratchet: DoubleRatchet

    @property
    def pending(self) -> bool:
        return self.peer_generation is None


@dataclass
class SessionRecord:
    """All sessions with one peer device, most recently used first."""

    own_generation: int = 0
    peer_generation: int = 0  # the newest heard
    sessions: list[Session] = field(default_factory=list)

    def alive(self, session: Session) -> bool:
        heard = session.pending or session.peer_generation == self.peer_generation
        return heard and session.own_generation == self.own_generation

    def sending(self) -> Session | None:
        """The session that encrypts, by the rule of the module docstring."""
        alive = [session for session in self.sessions if self.alive(session)]
        confirmed = [session for session in alive if not session.pending]
        if confirmed:
            return max(confirmed, key=lambda session: session.base_key)
        return alive[0] if alive else None

    def add(self, session: Session) -> None:
        """Adds a session as the most recent; beyond the limit the least recent goes, dead ones first."""
        self.sessions.insert(0, session)
        while len(self.sessions) > limits.SESSIONS_PER_PEER_MAX:
            dead = [old for old in self.sessions[1:] if not self.alive(old)]
            gone = (dead or self.sessions)[-1]
            gone.ratchet.wipe()
            self.sessions.remove(gone)

    def heard(self, session: Session, generation: int) -> None:
        """Notes that a message of the peer's `generation` was decrypted on `session`."""
        self.peer_generation = max(self.peer_generation, generation)
        session.peer_generation = max(session.peer_generation or 0, generation)
        self.sessions.remove(session)
        self.sessions.insert(0, session)

    def abandon(self) -> None:
        """Our side will not send on any present session any more."""
        self.own_generation += 1

    def wipe(self) -> None:
        for session in self.sessions:
            session.ratchet.wipe()

    def encode(self) -> bytes:
        """Version 1, generations 4+4, count 1, then per session: length 4 and that many bytes."""
        parts = [bytes([_RECORD_VERSION]), u32(self.own_generation), u32(self.peer_generation)]
        parts.append(bytes([len(self.sessions)]))
        for session in self.sessions:
            encoded = _encode_session(session)
            parts += [u32(len(encoded)), encoded]
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> "SessionRecord":
        """The inverse of `encode`, strict.  Raises InvalidState."""
        reader = Reader(data, InvalidState)
        if (version := reader.uint(1)) != _RECORD_VERSION:
            raise InvalidState(f"session record of version {version}")
        record = cls(reader.uint(4), reader.uint(4))
        count = reader.uint(1)
        if count > limits.SESSIONS_PER_PEER_MAX:
            raise InvalidState("too many sessions")
        record.sessions = [_decode_session(reader.take(reader.uint(4))) for _ in range(count)]
        reader.end()
        return record


def _encode_session(session: Session) -> bytes:
    """Initiated 1, peer identity 32, base key 32, prekey ids 4+4 (0: none), own generation 4, heard 1 and
    then peer generation 4, ratchet."""
    generation = session.peer_generation
    return b"".join(
        (
            bytes([session.initiated]),
            session.peer_identity,
            session.base_key,
            u32(session.signed_prekey_id),
            u32(session.one_time_prekey_id or 0),
            u32(session.own_generation),
            b"\0" if generation is None else b"\1" + u32(generation),
            session.ratchet.encode(),
        )
    )


def _decode_session(data: bytes) -> Session:
    reader = Reader(data, InvalidState)
    return Session(
        initiated=reader.flag(),
        peer_identity=reader.take(KEY_BYTES),
        base_key=reader.take(KEY_BYTES),
        signed_prekey_id=reader.uint(4),
        one_time_prekey_id=reader.uint(4) or None,
        own_generation=reader.uint(4),
        peer_generation=reader.uint(4) if reader.flag() else None,
        ratchet=DoubleRatchet.decode(reader.rest()),
    )
