"""The registry's thread: groups share a commit, one spoils none, nothing is told before it is durable."""

import threading
from contextlib import contextmanager

import pytest
from cold_bench import ALICE, BOB, KEY_A, KEY_B, KEY_C

from wa import ids, limits
from wa.errors import Code
from wa.storage.lmdb_registry import LmdbRegistry
from wa.storage.memory_registry import MemoryRegistry
from wa.storage.records import DeviceKeys, address_key
from wa.wire.methods import Method


class Gated:
    """A registry whose commits wait for a gate, to let requests gather; counts transactions."""

    def __init__(self, registry):
        self._registry = registry
        self.gate = threading.Event()
        self.gate.set()
        self.inside = threading.Event()
        self.writes = 0

    def __getattr__(self, name):
        return getattr(self._registry, name)

    @contextmanager
    def write(self):
        with self._registry.write() as change:
            self.writes += 1
            self.inside.set()
            yield change
            assert self.gate.wait(30)


@pytest.fixture(params=["memory", "lmdb"])
def gated(request, make_bench, tmp_path):
    inner = MemoryRegistry() if request.param == "memory" else LmdbRegistry(tmp_path / "r", sync=False)
    return make_bench(Gated(inner))


def held(bench, act):
    """Holds the commit of one request, lets `act` submit more behind it, and lets them all go."""
    registry = bench.registry
    bench.loop.take()
    registry.inside.clear()
    registry.gate.clear()
    first = bench.send(Method.REGISTER_REQUEST_CODE, ids.address_of(BOB + 77, 0), conn=99)
    assert registry.inside.wait(30)
    before = registry.writes
    try:
        sent = act()
    finally:
        registry.gate.set()
    assert bench.loop.told == []
    bench.settle()
    assert bench.answer(first)[0] == 0
    return sent, registry.writes - before


def upload(n):
    return {
        "identity": b"i" * 32,
        "signed_id": 1,
        "signed_key": b"s" * 32,
        "signed_signature": b"g" * 64,
        "one_time": [[k, bytes([k]) * 32] for k in range(n)],
    }


def test_requests_that_wait_share_one_commit(gated):
    def act():
        return [
            gated.send(Method.REGISTER_REQUEST_CODE, ids.address_of(ALICE + n, 0), conn=n) for n in range(50)
        ]

    sent, writes = held(gated, act)
    assert writes == 1
    assert [gated.answer(request)[0] for request in sent] == [0] * 50
    assert len(gated.codes.sent) == 51


def test_a_bad_request_among_good_ones(gated):
    alice, bob = gated.register(ALICE, KEY_A), gated.register(BOB, KEY_B)

    def act():
        return [
            gated.send(Method.KEYS_UPLOAD, alice, upload(3)),
            gated.send(Method.KEYS_UPLOAD, ids.address_of(ALICE, 9), upload(3)),
            gated.send(Method.KEYS_UPLOAD, bob, upload(2)),
        ]

    sent, writes = held(gated, act)
    assert writes == 1
    assert [gated.answer(request)[0] for request in sent] == [0, Code.NOT_REGISTERED, 0]
    assert gated.call(Method.KEYS_STOCK, alice)[1]["count"] == 3
    assert gated.call(Method.KEYS_STOCK, bob)[1]["count"] == 2


def test_a_record_that_cannot_be_read_fails_its_own_request_only(make_bench):
    registry = Gated(MemoryRegistry())
    bench = make_bench(registry)
    addresses = [bench.register(ALICE + n, bytes([n]) * 32) for n in range(8)]
    for address in addresses:
        assert bench.call(Method.KEYS_UPLOAD, address, upload(1))[0] == 0
    registry.disk.values[DeviceKeys.TABLE][address_key(addresses[5])] = b"garbage"
    sent, _ = held(
        bench, lambda: [bench.send(Method.KEYS_UPLOAD, address, upload(2)) for address in addresses]
    )
    statuses = [bench.answer(request)[0] for request in sent]
    assert statuses == [0] * 5 + [Code.STORAGE_FAILED] + [0] * 2
    assert [bench.call(Method.KEYS_STOCK, a)[1].get("count") for a in addresses] == [2] * 5 + [None] + [2] * 2


