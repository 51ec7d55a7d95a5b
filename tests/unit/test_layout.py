"""The data directory: its lock, its file, and moving every record when the number of workers changes."""

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wa import ids, limits
from wa._fastpath.mailbox import twin as mail_log
from wa._fastpath.mailbox.contract import Op, Result, What
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.mailbox.twin import RECEIPT, Writer
from wa.errors import LocalError
from wa.routing.shards import worker_of, worker_of_number
from wa.storage import redistribute
from wa.storage.layout import Layout, Progress, open_layout
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.records import (
    Account,
    Budget,
    CodeRecord,
    Device,
    DeviceKeys,
    OneTimeKey,
    PushToken,
    Record,
    ip_subject,
)

REPOSITORY = Path(__file__).parents[2]
Content = tuple[list[Op], list[Record]]


def owner(item: Op | Record, workers: int) -> int:
    match item:
        case Op():
            return worker_of(item.recipient, workers)
        case Account() | CodeRecord():
            return worker_of_number(item.number, workers)
        case Budget():
            return worker_of_number(item.subject, workers)
        case Device() | DeviceKeys() | OneTimeKey() | PushToken():
            return worker_of(item.address, workers)
    raise AssertionError(item)


def fill(layout: Layout, content: Content) -> None:
    """Each item into the environments of its owner."""
    ops, records = content
    for worker in range(layout.workers):
        mine = [op for op in ops if owner(op, layout.workers) == worker]
        if mine:
            store = LmdbMailStore(layout.mail(worker))
            store.start()
            assert set(store.apply(mine).results) <= {Result.OK}
            store.close()
        kept = [record for record in records if owner(record, layout.workers) == worker]
        if kept:
            registry = LmdbRegistry(layout.registry(worker))
            with registry.write() as change:
                for record in kept:
                    change.put(record)
            registry.close()


def holds(layout: Layout) -> tuple[list[list[Op]], list[list[Record]]]:
    """What each worker finds when it opens its environments."""
    mail: list[list[Op]] = []
    registered: list[list[Record]] = []
    for worker in range(layout.workers):
        store = LmdbMailStore(layout.mail(worker))
        boxes = dict.fromkeys((recipient, priority) for recipient, priority, _ in store.census())
        rows = [row for box in boxes for row in store.read(*box, count_max=999)]
        assert all(store.contains(row.recipient, row.sender, row.id) for row in rows)
        owners = dict.fromkeys(owner_ for owner_, _, _ in store.receipt_census())
        mail.append(rows + [receipt for owner_ in owners for receipt in store.read_receipts(owner_)])
        assert store.stats()["corrupt"] == 0
        store.close()
        registry = LmdbRegistry(layout.registry(worker))
        with registry.read() as view:
            devices = list(view.devices())
            found: list[Record] = [*view.accounts(), *devices, *view.codes(), *view.budgets()]
            for device in devices:
                found += [keys for keys in [view.device_keys(device.address)] if keys]
                found += view.one_time_keys(device.address)
                found += [token for token in [view.push_token(device.address)] if token]
        assert registry.corrupt_n == 0
        registered.append(found)
        registry.close()
    return mail, registered


def check(layout: Layout, content: Content) -> None:
    """Everything is there once, at its owner, in order."""
    mail, registered = holds(layout)
    for worker in range(layout.workers):
        owners = {owner(op, layout.workers) for op in mail[worker]}
        assert owners | {owner(record, layout.workers) for record in registered[worker]} <= {worker}
    assert sorted(map(repr, chain(*mail))) == sorted(map(repr, content[0]))
    assert sorted(map(repr, chain(*registered))) == sorted(map(repr, content[1]))
    for items in mail:
        rows = [op for op in items if op.what == What.PUT]
        assert rows == sorted(rows, key=lambda row: (row.recipient, -row.priority, row.seq))


def reopen(data_dir: Path, workers: int) -> Iterator[Layout]:
    layout = open_layout(data_dir, workers)
    yield layout
    layout.close()


# --- content --------------------------------------------------------------------------------------------

NUMBERS = st.integers(1, ids.NUMBER_MAX)


