"""What the benchmarks take from the kernel's accounts."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.kernel import Displaced
from bench.settings import Settings

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


def seconds_meanwhile(*accounts: Displaced) -> list[float]:
    before = [account.seconds() for account in accounts]
    threading.Event().wait(BUSY_S)
    return [account.seconds() - was for account, was in zip(accounts, before, strict=True)]


def test_another_program_on_the_core_displaces_a_worker() -> None:
    core = min(os.sched_getaffinity(0))
    with spinning(core) as worker, spinning(core):
        (displaced,) = seconds_meanwhile(Displaced([worker], [], [core]))
    assert displaced > BUSY_S / 10


def test_its_own_server_does_not() -> None:
    """What another process of the same server ran is nobody else's doing, whoever else is on the core besides."""
    core = min(os.sched_getaffinity(0))
    with spinning(core) as worker, spinning(core) as other:
        foreign, own = seconds_meanwhile(Displaced([worker], [], [core]), Displaced([worker], [other], [core]))
    assert foreign - own > BUSY_S / 10


def test_the_progress_display_keeps_off_the_servers_core() -> None:
    usable = sorted(os.sched_getaffinity(0))
    settings = Settings(server_cores=usable[:1], generator_cores=usable[-1:])
    before = set(threading.enumerate())
    with settings.progress("a test", 1) as step:
        step("drawing")
        (drawing,) = set(threading.enumerate()) - before
        assert drawing.native_id is not None
        assert os.sched_getaffinity(drawing.native_id) == set(settings.generator_cores)
        assert os.sched_getaffinity(0) == set(usable), "what is started meanwhile may go anywhere"
