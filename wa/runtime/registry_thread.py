"""The registry's thread: it makes every change of one worker's registry, in groups, so that the loop never waits.

The loop submits jobs.  This thread takes all that wait, up to REGISTRY_BATCH_MAX, runs them in one transaction and
commits (the fsync releases the GIL).  Only then does it hand the answers back and wake the loop.

A failing request does not spoil its group.  A service function that raises has changed nothing, so its error is its
answer.  Only the storage can fail in the middle of one: then the transaction is undone and the group runs again in two
halves, until the job that cannot be stored is alone.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.log import Log
from wa.services.base import Answer, Params, Request, SendCode, Site, failed
from wa.services.budgets import WINDOW_S_MAX
from wa.services.code_transport import CodeTransport
from wa.services.table import CHORES, WRITES, Chore
from wa.storage.registry import Change, Registry
from wa.wire.methods import Method


@dataclass(frozen=True)
class Job:
    """A request or chore that changes the registry.  `tag` is the submitter's own and comes back with the answer."""

    method: Method | Chore
    params: Params
    caller: int
    static_key: bytes
    peer: str
    tag: object


@dataclass(frozen=True)
class Done:
    """`answer` is durable, or says that nothing was changed."""

    job: Job
    answer: Answer


class RegistryThread:
    """Owned by the loop thread, which calls every method; `wake` alone is called from the other one."""

    def __init__(
        self,
        registry: Registry,
        site: Site,
        transport: CodeTransport,
        *,
        wake: Callable[[], None],
        now_ms: Callable[[], int],
        log: Log,
    ) -> None:
        self._registry, self._site, self._transport = registry, site, transport
        self._wake, self._now_ms, self._log = wake, now_ms, log
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._done: deque[Done] = deque()
        self._sweep_due = False
        self._closing = False
        self._failure = ""  # of the storage, for the log
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._end = self._pool.submit(self._main)
        self._end.add_done_callback(lambda _: wake())

    def submit(self, job: Job) -> bool:
        """False when too many wait already."""
        with self._changed:
            if len(self._queue) >= limits.REGISTRY_QUEUE_MAX:
                return False
            self._queue.append(job)
            self._changed.notify()
        return True

    def waiting(self) -> int:
        """How many submitted jobs are not finished."""
        with self._changed:
            return len(self._queue)

    def sweep(self) -> None:
        """Delete expired codes and budgets when there is nothing better to do."""
        with self._changed:
            self._sweep_due = True
            self._changed.notify()

    def collect(self) -> list[Done]:
        """The jobs finished since the last call, in order.  Raises what the thread died of."""
        if self._end.done() and not self._closing:
            self._end.result()
            raise LocalError("the registry's thread ended by itself")
        return [self._done.popleft() for _ in range(len(self._done))]

    def close(self) -> None:
        """Finishes what was submitted and ends the thread.  Raises what it died of."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._pool.shutdown()
        self._end.result()

    # --- in the thread ---

    def _main(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._sweep_due or self._closing)
                jobs = list(islice(self._queue, limits.REGISTRY_BATCH_MAX))
                sweep, self._sweep_due = self._sweep_due and not jobs, self._sweep_due and bool(jobs)
            if sweep:
                self._run_sweep()
            if not jobs:
                if self._closing:
                    return
                continue
            answers = self._run_group(jobs)
            lost = sum(answer.status is Code.STORAGE_FAILED for answer in answers)
            if lost:
                self._log.error("registry_failed", requests=lost, detail=self._failure)
            pairs = zip(jobs, answers, strict=True)
            self._done.extend(Done(job, self._send_codes(answer)) for job, answer in pairs)
            with self._changed:  # counted as waiting until here: the cap covers jobs in progress
                for _ in jobs:
                    self._queue.popleft()
            self._wake()

    def _run_group(self, jobs: list[Job]) -> list[Answer]:
        now_ms = self._now_ms()
        try:
            with self._registry.write() as change:
                answers = [self._run(change, job, now_ms) for job in jobs]
            return answers
        except RemoteError as error:
            if len(jobs) == 1:
                self._failure = error.detail
                return [failed(error)]
        middle = len(jobs) // 2
        return self._run_group(jobs[:middle]) + self._run_group(jobs[middle:])

    def _run(self, change: Change, job: Job, now_ms: int) -> Answer:
        request = Request(change, self._site, job.caller, job.static_key, job.peer, now_ms, _on_the_loop_only)
        serve = CHORES[job.method] if isinstance(job.method, Chore) else WRITES[job.method]
        try:
            return serve(request, job.params)
        except RemoteError as error:
            if error.code is Code.STORAGE_FAILED:
                raise  # perhaps after a change: undo the transaction
            return failed(error)

    def _send_codes(self, answer: Answer) -> Answer:
        """Carries out what leaves the machine; the other effects are the loop's."""
        for effect in answer.effects:
            if isinstance(effect, SendCode):
                try:
                    self._transport.send(effect.number, effect.code)
                except OSError as error:
                    self._log.error("code_not_sent", number=effect.number, reason=error.strerror)
                    return failed(RemoteError(Code.TRY_LATER, "the code could not be sent"))
        return replace(answer, effects=tuple(e for e in answer.effects if not isinstance(e, SendCode)))

    def _run_sweep(self) -> None:
        try:
            with self._registry.write() as change:
                swept = change.sweep(self._now_ms() // 1_000, WINDOW_S_MAX, limits.SWEEP_RECORDS_MAX)
        except RemoteError as error:
            self._log.error("registry_sweep_failed", detail=error.detail)
            return
        if swept:
            self._log.debug("registry_swept", records=swept)


def _on_the_loop_only(recipient: int, sender: int, envelope_id: int) -> bool:
    raise LocalError("custody belongs to the loop: a method that asks for it must be a read")