@st.composite
def contents(draw: st.DrawFn) -> Content:
    numbers = draw(st.lists(NUMBERS, min_size=1, max_size=12, unique=True))
    records: list[Record] = []
    ops: list[Op] = []
    seq = 0
    for number in numbers:
        devices = draw(st.sets(st.integers(1, 255), max_size=3))
        records.append(Account(number, 1, tuple(sorted(devices))))
        records += [CodeRecord(number, b"h" * 32, b"", 1)] * draw(st.booleans())
        records += [Budget(number, "codes", 1, 2)] * draw(st.booleans())
        for address in (ids.address_of(number, device) for device in devices):
            records.append(Device(address, b"s" * 32, "", 1))
            records.append(DeviceKeys(address, b"i" * 32, 1, b"k" * 32, b"g" * 64))
            records += [PushToken(address, "fcm", "token", 1)] * draw(st.booleans())
            records += [OneTimeKey(address, key_id, b"o" * 32) for key_id in draw(st.sets(st.integers(0, 9)))]
            for _ in range(draw(st.integers(0, 4))):
                seq += 1
                body = draw(st.binary(max_size=64) | st.just(b"long" * 4_000))
                priority = draw(st.sampled_from((5, 10, 100)))
                expires_s = draw(st.integers(0, 9))
                ops.append(Op(What.PUT, address, seq, seq, seq, priority, 1, 0, 1, expires_s, body))
                ops.append(Op(What.RECEIPT_PUT, address, 7, seq, level=0x21))
    return ops, records


def example(accounts: int) -> Content:
    """Content for the tests that need no variety."""
    ops: list[Op] = []
    records: list[Record] = []
    for n in range(1, accounts + 1):
        address = ids.address_of(15_551_230_000 + n, 1)
        records += [Account(15_551_230_000 + n, 1, (1,)), Device(address, b"s" * 32, "", 1)]
        records.append(PushToken(address, "fcm", f"token {n}", 1))
        ops += [Op(What.PUT, address, 1, k, n * 9 + k, 10, 1, 0, 1, 5, b"x" * 999) for k in range(3)]
        ops.append(Op(What.RECEIPT_PUT, address, 7, n, level=0x21))
    return ops, records


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=contents())
def test_nothing_is_lost_whatever_is_stored(tmp_path_factory: pytest.TempPathFactory, content: Content) -> None:
    through(tmp_path_factory.mktemp("data"), content, (2, 7, 1))


def test_nothing_is_lost_from_1_to_2_to_7_to_64_to_1(tmp_path: Path) -> None:
    through(tmp_path, example(100), (2, 7, 64, 1))


def through(data_dir: Path, content: Content, numbers_of_workers: tuple[int, ...]) -> None:
    for layout in reopen(data_dir, 1):
        fill(layout, content)
    for generation, workers in enumerate(numbers_of_workers, 1):
        for layout in reopen(data_dir, workers):
            assert (layout.workers, layout.generation) == (workers, generation)
            assert {path.name for path in data_dir.glob("g*")} == {f"g{generation}"}
            check(layout, content)


def test_more_workers_than_environments_open_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redistribute, "TARGETS_OPEN_MAX", 2)
    monkeypatch.setattr(redistribute, "TXN_BYTES_MAX", 1_000)
    monkeypatch.setattr(mail_log, "TXN_BYTES_MAX", 1_000)
    content = example(20)
    for layout in reopen(tmp_path, 3):
        fill(layout, content)
    for layout in reopen(tmp_path, 5):
        check(layout, content)


def test_expiry_moves_along(tmp_path: Path) -> None:
    content = example(10)
    for layout in reopen(tmp_path, 1):
        fill(layout, content)
    for layout in reopen(tmp_path, 3):
        count = 0
        for worker in range(3):
            store = LmdbMailStore(layout.mail(worker))
            store.start()
            count += len(store.apply([Op(What.SWEEP, accepted_s=5, count_max=99)]).expired)
            assert store.census() == []
            store.close()
        assert count == 30


def test_a_directory_from_before_a_table_was_added_moves(tmp_path: Path) -> None:
    mail, records = example(3)
    content = mail, [record for record in records if not isinstance(record, PushToken)]
    for layout in reopen(tmp_path, 1):
        fill(layout, content)
        with lmdb.open(str(layout.registry(0)), max_dbs=9) as env:
            table = env.open_db(b"push", create=False)
            with env.begin(write=True) as txn:
                txn.drop(table, delete=True)
    for layout in reopen(tmp_path, 2):
        check(layout, content)


