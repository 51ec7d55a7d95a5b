"""Prekeys: each is handed out once, the stock is told, nobody drains another's."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from services_bench import ALICE, BOB, KEY_A, KEY_B, KEY_C

from wa import ids, limits
from wa.errors import RemoteError
from wa.services.base import Notify
from wa.wire.methods import Method, Notice


@pytest.fixture
def alice(bench):
    return bench.register(ALICE, key=KEY_A)


@pytest.fixture
def bob(bench):
    return bench.register(BOB, key=KEY_B)


def test_upload_and_stock(bench, alice):
    assert bench.stock(alice) == {"count": 0, "signed_id": None}
    assert bench.upload(alice, range(10), signed_id=4).body == {"count": 10}
    assert bench.stock(alice) == {"count": 10, "signed_id": 4}


def test_fetch_takes_the_oldest_one_time_key(bench, alice, bob):
    bench.upload(alice, [5, 3])
    taken = [bench.fetch(bob, ALICE).body["devices"][0] for _ in range(3)]
    assert [row["one_time_id"] for row in taken] == [3, 5, None]
    assert taken[0] == {
        "device": 1,
        "identity": b"i" * 32,
        "signed_id": 1,
        "signed_key": b"s" * 32,
        "signed_signature": b"g" * 64,
        "one_time_id": 3,
        "one_time_key": (3).to_bytes(32, "big"),
    }
    assert taken[2]["one_time_key"] is None


def test_a_repeated_upload_never_brings_back_a_key(bench, alice, bob):
    bench.upload(alice, range(5))
    assert bench.fetch(bob, ALICE).body["devices"][0]["one_time_id"] == 0
    assert bench.upload(alice, range(5)).body == {"count": 4}
    assert bench.upload(alice, range(3, 7)).body == {"count": 6}
    ids_left = [bench.fetch(bob, ALICE).body["devices"][0]["one_time_id"] for _ in range(7)]
    assert ids_left == [1, 2, 3, 4, 5, 6, None]


def test_the_identity_key_of_a_device_does_not_change(bench, alice):
    bench.upload(alice, range(2))
    with pytest.raises(RemoteError, match=r"^bad_params: the identity key"):
        bench.upload(alice, range(2, 4), identity=b"j" * 32)


def test_so_many_are_kept(bench, alice):
    bench.upload(alice, range(limits.ONE_TIME_PREKEYS_MAX - 1))
    with pytest.raises(RemoteError, match=r"^list_too_long"):
        bench.upload(alice, [200, 201])
    assert bench.upload(alice, [200]).body == {"count": limits.ONE_TIME_PREKEYS_MAX}


@pytest.mark.parametrize(
    "item",
    [
        [1],
        [1, b"short"],
        [-1, b"k" * 32],
        [2**32, b"k" * 32],
        [True, b"k" * 32],
        ["1", b"k" * 32],
        [1, "k" * 32],
        {"id": 1},
        7,
        [1, b"k" * 32, 0],
    ],
)
def test_malformed_one_time_keys(bench, alice, item):
    params = {
        "identity": b"i" * 32,
        "signed_id": 1,
        "signed_key": b"s" * 32,
        "signed_signature": b"g" * 64,
        "one_time": [[9, b"k" * 32], item],
    }
    with pytest.raises(RemoteError, match=r"^bad_params"):
        bench.call(Method.KEYS_UPLOAD, alice, params)


def test_the_same_id_twice(bench, alice):
    with pytest.raises(RemoteError, match=r"^bad_params: one-time prekey 3 is there twice"):
        bench.upload(alice, [3, 3])


def test_a_removed_device_cannot_upload(bench, alice):
    bench.call(Method.DEVICES_REMOVE, alice, {"device": 1})
    with pytest.raises(RemoteError, match=r"^not_registered"):
        bench.upload(alice, [1])
    with pytest.raises(RemoteError, match=r"^not_registered"):
        bench.stock(alice)


def test_the_owner_is_told_when_the_stock_is_low(bench, alice, bob):
    bench.upload(alice, range(limits.PREKEYS_LOW + 2))
    assert bench.fetch(bob, ALICE).effects == ()
    assert bench.fetch(bob, ALICE).effects == (
        Notify(alice, Notice.PREKEYS_LOW, {"count": limits.PREKEYS_LOW}),
    )


def test_all_devices_or_one(bench, alice, bob):
    second = bench.register(ALICE, key=KEY_C, mode="add")
    bench.upload(alice, [1])
    assert [row["device"] for row in bench.fetch(bob, ALICE).body["devices"]] == [1]
    bench.upload(second, [2])
    assert [row["device"] for row in bench.fetch(bob, ALICE).body["devices"]] == [1, 2]
    assert [row["device"] for row in bench.fetch(bob, ALICE, device=2).body["devices"]] == [2]
    assert [row["device"] for row in bench.fetch(alice, ALICE).body["devices"]] == [2]


def test_what_can_be_missing(bench, bob):
    with pytest.raises(RemoteError, match=r"^account_unknown"):
        bench.fetch(bob, ALICE)
    bench.register(ALICE, key=KEY_A)
    with pytest.raises(RemoteError, match=r"^prekeys_missing"):
        bench.fetch(bob, ALICE)
    with pytest.raises(RemoteError, match=r"^address_unknown"):
        bench.fetch(bob, ALICE, device=2)


def test_budget_per_pair(bench, alice, bob):
    other = bench.register(ALICE + 7, key=KEY_C)
    bench.upload(alice, range(100))
    for _ in range(limits.KEY_FETCHES_PER_PAIR_PER_DAY_MAX):
        bench.fetch(bob, ALICE)
    bench.upload(alice, [500])
    with pytest.raises(RemoteError, match=r"^budget_exhausted"):
        bench.fetch(bob, ALICE)
    assert bench.fetch(other, ALICE).body["devices"][0]["one_time_id"] == 500
    bench.advance(86_400)
    bench.fetch(bob, ALICE)


def test_waiting_is_asked_for_the_callers_own_messages(bench, alice, bob):
    bench.waiting = {(alice, bob, 7), (alice, bob, 2**64 - 1), (alice, ids.address_of(BOB, 9), 8)}
    params = {"number": ALICE, "items": [[1, 7], [1, 8], [2, 7], [1, 2**64 - 1]]}
    answer = bench.call(Method.RECEIPTS_STATUS, bob, params)
    assert answer.body == {"waiting": [True, False, False, True]}


@pytest.mark.parametrize("item", [[0, 1], [256, 1], [1, -1], [1], [1, True], [True, 1], ["1", 1], 3])
def test_malformed_items(bench, bob, item):
    with pytest.raises(RemoteError, match=r"^bad_params: each item"):
        bench.call(Method.RECEIPTS_STATUS, bob, {"number": ALICE, "items": [[1, 1], item]})


def test_server_info(bench, bob):
    assert bench.call(Method.SERVER_INFO, bob).body == {
        "version": "0.1",
        "protocol": limits.PROTOCOL_VERSION,
        "time_ms": bench.now_ms,
    }


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(one_time=st.lists(ANYTHING, max_size=3), items=st.lists(ANYTHING, min_size=1, max_size=3))
def test_any_list_is_served_or_is_the_callers_fault(bench, one_time, items):
    caller = ids.address_of(ALICE, 1)
    upload = {
        "identity": b"i" * 32,
        "signed_id": 1,
        "signed_key": b"s" * 32,
        "signed_signature": b"g" * 64,
        "one_time": one_time,
    }
    for method, params in (
        (Method.KEYS_UPLOAD, upload),
        (Method.RECEIPTS_STATUS, {"number": BOB, "items": items}),
    ):
        try:
            bench.call(method, caller, params)
        except RemoteError as error:
            assert error.code >= 32
