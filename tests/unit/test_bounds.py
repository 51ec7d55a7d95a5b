"""Bounds that are compiled into the fast path are those of wa/limits.py, and there is one copy of each."""

import re
from pathlib import Path

from wa import limits

FASTPATH = Path(__file__).parents[2] / "wa/_fastpath"
CONSTANT = re.compile(r"^    ([A-Z][A-Z0-9_]+) = (.+?)\s*(?:#.*)?$", re.MULTILINE)
BOUNDS = {name: int(value, 0) for name, value in CONSTANT.findall((FASTPATH / "base/bounds.pxd").read_text())}


def test_each_copy_has_the_name_and_the_value_of_the_original() -> None:
    assert len(BOUNDS) > 15
    assert {name: getattr(limits, name, None) for name in BOUNDS} == BOUNDS


def second_copies(sources: dict[str, str]) -> list[str]:
    """Constants named like a bound of wa/limits.py, or said to be one, outside bounds.pxd."""
    found = []
    for name, text in sources.items():
        found += [f"{name}: {constant}" for constant, _ in CONSTANT.findall(text) if hasattr(limits, constant)]
        found += [f"{name}: {line.strip()}" for line in re.findall(r"^    [A-Z_]+ = \d+ *# limits\.\w+.*$", text, re.M)]
    return found


def test_there_is_no_second_copy() -> None:
    paths = [*FASTPATH.rglob("*.px[dix]"), *FASTPATH.rglob("*.pyx")]
    sources = {str(path.relative_to(FASTPATH)): path.read_text() for path in paths if path.name != "bounds.pxd"}
    assert len(sources) > 80
    assert second_copies(sources) == []


def test_a_second_copy_is_found() -> None:
    text = "cdef enum:\n    BATCH_OPS_MAX = 1\n    WINDOW = 64   # limits.DELIVERY_WINDOW_MAX\n"
    assert len(second_copies({"x.pyx": text})) == 2
