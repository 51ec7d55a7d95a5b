"""A worker's side of push: its wake-ups, until the gateway has reported the outcome of each.

While the gateway is away they wait here, up to a cap.  A new gateway gets again, under the same ids, what the earlier
one took and did not answer.  Nothing here blocks and nothing is durable: the mailbox has the messages.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wa import limits
from wa.runtime.push_channel import (
    ID_BYTES,
    Outcome,
    Report,
    Sent,
    Wake,
    Wakes,
    bind,
    fitting,
    gateway_path,
    received,
    send,
    worker_path,
)
from wa.storage.records import PushToken


@dataclass
class News:
    """What the gateway has said since it was last asked: wake-ups that did not wake."""

    lost: list[Wake] = field(default_factory=list)
    gone: list[Wake] = field(default_factory=list)


class PushSender:
    """Owned by the loop's thread.  Raises OSError when its socket cannot be made."""

    def __init__(self, run_dir: Path, worker: int, random_bytes: Callable[[int], bytes]) -> None:
        self._worker, self._random_bytes = worker, random_bytes
        self._gateway = gateway_path(run_dir)
        self._path = worker_path(run_dir, worker)
        self._sock = bind(self._path)
        self._waiting: deque[Wake] = deque()
        self._sent: dict[bytes, Wake] = {}
        self._incarnation: bytes | None = None
        self._news = News()

    def __len__(self) -> int:
        """How many wake-ups have no outcome yet."""
        return len(self._waiting) + len(self._sent)

    def wake(self, token: PushToken) -> bool:
        """False when too many are on their way.  It leaves with the next `flush`."""
        if len(self) >= limits.PUSH_PENDING_MAX:
            return False
        self._waiting.append(Wake(self._random_bytes(ID_BYTES), token.address, token.platform, token.token))
        return True

    def flush(self) -> None:
        """Sends what waits, as far as the gateway takes it."""
        if self._waiting:
            self._read()  # a new gateway greets before it listens
        while self._waiting:
            wakes = fitting(self._waiting)
            if send(self._sock, Wakes(self._worker, wakes).encode(), self._gateway) is not Sent.YES:
                return
            for wake in wakes:
                self._waiting.popleft()
                self._sent[wake.id] = wake

    def news(self) -> News:
        self._read()
        news, self._news = self._news, News()
        return news

    def close(self) -> None:
        self._sock.close()
        self._path.unlink(missing_ok=True)

    def _read(self) -> None:
        for data in received(self._sock):
            report = Report.decode(data)
            if report.incarnation != self._incarnation:
                if self._incarnation is not None:
                    self._waiting.extendleft(reversed(self._sent.values()))
                    self._sent.clear()
                self._incarnation = report.incarnation
            for id_, outcome in report.outcomes:
                wake = self._sent.pop(id_, None)
                if wake is not None and outcome is Outcome.LOST:
                    self._news.lost.append(wake)
                elif wake is not None and outcome is Outcome.GONE:
                    self._news.gone.append(wake)