def test_a_damaged_record_moves_as_it_is(tmp_path: Path) -> None:
    content = example(1)
    for layout in reopen(tmp_path, 1):
        fill(layout, content)
        with lmdb.open(str(layout.mail(0)), max_dbs=5) as env, env.begin(write=True) as txn:
            table = env.open_db(b"log", txn=txn)
            for place, at in ((1, 60), (2, 20)):  # in a body; in an identity
                key = place.to_bytes(8, "big")
                value = txn.get(key, db=table)
                txn.put(key, value[:at] + b"?" + value[at + 1 :], db=table)
    for workers in (2, 3):
        for layout in reopen(tmp_path, workers):
            stores = [LmdbMailStore(layout.mail(worker)) for worker in range(workers)]
            store = stores[owner(content[0][0], workers)]
            assert len(store.census()) == 2
            assert len(store.read(content[0][0].recipient, 10)) == 1
            assert [what for what, _ in store.corrupt_keys() if what == "mail"] == ["mail"]
            assert stores[0].corrupt_keys()[0][0] == "log", "worker 0 has what nobody owns"
            for opened in stores:
                opened.close()


def test_budgets_of_ip_addresses_reach_every_worker_and_never_come_back(tmp_path: Path) -> None:
    ip = ip_subject(b"\x12" * 8)
    for layout in reopen(tmp_path, 3):
        for worker, (start, count) in enumerate([(10, 900), (20, 3), (15, 7)]):
            registry = LmdbRegistry(layout.registry(worker))
            with registry.write() as change:
                change.put(Budget(ip, "codes", start, count))
            registry.close()
    for workers in (2, 4):
        for layout in reopen(tmp_path, workers):
            for worker in range(workers):
                registry = LmdbRegistry(layout.registry(worker))
                with registry.read() as view:
                    assert list(view.budgets()) == [Budget(ip, "codes", 20, 900)]
                registry.close()


# --- crashes ----------------------------------------------------------------------------------------------


class Crash(Exception):
    """Stands for the end of the process."""


def crash_at(step: int) -> tuple[list[str], Progress]:
    seen: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        seen.append(what)
        if len(seen) == step:
            raise Crash

    return seen, progress


def test_a_crash_at_any_step_loses_nothing(tmp_path: Path) -> None:
    content = example(12)
    for layout in reopen(tmp_path, 2):
        fill(layout, content)
    seen: list[str] = []
    step = 0
    while len(seen) >= step:
        step += 1
        seen, progress = crash_at(step)
        with suppress(Crash):
            open_layout(tmp_path, 5, progress).close()
        # The next start finds leftovers, and crashes among them; the one after that succeeds with any number.
        with suppress(Crash):
            open_layout(tmp_path, 5, crash_at(2)[1]).close()
        for layout in reopen(tmp_path, step % 4 + 1):
            check(layout, content)
        for layout in reopen(tmp_path, 2):
            check(layout, content)
    steps = ["moving mailboxes"] * 3 + ["moving accounts"] * 3 + ["switching"] * 2
    assert seen == steps + ["removing the old generation"] * 2


@pytest.mark.parametrize("step", range(1, 12))
def test_kill_9_at_any_step_loses_nothing(tmp_path: Path, step: int) -> None:
    content = example(6)
    for layout in reopen(tmp_path, 2):
        fill(layout, content)
    code = f"""
import os, signal
from pathlib import Path
from wa.storage.layout import open_layout
steps = 0
def progress(what, done, total):
    global steps
    steps += 1
    if steps == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
open_layout(Path({str(tmp_path)!r}), 3, progress)
"""
    ran = subprocess.run([sys.executable, "-c", code], check=False, cwd=REPOSITORY, capture_output=True, text=True)
    assert ran.returncode in (-signal.SIGKILL, 0), ran.stderr
    assert (ran.returncode == 0) == (step > 10)
    for layout in reopen(tmp_path, 3):
        check(layout, content)


