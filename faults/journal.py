"""The journal: all that a client was told, one JSON line each, written before the client acts on it.

A line is one write with O_APPEND, so `kill -9` can only cut the last line of a process; the next process begins on a
new line.  There is no fsync: a kill does not lose what the kernel has.
"""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAME = "told.jsonl"


class Journal:
    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._fd, b"\n")
        self.tell("born", pid=os.getpid())

    def tell(self, what: str, **fields: Any) -> None:
        os.write(self._fd, json.dumps({"what": what, "at_us": time.time_ns() // 1_000, **fields}).encode() + b"\n")


def read(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(life, entry) in order; a life is one process, counted from 1.

    Raises ValueError for a damaged line that is not the last of its life.
    """
    if not path.exists():
        return
    life = 0
    damaged = ""
    for line in path.read_text().split("\n"):
        if not line:
            continue
        try:
            entry = json.loads(line)
        except ValueError:
            damaged = line
            continue
        if entry["what"] == "born":
            life += 1
            damaged = ""
        elif damaged:
            raise ValueError(f"{path} has a damaged line in the middle of a life: {damaged!r}")
        yield life, entry
