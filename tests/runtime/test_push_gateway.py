"""The gateway with a real worker's side and a real endpoint, in one process."""

import asyncio
import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.endpoint import Endpoint
from tests.integration.rig import until
from wa import limits
from wa.config import Push
from wa.log import Log
from wa.runtime.push_channel import gateway_path
from wa.runtime.push_gateway import Plan, PushGateway
from wa.runtime.push_sender import PushSender
from wa.runtime.push_transport import make_transport
from wa.storage.records import PushToken


class Bench:
    """Two workers' senders, and a gateway that runs in a thread of its own between `start` and `stop`."""

    def __init__(self, run_dir, push):
        self.run_dir, self.push = run_dir, push
        self.ids = iter(range(1, 100_000))
        self.senders = [PushSender(run_dir, k, lambda size: next(self.ids).to_bytes(size, "big")) for k in (0, 1)]
        self.log = io.StringIO()
        self.reports = [{}]
        self.lost, self.gone = [], []
        self.pool = ThreadPoolExecutor(1)

    def start(self):
        started = threading.Event()

        async def main():
            plan = Plan(self.run_dir, 2, make_transport(self.push), self.reports.append)
            self.loop = asyncio.get_running_loop()
            self.gateway = PushGateway(plan, Log("push", "debug", stream=self.log))
            self.task = asyncio.create_task(self.gateway.run())
            self.loop.call_soon(started.set)
            await asyncio.wait({self.task})
            if not self.task.cancelled():
                self.task.result()

        self.end = self.pool.submit(asyncio.run, main())
        assert started.wait(30)
        until(gateway_path(self.run_dir).exists)

    def stop(self):
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.end.result(30)

    def wake(self, *addresses, worker=0, token="t"):
        for address in addresses:
            assert self.senders[worker].wake(PushToken(address, "fcm", f"{token}{address}", 0))
        self.senders[worker].flush()

    def news(self):
        for sender in self.senders:
            sender.flush()
            news = sender.news()
            self.lost += [wake.address for wake in news.lost]
            self.gone += [wake.address for wake in news.gone]

    def settle(self):
        """Until every wake-up has an outcome."""

        def settled():
            self.news()
            return not any(len(sender) for sender in self.senders)

        until(settled)

    def counts(self):
        return self.gateway.stats()


@pytest.fixture
def endpoint():
    with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(limits, "PUSH_BACKOFF_MS_MIN", 1)
    monkeypatch.setattr(limits, "PUSH_REPORT_MS", 5)


@pytest.fixture
def bench(tmp_path, endpoint):
    bench = Bench(tmp_path, Push("webhook", endpoint.url))
    bench.start()
    yield bench
    bench.stop()
    assert not gateway_path(tmp_path).exists()
    for sender in bench.senders:
        sender.close()


def test_wakes_of_all_workers_are_sent_and_told(bench, endpoint):
    bench.wake(1, 2)
    bench.wake(3, worker=1)
    bench.settle()
    assert sorted(endpoint.tokens()) == ["t1", "t2", "t3"]
    assert bench.counts() == {"push_wakes_in": 3, "push_sent": 3, "push_queued": 0}
    assert (bench.lost, bench.gone) == ([], [])


def test_so_many_requests_at_a_time(bench, endpoint):
    endpoint.open.clear()
    many = range(1, 2 * limits.PUSH_CONCURRENCY_MAX + 1)
    bench.wake(*many)
    endpoint.wait_for(limits.PUSH_CONCURRENCY_MAX)
    until(lambda: bench.counts()["push_queued"] == limits.PUSH_CONCURRENCY_MAX)
    assert len(endpoint.raw) == limits.PUSH_CONCURRENCY_MAX
    endpoint.open.set()
    bench.settle()
    assert sorted(endpoint.tokens()) == sorted(f"t{n}" for n in many)