def test_a_full_disk_is_told_and_recovers(make_bench):
    bench = make_bench()
    bench.registry.disk.fail_commits = 1
    account = ids.address_of(ALICE, 0)
    assert bench.call(Method.REGISTER_REQUEST_CODE, account)[0] == Code.STORAGE_FAILED
    assert bench.codes.sent == []
    assert "registry_failed" in bench.log.getvalue()
    assert bench.call(Method.REGISTER_REQUEST_CODE, account)[0] == 0


def test_no_code_is_sent_and_nothing_answered_before_the_commit(gated):
    def act():
        assert gated.codes.sent == []
        gated.cold.on_wake()
        assert gated.loop.told == []
        return []

    held(gated, act)
    assert len(gated.codes.sent) == 1


def test_a_code_that_cannot_be_sent_is_told(make_bench):
    bench = make_bench()

    def send(number, code):
        raise OSError(28, "No space left on device")

    bench.codes.send = send
    assert bench.call(Method.REGISTER_REQUEST_CODE, ids.address_of(ALICE, 0))[0] == Code.TRY_LATER
    assert "code_not_sent" in bench.log.getvalue()
    assert str(ALICE) not in bench.log.getvalue()


def test_two_requesters_never_get_the_same_one_time_prekey(gated):
    alice = gated.register(ALICE, KEY_A)
    askers = [gated.register(BOB, KEY_B, mode="add"), gated.register(BOB + 1, KEY_C)]
    gated.call(Method.KEYS_UPLOAD, alice, upload(30))

    def act():
        return [
            gated.send(Method.KEYS_FETCH, askers[n % 2], {"number": ALICE}, conn=10 + n) for n in range(40)
        ]

    sent, _ = held(gated, act)
    taken = [gated.answer(request)[1]["devices"][0]["one_time_id"] for request in sent]
    assert sorted(key for key in taken if key is not None) == list(range(30))
    assert taken.count(None) == 10


def test_requests_made_twice_behind_one_commit_register_one_device(gated):
    account = ids.address_of(ALICE, 0)
    gated.call(Method.REGISTER_REQUEST_CODE, account, key=KEY_A)
    params = {"code": gated.codes.sent[-1][1], "mode": "add", "name": ""}
    sent, _ = held(
        gated,
        lambda: [gated.send(Method.REGISTER_VERIFY, account, params, conn=c, key=KEY_A) for c in (1, 2)],
    )
    assert [gated.answer(request) for request in sent] == [(0, {"address": ids.address_of(ALICE, 1)})] * 2


def test_the_queue_is_bounded(gated, monkeypatch):
    monkeypatch.setattr(limits, "REGISTRY_QUEUE_MAX", 3)

    def act():
        return [
            gated.send(Method.REGISTER_REQUEST_CODE, ids.address_of(ALICE + n, 0), conn=n) for n in range(3)
        ]

    registry = gated.registry
    registry.inside.clear()
    registry.gate.clear()
    gated.send(Method.REGISTER_REQUEST_CODE, ids.address_of(BOB, 0), conn=99)
    assert registry.inside.wait(30)
    sent = act()
    assert gated.answer(sent[2])[0] == Code.TRY_LATER
    registry.gate.set()
    gated.settle()
    assert [gated.answer(request)[0] for request in sent] == [0, 0, Code.TRY_LATER]


def test_a_fault_of_the_thread_reaches_the_loop(make_bench):
    bench = make_bench()
    bench.codes.send = lambda number, code: 1 // 0
    bench.send(Method.REGISTER_REQUEST_CODE, ids.address_of(ALICE, 0))
    assert bench.loop.woken.wait(30)
    with pytest.raises(ZeroDivisionError):
        bench.cold.on_wake()
    with pytest.raises(ZeroDivisionError):
        bench.thread.close()
    bench.close = bench.registry.close


def test_close_finishes_what_was_submitted(make_bench):
    bench = make_bench()
    request = bench.send(Method.REGISTER_REQUEST_CODE, ids.address_of(ALICE, 0))
    bench.thread.close()
    bench.cold.on_wake()
    assert bench.answer(request)[0] == 0
