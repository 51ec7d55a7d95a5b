from os import PathLike

from wa._fastpath.mailbox.contract import MailStoreBase

class LmdbMailStore(MailStoreBase):
    """The mailbox environment of one worker (docs/storage.md).

    path: its directory, made (0700, files 0600) when missing; open once per process and by one process at a
    time. map_bytes: first size of the map; it doubles when full, up to map_bytes_max.  Only used bytes take
    disk space. sync=False leaves the fsync out: for the negative control of the power-loss test, never for
    service.  hash_bits: of an identity in the index; fewer than 32 only to test what shares a hash.  A directory of
    format 1 is upgraded.  Raises LocalError when the directory holds another format, OSError when it cannot be opened.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        map_bytes: int = 1 << 28,
        map_bytes_max: int = 1 << 40,
        sync: bool = True,
        hash_bits: int = 32,
    ) -> None: ...
    def start(self) -> None:
        """Starts the commit thread.  Raises LocalError the second time and after close()."""

    def close(self) -> None:
        """Commits what is queued, ends the thread and closes the environment.  Later submits get
        ESHUTDOWN."""

    def stats(self) -> dict[str, int]:
        """commits, batches, ops, grown, full, failed, reopened, corrupt, last_error, moved and cleaned (rows,
        by the cleaner), map_bytes, used_bytes (of the file), index_bytes (of memory)."""

    def corrupt_keys(self) -> list[tuple[str, bytes]]:
        """What ("mail", "receipts", "bodies", or "log" for a row of which nothing is legible) and its key (big-endian:
        recipient, 255 - priority, seq; owner, peer, id; number; place) of the corrupt records met since opening:
        the first 64 different ones."""
