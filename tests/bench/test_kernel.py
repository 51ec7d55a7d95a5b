"""What the benchmarks take from the kernel's accounts."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.kernel import Displaced

BUSY_S = 0.4
SPIN = "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])})\nprint(flush=True)\nwhile True: pass"


@contextmanager
def spinning(core: int) -> Iterator[int]:
    """A process that wants all of a core."""
    with subprocess.Popen([sys.executable, "-c", SPIN, str(core)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def displaced_meanwhile(workers: list[int], others: list[int], core: int) -> float:
    displaced = Displaced(workers, others, [core])
    before = displaced.seconds()
    threading.Event().wait(BUSY_S)
    return displaced.seconds() - before


def test_another_program_on_the_core_displaces_a_worker() -> None:
    core = min(os.sched_getaffinity(0))
    with spinning(core) as worker, spinning(core):
        assert displaced_meanwhile([worker], [], core) > BUSY_S / 10


def test_its_own_server_does_not() -> None:
    """Another process of the same server has the core: that is nobody else's doing."""
    core = min(os.sched_getaffinity(0))
    with spinning(core) as worker, spinning(core) as other:
        alone = displaced_meanwhile([worker], [], core)
        assert displaced_meanwhile([worker], [other], core) < alone / 2
