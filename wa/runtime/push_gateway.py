"""The push gateway: a process of its own that wakes devices through their push services.

It waits for the outside so that no worker does (architecture, decision 10):

    workers --- datagrams ---> queue --------------> PUSH_CONCURRENCY_MAX senders ---> transport
    push_channel.py            one per device,       push_transport.py
                               push_queue.py

The outcome of each wake-up goes back to its worker.  Nothing here is durable: a killed gateway loses its queue.  Its
successor greets the workers, and they resend the wake-ups without an outcome.
"""

import asyncio
import json
import secrets
import signal
import socket
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from wa import limits
from wa.config import Push
from wa.log import Log
from wa.metrics import Counters
from wa.runtime.push_channel import (
    ID_BYTES,
    OUTCOMES_MAX,
    Outcome,
    Report,
    Sent,
    Wake,
    Wakes,
    bind,
    gateway_path,
    received,
    send,
    worker_path,
)
from wa.runtime.push_queue import Entry, PushQueue
from wa.runtime.push_transport import Answer, PushTransport, Verdict, make_transport

STATS_S = 1.0
_COUNTED = {
    Verdict.SENT: "push_sent",
    Verdict.GONE: "push_gone",
    Verdict.REFUSED: "push_refused",
    Verdict.FAILED: "push_failed",
}


@dataclass(frozen=True)
class Plan:
    """workers: how many there are.  report: called about once a second with all counters."""

    run_dir: Path
    workers: int
    transport: PushTransport
    report: Callable[[dict[str, int]], None]


class PushGateway:
    def __init__(self, plan: Plan, log: Log) -> None:
        self._plan, self._log = plan, log
        self._incarnation = secrets.token_bytes(ID_BYTES)
        self._random = secrets.SystemRandom()
        self._queue = PushQueue(self._tell)
        self._something_ready = asyncio.Semaphore(0)
        self._outcomes: defaultdict[int, list[tuple[bytes, Outcome]]] = defaultdict(list)
        self._reporting: asyncio.TimerHandle | None = None
        self._left_alone_until = 0.0  # the endpoint has asked for it
        self._failing = False
        self.counters = Counters()

    async def run(self) -> None:
        """Until it is cancelled."""
        self._loop = asyncio.get_running_loop()
        # The greeting comes before the socket: a worker knows of the new gateway before it can send to it.
        greeting = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        greeting.setblocking(False)
        with greeting:
            for worker in range(self._plan.workers):
                send(greeting, Report(self._incarnation, ()).encode(), worker_path(self._plan.run_dir, worker))
        path = gateway_path(self._plan.run_dir)
        self._sock = bind(path)
        self._loop.add_reader(self._sock, self._on_wakes)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_counted())
                for _ in range(limits.PUSH_CONCURRENCY_MAX):
                    group.create_task(self._keep_sending())
        finally:
            self._loop.remove_reader(self._sock)
            self._send_reports()
            self._stop_reporting()
            self._sock.close()
            path.unlink(missing_ok=True)
            await self._plan.transport.close()

    # --- from and to the workers ---

    def _on_wakes(self) -> None:
        for data in received(self._sock):
            batch = Wakes.decode(data)
            for wake in batch.wakes:
                self.counters.add("push_wakes_in")
                if self._queue.add(batch.worker, wake):
                    self._something_ready.release()

    def _tell(self, worker: int, wake: Wake, outcome: Outcome) -> None:
        if outcome is Outcome.LOST:
            self.counters.add("push_lost")
        self._outcomes[worker].append((wake.id, outcome))
        self._report_soon()

    def _report_soon(self) -> None:
        if self._reporting is None:
            self._reporting = self._loop.call_later(limits.PUSH_REPORT_MS / 1_000, self._send_reports)

    def _stop_reporting(self) -> None:
        if self._reporting is not None:
            self._reporting.cancel()
            self._reporting = None

    def _send_reports(self) -> None:
        self._stop_reporting()
        for worker, outcomes in list(self._outcomes.items()):
            path = worker_path(self._plan.run_dir, worker)
            while outcomes:
                sent = send(self._sock, Report(self._incarnation, tuple(outcomes[:OUTCOMES_MAX])).encode(), path)
                if sent is Sent.FULL:
                    break
                # Of a worker that is gone nobody asks any more: its successor does not know these wake-ups.
                del outcomes[: OUTCOMES_MAX if sent is Sent.YES else None]
            if not outcomes:
                del self._outcomes[worker]
        if self._outcomes:
            self._report_soon()

    # --- to the outside ---

    async def _keep_sending(self) -> None:
        while True:
            await self._something_ready.acquire()
            while (wait_s := self._left_alone_until - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)
            entry = self._queue.take()
            assert entry is not None, "one release for each that is ready"
            wake = entry.wake
            answer = await self._plan.transport.send(wake.platform, wake.token, wake.id.hex())
            self.counters.add(_COUNTED[answer.verdict])
            self._log_change(answer)
            match answer.verdict:
                case Verdict.SENT:
                    self._tell(entry.worker, wake, Outcome.DONE)
                case Verdict.GONE:
                    self._tell(entry.worker, wake, Outcome.GONE)
                case Verdict.REFUSED:
                    self._tell(entry.worker, wake, Outcome.LOST)
                case Verdict.FAILED:
                    self._later(entry, answer.retry_after_s)

    def _later(self, entry: Entry, retry_after_s: float | None) -> None:
        pause_s = min(limits.PUSH_BACKOFF_MS_MIN << entry.tries, limits.PUSH_BACKOFF_MS_MAX) / 1_000
        pause_s *= self._random.uniform(0.5, 1.0)
        if retry_after_s is not None:
            self._left_alone_until = max(self._left_alone_until, self._loop.time() + retry_after_s)
            pause_s = max(pause_s, retry_after_s)
        if self._queue.failed(entry):
            self._loop.call_later(pause_s, self._again, entry)

    def _again(self, entry: Entry) -> None:
        self._queue.again(entry)
        self._something_ready.release()

    def _log_change(self, answer: Answer) -> None:
        """Logs the first of many failures, and their end; a token that is gone is no failure."""
        failing = answer.verdict in (Verdict.REFUSED, Verdict.FAILED)
        if failing and not self._failing:
            self._log.warning("push_fails", reason=answer.detail, again=answer.verdict is Verdict.FAILED)
        elif self._failing and not failing:
            self._log.info("push_works_again")
        self._failing = failing

    # --- counters ---

    def stats(self) -> dict[str, int]:
        return self.counters.read() | {"push_queued": len(self._queue)}

    async def _keep_counted(self) -> None:
        while True:
            self._plan.report(self.stats())
            await asyncio.sleep(STATS_S)


def run_push_gateway(push: Push, run_dir: Path, workers: int, channel: socket.socket, log: Log) -> None:
    """The life of the gateway's process, until SIGTERM.  `channel`: see `helpers.Helper`."""

    def report(stats: dict[str, int]) -> None:
        try:
            channel.send(json.dumps(stats).encode())
        except BlockingIOError:
            log.debug("report_skipped")

    asyncio.run(_until_stopped(Plan(run_dir, workers, make_transport(push), report), log))


async def _until_stopped(plan: Plan, log: Log) -> None:
    gateway = asyncio.create_task(PushGateway(plan, log).run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, gateway.cancel)
    await asyncio.wait({gateway})
    if not gateway.cancelled():
        gateway.result()
