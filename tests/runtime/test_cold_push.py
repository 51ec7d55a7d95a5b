"""The cold path and push: whom it wakes, and what follows from what the gateway says."""

import pytest
from cold_bench import ALICE, BOB, KEY_A, KEY_B, wake_event

from wa import ids, limits
from wa.runtime.push_channel import Outcome, Report, Wakes, bind, gateway_path, received, send, worker_path
from wa.runtime.push_sender import PushSender
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry
from wa.storage.records import PushToken
from wa.wire.methods import Method


@pytest.fixture(params=["memory", "lmdb"])
def bench(request, make_bench, tmp_path):
    ids_ = iter(range(1, 1_000))
    push = PushSender(tmp_path, 0, lambda size: next(ids_).to_bytes(size, "big"))
    registry = MemoryRegistry() if request.param == "memory" else LmdbRegistry(tmp_path / "r", sync=False)
    return make_bench(registry, push=push)


@pytest.fixture
def gateway(tmp_path):
    with bind(gateway_path(tmp_path)) as sock:
        yield sock


def taken(gateway):
    return [wake for data in received(gateway) for wake in Wakes.decode(data).wakes]


def tell(gateway, tmp_path, wake, outcome):
    send(gateway, Report(b"n" * 16, ((wake.id, outcome),)).encode(), worker_path(tmp_path, 0))


def register(bench, address, token):
    assert bench.call(Method.PUSH_REGISTER, address, {"platform": "fcm", "token": token}) == (0, {})


def token_of(bench, address):
    with bench.registry.read() as view:
        return view.push_token(address)


def test_who_has_a_token_is_woken(bench, gateway):
    alice, bob = bench.register(ALICE, KEY_A), bench.register(BOB, KEY_B)
    register(bench, alice, "a")
    bench.cold.on_batch([wake_event(alice), wake_event(bob), wake_event(ids.address_of(BOB, 9))])
    (wake,) = taken(gateway)
    assert (wake.address, wake.platform, wake.token) == (alice, "fcm", "a")
    assert bench.cold.stats()["push_wakes"] == bench.cold.stats()["push_pending"] == 1


def test_nobody_is_woken_without_push(make_bench):
    bench = make_bench()
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "a")
    bench.cold.on_batch([wake_event(alice)])
    bench.cold.on_tick()
    assert "push_pending" not in bench.cold.stats()


def test_what_is_lost_may_wake_again(bench, gateway, tmp_path):
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "a")
    bench.cold.on_batch([wake_event(alice)])
    bench.loop.take()
    tell(gateway, tmp_path, taken(gateway)[0], Outcome.LOST)
    bench.cold.on_tick()
    assert bench.loop.take() == [("wake_lost", alice)]
    assert token_of(bench, alice).token == "a"


def test_a_token_that_is_gone_is_forgotten(bench, gateway, tmp_path):
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "a")
    bench.cold.on_batch([wake_event(alice)])
    bench.loop.take()
    tell(gateway, tmp_path, taken(gateway)[0], Outcome.GONE)
    bench.cold.on_tick()
    bench.settle()
    assert token_of(bench, alice) is None
    assert bench.loop.take() == [], "nobody waits for an answer"
    assert "push_token_gone" in bench.log.getvalue()
    assert str(ALICE) not in bench.log.getvalue()


def test_a_newer_token_stays(bench, gateway, tmp_path):
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "old")
    bench.cold.on_batch([wake_event(alice)])
    register(bench, alice, "new")
    tell(gateway, tmp_path, taken(gateway)[0], Outcome.GONE)
    bench.cold.on_tick()
    bench.settle()
    assert token_of(bench, alice).token == "new"


def test_too_many_on_their_way_are_dropped_and_counted(bench, monkeypatch):
    monkeypatch.setattr(limits, "PUSH_PENDING_MAX", 1)
    alice, bob = bench.register(ALICE, KEY_A), bench.register(BOB, KEY_B)
    register(bench, alice, "a")
    register(bench, bob, "b")
    bench.loop.take()
    bench.cold.on_batch([wake_event(alice), wake_event(bob)])
    assert bench.loop.take() == [("wake_lost", bob)]
    assert bench.cold.stats()["push_dropped"] == 1


def test_what_waited_for_the_gateway_leaves_with_the_tick(bench, tmp_path):
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "a")
    bench.cold.on_batch([wake_event(alice)])
    with bind(gateway_path(tmp_path)) as gateway:
        bench.cold.on_tick()
        assert len(taken(gateway)) == 1


def test_a_corrupt_token_wakes_nobody_and_is_told(make_bench, tmp_path):
    bench = make_bench(MemoryRegistry(), push=PushSender(tmp_path, 0, bytes))
    alice = bench.register(ALICE, KEY_A)
    register(bench, alice, "secret")
    disk = bench.registry.disk
    disk.values["push"][PushToken(alice, "", "", 0).key()] = b"garbage"
    bench.cold.on_batch([wake_event(alice)])
    assert "wake_failed" in bench.log.getvalue()
    assert "secret" not in bench.log.getvalue()
    register(bench, alice, "new")  # which mends it
    bench.cold.on_batch([wake_event(alice)])
    assert bench.cold.stats()["push_wakes"] == 1
