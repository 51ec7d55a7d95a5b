"""Contract of the registry: accounts, devices, public keys, codes and budgets of one worker's shards.

    with registry.read() as view:           # a short snapshot; do not keep it over a write or a loop turn
        account = view.account(number)
    with registry.write() as change:        # one transaction, durable (fsync) when the block is left normally
        change.put(Account(number, now_s, (1,)))

An exception inside `write()` undoes all of it.  There is one writer at a time and no nesting: a Change is a View too,
and sees its own changes.  write() belongs to one thread (a worker's registry thread).  One other thread (its loop) may
use read() at the same time, and sees what was committed when it began.

Implementations: `LmdbRegistry` (lmdb_registry.py) and `MemoryRegistry` (memory_registry.py), the reference.
One suite runs over both: tests/contract/test_registry_contract.py.

Errors: RemoteError(STORAGE_FAILED) when the disk or the map is full, or the record asked for is corrupt;
LocalError on misuse (nested transactions, use after close).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TypeVar

from wa.errors import Code, LocalError, RemoteError
from wa.storage.records import (
    U32_MAX,
    U64_MAX,
    Account,
    Budget,
    CodeRecord,
    Corrupt,
    CorruptRecord,
    Device,
    DeviceKeys,
    OneTimeKey,
    PushToken,
    Record,
    address_key,
    budget_key,
    number_key,
    one_time_key_key,
)

R = TypeVar("R", bound=Record)


class Cursor(ABC):
    """What a backend provides: ordered byte tables inside one transaction.  Only View and Change use it."""

    @abstractmethod
    def get(self, table: str, key: bytes) -> bytes | None: ...

    @abstractmethod
    def scan(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """All (key, value) whose key begins with `prefix`, in key order.  Do not change the table
        meanwhile."""

    @abstractmethod
    def put(self, table: str, key: bytes, value: bytes) -> None: ...

    @abstractmethod
    def delete(self, table: str, key: bytes) -> bool:
        """True when it was there."""


class View:
    """Typed reading.

    A look-up of a corrupt record raises RemoteError(STORAGE_FAILED): it must not pass for missing.  An iteration skips
    it.  Both report it through `Registry.corrupt`.
    """

    def __init__(self, cursor: Cursor, corrupt: Corrupt) -> None:
        self._cursor = cursor
        self._corrupt = corrupt

    # --- one record or None ---
    def account(self, number: int) -> Account | None:
        return self._get(Account, number_key(number))

    def device(self, address: int) -> Device | None:
        return self._get(Device, address_key(address))

    def device_keys(self, address: int) -> DeviceKeys | None:
        return self._get(DeviceKeys, address_key(address))

    def code(self, number: int) -> CodeRecord | None:
        return self._get(CodeRecord, number_key(number))

    def push_token(self, address: int) -> PushToken | None:
        return self._get(PushToken, address_key(address))

    def budget(self, subject: int, name: str) -> Budget | None:
        """subject: a phone number or `records.ip_subject()`."""
        return self._get(Budget, budget_key(subject, name))

    # --- iteration, in key order ---
    def accounts(self) -> Iterator[Account]:
        return self._scan(Account, b"")

    def devices(self) -> Iterator[Device]:
        return self._scan(Device, b"")

    def one_time_keys(self, address: int) -> Iterator[OneTimeKey]:
        """Of one device, lowest id first."""
        return self._scan(OneTimeKey, address_key(address))

    def one_time_count(self, address: int) -> int:
        return sum(1 for _ in self.one_time_keys(address))

    def codes(self) -> Iterator[CodeRecord]:
        return self._scan(CodeRecord, b"")

    def budgets(self) -> Iterator[Budget]:
        return self._scan(Budget, b"")

    def _get(self, kind: type[R], key: bytes) -> R | None:
        value = self._cursor.get(kind.TABLE, key)
        if value is None:
            return None
        try:
            return kind.decode(key, value)
        except CorruptRecord as error:
            self._corrupt(kind.TABLE, key)
            raise RemoteError(Code.STORAGE_FAILED, str(error)) from None

    def _scan(self, kind: type[R], prefix: bytes) -> Iterator[R]:
        for key, value in self._cursor.scan(kind.TABLE, prefix):
            try:
                record = kind.decode(key, value)
            except CorruptRecord:
                self._corrupt(kind.TABLE, key)
                continue
            yield record


class Change(View):
    """A write transaction.  `put` inserts or replaces; a delete says whether the record was there."""

    def put(self, record: Record) -> None:
        """Any record of records.py.  Raises LocalError when a field is out of its range."""
        _check(record)
        self._cursor.put(record.TABLE, record.key(), record.encode())

    def delete_account(self, number: int) -> bool:
        """Only the account record; its devices and keys are deleted with `delete_device`."""
        return self._cursor.delete(Account.TABLE, number_key(number))

    def delete_device(self, address: int) -> bool:
        """The device with its keys, one-time keys and push token."""
        self._cursor.delete(DeviceKeys.TABLE, address_key(address))
        self.delete_push_token(address)
        self.delete_one_time(address)
        return self._cursor.delete(Device.TABLE, address_key(address))

    def put_one_time(self, address: int, keys: Iterable[tuple[int, bytes]]) -> None:
        """(id, public key 32 bytes) pairs.  How many a device may have is the caller's rule."""
        for key_id, public in keys:
            self.put(OneTimeKey(address, key_id, public))

    def take_one_time(self, address: int) -> OneTimeKey | None:
        """Removes and returns the one with the lowest id; None when there is none.

        Corrupt ones are removed and skipped.  Hand the key out only after the write() block: until then it can be
        undone.
        """
        for key, value in list(self._cursor.scan(OneTimeKey.TABLE, address_key(address))):
            self._cursor.delete(OneTimeKey.TABLE, key)
            try:
                return OneTimeKey.decode(key, value)
            except CorruptRecord:
                self._corrupt(OneTimeKey.TABLE, key)
        return None

    def delete_one_time(self, address: int, key_id: int | None = None) -> int:
        """All of a device's one-time keys, or the one with `key_id`.  Returns how many were deleted."""
        prefix = address_key(address) if key_id is None else one_time_key_key(address, key_id)
        keys = [key for key, _ in self._cursor.scan(OneTimeKey.TABLE, prefix)]
        return sum(self._cursor.delete(OneTimeKey.TABLE, key) for key in keys)

    def delete_push_token(self, address: int) -> bool:
        return self._cursor.delete(PushToken.TABLE, address_key(address))

    def delete_code(self, number: int) -> bool:
        return self._cursor.delete(CodeRecord.TABLE, number_key(number))

    def delete_budget(self, subject: int, name: str) -> bool:
        return self._cursor.delete(Budget.TABLE, budget_key(subject, name))

    def sweep(self, now_s: int, budget_age_s: int, count_max: int) -> int:
        """Deletes codes that expired and budgets whose window began `budget_age_s` ago or earlier.

        At most `count_max` in all; returns how many.  Fewer than `count_max`: nothing is left to sweep.
        """
        old: list[tuple[str, bytes]] = []
        for code in self.codes():
            if code.expires_s <= now_s:
                old.append((code.TABLE, code.key()))
        for budget in self.budgets():
            if budget.window_start_s + budget_age_s <= now_s:
                old.append((budget.TABLE, budget.key()))
        for table, key in old[:count_max]:
            self._cursor.delete(table, key)
        return len(old[:count_max])


