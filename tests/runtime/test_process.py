"""What a process asks of its system, each in a process of its own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from wa.runtime.process import DESCRIPTORS_AHEAD

LARGE = """
import ctypes, sys
from wa.runtime.process import keep_heap_small

class Counts(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Counts
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


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="asks glibc's heap")
@pytest.mark.parametrize(("how", "mappings"), [("small", 1), ("as it is", 0)])
def test_a_large_block_stays_a_mapping_of_its_own(how: str, mappings: int) -> None:
    """After a larger one was freed glibc would carve it from the heap, and clear it."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", LARGE, how], capture_output=True, text=True, check=True, env=environment
    )
    assert int(done.stdout) == mappings


TABLE = """
import resource
from wa.runtime.process import open_descriptor_table

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
limit = open_descriptor_table()
size = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("FDSize"))
print(limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0], hard, size)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc for the size of the table")
def test_a_worker_may_have_every_descriptor_and_its_table_never_grows() -> None:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", TABLE], capture_output=True, text=True, check=True, env=environment)
    limit, soft, hard, size = (int(word) for word in done.stdout.split())
    assert limit == soft == hard
    assert size >= min(hard, DESCRIPTORS_AHEAD)
