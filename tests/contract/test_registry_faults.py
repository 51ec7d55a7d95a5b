"""Registries under faults: a full map or disk, refused system calls, kill -9, another format."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from wa import ids
from wa.errors import Code, LocalError, RemoteError
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry
from wa.storage.records import Account, Device, Record
from wa.storage.registry import Registry

NUMBER = 15551230001
ADDRESS = ids.address_of(NUMBER, 1)
ACCOUNT = Account(NUMBER, 100, (1, 7), b"hash", b"salt", 7)
DEVICE = Device(ADDRESS, b"s" * 32, "Büro", 100)


def put(registry: Registry, *records: Record) -> None:
    with registry.write() as change:
        for record in records:
            change.put(record)


def test_the_map_grows(tmp_path: Path) -> None:
    registry = LmdbRegistry(tmp_path, map_bytes=1 << 16, map_room_bytes=1 << 16)
    for n in range(1, 201):
        put(registry, *(Device(n << 16 | d, b"s" * 32, "name" * 10, 0) for d in range(1, 9)))
    with registry.read() as view:
        assert sum(1 for _ in view.devices()) == 1_600
    registry.close()


def test_a_full_map_fails_the_change_and_no_more(tmp_path: Path) -> None:
    registry = LmdbRegistry(tmp_path, map_bytes=1 << 17, map_bytes_max=1 << 17, map_room_bytes=1 << 16)
    put(registry, ACCOUNT)
    with pytest.raises(RemoteError, match="full") as caught:
        put(registry, *(Device(n, b"s" * 32, "x" * 1_000, 0) for n in range(1, 1_000)))
    assert caught.value.code == Code.STORAGE_FAILED
    put(registry, DEVICE)
    with registry.read() as view:
        assert view.account(NUMBER) == ACCOUNT
        assert list(view.devices()) == [DEVICE]
    registry.close()


def test_a_full_disk_fails_the_change_and_no_more(tmp_path: Path) -> None:
    """In a process of its own: a limit on the size of files stands for the disk."""
    code = f"""
import resource
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.records import Account, Device
from wa.errors import RemoteError
from pathlib import Path
registry = LmdbRegistry(Path({str(tmp_path)!r}))
with registry.write() as change:
    change.put(Account({NUMBER}, 1))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 17, hard))
try:
    with registry.write() as change:
        for n in range(1, 1_000):
            change.put(Device(n, b"s" * 32, "x" * 1_000, 0))
except RemoteError as error:
    print(error.code.name)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
with registry.read() as view:
    print(view.account({NUMBER}).created_s, len(list(view.devices())))
with registry.write() as change:
    change.put(Device(1, b"s" * 32, "", 0))
with registry.read() as view:
    print(len(list(view.devices())))
"""
    ran = run(code)
    assert ran.stdout.split() == ["STORAGE_FAILED", "1", "0", "1"], ran.stderr


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    repository = Path(__file__).parents[2]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=repository, env=os.environ | environment
    )


@pytest.mark.skipif(sys.platform != "linux", reason="io_shim.c reads /proc/self/fd")
def test_failed_system_calls_fail_their_change_and_no_more(shim: Path, tmp_path: Path) -> None:
    """LMDB refuses everything, reads too, after a failed write of its meta page: it is opened anew at once."""
    ran = run(
        f"""
from pathlib import Path
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.records import Account
from wa.errors import RemoteError
directory = Path({str(tmp_path)!r}) / "registry"
registry = LmdbRegistry(directory)
def write(n):
    try:
        with registry.write() as change:
            change.put(Account(n, 1))
    except RemoteError as error:
        return error.code.name
    return "written"
def held():
    with registry.read() as view:
        return "".join(str(account.number) for account in view.accounts())
print(write(1))
for n, fault in ((2, "fail-meta"), (3, "fail-sync")):
    (directory / fault).touch()
    print(write(n), held())
(directory / "fail-meta").touch()
with registry.read() as view:
    print(write(4), view.account(1).number)
    try:
        held()
    except RemoteError as error:
        print(error.code.name)
print(held(), write(5), held())
""",
        LD_PRELOAD=str(shim),
    )
    assert ran.stdout.splitlines() == [
        "written",
        "STORAGE_FAILED 1",
        "STORAGE_FAILED 1",
        "STORAGE_FAILED 1",
        "STORAGE_FAILED",
        "1 written 15",
    ], ran.stderr


def test_kill_9_keeps_what_was_written(tmp_path: Path) -> None:
    ran = run(f"""
import os, signal
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.records import Account
from pathlib import Path
registry = LmdbRegistry(Path({str(tmp_path)!r}))
with registry.write() as change:
    change.put(Account(1, 1))
with registry.write() as change:
    change.put(Account(2, 2))
    os.kill(os.getpid(), signal.SIGKILL)
""")
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    registry = LmdbRegistry(tmp_path)
    with registry.read() as view:
        assert list(view.accounts()) == [Account(1, 1)]
    registry.close()


def test_the_reference_has_a_full_disk_too() -> None:
    registry = MemoryRegistry()
    put(registry, ACCOUNT)
    registry.disk.fail_commits = 1
    with pytest.raises(RemoteError) as caught:
        put(registry, Account(NUMBER, 999), DEVICE)
    assert caught.value.code == Code.STORAGE_FAILED
    with registry.read() as view:
        assert list(view.accounts()) == [ACCOUNT]
        assert list(view.devices()) == []


def test_another_format_is_refused(tmp_path: Path) -> None:
    LmdbRegistry(tmp_path).close()
    with lmdb.open(str(tmp_path), max_dbs=9) as env, env.begin(write=True) as txn:
        txn.put(b"format", b"2", db=env.open_db(b"meta", txn=txn))
    with pytest.raises(LocalError, match="format 2, this version reads 1"):
        LmdbRegistry(tmp_path)


def test_files_are_the_owner_s_alone(tmp_path: Path) -> None:
    LmdbRegistry(tmp_path / "registry").close()
    assert stat.S_IMODE((tmp_path / "registry").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "registry").iterdir()} == {0o600}
