"""The push gateway's backlog: at most one wake-up per device, in order of arrival, bounded.

It has no clock and no socket: the gateway says when a failed entry is due again.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from wa import limits
from wa.runtime.push_channel import Outcome, Wake

Tell = Callable[[int, Wake, Outcome], None]  # worker, wake-up, what became of it


@dataclass
class Entry:
    """A wake-up that is pending.  tries: requests that failed."""

    worker: int
    wake: Wake
    tries: int = 0


class PushQueue:
    """tell: called for every wake-up that ends in here."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._pending: dict[int, Entry] = {}  # by device: those that are ready, and those that wait for a retry
        self._ready: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._pending)

    def add(self, worker: int, wake: Wake) -> bool:
        """True when there is one more to send."""
        entry = self._pending.get(wake.address)
        if entry is not None:
            self._join(entry, wake)
            entry.worker = worker
            return False
        if len(self._pending) >= limits.PUSH_QUEUE_MAX:
            self._tell(worker, wake, Outcome.LOST)
            return False
        entry = self._pending[wake.address] = Entry(worker, wake)
        self._ready.append(entry)
        return True

    def take(self) -> Entry | None:
        """The next one, no longer pending.  A wake-up that comes while it is in flight is sent too: the device may have
        come and gone before that one's message arrived.
        """
        if not self._ready:
            return None
        entry = self._ready.popleft()
        del self._pending[entry.wake.address]
        return entry

    def failed(self, entry: Entry) -> bool:
        """Sending it failed.  True: it is pending again, and `again` is due later."""
        entry.tries += 1
        newer = self._pending.get(entry.wake.address)
        if newer is not None:
            self._tell(entry.worker, entry.wake, Outcome.DONE)
            return False
        if entry.tries >= limits.PUSH_TRIES_MAX:
            self._tell(entry.worker, entry.wake, Outcome.LOST)
            return False
        self._pending[entry.wake.address] = entry
        return True

    def again(self, entry: Entry) -> None:
        """The pause of a failed entry is over."""
        self._ready.append(entry)

    def _join(self, entry: Entry, wake: Wake) -> None:
        """One request does for both; the newer one knows the newer token."""
        if entry.wake.id != wake.id:
            self._tell(entry.worker, entry.wake, Outcome.DONE)
        entry.wake = wake
