"""Forked processes that answer their parent's calls, one call at a time."""

import faulthandler
import gc
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection, Pipe
from typing import Any

from wa.runtime.process import die_with_parent

STOP_S = 10.0


class ChildError(Exception):
    """A child failed or died; the text is the child's."""


class Child:
    """serve(connection) runs in the child until the connection is closed.

    cores: where it may run.  realtime: it preempts every ordinary process there (needs root; a nicer one else).
    """

    def __init__(
        self,
        name: str,
        serve: Callable[["Connection[Any, Any]"], None],
        cores: Iterable[int],
        *,
        realtime: bool = False,
    ) -> None:
        self.name = name
        self.connection, theirs = Pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                die_with_parent(parent)
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops us
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                faulthandler.enable()
                gc.freeze()
                self.connection.close()
                os.sched_setaffinity(0, set(cores))
                if realtime:
                    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
                serve(theirs)
                status = 0
            except EOFError:
                status = 0
            finally:
                if status:
                    traceback.print_exc()
                os._exit(status)
        theirs.close()

    def tell(self, command: str, **arguments: Any) -> None:
        """Sends a call; `answer` must follow before the next one."""
        try:
            self.connection.send((command, arguments))
        except OSError:
            raise ChildError(f"{self.name} is gone") from None

    def answer(self) -> Any:
        """Waits for the answer of the last call.  Raises ChildError."""
        try:
            ok, value = self.connection.recv()
        except (EOFError, ConnectionError):
            raise ChildError(f"{self.name} died") from None
        if not ok:
            raise ChildError(f"{self.name}: {value}")
        return value

    def call(self, command: str, **arguments: Any) -> Any:
        self.tell(command, **arguments)
        return self.answer()

    def stop(self) -> None:
        self.connection.close()
        os.kill(self.pid, signal.SIGTERM)
        os.waitpid(self.pid, 0)


def serve_calls(connection: "Connection[Any, Any]", target: object, idle: Callable[[], object]) -> None:
    """The child's side: calls methods of `target`; `idle` runs between calls and returns when one may be there."""
    while True:
        while not connection.poll(0):
            idle()
        command, arguments = connection.recv()
        try:
            answer = True, getattr(target, command)(**arguments)
        except (OSError, ValueError, MemoryError) as error:
            answer = False, f"{command}: {error}"
        connection.send(answer)
