"""One opened account: its store, its keys and the tables over them.  No network.

The hook gets the name of each persistence step, just before or after it.  Tests end the process there, so the names
(`STEPS`) are part of this class's contract.
"""

import logging
import os
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path

from wa import limits
from wa.client.contacts import Contacts
from wa.client.history import History
from wa.client.lock import DirectoryLock
from wa.client.outbox_table import OutboxTable
from wa.client.store import Store, now_ms
from wa.e2e.errors import WrongPassphrase
from wa.e2e.keys import PreKeyUpload
from wa.e2e.passphrase import Vault
from wa.e2e.sessions import Sessions
from wa.e2e.sqlite_store import SqliteStore, create_tables
from wa.errors import LocalError
from wa.ids import Address, Number, number_of
from wa.noise.records import Ticket
from wa.wire import frames

log = logging.getLogger("wa.client")

Hook = Callable[[str], None]

STEPS = (
    "register:keys-kept",
    "register:verified",
    "register:address-kept",
    "keys:made",
    "keys:uploaded",
    "send:encrypted",
    "send:committed",
    "send:written",
    "receive:decrypted",
    "receive:committed",
    "receive:acknowledged",
    "receipt:read",
    "receipt:committed",
    "event:handed-out",
)
"""Crash points, in the order in which a message meets them."""


def no_hook(step: str) -> None:
    assert step in STEPS, step


# Names in the settings table.
_ADDRESS = "address"
_SERVER = "server"
_ROOT_KEY = "root_key"
_NOISE_KEY = "noise_private_key"
_CERTIFICATE = "certificate"
_TICKET = "ticket"
_VAULT = "vault_header"
_FILE = "file_identity"
_SIGNED_ID = "uploaded_signed_prekey"
_MADE_ID = "made_signed_prekey"
_NOISE_LABEL = b"settings/noise_private_key"
_TICKET_LABEL = b"settings/ticket"
_TICKET_HEAD = struct.Struct(">Q32s")  # expires (Unix ms), psk; the ticket follows


