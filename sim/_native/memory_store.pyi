from sim._native.memory_disk import MemoryMailDisk as MemoryMailDisk
from wa._fastpath.mailbox.contract import MailStoreBase, Result

class MemoryMailStore(MailStoreBase):
    """The reference mailbox store.

    disk: what an earlier store left, or None for an empty one.
    auto=True commits in every submit; otherwise nothing is committed before `step`, `settle` or `close`.
    sync=False is a store without fsync: its commits are visible, and gone with `power_loss`.
    """

    auto: bool
    @property
    def disk(self) -> MemoryMailDisk: ...
    def __init__(
        self, disk: MemoryMailDisk | None = None, *, auto: bool = False, sync: bool = True
    ) -> None: ...
    def step(self) -> int:
        """Commits everything queued in one transaction and wakes the poller; returns how many batches."""

    def start(self) -> None:
        """Nothing: there is no thread."""

    def close(self) -> None:
        """Commits what is queued; later submits get ESHUTDOWN."""

    def fail(self, commits: int, result: Result = ..., *, deletes: bool = False) -> None:
        """The next `commits` transactions come back with `result` (FULL or FAILED) and change nothing.

        deletes=True: as on a full disk with room to delete, only puts are refused.
        """

    def tear(self, ops: int) -> None:
        """The power fails in the next commit, after its first `ops` operations, and those survive.

        No correct store does this: it is the negative control for checkers of atomicity.
        """

    def damage(self, recipient: int, priority: int, seq: int) -> None:
        """As if a bit of this envelope had flipped on disk.  Raises LocalError when it is not there."""

    def damage_receipt(self, owner: int, peer: int, id: int) -> None: ...
    def power_loss(self) -> None:
        """The store is dead and everything after the last sync is gone from the disk.  Open a new one over
        `disk`."""

    def kill(self) -> None:
        """The store is dead, as after kill -9: what was committed stays, what was queued is gone."""

    def stats(self) -> dict[str, int]:
        """commits, batches, ops, full, failed, corrupt."""

    def corrupt_keys(self) -> list[tuple[str, bytes]]: ...