def test_one_pending_per_device(bench, endpoint):
    endpoint.open.clear()
    bench.wake(*range(1, limits.PUSH_CONCURRENCY_MAX + 1))
    endpoint.wait_for(limits.PUSH_CONCURRENCY_MAX)
    for n in range(9):
        bench.wake(1000, token=f"{n}-")
    until(lambda: bench.counts()["push_wakes_in"] == limits.PUSH_CONCURRENCY_MAX + 9)
    endpoint.open.set()
    bench.settle()
    assert [token for token in endpoint.tokens() if token.endswith("1000")] == ["8-1000"]


def test_failures_are_repeated_with_the_same_id(bench, endpoint):
    answers = iter([(503, {}), (429, {}), (500, {})])
    endpoint.answer = lambda body: next(answers, (200, {}))
    bench.wake(1)
    bench.settle()
    assert [body["id"] for body in endpoint.bodies] == [f"{1:032x}"] * 4
    assert bench.counts()["push_failed"] == 3
    assert bench.log.getvalue().count("push_fails") == bench.log.getvalue().count("push_works_again") == 1


def test_what_fails_always_is_given_up(bench, endpoint):
    endpoint.answer = lambda body: (503, {})
    bench.wake(1)
    bench.settle()
    assert len(endpoint.raw) == limits.PUSH_TRIES_MAX
    assert bench.lost == [1]
    assert bench.counts()["push_lost"] == 1


def test_what_is_refused_is_not_repeated(bench, endpoint):
    endpoint.answer = lambda body: (400, {})
    bench.wake(1)
    bench.settle()
    assert len(endpoint.raw) == 1
    assert bench.lost == [1]


def test_a_token_that_is_gone(bench, endpoint):
    endpoint.answer = lambda body: (410 if body["token"] == "t2" else 200, {})
    bench.wake(1, 2, 3)
    bench.settle()
    assert (bench.lost, bench.gone) == ([], [2])
    assert len(endpoint.raw) == 3
    assert "push_fails" not in bench.log.getvalue()


def test_an_endpoint_that_wants_to_be_left_alone_is(bench, endpoint):
    times = []

    def answer(body):
        times.append(time.monotonic())
        return (429, {"Retry-After": "1"}) if len(times) == 1 else (200, {})

    endpoint.answer = answer
    bench.wake(1)
    until(lambda: bench.counts().get("push_failed") == 1)
    bench.wake(2, 3)
    bench.settle()
    assert all(later - times[0] >= 1 for later in times[1:])
    assert len(times) == 4


def test_a_full_queue_drops_and_says_so(bench, endpoint, monkeypatch):
    monkeypatch.setattr(limits, "PUSH_QUEUE_MAX", 2)
    endpoint.open.clear()
    many = range(1, limits.PUSH_CONCURRENCY_MAX + 1)
    for address in many:  # one at a time: each is with the endpoint before the next comes
        bench.wake(address)
        endpoint.wait_for(address)
    bench.wake(1001, 1002, 1003)
    until(lambda: bench.counts().get("push_lost") == 1)
    endpoint.open.set()
    bench.settle()
    assert bench.lost == [1003]


def test_a_new_gateway_sends_what_its_predecessor_had(bench, endpoint):
    endpoint.open.clear()
    bench.wake(1)
    endpoint.wait_for(1)
    bench.stop()
    endpoint.open.set()
    bench.wake(2)
    bench.start()
    bench.settle()
    assert sorted(endpoint.tokens()) == ["t1", "t1", "t2"]
    assert len({body["id"] for body in endpoint.bodies}) == 2


def test_outcomes_for_a_worker_that_is_gone_are_dropped(bench, endpoint):
    endpoint.open.clear()
    bench.wake(1)
    endpoint.wait_for(1)
    bench.senders[0].close()
    bench.senders[0] = PushSender(bench.run_dir, 0, lambda size: next(bench.ids).to_bytes(size, "big"))
    endpoint.open.set()
    bench.wake(2)
    bench.settle()
    assert (bench.lost, bench.gone) == ([], [])


def test_nothing_of_a_device_is_logged(bench, endpoint):
    endpoint.answer = lambda body: (400, {})
    bench.wake(15551230001 << 8 | 1, token="secret")
    bench.settle()
    log = bench.log.getvalue()
    assert "status 400" in log
    assert "secret" not in log and "1555" not in log and endpoint.url not in log
