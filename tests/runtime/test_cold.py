"""The cold path: logins, where a request is executed, in which order its effects follow."""

import pytest
from cold_bench import ALICE, BOB, KEY_A, KEY_B, login_event, peer_event

from wa import ids, limits
from wa.errors import Code
from wa.storage.records import Device
from wa.wire import methods
from wa.wire.methods import Method, Notice


def login(bench, address, key, intent=0):
    bench.loop.take()
    bench.cold.on_batch([login_event(9, intent, address, key)])
    return bench.loop.take()


def test_a_login_needs_the_key_of_its_device(bench):
    address = bench.register(ALICE, KEY_A)
    assert login(bench, address, KEY_A) == [("admit", 9, address)]
    assert login(bench, address, KEY_B) == [("refuse", 9, Code.DEVICE_UNKNOWN)]
    assert login(bench, ids.address_of(ALICE, 2), KEY_A) == [("refuse", 9, Code.DEVICE_UNKNOWN)]
    assert login(bench, ids.address_of(BOB, 1), bytes(32)) == [("refuse", 9, Code.DEVICE_UNKNOWN)]


def test_anybody_may_begin_to_register(bench):
    account = ids.address_of(ALICE, 0)
    assert login(bench, account, KEY_A, intent=1) == [("admit", 9, account)]


def test_a_corrupt_device_is_a_fault_of_ours_not_an_unknown_one(make_bench):
    bench = make_bench()
    address = bench.register(ALICE, KEY_A)
    bench.registry.disk.values["devices"][Device(address, KEY_A, "", 0).key()] = b"garbage"
    assert login(bench, address, KEY_A) == [("refuse", 9, Code.INTERNAL)]
    bench.cold.on_tick()
    assert "registry_corrupt" in bench.log.getvalue()


def test_registration_is_answered_and_then_live(bench):
    account = ids.address_of(ALICE, 0)
    bench.call(Method.REGISTER_REQUEST_CODE, account, key=KEY_A)
    bench.loop.take()
    params = {"code": bench.codes.sent[-1][1], "mode": "replace", "name": ""}
    request = bench.send(Method.REGISTER_VERIFY, account, params, key=KEY_A)
    bench.settle()
    address = ids.address_of(ALICE, 1)
    assert bench.loop.take() == [
        ("respond", 1, request, 0, methods.pack({"address": address})),
        ("add_device", address, KEY_A),
        ("admit", 1, address),
    ]


def test_replacing_tells_closes_and_removes_the_old_device(bench):
    old = bench.register(ALICE, KEY_A)
    bench.loop.take()
    new = bench.register(ALICE, KEY_B, conn=2)
    told = [item for item in bench.loop.take() if item[0] != "respond"]
    assert told == [
        ("notice", old, Notice.REPLACED, methods.pack({})),
        ("remove_device", old, Code.REPLACED),
        ("add_device", new, KEY_B),
        ("admit", 2, new),
    ]


def test_a_device_that_removes_itself_hears_of_it(bench):
    address = bench.register(ALICE, KEY_A)
    bench.loop.take()
    request = bench.send(Method.DEVICES_REMOVE, address, {"device": 1})
    bench.settle()
    assert bench.loop.take() == [
        ("respond", 1, request, 0, methods.pack({})),
        ("remove_device", address, Code.DEVICE_UNKNOWN),
    ]


def test_while_registering_only_registration_is_permitted(bench):
    bench.send(Method.SERVER_INFO, ids.address_of(ALICE, 0))
    assert bench.loop.take() == [("refuse", 1, Code.NOT_PERMITTED)]


def test_a_live_device_does_not_register(bench):
    address = bench.register(ALICE, KEY_A)
    assert bench.call(Method.REGISTER_REQUEST_CODE, address)[0] == Code.UNKNOWN_METHOD


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        (999, {}, Code.UNKNOWN_METHOD),
        (Method.KEYS_FETCH, {}, Code.BAD_PARAMS),
        (Method.DEVICES_LIST, {"number": BOB}, Code.ACCOUNT_UNKNOWN),
    ],
)
def test_a_wrong_request_is_answered_with_a_reason(bench, method, params, code):
    address = bench.register(ALICE, KEY_A)
    status, body = bench.call(method, address, params)
    assert status == code
    assert body["detail"]


@pytest.fixture
def pair(make_bench):
    """Two workers with a registry each: ALICE belongs to number 1, BOB to number 0."""
    return make_bench(worker=1, workers=2), make_bench(worker=0, workers=2)


