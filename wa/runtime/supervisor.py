"""The supervision tree:

    supervisor            one thread; holds the data directory's lock and every listening socket
      +- worker 0..N-1    restart: always, at once; at most RESTARTS_MAX deaths of workers in
      |                   RESTARTS_WINDOW_S
      +- push gateway     (a helper; none without `push`) restart: always, after HELPER_PAUSE_MS_MIN, doubled up
                          to HELPER_PAUSE_MS_MAX while it keeps dying; stops nobody (helpers.py)

- Start: all workers are forked; the server is ready when each has said so.  A worker that dies before that would die
  again, so its death ends the start.
- Death of a worker: logged with its reason; the worker is forked anew.  Its listening socket stays open here: with
  SO_REUSEPORT the kernel keeps giving it its share of new connections, they wait in its backlog, and the new worker
  accepts them.
- Too many deaths: the server stops with a message and closes its sockets, so clients are refused and do not wait.
- SIGTERM, SIGINT: workers get SIGTERM and finish (clients are told, custody is committed).  A worker that still runs
  after STOP_MS_MAX is killed.  SIGHUP is ignored.
- Death of the supervisor: the kernel kills the workers (`process.die_with_parent`).
"""

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

from wa import limits
from wa.errors import LocalError
from wa.log import Log
from wa.runtime.helpers import Helper, Helpers
from wa.runtime.process import Child, die_with_parent, exit_reason

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
STARTED, GO = b"started", b"go"
RunWorker = Callable[[int, socket.socket], None]


