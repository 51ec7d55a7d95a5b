"""Environments are made completely or not at all."""

from pathlib import Path

import pytest

from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.os.durable import make_environment
from wa.storage.lmdb_registry import LmdbRegistry


class Cut(Exception):
    """Stands for a power cut."""


def half(directory: Path) -> None:
    (directory / "data.mdb").write_bytes(bytes(100))
    raise Cut


@pytest.mark.parametrize("store", [LmdbMailStore, LmdbRegistry])
def test_a_making_cut_short_is_made_anew(
    tmp_path: Path, store: type[LmdbMailStore] | type[LmdbRegistry]
) -> None:
    path = tmp_path / "worker" / "store"
    for _ in range(2):
        with pytest.raises(Cut):
            make_environment(path, half)
        assert not path.exists()
    store(path).close()
    store(path).close()
    assert [entry.name for entry in path.parent.iterdir()] == ["store"]


def test_what_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"there")
    make_environment(tmp_path, half)
    assert (tmp_path / "data.mdb").read_bytes() == b"there"


def test_an_empty_directory_is_replaced_and_another_is_not(tmp_path: Path) -> None:
    def fill(directory: Path) -> None:
        (directory / "data.mdb").write_bytes(b"made")

    (tmp_path / "empty").mkdir()
    make_environment(tmp_path / "empty", fill)
    assert (tmp_path / "empty" / "data.mdb").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        make_environment(tmp_path / "used", fill)
