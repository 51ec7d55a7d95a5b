"""The contract of registries (wa/storage/registry.py), one suite over LMDB and the reference in memory."""

import zlib
from collections.abc import Iterator
from pathlib import Path

import lmdb
import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import ids
from wa.errors import Code, LocalError, RemoteError
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry
from wa.storage.records import (
    RECORDS,
    U32_MAX,
    U64_MAX,
    Account,
    Budget,
    CodeRecord,
    CorruptRecord,
    Device,
    DeviceKeys,
    OneTimeKey,
    PushToken,
    Record,
    ip_subject,
)
from wa.storage.registry import Change, Registry

NUMBER = 15551230001
ADDRESS = ids.address_of(NUMBER, 1)
ACCOUNT = Account(NUMBER, 100, (1, 7), b"hash", b"salt", 7)
DEVICE = Device(ADDRESS, b"s" * 32, "Büro", 100)
KEYS = DeviceKeys(ADDRESS, b"i" * 32, U32_MAX, b"k" * 32, b"g" * 64, 12)
CODE = CodeRecord(NUMBER, b"h" * 32, b"salt", 700, 2)
BUDGET = Budget(NUMBER, "codes", 100, 3)
PUSH = PushToken(ADDRESS, "fcm", "token ü", 100)


class Lmdb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Registry:
        return LmdbRegistry(self.path)

    def damage(self, record: Record) -> None:
        """Flips a bit of a stored record; the registry is closed."""
        with lmdb.open(str(self.path), max_dbs=9) as env, env.begin(write=True) as txn:
            table = env.open_db(record.TABLE.encode(), txn=txn, create=False)
            txn.put(record.key(), flipped(txn.get(record.key(), db=table)), db=table)


class Memory:
    def __init__(self, path: Path) -> None:
        self.registry: MemoryRegistry | None = None

    def open(self) -> Registry:
        self.registry = MemoryRegistry(self.registry.disk if self.registry else None)
        return self.registry

    def damage(self, record: Record) -> None:
        assert self.registry is not None
        disk = self.registry.disk
        disk.set(record.TABLE, record.key(), flipped(disk.values[record.TABLE][record.key()]))


def flipped(value: bytes | None) -> bytes:
    assert value
    return value[:2] + bytes([value[2] ^ 1]) + value[3:]


@pytest.fixture(params=[Lmdb, Memory])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Lmdb | Memory:
    made: Lmdb | Memory = request.param(tmp_path / "registry")
    return made


@pytest.fixture
def registry(backend: Lmdb | Memory) -> Iterator[Registry]:
    opened = backend.open()
    yield opened
    opened.close()


def put(registry: Registry, *records: Record) -> None:
    with registry.write() as change:
        for record in records:
            change.put(record)


def put_one_time(registry: Registry, address: int, *key_ids: int) -> None:
    with registry.write() as change:
        change.put_one_time(address, ((key_id, bytes([key_id % 256]) * 32) for key_id in key_ids))


# --- records ------------------------------------------------------------------------------------------

U64 = st.integers(1, U64_MAX)
TIME = st.integers(0, U64_MAX)
KEY = st.binary(min_size=32, max_size=32)
ANY_RECORD = st.one_of(
    st.builds(
        Account,
        U64,
        TIME,
        st.sets(st.integers(1, 255)).map(lambda found: tuple(sorted(found))),
        st.binary(),
        st.binary(),
        st.integers(0, 255),
    ),
    st.builds(Device, U64, KEY, st.text(), TIME),
    st.builds(
        DeviceKeys,
        U64,
        KEY,
        st.integers(0, U32_MAX),
        KEY,
        st.binary(min_size=64, max_size=64),
        st.integers(-1),
    ).filter(lambda keys: keys.one_time_high <= U32_MAX),
    st.builds(OneTimeKey, U64, st.integers(0, U32_MAX), KEY),
    st.builds(CodeRecord, U64, KEY, st.binary(), TIME, st.integers(0, 9)),
    st.builds(Budget, U64, st.text(min_size=1, max_size=16), TIME, TIME),
    st.builds(PushToken, U64, st.text(), st.text(), TIME),
)


@given(ANY_RECORD)
def test_a_record_decodes_to_itself(record: Record) -> None:
    assert type(record).decode(record.key(), record.encode()) == record


