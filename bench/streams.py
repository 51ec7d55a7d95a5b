"""Message streams in shared memory of all generator processes: arrivals are checked against what was sent."""

import mmap
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


class Streams:
    """Per stream the number of the last message sent and of the last one heard.  Make it before the first fork.

    A stream has one sender, and at any time messages of it are under way to one recipient only.
    """

    def __init__(self, count: int) -> None:
        self._memory = mmap.mmap(-1, max(count, 1) * 8)
        both = np.frombuffer(self._memory, dtype=np.uint32).reshape(2, max(count, 1))
        self.sent: npt.NDArray[np.uint32] = both[0]
        self.heard: npt.NDArray[np.uint32] = both[1]
        self._taken = 0

    def take(self, count: int) -> npt.NDArray[np.uint32]:
        """The next `count` streams.  Raises ValueError when there are not so many."""
        if self._taken + count > len(self.sent):
            raise ValueError(f"{len(self.sent)} streams were planned, {self._taken + count} are wanted")
        first = self._taken
        self._taken += count
        return np.arange(first, first + count, dtype=np.uint32)

    def verdict(self) -> "Verdict":
        """After everything under way has been receipted."""
        return Verdict(
            int(self.sent.sum(dtype=np.uint64)),
            int(self.heard.sum(dtype=np.uint64)),
            int(np.count_nonzero(self.sent != self.heard)),
        )


@dataclass(frozen=True)
class Verdict:
    """sent, heard: messages.  wrong: streams whose last message sent is not the last one heard."""

    sent: int
    heard: int
    wrong: int