class Account:
    """Raises LocalError when the account is missing, open elsewhere, or the passphrase is wrong."""

    def __init__(
        self,
        directory: Path,
        *,
        passphrase: str | None = None,
        create: bool = False,
        hook: Hook = no_hook,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        if create:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        elif not directory.is_dir():
            raise LocalError(f"no account in {directory}; register first: wa register +15551230001")
        self.directory = directory
        self.hook = hook
        self.lock = DirectoryLock(directory)
        try:
            self.store = Store(directory, create=create, clock_ms=clock_ms)
        except LocalError:
            self.lock.release()
            raise
        self.history = History(self.store)
        self.outbox = OutboxTable(self.store)
        self.contacts = Contacts(self.store)
        try:
            self._vault = self._open_vault(passphrase)
            self._bind(create)
        except LocalError:
            self.close()
            raise

    def _bind(self, create: bool) -> None:
        address = self.store.get_int(_ADDRESS)
        if address is None and not create:
            raise LocalError(f"the registration in {self.directory} was not finished; run wa register again")
        self._sessions = None if address is None else self._make_sessions(address)
        if address is not None:
            self._notice_restore()

    def _open_vault(self, passphrase: str | None) -> Vault | None:
        header = self.store.get(_VAULT)
        is_new = self.store.get(_NOISE_KEY) is None
        if header is None and passphrase is not None and not is_new:
            raise LocalError(f"the keys in {self.directory} are not wrapped; leave the passphrase out")
        if header is None:
            if passphrase is None:
                return None
            vault = Vault.create(passphrase, os.urandom)
            with self.store.transaction():
                self.store.put(_VAULT, vault.header)
            return vault
        if passphrase is None:
            raise LocalError(f"the keys in {self.directory} are wrapped; give the passphrase")
        try:
            return Vault.open(passphrase, header, os.urandom)
        except WrongPassphrase:
            raise LocalError("the passphrase is wrong") from None

    def _make_sessions(self, address: int) -> Sessions:
        vault = self._vault
        with self.store.transaction():
            create_tables(self.store.db)
        keys = (
            SqliteStore(self.store.db)
            if vault is None
            else SqliteStore(self.store.db, wrap=vault.wrap, unwrap=vault.unwrap)
        )
        return Sessions(keys, address, now=lambda: self.store.clock_ms() // 1_000, random=os.urandom)

    def _notice_restore(self) -> None:
        """A copied or restored file has old ratchet states; their keys must not be used twice."""
        status = self.store.path.stat()
        current = f"{status.st_dev}:{status.st_ino}"
        known = self.store.get_text(_FILE)
        if known == current:
            return
        with self.store.transaction():
            if known is not None:
                self.forget_sessions()
                self.store.put(_TICKET, None)
            self.store.put(_FILE, current)

    # --- what it is ---

    @property
    def address(self) -> Address:
        """Raises LocalError before the registration."""
        value = self.store.get_int(_ADDRESS)
        if value is None:
            raise LocalError("this account is not registered yet")
        return Address(value)

    @property
    def is_registered(self) -> bool:
        return self.store.get_int(_ADDRESS) is not None

    @property
    def number(self) -> Number:
        return number_of(self.address)

    @property
    def sessions(self) -> Sessions:
        assert self._sessions is not None, "only a registered account has sessions"
        return self._sessions

    @property
    def server(self) -> str:
        return self.store.get_text(_SERVER) or ""

    @property
    def root_key(self) -> bytes:
        return self.store.get(_ROOT_KEY) or b""

    @property
    def certificate(self) -> bytes | None:
        return self.store.get(_CERTIFICATE)

    def keep_certificate(self, certificate: bytes) -> None:
        """Call it after a finished handshake only: then the pinned root key has signed it."""
        if certificate != self.certificate:
            with self.store.transaction():
                self.store.put(_CERTIFICATE, certificate)

    @property
    def static_private(self) -> bytes:
        """The Noise static key, which is the device."""
        stored = self.store.get(_NOISE_KEY)
        assert stored is not None, "made by `prepare_registration`"
        return stored if self._vault is None else self._vault.unwrap(stored, _NOISE_LABEL)

    def keep_ticket(self, lifetime_s: int, secret: bytes) -> None:
        """Keeps the ticket for the next login.  secret: psk and ticket, as the server sent them."""
        lifetime_s = min(lifetime_s, limits.TICKET_LIFETIME_S)
        expires_ms = self.store.clock_ms() + lifetime_s * 1_000
        psk, sealed = secret[: frames.PSK_BYTES], secret[frames.PSK_BYTES :]
        value = _TICKET_HEAD.pack(expires_ms, psk) + sealed
        try:
            with self.store.transaction(durable=False):
                self.store.put(_TICKET, value if self._vault is None else self._vault.wrap(value, _TICKET_LABEL))
        except sqlite3.OperationalError as error:
            log.warning("the resumption ticket was not kept: %s", error)  # only makes the next login dearer

    def take_ticket(self) -> Ticket | None:
        """Deletes the ticket and returns it, unless it has expired."""
        stored = self.store.get(_TICKET)
        if stored is None:
            return None
        try:
            with self.store.transaction():
                self.store.put(_TICKET, None)
        except sqlite3.OperationalError as error:
            log.warning("the resumption ticket could not be deleted, so it is not used: %s", error)
            return None
        value = stored if self._vault is None else self._vault.unwrap(stored, _TICKET_LABEL)
        expires_ms, psk = _TICKET_HEAD.unpack_from(value)
        if self.store.clock_ms() >= expires_ms:
            return None
        return Ticket(value[_TICKET_HEAD.size :], psk)

    # --- registration ---

    def prepare_registration(self, server: str, root_key: bytes) -> None:
        """Keeps server, pinned root key and a Noise key before the server hears of them."""
        with self.store.transaction():
            if self.store.get(_NOISE_KEY) is None:
                key = os.urandom(32)
                self.store.put(_NOISE_KEY, key if self._vault is None else self._vault.wrap(key, _NOISE_LABEL))
            if self.server != server or self.root_key != root_key:
                self.store.put(_CERTIFICATE, None)
            self.store.put(_TICKET, None)
            self.store.put(_SERVER, server)
            self.store.put(_ROOT_KEY, root_key)
        self.hook("register:keys-kept")

    def finish_registration(self, address: int) -> None:
        """The server bound our key to `address`: makes the end-to-end identity, or keeps the one there is."""
        self.hook("register:verified")
        sessions = self._make_sessions(address)
        with self.store.transaction():
            again = self.store.get_int(_ADDRESS) is not None
            self.store.put(_ADDRESS, address)
            self._sessions = sessions
            if again:
                self.forget_sessions()
            else:
                sessions.create_identity()
        self._notice_restore()
        self.hook("register:address-kept")

    # --- keys ---

    def forget_sessions(self) -> None:
        """Sessions and prekeys start anew; call inside a transaction."""
        self.sessions.reset_all_sessions()
        self.store.put(_SIGNED_ID, None)

    @property
    def uploaded_signed_id(self) -> int | None:
        """The signed prekey that the server confirmed last; None: upload everything."""
        return self.store.get_int(_SIGNED_ID)

    def is_behind(self, signed_id: object) -> bool:
        """True when the server has a signed prekey that this store never made: it is a restored backup."""
        if self.uploaded_signed_id is None or not isinstance(signed_id, int):
            return False
        return signed_id not in (self.uploaded_signed_id, self.store.get_int(_MADE_ID))

    def make_upload(self, stock: int) -> PreKeyUpload:
        """Prekeys to publish; they are stored before the server hears of them."""
        with self.store.transaction():
            upload = self.sessions.prekey_upload(stock_on_server=stock)
            self.store.put(_MADE_ID, upload.signed_prekey_id)
        self.hook("keys:made")
        return upload

    def keep_uploaded(self, signed_id: int) -> None:
        with self.store.transaction():
            self.store.put(_SIGNED_ID, signed_id)
        self.hook("keys:uploaded")

    def close(self) -> None:
        self.store.close()
        self.lock.release()


def is_wrapped(directory: Path) -> bool:
    """Whether the keys in this account directory need a passphrase.  False when there is no account."""
    path = directory / "account.db"
    if not path.exists():
        return False
    connection = sqlite3.connect(path)
    try:
        found = connection.execute("SELECT 1 FROM settings WHERE name = ?", (_VAULT,)).fetchone()
    except sqlite3.DatabaseError:
        return False  # opening the account says what is wrong with it
    finally:
        connection.close()
    return found is not None