@given(ANY_RECORD, st.data())
def test_no_flipped_bit_passes(record: Record, data: st.DataObject) -> None:
    value = bytearray(record.encode())
    value[data.draw(st.integers(0, len(value) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptRecord):
        type(record).decode(record.key(), bytes(value))


@given(st.sampled_from(RECORDS), st.binary(max_size=80), st.binary(max_size=80))
def test_any_bytes_are_a_record_or_corrupt(kind: type[Record], key: bytes, value: bytes) -> None:
    with pytest.raises(CorruptRecord):
        kind.decode(key, value)


def test_a_record_under_another_key_is_corrupt() -> None:
    with pytest.raises(CorruptRecord):
        Account.decode(Account(NUMBER + 1, 0).key(), ACCOUNT.encode())


def test_older_records_without_the_newest_field_are_read() -> None:
    packed = msgpack.packb([NUMBER, 100, (1, 7)])
    crc = zlib.crc32(b"accounts" + ACCOUNT.key() + packed).to_bytes(4, "big")
    assert Account.decode(ACCOUNT.key(), packed + crc) == Account(NUMBER, 100, (1, 7))


def test_a_hashed_ip_is_never_a_phone_number() -> None:
    assert ip_subject(bytes(8)) > ids.NUMBER_MAX
    assert ip_subject(b"\xff" * 32) == U64_MAX
    with pytest.raises(LocalError):
        ip_subject(b"short")


# --- reading and writing --------------------------------------------------------------------------------


def test_what_was_put_is_read_back_also_after_reopening(backend: Lmdb | Memory) -> None:
    registry = backend.open()
    put(registry, ACCOUNT, DEVICE, KEYS, CODE, BUDGET, PUSH)
    put_one_time(registry, ADDRESS, 5, 0, U32_MAX)
    for _ in range(2):
        with registry.read() as view:
            assert view.account(NUMBER) == ACCOUNT
            assert view.device(ADDRESS) == DEVICE
            assert view.device_keys(ADDRESS) == KEYS
            assert view.code(NUMBER) == CODE
            assert view.budget(NUMBER, "codes") == BUDGET
            assert view.push_token(ADDRESS) == PUSH
            assert [key.key_id for key in view.one_time_keys(ADDRESS)] == [0, 5, U32_MAX]
            assert view.one_time_count(ADDRESS) == 3
            assert list(view.accounts()) == [ACCOUNT]
            assert list(view.devices()) == [DEVICE]
            assert list(view.codes()) == [CODE]
            assert list(view.budgets()) == [BUDGET]
        registry.close()
        registry = backend.open()
    registry.close()


def test_what_is_not_there_is_none(registry: Registry) -> None:
    with registry.read() as view:
        assert view.account(NUMBER) is None
        assert view.device(ADDRESS) is None
        assert view.device_keys(ADDRESS) is None
        assert view.code(NUMBER) is None
        assert view.budget(NUMBER, "codes") is None
        assert view.push_token(ADDRESS) is None
        assert view.one_time_count(ADDRESS) == 0
        assert list(view.accounts()) == []


def test_put_replaces(registry: Registry) -> None:
    put(registry, CODE)
    put(registry, CodeRecord(NUMBER, b"n" * 32, b"", 900))
    with registry.read() as view:
        assert [code.expires_s for code in view.codes()] == [900]


def test_accounts_come_in_order_of_their_number(registry: Registry) -> None:
    numbers = [9, 256, 255, 1, 10**15 - 1]
    put(registry, *(Account(number, 0) for number in numbers))
    with registry.read() as view:
        assert [account.number for account in view.accounts()] == sorted(numbers)
    assert ACCOUNT.addresses() == (ADDRESS, ids.address_of(NUMBER, 7))


def test_deletes_say_what_was_there(registry: Registry) -> None:
    other = PushToken(ADDRESS + 1, "fcm", "other", 0)
    put(registry, ACCOUNT, DEVICE, KEYS, CODE, BUDGET, PUSH, Device(ADDRESS + 1, b"t" * 32, "", 0), other)
    put_one_time(registry, ADDRESS, 1, 2)
    put_one_time(registry, ADDRESS + 1, 3)
    for expected in (True, False):
        with registry.write() as change:
            assert change.delete_account(NUMBER) is expected
            assert change.delete_device(ADDRESS) is expected
            assert change.delete_code(NUMBER) is expected
            assert change.delete_budget(NUMBER, "codes") is expected
    with registry.read() as view:
        assert view.device_keys(ADDRESS) is None
        assert view.one_time_count(ADDRESS) == 0, "keys go with their device"
        assert view.push_token(ADDRESS) is None, "its push token too"
        assert view.push_token(ADDRESS + 1) == other
        assert [device.address for device in view.devices()] == [ADDRESS + 1]
        assert view.one_time_count(ADDRESS + 1) == 1


def test_one_time_keys_are_taken_once_lowest_first(registry: Registry) -> None:
    put_one_time(registry, ADDRESS, 7, 3)
    put_one_time(registry, ADDRESS + 1, 1)
    taken = []
    for _ in range(3):
        with registry.write() as change:
            taken.append(change.take_one_time(ADDRESS))
    assert taken == [OneTimeKey(ADDRESS, 3, b"\3" * 32), OneTimeKey(ADDRESS, 7, b"\7" * 32), None]


def test_one_time_keys_are_deleted_one_or_all(registry: Registry) -> None:
    put_one_time(registry, ADDRESS, 1, 2, 3)
    with registry.write() as change:
        assert change.delete_one_time(ADDRESS, 2) == 1
        assert change.delete_one_time(ADDRESS, 2) == 0
        assert change.delete_one_time(ADDRESS) == 2


def test_a_change_sees_itself(registry: Registry) -> None:
    with registry.write() as change:
        change.put(ACCOUNT)
        assert change.account(NUMBER) == ACCOUNT
        change.delete_account(NUMBER)
        assert change.account(NUMBER) is None


class Undo(Exception):
    """Leaves a write() block."""


def test_an_exception_undoes_all_of_it(registry: Registry) -> None:
    put(registry, ACCOUNT, CODE)
    put_one_time(registry, ADDRESS, 1)
    with pytest.raises(Undo), registry.write() as change:
        change.put(DEVICE)
        change.put(Account(NUMBER, 999))
        change.delete_code(NUMBER)
        assert change.take_one_time(ADDRESS) is not None
        raise Undo
    with registry.read() as view:
        assert view.device(ADDRESS) is None
        assert view.account(NUMBER) == ACCOUNT
        assert view.code(NUMBER) == CODE
        assert view.one_time_count(ADDRESS) == 1


def test_sweep_takes_what_is_old_and_no_more_than_asked(registry: Registry) -> None:
    put(registry, *(CodeRecord(n, b"h" * 32, b"", 10 * n) for n in (1, 2, 3)))
    put(registry, Budget(1, "a", 0, 1), Budget(2, "a", 50, 1))
    with registry.write() as change:
        assert change.sweep(20, 20, 2) == 2
        assert change.sweep(20, 20, 2) == 1
        assert change.sweep(20, 20, 2) == 0
    with registry.read() as view:
        assert [code.number for code in view.codes()] == [3]
        assert [budget.subject for budget in view.budgets()] == [2]


# --- misuse -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        Account(0, 0),
        Account(NUMBER, 0, (2, 1)),
        Account(NUMBER, 0, (1, 1)),
        Account(NUMBER, 0, (0,)),
        Device(ADDRESS, b"short", "", 0),
        DeviceKeys(ADDRESS, b"i" * 32, -1, b"k" * 32, b"g" * 64),
        DeviceKeys(ADDRESS, b"i" * 32, 1, b"k" * 31, b"g" * 64),
        DeviceKeys(ADDRESS, b"i" * 32, 1, b"k" * 32, b"g" * 63),
        OneTimeKey(ADDRESS, U32_MAX + 1, b"k" * 32),
        CodeRecord(NUMBER, b"", b"", 0),
        Budget(NUMBER, "codes", 0, -1),
        Budget(NUMBER, "", 0, 0),
        Budget(NUMBER, "n" * 65, 0, 0),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_record_out_of_range_is_the_caller_s_fault(registry: Registry, record: Record) -> None:
    with pytest.raises(LocalError):
        put(registry, record)


def test_transactions_do_not_nest_in_a_write(registry: Registry) -> None:
    with registry.write() as change:
        for transaction in (registry.read, registry.write):
            with pytest.raises(LocalError), transaction():
                pass
        with pytest.raises(LocalError):
            registry.close()
        change.put(ACCOUNT)
    with registry.read() as view:
        assert view.account(NUMBER) == ACCOUNT


def test_a_closed_registry_is_closed(registry: Registry) -> None:
    registry.close()
    for transaction in (registry.read, registry.write):
        with pytest.raises(LocalError, match="closed"), transaction():
            pass


# --- faults -------------------------------------------------------------------------------------------


def storage_failed(caught: pytest.ExceptionInfo[RemoteError]) -> bool:
    return caught.value.code == Code.STORAGE_FAILED


def test_a_corrupt_record_is_an_error_and_not_missing(backend: Lmdb | Memory) -> None:
    registry = backend.open()
    other = Account(NUMBER + 1, 0)
    put(registry, ACCOUNT, other)
    registry.close()
    backend.damage(ACCOUNT)
    registry = backend.open()
    with registry.read() as view:
        with pytest.raises(RemoteError) as caught:
            view.account(NUMBER)
        assert storage_failed(caught)
        assert list(view.accounts()) == [other], "its neighbours are readable"
    assert registry.corrupt == [("accounts", ACCOUNT.key())]
    assert registry.corrupt_n == 2
    put(registry, ACCOUNT)
    with registry.read() as view:
        assert view.account(NUMBER) == ACCOUNT
    registry.close()


def test_a_corrupt_one_time_key_is_never_handed_out(backend: Lmdb | Memory) -> None:
    registry = backend.open()
    put_one_time(registry, ADDRESS, 1, 2)
    registry.close()
    backend.damage(OneTimeKey(ADDRESS, 1, b""))
    registry = backend.open()
    with registry.write() as change:
        assert change.take_one_time(ADDRESS) == OneTimeKey(ADDRESS, 2, b"\2" * 32)
    assert registry.corrupt[0][0] == "one_time"
    with registry.read() as view:
        assert view.one_time_count(ADDRESS) == 0
    registry.close()


# --- both at once -------------------------------------------------------------------------------------

SMALL = st.integers(1, 3)
STEP = st.one_of(
    st.builds(Account, SMALL, SMALL),
    st.builds(Device, SMALL, st.just(b"s" * 32), st.text(max_size=3), SMALL),
    st.builds(OneTimeKey, SMALL, SMALL, st.just(b"s" * 32)),
    st.builds(Budget, SMALL, st.sampled_from("ab"), SMALL, SMALL),
    st.builds(PushToken, SMALL, st.just("p"), st.text(max_size=3), SMALL),
    st.tuples(
        st.sampled_from(
            ["delete_account", "delete_device", "take_one_time", "delete_one_time", "delete_push_token"]
        ),
        SMALL,
    ),
)


@settings(max_examples=30, deadline=None)
@given(blocks=st.lists(st.tuples(st.lists(STEP, max_size=8), st.booleans()), max_size=8))
def test_both_registries_agree(
    tmp_path_factory: pytest.TempPathFactory, blocks: list[tuple[list[object], bool]]
) -> None:
    registries: list[Registry] = [LmdbRegistry(tmp_path_factory.mktemp("r"), sync=False), MemoryRegistry()]
    seen = [[play(registry, block, commit) for block, commit in blocks] for registry in registries]
    assert seen[0] == seen[1]
    for registry in registries:
        registry.close()


def play(registry: Registry, block: list[object], commit: bool) -> list[object]:
    """What a block of changes returned, and what the registry holds after it."""
    seen: list[object] = []
    try:
        with registry.write() as change:
            for step in block:
                seen.append(take(change, step))
            if not commit:
                raise Undo
    except Undo:
        seen.append("undone")
    with registry.read() as view:
        seen += [list(view.accounts()), list(view.devices()), list(view.budgets())]
        seen += [list(view.one_time_keys(address)) for address in (1, 2, 3)]
        seen += [view.push_token(address) for address in (1, 2, 3)]
    return seen


def take(change: Change, step: object) -> object:
    if isinstance(step, Record):
        change.put(step)
        return None
    assert isinstance(step, tuple)
    return getattr(change, step[0])(step[1])
