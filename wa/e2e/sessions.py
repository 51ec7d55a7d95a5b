"""Sessions: X3DH and the Double Ratchet between this device and its peers, over a store.

Message body, version 1 (integers big-endian; `docs/e2e.md` has a worked example):

    offset  bytes  field
    0       1      version, 1
    1       1      type: 1 initial message, 2 message
    type 1 only, repeated in every message until the first reply arrives:
    2       32     identity key of the sender, Ed25519
    34      32     base key of the sender, X25519
    66      4      id of the recipient's signed prekey, not 0
    70      4      id of the recipient's one-time prekey, 0 for none
    both types, at 74 (type 1) or 2 (type 2):
    +0      32     ratchet key of the sender, X25519
    +32     4      PN, length of the sender's previous sending chain
    +36     4      N, number of this message in its chain
    +40     n+16   AES-256-GCM ciphertext and tag over: generation 4 || plaintext n - 4

Associated data of the AEAD: the 81 bytes of `x3dh.associated_data` (identity keys, version, addresses;
initiator first), then every byte of the body before the ciphertext.  `generation` is the sender's, see
`records`.

Rules for the caller:
- Every method is synchronous and belongs in the caller's transaction.
- Commit before the ciphertext leaves.  Acknowledge a delivery only after the commit.
- A method that refuses what a peer or a server sent has not written to the store.  After InvalidState (our own rows are
  damaged) roll back.
"""

from collections.abc import Iterable

from wa import ids, limits
from wa.e2e import fingerprint, x3dh
from wa.e2e.codec import u32, u64
from wa.e2e.double_ratchet import HEADER_BYTES, DoubleRatchet
from wa.e2e.errors import IdentityChanged, InvalidMessage, InvalidState, NoIdentity, NoSession, UnknownPreKey
from wa.e2e.identities import Identities
from wa.e2e.keys import IdentityKey, Now, PreKeyBundle, PreKeyUpload, Random
from wa.e2e.messages import GENERATION_BYTES, Initiation, Message, encode_prefix, parse
from wa.e2e.prekeys import PreKeys
from wa.e2e.primitives import KEY_BYTES, TAG_BYTES, wipe
from wa.e2e.records import Session, SessionRecord
from wa.e2e.stores import SessionStore, Table
from wa.errors import LocalError

PLAINTEXT_BYTES_MAX = limits.ENVELOPE_BODY_BYTES_MAX - (74 + HEADER_BYTES + GENERATION_BYTES + TAG_BYTES)
_GENERATION = b"generation"
_GENERATION_MAX = (1 << 32) - 1


