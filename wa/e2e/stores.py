"""What end-to-end encryption stores, behind a narrow contract: get, put, delete, keys.

Each table maps a short byte key to a byte value.  Who fills which table:

    table             key                              value
    IDENTITY          empty                            Ed25519 seed 32
    COUNTERS          name                             u32
    PEERS             address 8                        trusted (and pending) identity key (`identities`)
    SESSIONS          address 8                        session record (`records`)
    SIGNED_PREKEYS    id 4                             private key and dates (`prekeys`)
    ONE_TIME_PREKEYS  id 4                             private key 32
    BASE_KEYS         signed prekey id 4 || base key 32  empty

A store neither begins nor ends transactions: its owner makes one call of `Sessions` and the rest of that event
(plaintext, message id) one transaction.  Values are secret, keys are not.
"""

from enum import StrEnum
from typing import Protocol


class Table(StrEnum):
    IDENTITY = "identity"
    COUNTERS = "counters"
    PEERS = "peers"
    SESSIONS = "sessions"
    SIGNED_PREKEYS = "signed_prekeys"
    ONE_TIME_PREKEYS = "one_time_prekeys"
    BASE_KEYS = "base_keys"


class SessionStore(Protocol):
    """The contract; `tests/e2e/test_stores.py` runs one suite against every implementation."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Inserts or replaces."""

    def delete(self, table: Table, key: bytes) -> None:
        """Deletes if present."""

    def keys(self, table: Table, prefix: bytes = b"") -> list[bytes]:
        """The keys that begin with `prefix`, in byte order."""


class MemoryStore:
    """The reference: dictionaries.  `snapshot` and `restore` stand in for a transaction and for a backup."""

    def __init__(self) -> None:
        self._tables: dict[Table, dict[bytes, bytes]] = {table: {} for table in Table}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tables[table].get(key)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        self._tables[table][key] = value

    def delete(self, table: Table, key: bytes) -> None:
        self._tables[table].pop(key, None)

    def keys(self, table: Table, prefix: bytes = b"") -> list[bytes]:
        return sorted(key for key in self._tables[table] if key.startswith(prefix))

    def snapshot(self) -> dict[Table, dict[bytes, bytes]]:
        return {table: dict(rows) for table, rows in self._tables.items()}

    def restore(self, snapshot: dict[Table, dict[bytes, bytes]]) -> None:
        self._tables = {table: dict(rows) for table, rows in snapshot.items()}
