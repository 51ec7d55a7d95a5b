"""What a process needs from its operating system beyond `os`: to die with its parent, a core of its own, descriptors, a
small heap.  And `Child`, what its parent holds of it.
"""

import ctypes
import fcntl
import os
import resource
import selectors
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any

from wa.errors import LocalError

# Linux, <sys/prctl.h>
PR_SET_PDEATHSIG = 1
# FreeBSD, <sys/procctl.h>, <sys/wait.h>, <sys/cpuset.h>
PROC_PDEATHSIG_CTL = 11
P_PID = 0
CPU_LEVEL_WHICH = 3
CPU_WHICH_TID = 1
CPUSET_BYTES = 128

LINUX = sys.platform.startswith("linux")
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # <malloc.h>
MMAP_BYTES_MIN = 1 << 20
FREEBSD = sys.platform.startswith("freebsd")
DESCRIPTORS_AHEAD = 65_536  # a table of 0.5 MiB; beyond it a doubling comes once in many thousand connections


@dataclass
class Child:
    """A forked process.  `channel` carries datagrams between it and the supervisor."""

    pid: int
    channel: socket.socket
    started: bool = False
    ready: bool = False
    restarts: int = 0
    stats: dict[str, int] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        return {"pid": self.pid, "ready": self.ready, "restarts": self.restarts, "stats": self.stats}

    def close(self, selector: selectors.BaseSelector) -> None:
        """Of one that has ended."""
        if self.channel in selector.get_map():
            selector.unregister(self.channel)
        self.channel.close()


def die_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent (a single-threaded process) ends, however it ends.

    A worker without its supervisor would hold the data directory, and nobody would restart it.  KILL and not TERM: it
    must be certain, and a killed worker loses nothing that was accepted.  Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if LINUX:
        done = libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    elif FREEBSD:
        wanted = ctypes.c_int(signal.SIGKILL)
        done = libc.procctl(P_PID, ctypes.c_int64(0), PROC_PDEATHSIG_CTL, ctypes.byref(wanted))
    else:
        raise LocalError(f"no way on {sys.platform} to bind a worker to its supervisor: use Linux or FreeBSD")
    if done != 0:
        raise OSError(ctypes.get_errno(), "the kernel does not bind this process to its parent")
    if os.getppid() != parent:  # it ended before the call
        os.kill(os.getpid(), signal.SIGKILL)


def pin_this_thread(core: int) -> None:
    """Keeps the calling thread on one core; threads that exist already stay free.  Raises OSError."""
    if LINUX:
        os.sched_setaffinity(0, {core})
    elif FREEBSD:
        mask = (1 << core).to_bytes(CPUSET_BYTES, "little")
        libc = ctypes.CDLL(None, use_errno=True)
        this = ctypes.c_int64(-1)
        if libc.cpuset_setaffinity(CPU_LEVEL_WHICH, CPU_WHICH_TID, this, CPUSET_BYTES, mask) != 0:
            raise OSError(ctypes.get_errno(), f"cannot stay on core {core}")


def open_descriptor_table() -> None:
    """Raises the soft limit on descriptors to the hard one, and makes the kernel's table that long, up to
    DESCRIPTORS_AHEAD.  Raises OSError.

    Call it before the first thread.  When the table of a process with threads grows, Linux waits for an RCU grace
    period (fs/file.c, expand_fdtable): accept() took 7 to 18 ms at every doubling, and all clients of the worker
    waited.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    last = DESCRIPTORS_AHEAD if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS_AHEAD)
    with open(os.devnull, "rb") as null:
        os.close(fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, last - 1))


def keep_heap_small() -> None:
    """Gives blocks of MMAP_BYTES_MIN and more their own mapping, and all threads one heap; also in forked processes.

    - Left alone, glibc raises that limit to the largest block ever freed.  Then the 3 MiB that LMDB reserves per
      environment, for its largest transaction, come cleared from the heap instead of as pages that nobody touches.
    - Left alone, glibc gives each thread a heap.  Then the commit thread cannot use what the loop frees, nor the loop
      what the commit thread frees.
    """
    libc = ctypes.CDLL(None)
    if LINUX and hasattr(libc, "mallopt"):  # musl has none, and no such limit
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES_MIN)
        libc.mallopt(M_ARENA_MAX, 1)


def exit_reason(status: int) -> str:
    """A `waitpid` status in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