class Sessions:
    """The end-to-end face of one device; `address` is its own (wa.ids).

    `now()` gives wall-clock seconds, `random(n)` n bytes fit for keys.
    """

    def __init__(self, store: SessionStore, address: int, *, now: Now, random: Random) -> None:
        _check_device(address)
        self.address = address
        self._store = store
        self._now = now
        self._random = random
        self._identities = Identities(store)
        self._prekeys = PreKeys(store, now=now, random=random)
        self._derived: tuple[bytes, IdentityKey] | None = None

    # --- own keys -----------------------------------------------------------------------------------

    def create_identity(self) -> None:
        """Makes the identity key, once per device.  Raises LocalError when there is one."""
        if self._store.get(Table.IDENTITY, b"") is not None:
            raise LocalError("this store already has an identity key")
        self._store.put(Table.IDENTITY, b"", self._random(KEY_BYTES))

    def identity_key(self) -> bytes:
        """The public identity key, Ed25519, 32 bytes.  Raises NoIdentity."""
        return self._identity().public

    def prekey_upload(self, *, stock_on_server: int) -> PreKeyUpload:
        """What to send to the server: the signed prekey (rotated when due) and as many one-time prekeys as
        its stock lacks to ONE_TIME_PREKEYS_MAX."""
        return self._prekeys.upload(self._identity(), stock_on_server)

    def rotation_due(self) -> bool:
        """Whether `prekey_upload` would make a new signed prekey."""
        return self._prekeys.rotation_due()

    # --- sessions -----------------------------------------------------------------------------------

    def has_session(self, peer: int) -> bool:
        """Whether `encrypt` has a session to use (an unacknowledged identity may still hold it back)."""
        record = self._load(peer)
        try:
            return record.sending() is not None
        finally:
            record.wipe()

    def start_session(self, bundle: PreKeyBundle) -> None:
        """Starts a session as its initiator and abandons earlier ones with that device for sending.

        A changed identity is recorded, and `encrypt` raises IdentityChanged until it is acknowledged.
        Raises InvalidBundle.
        """
        _check_device(bundle.address)
        agreement = x3dh.initiate(self._identity(), bundle, self._random)
        ratchet = DoubleRatchet.initiate(agreement.secret, bundle.signed_prekey, self._random)
        wipe(agreement.secret)
        record = self._load(bundle.address)
        if record.sessions:
            record.abandon()
        record.add(
            Session(
                initiated=True,
                peer_identity=bundle.identity_key,
                base_key=agreement.base_key,
                signed_prekey_id=bundle.signed_prekey_id,
                one_time_prekey_id=bundle.one_time_prekey_id,
                own_generation=record.own_generation,
                peer_generation=None,
                ratchet=ratchet,
            )
        )
        self._identities.record(bundle.address, bundle.identity_key)
        self._save(bundle.address, record)
        record.wipe()

    def encrypt(self, peer: int, plaintext: bytes) -> bytes:
        """The body to send.  Commit before it leaves.  Raises NoSession, IdentityChanged; LocalError when
        the plaintext is over PLAINTEXT_BYTES_MAX."""
        if len(plaintext) > PLAINTEXT_BYTES_MAX:
            raise LocalError(f"a plaintext of {len(plaintext)} bytes is too long; send it as media")
        self._identities.refuse_pending(peer)
        record = self._load(peer)
        try:
            session = record.sending()
            if session is None:
                raise NoSession("start a session with this peer first")
            prefix = encode_prefix(self._initiation(session))
            payload = u32(record.own_generation) + plaintext
            authenticated = self._associated_data(peer, session) + prefix
            header, ciphertext = session.ratchet.encrypt(payload, authenticated)
            self._save(peer, record)
        finally:
            record.wipe()
        return prefix + header.encode() + ciphertext

    def decrypt(self, peer: int, body: bytes) -> bytes:
        """The plaintext of a body that was delivered as from `peer`.

        Raises InvalidMessage (InvalidKey, TooManySkipped), DuplicateMessage, NoSession, UnknownPreKey,
        ReplayedBaseKey, IdentityChanged.  Whatever it raises, the store is unchanged.  After IdentityChanged
        keep the body, call `record_identity_change` in a transaction of its own so that a restart remembers
        it, and decrypt again once the user acknowledged.
        """
        _check_device(peer)
        message = parse(body)
        self._identities.refuse_pending(peer)
        record = self._load(peer)
        try:
            if message.initiation is None:
                plaintext = self._decrypt_ordinary(peer, record, message)
            else:
                plaintext = self._decrypt_initial(peer, record, message, message.initiation)
            self._save(peer, record)
        finally:
            record.wipe()
        return plaintext

    # --- identities ---------------------------------------------------------------------------------

    def peer_identity(self, peer: int) -> bytes | None:
        """The trusted identity key of a peer device, None for a stranger."""
        return self._identities.trusted(peer)

    def pending_identity(self, peer: int) -> bytes | None:
        """The changed identity key that awaits acknowledgement, if any."""
        return self._identities.pending(peer)

    def record_identity_change(self, change: IdentityChanged) -> None:
        """Makes a change met by `decrypt` durable: from now on `encrypt` raises also after a restart."""
        self._identities.record(change.peer, change.presented)

    def acknowledge_identity(self, peer: int) -> None:
        """The user accepted the changed identity: trust it, and drop every session with the old one.

        Raises LocalError when no change is pending.
        """
        key = self._identities.acknowledge(peer)
        record = self._load(peer)
        kept = [session for session in record.sessions if session.peer_identity == key]
        if kept:
            record.sessions = kept
            self._save(peer, record)
        else:
            self._store.delete(Table.SESSIONS, u64(peer))
        record.wipe()

    def safety_number(
        self,
        peer_number: int,
        *,
        own_identities: Iterable[bytes] | None = None,
        peer_identities: Iterable[bytes] | None = None,
    ) -> str:
        """Sixty digits in twelve groups of five, the same on both sides.

        By default over this device's identity key and those known of the peer's devices (a pending change
        counts, since it is what the user is to compare).  Accounts with several devices pass the identity
        keys of all devices on each side.  Raises NoSession when no key of the peer is known.
        """
        own, peer = self._account_hashes(peer_number, own_identities, peer_identities)
        return fingerprint.grouped(fingerprint.digits(own, peer))

    def safety_qr(
        self,
        peer_number: int,
        *,
        own_identities: Iterable[bytes] | None = None,
        peer_identities: Iterable[bytes] | None = None,
    ) -> bytes:
        """The payload of the QR code that this screen shows; same arguments as `safety_number`."""
        return fingerprint.qr_payload(*self._account_hashes(peer_number, own_identities, peer_identities))

    def safety_qr_matches(
        self,
        peer_number: int,
        scanned: bytes,
        *,
        own_identities: Iterable[bytes] | None = None,
        peer_identities: Iterable[bytes] | None = None,
    ) -> bool:
        """Whether the payload scanned off the peer's screen agrees.  Raises InvalidMessage for another."""
        own, peer = self._account_hashes(peer_number, own_identities, peer_identities)
        return fingerprint.qr_matches(own, peer, scanned)

    # --- housekeeping -------------------------------------------------------------------------------

    def reset_all_sessions(self) -> None:
        """After restoring a backup, before anything is encrypted or decrypted.

        Old ratchet states would reuse message keys, and old one-time prekeys would accept replays, so all
        sessions and prekeys go; identities stay.  Peers hear of a new generation with the first message and
        stop using the sessions that this device lost.  Then have the server drop its stock and upload
        `prekey_upload(stock_on_server=0)`.
        """
        # The backup may be older than an earlier reset, so the clock and not just the counter moves it on.
        generation = min(max(self._generation() + 1, self._now()), _GENERATION_MAX)
        for key in self._store.keys(Table.SESSIONS):
            self._store.delete(Table.SESSIONS, key)
        self._prekeys.reset()
        self._store.put(Table.COUNTERS, _GENERATION, u32(generation))

    def forget_expired(self) -> None:
        """Deletes skipped keys and retired prekeys that are past their time.  Call it about once a day."""
        for key in self._store.keys(Table.SESSIONS):
            peer = int.from_bytes(key, "big")
            record = self._load(peer)
            if any([session.ratchet.forget_skipped(self._now()) for session in record.sessions]):
                self._save(peer, record)
            record.wipe()
        self._prekeys.forget_expired()

    # --- inside -------------------------------------------------------------------------------------

    def _decrypt_ordinary(self, peer: int, record: SessionRecord, message: Message) -> bytes:
        if not record.sessions:
            raise NoSession("a message without a session")
        ratchet_key = message.header.ratchet_key
        candidates = [session for session in record.sessions if session.ratchet.knows(ratchet_key)]
        refused: InvalidMessage | None = None
        for session in candidates or list(record.sessions):
            try:
                return self._open(peer, record, session, message)
            except InvalidMessage as error:
                refused = refused or error
        assert refused is not None
        raise refused

    def _decrypt_initial(
        self, peer: int, record: SessionRecord, message: Message, initiation: Initiation
    ) -> bytes:
        for session in record.sessions:
            if not session.initiated and session.base_key == initiation.base_key:
                return self._open(peer, record, session, message)
        session = self._respond(record, initiation)
        record.add(session)
        plaintext = self._open(peer, record, session, message)
        # Only now is it proved that the sender holds the identity key it names.
        self._identities.meet(peer, initiation.identity_key)
        if initiation.one_time_prekey_id is None:
            self._prekeys.remember_base_key(initiation.signed_prekey_id, initiation.base_key)
        else:
            self._prekeys.spend(initiation.one_time_prekey_id)
        return plaintext

    def _respond(self, record: SessionRecord, initiation: Initiation) -> Session:
        """The responder's session for an initial message.  Raises UnknownPreKey, ReplayedBaseKey."""
        signed = self._prekeys.signed(initiation.signed_prekey_id)
        if signed is None:
            raise UnknownPreKey("the signed prekey is retired or was never ours")
        one_time = None
        if initiation.one_time_prekey_id is None:
            self._prekeys.refuse_replay(initiation.signed_prekey_id, initiation.base_key)
        else:
            one_time = self._prekeys.one_time(initiation.one_time_prekey_id)
            if one_time is None:
                raise UnknownPreKey("the one-time prekey was used or was never ours")
        agreement = x3dh.respond(
            self._identity(), signed.private, one_time, initiation.identity_key, initiation.base_key
        )
        ratchet = DoubleRatchet.accept(agreement.secret, signed)
        wipe(agreement.secret)
        return Session(
            initiated=False,
            peer_identity=initiation.identity_key,
            base_key=initiation.base_key,
            signed_prekey_id=initiation.signed_prekey_id,
            one_time_prekey_id=initiation.one_time_prekey_id,
            own_generation=record.own_generation,
            peer_generation=None,
            ratchet=ratchet,
        )

    def _open(self, peer: int, record: SessionRecord, session: Session, message: Message) -> bytes:
        now = self._now()
        session.ratchet.forget_skipped(now)
        payload = session.ratchet.decrypt(
            message.header,
            message.ciphertext,
            self._associated_data(peer, session) + message.prefix,
            now=now,
            random=self._random,
        )
        record.heard(session, int.from_bytes(payload[:GENERATION_BYTES], "big"))
        return payload[GENERATION_BYTES:]

    def _initiation(self, session: Session) -> Initiation | None:
        """What goes into an initial message, None once the peer has answered."""
        if not (session.initiated and session.pending):
            return None
        return Initiation(
            self.identity_key(), session.base_key, session.signed_prekey_id, session.one_time_prekey_id
        )

    def _associated_data(self, peer: int, session: Session) -> bytes:
        own = self.identity_key()
        if session.initiated:
            return x3dh.associated_data(own, session.peer_identity, self.address, peer)
        return x3dh.associated_data(session.peer_identity, own, peer, self.address)

    def _account_hashes(
        self, peer_number: int, own: Iterable[bytes] | None, peer: Iterable[bytes] | None
    ) -> tuple[bytes, bytes]:
        own_keys = [self.identity_key()] if own is None else list(own)
        if peer is None:
            known = (self._identities.latest(device) for device in self._identities.devices(peer_number))
            peer_keys = [key for key in known if key is not None]
        else:
            peer_keys = list(peer)
        if not peer_keys:
            raise NoSession("no identity key of this peer is known yet")
        own_number = ids.number_of(self.address)
        return (
            fingerprint.account_hash(own_keys, ids.format_number(own_number).encode()),
            fingerprint.account_hash(peer_keys, ids.format_number(peer_number).encode()),
        )

    def _identity(self) -> IdentityKey:
        seed = self._store.get(Table.IDENTITY, b"")
        if seed is None:
            raise NoIdentity("call create_identity() once on this store")
        if len(seed) != KEY_BYTES:
            raise InvalidState("the identity key is not 32 bytes")
        # Keyed by the stored seed, since the caller may roll back the transaction that stored it.
        if self._derived is None or self._derived[0] != seed:
            self._derived = (seed, IdentityKey(seed))
        return self._derived[1]

    def _generation(self) -> int:
        value = self._store.get(Table.COUNTERS, _GENERATION) or bytes(4)
        if len(value) != 4:
            raise InvalidState("the generation counter is damaged")
        return int.from_bytes(value, "big")

    def _load(self, peer: int) -> SessionRecord:
        data = self._store.get(Table.SESSIONS, u64(peer))
        return SessionRecord(self._generation()) if data is None else SessionRecord.decode(data)

    def _save(self, peer: int, record: SessionRecord) -> None:
        self._store.put(Table.SESSIONS, u64(peer), record.encode())


def _check_device(address: int) -> None:
    if not ids.is_device_address(address):
        raise LocalError("not the address of a device")
