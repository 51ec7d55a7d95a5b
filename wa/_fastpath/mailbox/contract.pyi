from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

class What(IntEnum):
    PUT = 1
    DELETE = 2
    RECEIPT_PUT = 3
    RECEIPT_DELETE = 4
    SWEEP = 5
    EXPIRED = 6
    PURGE = 7
    DROP = 8
    BODY = 9
    PUT_SHARED = 10

class Result(IntEnum):
    PENDING = 0
    OK = 0x21
    DUPLICATE = 0x22
    MISSING = 0x23
    FULL = 0x24
    FAILED = 0x25

class Op(NamedTuple):
    """One operation, one stored envelope or one receipt; fields as in StoreOp (mailbox/contract.pxd).

    Receipts: owner = recipient, peer = sender.  count_max: OP_SWEEP only.  PUT_SHARED: the body is
    `body_number(n)`.
    """

    what: What
    recipient: int = 0
    sender: int = 0
    id: int = 0
    seq: int = 0
    priority: int = 0
    kind: int = 0
    code: int = 0
    accepted_s: int = 0
    expires_s: int = 0
    body: bytes = b""
    count_max: int = 0
    level: int = 0

class Applied(NamedTuple):
    status: Result
    results: list[Result]
    expired: list[Op]

class MailStoreBase:
    """Python face of any mailbox store.  All but `settle` and `close` raise OSError on a storage error."""

    def submit(self, ops: Sequence[Op]) -> None: ...
    def settle(self) -> None: ...
    def collect(self) -> list[Applied]: ...
    def apply(self, ops: Sequence[Op]) -> Applied: ...
    def read(
        self,
        recipient: int,
        priority: int,
        after_seq: int = 0,
        count_max: int = 64,
        arena_bytes: int = 1 << 20,
    ) -> list[Op]: ...
    def read_receipts(
        self, owner: int, after_peer: int = 0, after_id: int = 0, count_max: int = 64
    ) -> list[Op]: ...
    def read_victims(self, recipient: int, now_s: int, count_max: int = 64) -> list[Op]: ...
    def contains(self, recipient: int, sender: int, id: int) -> bool: ...
    def census(self) -> list[tuple[int, int, int]]: ...
    def receipt_census(self) -> list[tuple[int, int, int]]: ...
    def count_wakes(self) -> None: ...
    def wakes(self) -> int: ...

def body_number(number: int) -> bytes:
    """What a PUT_SHARED carries in place of a body: the id of its BODY."""

def rank_of(level: int) -> int:
    """Of a receipt, which only rises: accepted 0, refused 1, delivered 2, read 3."""

def live_batches() -> int:
    """Batches made and not freed; counted in the debug build, always 0 in the other."""
