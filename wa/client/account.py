"""One opened account: its store, its keys and the tables over them.  No network.

The hook is called with the name of each persistence step just before or after it happens; tests end the
process there, so the names are part of this class's contract (`STEPS`).
"""

from collections.abc import Callable
from pathlib import Path

from wa.client.contacts import Contacts
from wa.client.events import Direction, State
from wa.client.history import History
from wa.client.lock import DirectoryLock
from wa.client.outbox_table import OutboxTable
from wa.client.store import Store, now_ms
from wa.e2e.sessions import Sessions
from wa.e2e.sqlite_store import SqliteStore, create_tables
from wa.errors import LocalError
from wa.ids import Address, Number, number_of

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
