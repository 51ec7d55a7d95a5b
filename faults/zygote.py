"""Forks client processes from one that has already imported the SDK: a client then costs milliseconds.

    in, one JSON line each    the settings of a person (see person.py), with "name"
    out                       {"born": pid, "name": …}   {"died": pid, "name": …, "status": wait status}

It is single-threaded, so a fork is as good as a fresh start.  It ends with its standard input, and its children with
it.
"""

import asyncio
import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from types import FrameType
from typing import Any, NoReturn

from faults.person import live
from wa.runtime.process import die_with_parent


def say(**fields: Any) -> None:
    os.write(1, json.dumps(fields).encode() + b"\n")


class Zygote:
    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._received = b""
        self._selector = selectors.DefaultSelector()
        self._wakeup, wakeup_end = socket.socketpair()
        self._wakeup_end = wakeup_end
        for end in (self._wakeup, wakeup_end):
            end.setblocking(False)

    def run(self) -> None:
        signal.set_wakeup_fd(self._wakeup_end.fileno())
        signal.signal(signal.SIGCHLD, _wake_only)
        self._selector.register(0, selectors.EVENT_READ)
        self._selector.register(self._wakeup, selectors.EVENT_READ)
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._wakeup:
                    with contextlib.suppress(BlockingIOError):
                        self._wakeup.recv(4096)
                    self._reap()
                elif not self._read():
                    return

    def _read(self) -> bool:
        data = os.read(0, 65_536)
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            self._fork(json.loads(line))
        return bool(data)

    def _fork(self, settings: dict[str, Any]) -> None:
        parent = os.getpid()
        # A signal between the fork and the new disposition would end up in this process's wake-up socket.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))
        pid = os.fork()
        if pid == 0:
            self._be_person(settings, parent)
        self._names[pid] = settings["name"]
        say(born=pid, name=settings["name"])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))

    def _be_person(self, settings: dict[str, Any], parent: int) -> NoReturn:
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
            die_with_parent(parent)
            self._selector.close()
            self._wakeup.close()
            self._wakeup_end.close()
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.close(null)
            asyncio.run(live(settings))
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)

    def _reap(self) -> None:
        while self._names:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            say(died=pid, name=self._names.pop(pid), status=status)


def _wake_only(number: int, frame: FrameType | None) -> None:
    """Without a handler the number would not arrive through the wake-up descriptor."""


if __name__ == "__main__":
    Zygote().run()
