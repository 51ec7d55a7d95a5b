"""The cold path of a worker: everything of a loop turn that is not an envelope.

    Login     the loop does not know the device's key: register, admit or refuse, at once, from a view
    Request   checked here; executed here, or by the worker that owns the account in question
                reads are answered at once from a view, changes go through the registry's thread
    PeerMessage   a call of another worker to execute, or its reply to a call of ours
    Wake      a push for a device that has registered for one

An answer leaves before its effects are carried out: a device that removes itself still hears of it.

Requests of one connection may overtake one another: a read is answered while an earlier change waits for the disk.  A
client that needs an order waits for each answer.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import wa._fastpath.loop.loop as fastpath
from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.log import Log
from wa.metrics import Counters
from wa.runtime.peer_calls import Call, PeerCalls, Reply, decode
from wa.runtime.push_sender import PushSender
from wa.runtime.registry_thread import Job, RegistryThread
from wa.services.base import AddDevice, Answer, Effect, Notify, RemoveDevice, Request, Site, failed
from wa.services.receipts import add_reported
from wa.services.table import READS, Chore
from wa.storage.registry import Registry, View
from wa.wire import methods
from wa.wire.methods import Method, Who

INTENT_REGISTER = 1
NO_KEY = bytes(32)


@dataclass(frozen=True)
class Connected:
    """The answer goes to a connection of this worker."""

    conn: int
    request_id: int


@dataclass(frozen=True)
class Peer:
    """The answer goes to another worker."""

    worker: int
    correlation: int


@dataclass(frozen=True)
class Nobody:
    """Nobody waits for the answer."""


Route = Connected | Peer | Nobody


class ColdPath:
    """The Sink of a worker's loop.  `attach` it before the loop runs.

    owner(number): the worker that owns an account.  report: called about once a second with all counters.
    push: None when devices are not woken.
    """

    def __init__(
        self,
        worker: int,
        registry: Registry,
        site: Site,
        *,
        owner: Callable[[int], int],
        now_ms: Callable[[], int],
        monotonic_ms: Callable[[], int],
        report: Callable[[dict[str, int]], None],
        log: Log,
        push: PushSender | None = None,
    ) -> None:
        self._worker, self._registry, self._site, self._owner = worker, registry, site, owner
        self._now_ms, self._monotonic_ms, self._report, self._log = now_ms, monotonic_ms, report, log
        self._push = push
        self._calls = PeerCalls(int.from_bytes(site.random_bytes(6), "big"), monotonic_ms)
        self._corrupt_told = 0
        self._swept_ms = monotonic_ms()
        self.counters = Counters()

    def attach(self, loop: fastpath.Loop, changes: RegistryThread) -> None:
        self._loop, self._changes = loop, changes

    # --- the Sink ---

    def on_batch(self, events: "list[fastpath.Event]") -> None:
        with self._registry.read() as view:
            for event in events:
                match event:
                    case fastpath.Login():
                        self._login(view, event)
                    case fastpath.Request():
                        self._request(view, event)
                    case fastpath.PeerMessage():
                        self._peer_message(view, event)
                    case fastpath.Gone():
                        self.counters.add("devices_gone")
                    case fastpath.Wake():
                        self._wake(view, event.address)
        if self._push is not None:
            self._push.flush()

    def on_wake(self) -> None:
        for done in self._changes.collect():
            route = done.job.tag
            assert isinstance(route, Connected | Peer | Nobody)
            self._finish(route, done.job.method, done.answer)

    def on_tick(self) -> None:
        for waiting in self._calls.expired():
            self.counters.add("peer_calls_timed_out")
            self._respond(
                Connected(waiting.conn, waiting.request_id), failed(RemoteError(Code.REQUEST_TIMEOUT))
            )
        if self._monotonic_ms() - self._swept_ms >= limits.SWEEP_INTERVAL_S * 1_000:
            self._swept_ms = self._monotonic_ms()
            self._changes.sweep()
        self._take_push_news()
        self._tell_corrupt()
        self._report(self.stats())

    def stats(self) -> dict[str, int]:
        gauges = {"registry_waiting": self._changes.waiting(), "peer_calls_open": len(self._calls)}
        if self._push is not None:
            gauges["push_pending"] = len(self._push)
        return self._loop.stats() | self.counters.read() | gauges

    # --- logins ---

    def _login(self, view: View, login: fastpath.Login) -> None:
        if login.intent == INTENT_REGISTER:
            self._loop.admit(login.conn, login.address)
            return
        try:
            device = view.device(login.address)
        except RemoteError as error:  # a corrupt record must not pass for a missing one
            self._log.error("login_failed", address=login.address, detail=error.detail)
            self._loop.refuse(login.conn, Code.INTERNAL)
            return
        bound = hmac.compare_digest(login.static_key, device.static_key if device is not None else NO_KEY)
        if device is None or not bound:
            self.counters.add("logins_refused")
            self._log.debug("login_refused", address=login.address, known=device is not None)
            self._loop.refuse(login.conn, Code.DEVICE_UNKNOWN)
            return
        self._loop.admit(login.conn, login.address)

    # --- requests ---

    def _request(self, view: View, event: fastpath.Request) -> None:
        self.counters.add("requests")
        registering = ids.device_of(event.address) == 0
        route = Connected(event.conn, event.request_id)
        try:
            spec = methods.spec_of(event.method)
            if registering and spec.who is not Who.REGISTERING:
                self._loop.refuse(event.conn, Code.NOT_PERMITTED)
                return
            if spec.who is Who.REGISTERING and not registering:
                raise RemoteError(Code.UNKNOWN_METHOD, f"{spec.name} is for connections that register")
            params = methods.check(spec, event.body)
        except RemoteError as error:
            self._respond(route, failed(error))
            return
        owner = self._owner(params["number"]) if spec.who is Who.NUMBER else self._worker
        if owner == self._worker:
            self._execute(view, Job(spec.method, params, event.address, event.static_key, event.peer, route))
        else:
            self._call(owner, route, spec.method, event)

    def _execute(self, view: View, job: Job) -> None:
        assert isinstance(job.tag, Connected | Peer | Nobody)
        if isinstance(job.method, Method) and job.method in READS:
            request = Request(
                view, self._site, job.caller, job.static_key, job.peer, self._now_ms(), self._loop.is_waiting
            )
            try:
                answer = READS[job.method](request, job.params)
            except RemoteError as error:
                answer = failed(error)
            self._finish(job.tag, job.method, answer)
        elif not self._changes.submit(job):
            self._finish(job.tag, job.method, failed(RemoteError(Code.TRY_LATER)))

    def _finish(self, route: Route, method: Method | Chore, answer: Answer) -> None:
        self._respond(route, answer)
        for effect in answer.effects:
            self._carry_out(route, effect)
        if method is Method.REGISTER_VERIFY and answer.status is Code.OK:
            self.counters.add("registrations")
            self._log.info("registered", address=answer.body["address"])

    def _respond(self, route: Route, answer: Answer) -> None:
        body = methods.pack(answer.body)
        match route:
            case Connected():
                self._respond_here(route, answer.status, body)
            case Peer(worker, correlation):
                # Best effort: a caller that cannot be reached times out, and repeats the request safely.
                self._loop.call_peer(worker, Reply(correlation, answer.status, body).encode())

    def _respond_here(self, route: Connected, status: int, body: bytes) -> None:
        if status != Code.OK:
            self.counters.add("requests_failed")
        self._loop.respond(route.conn, route.request_id, status, body)

    def _carry_out(self, route: Route, effect: Effect) -> None:
        match effect:
            case Notify(address, notice, body):
                self._loop.notice(address, notice, methods.pack(body))
            case RemoveDevice(address, code):
                self._loop.remove_device(address, code)
                self._log.info("device_removed", address=address)
            case AddDevice(address, static_key):
                assert isinstance(route, Connected), "a device registers at its owner"
                self._loop.add_device(address, static_key)
                self._loop.admit(route.conn, address)
            case _:
                raise AssertionError(f"{type(effect).__name__} is not the loop's")

    # --- other workers ---

    def _call(self, worker: int, route: Connected, method: Method, event: fastpath.Request) -> None:
        amend = None
        if method is Method.RECEIPTS_STATUS:
            amend = partial(add_reported, self._loop.is_reported, event.address, event.body)
        correlation = self._calls.open(route.conn, route.request_id, amend)
        if correlation is not None:
            self.counters.add("peer_calls")
            if self._loop.call_peer(worker, Call(correlation, method, event.address, event.body).encode()):
                return
            self._calls.close(correlation)
        self._respond(route, failed(RemoteError(Code.TRY_LATER, "the owner of the account is not reachable")))

    def _peer_message(self, view: View, event: fastpath.PeerMessage) -> None:
        match decode(event.body):
            case Call(correlation, method, caller, body):
                spec = methods.spec_of(method)
                route = Peer(event.worker, correlation)
                self._execute(view, Job(spec.method, methods.check(spec, body), caller, b"", "", route))
            case Reply(correlation, status, body):
                waiting = self._calls.close(correlation)
                if waiting is None:
                    self.counters.add("peer_replies_late")
                    return
                if waiting.amend is not None and status == Code.OK:
                    body = waiting.amend(body)
                self._respond_here(Connected(waiting.conn, waiting.request_id), status, body)

    # --- push ---

    def _wake(self, view: View, address: int) -> None:
        if self._push is None:
            return
        try:
            token = view.push_token(address)
        except RemoteError as error:
            self._log.error("wake_failed", address=address, detail=error.detail)
            return
        if token is None:
            return
        if self._push.wake(token):
            self.counters.add("push_wakes")
        else:
            self.counters.add("push_dropped")
            self._loop.wake_lost(address)

    def _take_push_news(self) -> None:
        """After a lost wake-up the next envelope wakes again; the mailbox has the earlier ones."""
        if self._push is None:
            return
        news = self._push.news()
        for wake in news.lost:
            self._loop.wake_lost(wake.address)
        for wake in news.gone:
            self._log.info("push_token_gone", address=wake.address, platform=wake.platform)
            # When too many changes wait, this is dropped: the next wake-up gets the same answer.
            self._changes.submit(Job(Chore.FORGET_TOKEN, {"token": wake.token}, wake.address, b"", "", Nobody()))
        self._push.flush()

    def _tell_corrupt(self) -> None:
        if self._registry.corrupt_n > self._corrupt_told:
            self._corrupt_told = self._registry.corrupt_n
            table = self._registry.corrupt[-1][0]
            self._log.error("registry_corrupt", met=self._corrupt_told, table=table)
