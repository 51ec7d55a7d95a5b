"""Helper processes: they wait for the outside so that no worker does (architecture, decision 10).

The server delivers without them: nothing waits for a helper's start, and its death stops nobody.  A helper that dies is
started again, without end, after a pause.  The pause doubles while it keeps dying, and is short again after a life of
HELPER_STEADY_MS.
"""

import contextlib
import json
import os
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from wa import limits
from wa.log import Log
from wa.runtime.process import Child, exit_reason


@dataclass(frozen=True)
class Helper:
    """run: called in the forked process; it serves until SIGTERM and sends its counters as JSON to the channel."""

    name: str
    run: Callable[[socket.socket], None]


@dataclass
class _State:
    """due: when it is started, infinite while it runs."""

    helper: Helper
    due: float = 0.0
    started: float = 0.0
    pause_ms: int = field(default_factory=lambda: limits.HELPER_PAUSE_MS_MIN)
    restarts: int = 0
    child: Child | None = None


Spawn = Callable[[str, Callable[[socket.socket], None], int], Child]


class Helpers:
    """spawn(name, run, restarts) forks.  The supervisor calls `start_due` and `reap`, until it stops."""

    def __init__(
        self, helpers: Sequence[Helper], spawn: Spawn, selector: selectors.BaseSelector, log: Log
    ) -> None:
        self._states = [_State(helper) for helper in helpers]
        self._spawn, self._selector, self._log = spawn, selector, log
        self._stopping = False

    @property
    def children(self) -> dict[str, Child]:
        """Those that run."""
        return {state.helper.name: state.child for state in self._states if state.child is not None}

    def status(self) -> list[dict[str, Any]]:
        """One row per helper; pid 0 while it waits for its restart."""
        absent = {"pid": 0, "ready": False, "stats": {}}
        return [
            {
                "helper": state.helper.name,
                **({**absent, "restarts": state.restarts} if state.child is None else state.child.status()),
            }
            for state in self._states
        ]

    def due(self) -> float:
        """When the next one is to be started, by `time.monotonic`."""
        return min((state.due for state in self._states), default=float("inf"))

    def start_due(self) -> None:
        now = time.monotonic()
        for state in self._states:
            if state.due <= now:
                state.due, state.started = float("inf"), now
                child = state.child = self._spawn(state.helper.name, state.helper.run, state.restarts)
                self._selector.register(
                    child.channel, selectors.EVENT_READ, lambda _, s=state, c=child: self._on_report(s, c)
                )

    def reap(self) -> None:
        for state in self._states:
            if state.child is not None:
                pid, status = os.waitpid(state.child.pid, os.WNOHANG)
                if pid:
                    self._on_death(state, state.child, exit_reason(status))

    def stop(self) -> None:
        """From now on no helper is started."""
        self._stopping = True
        for state in self._states:
            state.due = float("inf")

    def _on_report(self, state: _State, child: Child) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := child.channel.recv(limits.WORKER_REPORT_BYTES_MAX):
                child.stats = json.loads(data)
                if not child.ready:
                    child.ready = True
                    self._log.info("helper_ready", name=state.helper.name, pid=child.pid)
            self._selector.unregister(child.channel)  # it ended; waitpid says how

    def _on_death(self, state: _State, child: Child, reason: str) -> None:
        child.close(self._selector)
        state.child = None
        if self._stopping:
            self._log.info("helper_stopped", name=state.helper.name, pid=child.pid, reason=reason)
            return
        now = time.monotonic()
        if (now - state.started) * 1_000 >= limits.HELPER_STEADY_MS:
            state.pause_ms = limits.HELPER_PAUSE_MS_MIN
        state.due, state.restarts = now + state.pause_ms / 1_000, state.restarts + 1
        self._log.error(
            "helper_died", name=state.helper.name, pid=child.pid, reason=reason, again_ms=state.pause_ms
        )
        state.pause_ms = min(2 * state.pause_ms, limits.HELPER_PAUSE_MS_MAX)
