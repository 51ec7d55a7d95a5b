"""One process per account directory.

Two processes on one ratchet would encrypt two messages with the same key.  So the second one is refused, and told the
pid of the first.  The kernel drops the lock when its process ends, however it ends.
"""

import fcntl
import os
from pathlib import Path

from wa.errors import LocalError


class DirectoryLock:
    """Held from construction until `release`.  Raises LocalError while another process holds it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "lock"
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise LocalError(f"the account in {directory} is open in process {owner}; end that process first") from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