def test_a_move_that_lost_a_record_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = example(4)
    for layout in reopen(tmp_path, 1):
        fill(layout, content)
    real = Writer.append

    def lossy(self: Writer, at: Callable[[int], bytes]) -> None:
        if at(1)[0] != RECEIPT:
            real(self, at)

    monkeypatch.setattr(Writer, "append", lossy)
    with pytest.raises(LocalError, match="arrived"):
        open_layout(tmp_path, 2)
    monkeypatch.undo()
    for layout in reopen(tmp_path, 2):
        check(layout, content)


def test_without_room_nothing_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for layout in reopen(tmp_path, 1):
        fill(layout, example(1))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(LocalError, match="start with 1 workers"):
        open_layout(tmp_path, 2)
    for layout in reopen(tmp_path, 1):
        check(layout, example(1))


# --- the directory ------------------------------------------------------------------------------------------


def test_a_new_directory_is_the_owner_s_alone(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    umask = os.umask(0)
    try:
        for layout in reopen(data_dir, 2):
            fill(layout, example(3))
            assert layout.keys == data_dir / "keys"
            assert layout.run == data_dir / "run"
    finally:
        os.umask(umask)
    for path in [data_dir, *data_dir.rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path
    assert json.loads((data_dir / "layout.json").read_text()) == {
        "format": 1,
        "shards": limits.SHARDS,
        "workers": 2,
        "generation": 0,
    }


def test_one_process_at_a_time(tmp_path: Path) -> None:
    layout = open_layout(tmp_path, 1)
    code = f"""
from pathlib import Path
from wa.storage.layout import open_layout
open_layout(Path({str(tmp_path)!r}), 1)
"""
    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, check=False, cwd=REPOSITORY, capture_output=True, text=True)
    assert f"in use by process {os.getpid()}" in ran.stderr
    layout.close()
    subprocess.run(command, check=True, cwd=REPOSITORY)


def test_a_forked_worker_keeps_the_lock(tmp_path: Path) -> None:
    layout = open_layout(tmp_path, 1)
    gate, opener = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(opener)
        os.read(gate, 1)
        os._exit(0)
    layout.close()
    with pytest.raises(LocalError, match="in use"):
        open_layout(tmp_path, 1)
    os.close(opener)
    os.waitpid(child, 0)
    os.close(gate)
    open_layout(tmp_path, 1).close()


def test_the_lock_is_free_after_a_failed_open(tmp_path: Path) -> None:
    (tmp_path / "layout.json").write_text("{")
    for _ in range(2):
        with pytest.raises(LocalError, match="damaged"):
            open_layout(tmp_path, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"shards": 512}, "512 shards"),
        ({"workers": 0}, "out of range"),
        ({"workers": "4"}, "damaged"),
        ({"workers": True}, "damaged"),
        ({"extra": 1}, "damaged"),
    ],
)
def test_a_layout_that_is_not_ours_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    open_layout(tmp_path, 1).close()
    path = tmp_path / "layout.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(LocalError, match=message):
        open_layout(tmp_path, 1)


def test_data_without_its_layout_is_never_removed(tmp_path: Path) -> None:
    for layout in reopen(tmp_path, 1):
        fill(layout, example(2))
    (tmp_path / "layout.json").rename(tmp_path / "elsewhere")
    with pytest.raises(LocalError, match=r"no layout\.json"):
        open_layout(tmp_path, 1)
    (tmp_path / "elsewhere").rename(tmp_path / "layout.json")
    for layout in reopen(tmp_path, 1):
        check(layout, example(2))


def test_leftovers_are_removed(tmp_path: Path) -> None:
    open_layout(tmp_path, 1).close()
    (tmp_path / "g1" / "w0" / "mail").mkdir(parents=True)
    (tmp_path / "group notes").mkdir()
    open_layout(tmp_path, 1).close()
    assert not (tmp_path / "g1").exists()
    assert (tmp_path / "g0").exists()
    assert (tmp_path / "group notes").exists()


def test_misuse_is_named(tmp_path: Path) -> None:
    for workers in (0, limits.WORKERS_MAX + 1):
        with pytest.raises(LocalError, match="workers"):
            open_layout(tmp_path, workers)
    for layout in reopen(tmp_path, 2):
        with pytest.raises(LocalError, match="no worker 2"):
            layout.mail(2)
