"""What the suites over mailbox stores share: the stores, and short ways to write operations."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from sim._native.memory_store import MemoryMailStore
from wa._fastpath.mailbox.contract import Op, Result, What, body_number
from wa._fastpath.mailbox.store import LmdbMailStore

ACCEPTED, DELIVERED, READ, REFUSED = 0x20, 0x21, 0x22, 0x23
RANK = {ACCEPTED: 0, REFUSED: 1, DELIVERED: 2, READ: 3}
OK, DUPLICATE, MISSING, FULL, FAILED = (
    Result.OK,
    Result.DUPLICATE,
    Result.MISSING,
    Result.FULL,
    Result.FAILED,
)
Store = LmdbMailStore | MemoryMailStore


CHILD = Path(__file__).with_name("mailbox_child.py")


def child_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}


def kill_child(task: str, path: Path, after: int) -> int:
    """Runs a task of mailbox_child.py and kills it (-9) after so many lines; returns how many it wrote."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), task, str(path)], stdout=subprocess.PIPE, text=True, env=child_env()
    ) as child:
        assert child.stdout is not None
        for _ in range(after):
            assert child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        written = after + len(child.stdout.read().split())
    assert child.returncode == -signal.SIGKILL
    return written


class Lmdb:
    """Opens and reopens the LMDB store over one directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> LmdbMailStore:
        store = LmdbMailStore(self.path, map_bytes=1 << 20)
        store.start()
        return store


class Colliding(Lmdb):
    """Four hashes for all identities: every look-up meets others."""

    def open(self) -> LmdbMailStore:
        store = LmdbMailStore(self.path, map_bytes=1 << 20, hash_bits=2)
        store.start()
        return store


class Memory:
    def __init__(self, path: Path) -> None:
        self.store: MemoryMailStore | None = None

    def open(self) -> MemoryMailStore:
        self.store = MemoryMailStore(self.store.disk if self.store else None)
        return self.store


def put(seq: int, recipient: int = 1, sender: int = 2, **more: Any) -> Op:
    """An envelope whose id is its seq unless said otherwise."""
    fields: dict[str, Any] = {
        "id": seq,
        "priority": 10,
        "kind": 1,
        "accepted_s": 1_000,
        "expires_s": 2_000,
        "body": b"body",
    }
    return Op(What.PUT, recipient, sender, seq=seq, **(fields | more))


def delete(op: Op) -> Op:
    return op._replace(what=What.DELETE, body=b"", kind=0, accepted_s=0, expires_s=0)


def receipt(level: int, id: int = 1, owner: int = 9, peer: int = 8, **more: Any) -> Op:
    return Op(What.RECEIPT_PUT, owner, peer, id, level=level, **more)


def sweep(now_s: int, count_max: int = 1_000, **more: Any) -> Op:
    return Op(What.SWEEP, accepted_s=now_s, count_max=count_max, **more)


def drop(op: Op, **more: Any) -> Op:
    return delete(op)._replace(what=What.DROP, **more)


def shared(op: Op, number: int) -> Op:
    return op._replace(what=What.PUT_SHARED, body=body_number(number))


def body(number: int, content: bytes = b"shared") -> Op:
    return Op(What.BODY, id=number, body=content)


def refused(row: Op, cause: Op) -> Op:
    """The receipt that `cause` leaves for the sender of `row`."""
    times = {"accepted_s": cause.accepted_s, "expires_s": cause.expires_s}
    return receipt(REFUSED, row.id, row.sender, row.recipient, code=cause.code, **times)


def expired(row: Op, code: int = 0) -> Op:
    return row._replace(what=What.EXPIRED, body=b"", code=code)
