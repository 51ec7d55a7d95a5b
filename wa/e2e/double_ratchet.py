"""The Double Ratchet: a fresh key for every message, healing with every reply.

Source: The Double Ratchet Algorithm, revision 1 (Signal, 2016), sections 3 and 5.2, with

    DH            X25519
    root step     HKDF(salt = root key, DH output, info "WhatsAppRootKey", 64) = root key' || chain key
    chain step    HKDF(salt = chain key, 0x01, info "WhatsAppChainKey", 32)    = chain key'
                  HKDF(salt = chain key, 0x01, info "WhatsAppMessageKey", 32)  = message key
    encryption    AES-256-GCM(message key, nonce = 12 zero bytes, associated data || header)
    header        ratchet key 32 || PN 4 || N 4

HKDF is HKDF-SHA-256.  Both lines of the chain step share one extraction; it is the `kdf_hkdf` of the
`doubleratchet` package twice over the same input, once per label.  The nonce may be constant because a
message key encrypts exactly one message.  PN is the length of the sender's previous sending chain, N the
number of the message in its chain, both big-endian.

Rules that the code below keeps:
- A message changes the state only after its tag verified; everything before that works on copies.
- Keys of skipped messages are kept by (ratchet key, N), also across a DH step.  One jump derives at most
  `RATCHET_SKIP_MAX` of them; a DH step has two jumps, one per chain.  A session keeps at most
  `RATCHET_SKIPPED_STORED_MAX`, oldest out first, none longer than `RATCHET_SKIPPED_AGE_S_MAX`.
- Finished receiving chains are remembered by ratchet key and length, so that their duplicates are recognised.

Elsewhere: how the first secret is agreed (`x3dh`), which session a message belongs to (`records`), where the state is
stored (`stores`).
"""

from dataclasses import dataclass, field

from wa import limits
from wa.e2e.codec import Reader, u16, u32, u64
from wa.e2e.errors import DuplicateMessage, InvalidMessage, InvalidState, TooManySkipped
from wa.e2e.keys import KeyPair, Random
from wa.e2e.primitives import (
    KEY_BYTES,
    hkdf_expand_sha256,
    hkdf_sha256,
    hmac_sha256,
    open_sealed,
    seal,
    wipe,
    x25519,
)
from wa.errors import LocalError

HEADER_BYTES = KEY_BYTES + 4 + 4
ROOT_INFO = b"WhatsAppRootKey"
CHAIN_INFO = b"WhatsAppChainKey"
MESSAGE_INFO = b"WhatsAppMessageKey"
CHAIN_CONSTANT = b"\x01"
_STATE_VERSION = 1
_COUNTER_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class Header:
    """What the receiver needs to find the message key; 40 bytes on the wire."""

    ratchet_key: bytes
    previous_length: int  # PN
    number: int  # N

    def encode(self) -> bytes:
        return self.ratchet_key + u32(self.previous_length) + u32(self.number)


@dataclass
class Chain:
    """A symmetric-key chain: the key that makes the next message key, and how many were made."""

    key: bytearray = field(repr=False)
    length: int = 0

    def copy(self) -> "Chain":
        return Chain(bytearray(self.key), self.length)

    def step(self) -> bytearray:
        """Advances by one and returns the message key."""
        extracted = hmac_sha256(self.key, CHAIN_CONSTANT)
        message_key = hkdf_expand_sha256(extracted, MESSAGE_INFO, KEY_BYTES)
        following = hkdf_expand_sha256(extracted, CHAIN_INFO, KEY_BYTES)
        wipe(extracted, self.key)
        self.key = following
        self.length += 1
        return message_key


@dataclass(frozen=True)
class SkippedKey:
    key: bytearray = field(repr=False)
    stored_at: int  # seconds, wall clock


@dataclass(repr=False)
class _Advance:
    """What receiving a message would change, complete but not yet applied."""

    receiving: Chain
    root: bytearray | None = None  # set when the message makes a DH step
    skipped: list[tuple[bytes, int, bytearray]] = field(default_factory=list)
    message_key: bytearray = field(default_factory=bytearray)

    def skip_to(self, number: int, ratchet_key: bytes) -> None:
        if number - self.receiving.length > limits.RATCHET_SKIP_MAX:
            raise TooManySkipped(f"the message would skip over {number - self.receiving.length} others")
        while self.receiving.length < number:
            at = self.receiving.length
            self.skipped.append((ratchet_key, at, self.receiving.step()))

    def wipe(self) -> None:
        wipe(self.receiving.key, self.message_key, *(key for _, _, key in self.skipped))
        if self.root is not None:
            wipe(self.root)