class Supervisor:
    """run_worker(worker, channel) is called in the forked process and serves until SIGTERM.  The channel
    carries datagrams: "started" from it, "go" to it, then its counters as JSON.

    on_ready is called once, when all workers serve for the first time.
    """

    def __init__(
        self,
        workers: int,
        run_worker: RunWorker,
        *,
        on_ready: Callable[[], None],
        log: Log,
        helpers: Sequence[Helper] = (),
    ) -> None:
        self._workers, self._run_worker, self._on_ready, self._log = workers, run_worker, on_ready, log
        self.selector = selectors.DefaultSelector()
        self.children: dict[int, Child] = {}
        self._helpers = Helpers(helpers, self._spawn, self.selector, log)
        self._started_at = time.monotonic()
        self._start_by = self._started_at + limits.START_MS_MAX / 1_000
        self._stop_at = float("inf")  # when those that still run are killed
        self._was_ready = False
        self._reap_due = False
        self._deaths: deque[float] = deque()
        self._failure = ""
        self._wakeup, self._wakeup_end = socket.socketpair()
        for end in (self._wakeup, self._wakeup_end):
            end.setblocking(False)

    def run(self) -> None:
        """Until a signal stops it.  Raises LocalError when the start failed or restarting did not help."""
        self._take_signals()
        self.selector.register(self._wakeup, selectors.EVENT_READ, self._on_signal)
        self._log.info("starting", workers=self._workers, pid=os.getpid())
        # Freeze what exists before the fork: a collection in a worker would write to it, and unshare its pages.
        gc.collect()
        gc.freeze()
        try:
            for worker in range(self._workers):
                self._fork(worker, 0)
            while self.children or self._helpers.children:
                self._helpers.start_due()
                for key, mask in self.selector.select(self._timeout()):
                    key.data(mask)
                if self._reap_due:  # after the batch: an event of the dead worker's channel may be in it
                    self._reap_due = False
                    self._reap()
                self._check_times()
        finally:
            self._signal_all(signal.SIGKILL)  # a fault of the supervisor must leave no worker behind
        self._log.info("stopped")
        if self._failure:
            raise LocalError(self._failure)

    def status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "uptime_s": int(time.monotonic() - self._started_at),
            "ready": self._was_ready,
            "workers": [{"worker": n, **child.status()} for n, child in sorted(self.children.items())],
            "helpers": self._helpers.status(),
        }

    def stats(self) -> Mapping[str, Mapping[str, int]]:
        """Counters of each running process, by worker number or helper name."""
        workers = {str(worker): child.stats for worker, child in sorted(self.children.items())}
        return workers | {name: child.stats for name, child in self._helpers.children.items()}

    def stop(self, failure: str = "") -> None:
        """Asks every worker to finish.  `failure`: what `run` raises at the end; the first one stays."""
        self._failure = self._failure or failure
        if self._stopping:
            return
        self._stop_at = time.monotonic() + limits.STOP_MS_MAX / 1_000
        self._log.info("stopping", reason=failure or "signal")
        self._helpers.stop()
        self._signal_all(signal.SIGTERM)

    @property
    def _stopping(self) -> bool:
        return self._stop_at != float("inf")

    # --- processes ---

    def _spawn(self, name: str, run: Callable[[socket.socket], None], restarts: int) -> Child:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        sys.stdout.flush()
        supervisor = os.getpid()
        # A signal between the fork and `_drop_signals` would end up in the supervisor's wake-up socket.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        pid = os.fork()
        if pid == 0:
            ours.close()
            self._be_child(name, run, theirs, supervisor)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        theirs.close()
        return Child(pid, ours, restarts=restarts)

    def _be_child(
        self, name: str, run: Callable[[socket.socket], None], channel: socket.socket, supervisor: int
    ) -> NoReturn:
        """In the new process, which never returns from here into the supervisor's code."""
        status = 1
        log = self._log.named(name)
        try:
            self._drop_signals()
            die_with_parent(supervisor)
            for key in list(self.selector.get_map().values()):  # the supervisor's own, and the other channels
                if isinstance(key.fileobj, socket.socket):
                    key.fileobj.close()
            self._wakeup_end.close()
            run(channel)
            status = 0
        finally:
            error = sys.exc_info()[1]
            if error is not None:
                lines = [line for part in traceback.format_exception(error) for line in part.splitlines()]
                log.error("crashed", error=repr(error), trace=" | ".join(line.strip() for line in lines))
            os._exit(status)

    # --- workers ---

    def _fork(self, worker: int, restarts: int) -> None:
        child = self._spawn(f"worker-{worker}", lambda channel: self._run_worker(worker, channel), restarts)
        self.children[worker] = child
        self.selector.register(
            child.channel, selectors.EVENT_READ, lambda _: self._on_report(worker, child)
        )

    def _on_report(self, worker: int, child: Child) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := child.channel.recv(limits.WORKER_REPORT_BYTES_MAX):
                if data == STARTED:
                    child.started = True
                    self._let_go(child)
                    continue
                child.stats = json.loads(data)
                if not child.ready:
                    child.ready = True
                    self._log.info("worker_ready", worker=worker, pid=child.pid)
            self.selector.unregister(child.channel)  # it ended; waitpid says how
        if not self._was_ready and all(child.ready for child in self.children.values()):
            self._was_ready = True
            self._log.info("ready", workers=self._workers)
            self._on_ready()

    def _let_go(self, child: Child) -> None:
        """At the start all workers go when the last one has started; a restarted worker goes at once."""
        ready_to_go = [child] if self._was_ready else list(self.children.values())
        if all(each.started for each in ready_to_go):
            for each in ready_to_go:
                with contextlib.suppress(ConnectionError):  # it died meanwhile; waitpid says how
                    each.channel.send(GO)

    def _reap(self) -> None:
        for worker, child in list(self.children.items()):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                self._on_death(worker, child, exit_reason(status))
        self._helpers.reap()

    def _on_death(self, worker: int, child: Child, reason: str) -> None:
        child.close(self.selector)
        del self.children[worker]
        if self._stopping:
            self._log.info("worker_stopped", worker=worker, pid=child.pid, reason=reason)
            return
        self._log.error("worker_died", worker=worker, pid=child.pid, reason=reason)
        now = time.monotonic()
        self._deaths.append(now)
        while self._deaths[0] <= now - limits.RESTARTS_WINDOW_S:
            self._deaths.popleft()
        if not self._was_ready:
            self.stop(f"worker {worker} ended with {reason} before it served; the log above says why")
        elif len(self._deaths) > limits.RESTARTS_MAX:
            self.stop(
                f"{len(self._deaths)} deaths of workers within {limits.RESTARTS_WINDOW_S} s, the last one worker"
                f" {worker} by {reason}: restarting does not help; the log above says why they died"
            )
        else:
            self._fork(worker, child.restarts + 1)

    # --- time and signals ---

    def _timeout(self) -> float | None:
        """Until the next thing that is due by time alone."""
        due = self._stop_at if self._stopping or self._was_ready else self._start_by
        due = min(due, self._helpers.due())
        return None if due == float("inf") else max(0.0, due - time.monotonic())

    def _check_times(self) -> None:
        now = time.monotonic()
        if now >= self._stop_at:
            for worker, child in self.children.items():
                self._log.error("worker_killed", worker=worker, pid=child.pid, reason="did not stop in time")
            for name, child in self._helpers.children.items():
                self._log.error("helper_killed", name=name, pid=child.pid, reason="did not stop in time")
            self._signal_all(signal.SIGKILL)
            self._stop_at = now + 1
        elif not self._was_ready and not self._stopping and now >= self._start_by:
            late = [worker for worker, child in self.children.items() if not child.ready]
            self.stop(f"workers {late} did not serve within {limits.START_MS_MAX // 1_000} s")

    def _signal_all(self, number: signal.Signals) -> None:
        for child in (*self.children.values(), *self._helpers.children.values()):
            os.kill(child.pid, number)  # ours and not waited for yet, so the pid is still theirs

    def _take_signals(self) -> None:
        signal.set_wakeup_fd(self._wakeup_end.fileno(), warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, _wake_only)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def _drop_signals(self) -> None:
        """In a child: the supervisor stops it by SIGTERM; the terminal's Ctrl-C is not for it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _on_signal(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while numbers := self._wakeup.recv(256):
                if signal.SIGTERM in numbers or signal.SIGINT in numbers:
                    self.stop()
                self._reap_due |= signal.SIGCHLD in numbers


def _wake_only(number: int, frame: FrameType | None) -> None:
    """Without a handler the number would not arrive through the wake-up descriptor."""