class Registry(ABC):
    """The store itself.  `corrupt`: (table, key) of corrupt records read since it was opened, at most CORRUPT_KEPT_MAX
    of them; `corrupt_n` counts every such read."""

    CORRUPT_KEPT_MAX = 64

    def __init__(self) -> None:
        self.corrupt: list[tuple[str, bytes]] = []
        self.corrupt_n = 0

    @abstractmethod
    def read(self) -> AbstractContextManager[View]: ...

    @abstractmethod
    def write(self) -> AbstractContextManager[Change]: ...

    @abstractmethod
    def close(self) -> None: ...

    def _report_corrupt(self, table: str, key: bytes) -> None:
        self.corrupt_n += 1
        if (table, key) not in self.corrupt and len(self.corrupt) < self.CORRUPT_KEPT_MAX:
            self.corrupt.append((table, key))


def _sized(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise LocalError(f"{name} has {len(value)} bytes, not {size}")


def _ranged(name: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise LocalError(f"{name} is {value}, out of {low}..{high}")


def _check(record: Record) -> None:
    """A failure here is a fault of ours: wire.methods has checked what peers send."""
    match record:
        case Account():
            _ranged("number", record.number, 1, U64_MAX)
            if list(record.devices) != sorted({d for d in record.devices if 0 < d < 256}):
                raise LocalError("devices are numbers 1..255, ascending and without repetition")
        case Device():
            _ranged("address", record.address, 1, U64_MAX)
            _sized("static_key", record.static_key, 32)
        case DeviceKeys():
            _ranged("address", record.address, 1, U64_MAX)
            _ranged("signed_id", record.signed_id, 0, U32_MAX)
            _sized("identity", record.identity, 32)
            _sized("signed_key", record.signed_key, 32)
            _sized("signed_signature", record.signed_signature, 64)
        case OneTimeKey():
            _ranged("address", record.address, 1, U64_MAX)
            _ranged("key_id", record.key_id, 0, U32_MAX)
            _sized("public", record.public, 32)
        case CodeRecord():
            _ranged("number", record.number, 1, U64_MAX)
            _sized("hash", record.hash, 32)
        case PushToken():
            _ranged("address", record.address, 1, U64_MAX)
        case Budget():
            _ranged("subject", record.subject, 1, U64_MAX)
            _ranged("count", record.count, 0, U64_MAX)
        case _:
            raise LocalError(f"{type(record).__name__} is not a record of the registry")