class DoubleRatchet:
    """One session's ratchet.  Made by `initiate`, `accept` or `decode`; kept by `encode`."""

    __slots__ = (
        "_finished",
        "_own",
        "_peer_key",
        "_previous_length",
        "_receiving",
        "_root",
        "_sending",
        "skipped",
    )

    def __init__(self, root: bytearray, own: KeyPair) -> None:
        self._root = root
        self._own = own
        self._peer_key: bytes | None = None
        self._sending: Chain | None = None
        self._receiving: Chain | None = None
        self._previous_length = 0
        self._finished: dict[bytes, int] = {}  # ratchet key -> length of that receiving chain, oldest first
        self.skipped: dict[tuple[bytes, int], SkippedKey] = {}  # oldest first

    @classmethod
    def initiate(cls, secret: bytearray, peer_ratchet_key: bytes, random: Random) -> "DoubleRatchet":
        """The side that sends first, to a peer whose first ratchet key (its signed prekey) is known."""
        ratchet = cls(bytearray(secret), KeyPair.generate(random))
        ratchet._peer_key = peer_ratchet_key
        ratchet._root, ratchet._sending = _root_step(ratchet._root, ratchet._own, peer_ratchet_key)
        return ratchet

    @classmethod
    def accept(cls, secret: bytearray, own: KeyPair) -> "DoubleRatchet":
        """The side that receives first; `own` is the signed prekey pair that the peer used."""
        return cls(bytearray(secret), own)

    def encrypt(self, plaintext: bytes, associated_data: bytes) -> tuple[Header, bytes]:
        """Header and ciphertext (tag included) of the next message."""
        if self._sending is None:
            raise LocalError("nothing was received on this ratchet yet, so it cannot send")
        if self._sending.length >= _COUNTER_MAX:
            raise LocalError("the sending chain is used up; start a new session")
        header = Header(self._own.public, self._previous_length, self._sending.length)
        message_key = self._sending.step()
        ciphertext = seal(message_key, plaintext, associated_data + header.encode())
        wipe(message_key)
        return header, ciphertext

    def decrypt(
        self, header: Header, ciphertext: bytes, associated_data: bytes, *, now: int, random: Random
    ) -> bytes:
        """The plaintext.  On any error the state is what it was.

        Raises DuplicateMessage, TooManySkipped, InvalidKey, InvalidMessage.
        """
        authenticated = associated_data + header.encode()
        place = (header.ratchet_key, header.number)
        kept = self.skipped.get(place)
        if kept is not None:
            plaintext = open_sealed(kept.key, ciphertext, authenticated)
            wipe(self.skipped.pop(place).key)
            return plaintext
        advance = self._advance(header)
        try:
            plaintext = open_sealed(advance.message_key, ciphertext, authenticated)
        except InvalidMessage:
            advance.wipe()
            raise
        self._apply(header, advance, now, random)
        wipe(advance.message_key)
        return plaintext

    def knows(self, ratchet_key: bytes) -> bool:
        """Whether this ratchet has received on a chain of that ratchet key."""
        receiving = self._receiving is not None and ratchet_key == self._peer_key
        return receiving or ratchet_key in self._finished

    def forget_skipped(self, now: int) -> bool:
        """Deletes skipped keys that are too old (seconds); True when there were any."""
        oldest = now - limits.RATCHET_SKIPPED_AGE_S_MAX
        expired = [place for place, kept in self.skipped.items() if kept.stored_at < oldest]
        for place in expired:
            wipe(self.skipped.pop(place).key)
        return bool(expired)

    def wipe(self) -> None:
        """Zeroes the keys of this object, which cannot be used afterwards."""
        chains = [chain.key for chain in (self._sending, self._receiving) if chain is not None]
        wipe(self._root, *chains, *(kept.key for kept in self.skipped.values()))

    def _advance(self, header: Header) -> _Advance:
        """Derives the key of a message that is not among the skipped ones, changing nothing."""
        receiving = self._receiving
        if receiving is not None and header.ratchet_key == self._peer_key:
            if header.number < receiving.length:
                raise DuplicateMessage("this message was decrypted before, or its key is gone")
            advance = _Advance(receiving.copy())
        elif header.ratchet_key in self._finished:
            if header.number < self._finished[header.ratchet_key]:
                raise DuplicateMessage("this message was decrypted before, or its key is gone")
            raise InvalidMessage("the message lies beyond the end of its chain")
        else:
            advance = self._dh_advance(header)
        advance.skip_to(header.number, header.ratchet_key)
        advance.message_key = advance.receiving.step()
        return advance

    def _dh_advance(self, header: Header) -> _Advance:
        """The receiving half of a DH step; the sending half waits for the tag (see `_apply`)."""
        skipped: list[tuple[bytes, int, bytearray]] = []
        if self._receiving is not None and self._peer_key is not None:
            if header.previous_length < self._receiving.length:
                raise InvalidMessage("the previous chain is shorter than what was received on it")
            ending = _Advance(self._receiving.copy())
            ending.skip_to(header.previous_length, self._peer_key)
            wipe(ending.receiving.key)
            skipped = ending.skipped
        root, receiving = _root_step(bytearray(self._root), self._own, header.ratchet_key)
        return _Advance(receiving, root, skipped)

    def _apply(self, header: Header, advance: _Advance, now: int, random: Random) -> None:
        if advance.root is not None:
            self._turn(header, advance.root, random)
        elif self._receiving is not None:
            wipe(self._receiving.key)
        self._receiving = advance.receiving
        for ratchet_key, number, key in advance.skipped:
            self.skipped[ratchet_key, number] = SkippedKey(key, now)
        while len(self.skipped) > limits.RATCHET_SKIPPED_STORED_MAX:
            wipe(self.skipped.pop(next(iter(self.skipped))).key)

    def _turn(self, header: Header, root: bytearray, random: Random) -> None:
        """Ends both chains and starts the sending one under a fresh ratchet key."""
        own = KeyPair.generate(random)  # first, since a random source may fail
        if self._receiving is not None and self._peer_key is not None:
            wipe(self._receiving.key)
            self._finished[self._peer_key] = header.previous_length
            while len(self._finished) > limits.RATCHET_CHAINS_REMEMBERED_MAX:
                del self._finished[next(iter(self._finished))]
        self._previous_length = 0
        if self._sending is not None:
            self._previous_length = self._sending.length
            wipe(self._sending.key)
        wipe(self._root)
        self._peer_key = header.ratchet_key
        self._own = own
        self._root, self._sending = _root_step(root, self._own, header.ratchet_key)

    # --- stored form --------------------------------------------------------------------------------

    def encode(self) -> bytes:
        """The state as bytes: version 1, root key 32, own private 32 and public 32, PN 4, peer key, sending
        chain and receiving chain (each a flag 1, then 32 or 32+4), finished chains (count 1, each 32+4),
        skipped keys (count 2, each ratchet key 32, N 4, key 32, time 8)."""
        parts: list[bytes | bytearray] = [bytes([_STATE_VERSION]), self._root]
        parts += [self._own.private, self._own.public, u32(self._previous_length)]
        parts.append(b"\0" if self._peer_key is None else b"\1" + self._peer_key)
        for chain in (self._sending, self._receiving):
            parts.append(b"\0" if chain is None else b"\1" + chain.key + u32(chain.length))
        parts.append(bytes([len(self._finished)]))
        parts += [ratchet_key + u32(length) for ratchet_key, length in self._finished.items()]
        parts.append(u16(len(self.skipped)))
        for (ratchet_key, number), kept in self.skipped.items():
            parts.append(ratchet_key + u32(number) + kept.key + u64(kept.stored_at))
        return b"".join(parts)

    @classmethod
    def decode(cls, data: bytes) -> "DoubleRatchet":
        """The inverse of `encode`, strict.  Raises InvalidState."""
        reader = Reader(data, InvalidState)
        if (version := reader.uint(1)) != _STATE_VERSION:
            raise InvalidState(f"ratchet state of version {version}")
        root = bytearray(reader.take(KEY_BYTES))
        ratchet = cls(root, KeyPair(reader.take(KEY_BYTES), reader.take(KEY_BYTES)))
        ratchet._previous_length = reader.uint(4)
        ratchet._peer_key = reader.take(KEY_BYTES) if reader.flag() else None
        ratchet._sending = _read_chain(reader)
        ratchet._receiving = _read_chain(reader)
        if ratchet._peer_key is None and (ratchet._sending or ratchet._receiving):
            raise InvalidState("a chain without the peer's ratchet key")
        finished = reader.uint(1)
        if finished > limits.RATCHET_CHAINS_REMEMBERED_MAX:
            raise InvalidState("too many finished chains")
        for _ in range(finished):
            ratchet_key = reader.take(KEY_BYTES)
            ratchet._finished[ratchet_key] = reader.uint(4)
        skipped = reader.uint(2)
        if skipped > limits.RATCHET_SKIPPED_STORED_MAX:
            raise InvalidState("too many skipped keys")
        for _ in range(skipped):
            place = (reader.take(KEY_BYTES), reader.uint(4))
            ratchet.skipped[place] = SkippedKey(bytearray(reader.take(KEY_BYTES)), reader.uint(8))
        if len(ratchet._finished) != finished or len(ratchet.skipped) != skipped:
            raise InvalidState("an entry occurs twice")
        reader.end()
        return ratchet


def _read_chain(reader: Reader) -> Chain | None:
    return Chain(bytearray(reader.take(KEY_BYTES)), reader.uint(4)) if reader.flag() else None


def _root_step(root: bytearray, own: KeyPair, peer_key: bytes) -> tuple[bytearray, Chain]:
    """Consumes (and wipes) the root key; gives the next one and the chain that starts here."""
    shared = x25519(own.private, peer_key)
    derived = hkdf_sha256(root, shared, ROOT_INFO, 2 * KEY_BYTES)
    following, chain = derived[:KEY_BYTES], Chain(derived[KEY_BYTES:])
    wipe(root, shared, derived)
    return following, chain
