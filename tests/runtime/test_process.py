"""What a process asks of its system, each in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from wa.runtime.process import DESCRIPTORS_AHEAD

# What these tests hold down are habits of glibc's heap, asked by functions that only it has.
of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc's heap, and this is another")


def output_of(program: str, *arguments: str) -> list[int]:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return [int(word) for word in done.stdout.split()]


COUNTS = """
import ctypes, sys

class Counts(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
"""
LARGE = COUNTS + """
from wa.runtime.process import keep_heap_small

libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "small":
    keep_heap_small()
libc.free(libc.malloc(8 << 20))
before = libc.mallinfo2().hblks
libc.malloc(2 << 20)
print(libc.mallinfo2().hblks - before)
"""


@of_glibc
@pytest.mark.parametrize(("how", "mappings"), [("small", 1), ("as it is", 0)])
def test_a_large_block_stays_a_mapping_of_its_own(how: str, mappings: int) -> None:
    """After a larger one was freed glibc would carve it from the heap, and clear it."""
    assert output_of(LARGE, how) == [mappings]


TABLE = """
import resource, sys
from wa.runtime.process import open_descriptor_table

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
open_descriptor_table()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard)
if sys.platform.startswith("linux"):
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize")))
"""


def test_a_worker_may_have_every_descriptor_and_its_table_never_grows() -> None:
    soft, hard, *size = output_of(TABLE)
    assert soft == hard
    assert all(entries >= min(hard, DESCRIPTORS_AHEAD) for entries in size)  # only Linux tells


THREADS = """
import ctypes, sys, threading
from wa.runtime.process import keep_heap_small

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.fopen.restype = ctypes.c_void_p
libc.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
libc.malloc_info.argtypes = [ctypes.c_int, ctypes.c_void_p]
libc.fclose.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "small":
    keep_heap_small()
thread = threading.Thread(target=libc.malloc, args=(1_000,))
thread.start()
thread.join()
out = libc.fopen(sys.argv[2].encode(), b"w")
libc.malloc_info(0, out)
libc.fclose(out)
print(open(sys.argv[2]).read().count("<heap nr="))
"""


@of_glibc
def test_all_threads_share_one_heap(tmp_path: Path) -> None:
    assert output_of(THREADS, "small", str(tmp_path / "info")) == [1]
    assert output_of(THREADS, "as it is", str(tmp_path / "info"))[0] > 1


COMMITS = COUNTS + """
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.mailbox.contract import Op, Result, What

store = LmdbMailStore(sys.argv[1], map_bytes=1 << 22)
store.start()
for pages in (1, 40):
    before = libc.mallinfo2().uordblks
    rows = [Op(What.PUT, 1, 1, seq, seq, 10, 1, 0, 1_000, 9_000, bytes(3_000)) for seq in range(pages * 2, pages * 3)]
    assert set(store.apply(rows).results) == {Result.OK}
    del rows
    print(libc.mallinfo2().uordblks - before)
"""


@of_glibc
def test_a_large_commit_leaves_nothing_on_the_heap(tmp_path: Path) -> None:
    """LMDB keeps the memory of the pages that a transaction dirtied: they were made when the store was opened."""
    _, large = output_of(COMMITS, str(tmp_path))
    assert large < 20 * 4096
