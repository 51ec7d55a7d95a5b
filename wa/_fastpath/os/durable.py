"""Directories that survive a power cut: complete, or not there.

LMDB syncs its file but neither the file's name nor, before the first commit, its first pages: an environment
whose making was cut short would not open, and one just made could vanish with what was committed to it.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def sync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_environment(path: Path, fill: Callable[[Path], None]) -> None:
    """Makes the LMDB environment `path` (0700) unless it is there.  `fill(directory)` writes it, synced, and
    closes it.

    It is written beside its place and renamed into it; a leftover of an earlier attempt is removed.  An empty
    directory in its place is replaced.  Raises OSError.
    """
    beside = _beside(path)
    if (path / "data.mdb").exists():
        return
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    beside.mkdir(mode=0o700)
    fill(beside)
    sync_directory(beside)
    beside.rename(path)
    sync_directory(path.parent)


def replace_environment(path: Path, fill: Callable[[Path], None]) -> None:
    """Puts another data.mdb in the place of that of the closed LMDB environment `path`, in one step.

    `fill(directory)` writes it and closes it; until then nothing changes.  Raises OSError.
    """
    beside = _beside(path)
    beside.mkdir(mode=0o700)
    fill(beside)
    made = beside / "data.mdb"
    fd = os.open(made, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(fd, 0o600)
        os.fsync(fd)
    finally:
        os.close(fd)
    made.rename(path / "data.mdb")
    sync_directory(path)
    shutil.rmtree(beside)


def _beside(path: Path) -> Path:
    """Where the new one is written; a leftover of an earlier attempt is removed."""
    beside = path.with_name(path.name + ".new")
    if beside.exists():
        shutil.rmtree(beside)
    return beside