def carry(source, target):
    messages, source.loop.bus = source.loop.bus, []
    target.cold.on_batch([peer_event(source.worker, body) for _, body in messages])
    target.settle()


def test_a_request_about_an_account_elsewhere_goes_to_its_owner(pair):
    a, b = pair
    alice, bob = a.register(ALICE, KEY_A), b.register(BOB, KEY_B)
    upload = {
        "identity": b"i" * 32,
        "signed_id": 1,
        "signed_key": b"s" * 32,
        "signed_signature": b"g" * 64,
        "one_time": [[7, b"k" * 32]],
    }
    assert b.call(Method.KEYS_UPLOAD, bob, upload) == (0, {"count": 1})
    b.loop.take()
    request = a.send(Method.KEYS_FETCH, alice, {"number": BOB})
    assert [worker for worker, _ in a.loop.bus] == [0]
    carry(a, b)
    assert b.loop.take() == [("notice", bob, Notice.PREKEYS_LOW, methods.pack({"count": 0}))]
    carry(b, a)
    status, body = a.answer(request)
    assert status == 0
    assert [row["one_time_id"] for row in body["devices"]] == [7]
    assert a.cold.stats()["peer_calls_open"] == 0


def test_an_error_of_the_owner_reaches_the_caller(pair):
    a, b = pair
    alice = a.register(ALICE, KEY_A)
    request = a.send(Method.DEVICES_LIST, alice, {"number": BOB})
    carry(a, b)
    carry(b, a)
    assert a.answer(request)[0] == Code.ACCOUNT_UNKNOWN


def test_custody_is_asked_at_the_recipients_owner(pair):
    a, b = pair
    alice, bob = ids.address_of(ALICE, 1), ids.address_of(BOB, 1)
    b.loop.waiting = {(bob, alice, 5)}
    request = a.send(Method.RECEIPTS_STATUS, alice, {"number": BOB, "items": [[1, 5], [1, 6]]})
    carry(a, b)
    carry(b, a)
    assert a.answer(request) == (0, {"waiting": [True, False]})


def test_what_is_reported_at_the_callers_own_worker_counts_as_waiting(pair):
    a, b = pair
    alice, bob = ids.address_of(ALICE, 1), ids.address_of(BOB, 1)
    a.loop.reported = {(bob, alice, 6)}
    request = a.send(Method.RECEIPTS_STATUS, alice, {"number": BOB, "items": [[1, 5], [1, 6]]})
    carry(a, b)
    carry(b, a)
    assert a.answer(request) == (0, {"waiting": [False, True]})


def test_no_answer_in_time(pair):
    a, b = pair
    request = a.send(Method.DEVICES_LIST, ids.address_of(ALICE, 1), {"number": BOB})
    a.monotonic_ms = limits.REQUEST_TIMEOUT_MS - 1
    a.cold.on_tick()
    assert a.loop.take() == []
    a.monotonic_ms += 1
    a.cold.on_tick()
    assert a.answer(request)[0] == Code.REQUEST_TIMEOUT
    a.loop.take()
    carry(a, b)
    carry(b, a)
    assert a.loop.take() == []
    assert a.cold.counters.read()["peer_replies_late"] == 1


def test_the_owner_is_gone(pair):
    a, _ = pair
    a.loop.bus = None
    request = a.send(Method.DEVICES_LIST, ids.address_of(ALICE, 1), {"number": BOB})
    assert a.answer(request)[0] == Code.TRY_LATER
    assert a.cold.stats()["peer_calls_open"] == 0


def test_a_tick_reports_and_sweeps(bench):
    bench.register(ALICE, KEY_A)
    bench.now_ms += 2 * 86_400_000
    bench.monotonic_ms += limits.SWEEP_INTERVAL_S * 1_000
    bench.cold.on_tick()
    assert bench.reports[-1]["registrations"] == 1
    assert bench.reports[-1]["connections"] == 0
    bench.thread.close()
    with bench.registry.read() as view:
        assert list(view.codes()) == []
        assert list(view.budgets()) == []


def test_neither_numbers_nor_codes_nor_keys_are_logged(bench):
    bench.register(ALICE, KEY_A)
    login(bench, ids.address_of(ALICE, 1), KEY_B)
    log = bench.log.getvalue()
    assert "registered" in log
    assert "login_refused" in log
    assert str(ALICE) not in log
    assert str(ids.address_of(ALICE, 1)) not in log
    assert bench.codes.sent[-1][1] not in log
