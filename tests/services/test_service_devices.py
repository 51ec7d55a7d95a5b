"""Devices: numbers are not reused early, the others are told, who sees what."""

import pytest
from services_bench import ALICE, BOB, KEY_A, KEY_B, KEY_C

from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.services.base import AddDevice, Notify, RemoveDevice
from wa.services.devices import next_device
from wa.storage.records import Account
from wa.wire.methods import Method, Notice


def a(device):
    return ids.address_of(ALICE, device)


def remove(bench, caller, device):
    return bench.call(Method.DEVICES_REMOVE, caller, {"device": device})


def test_replace_gives_a_fresh_number_and_tells_the_old_device_first(bench):
    old = bench.register(ALICE, key=KEY_A)
    bench.upload(old, range(3))
    answer = bench.verify(ALICE, bench.request_code(ALICE), key=KEY_B)
    assert answer.body == {"address": a(2)}
    assert answer.effects == (
        Notify(old, Notice.REPLACED, {}),
        RemoveDevice(old, Code.REPLACED),
        AddDevice(a(2), KEY_B),
    )
    with bench.registry.read() as view:
        assert view.device(old) is None
        assert view.device_keys(old) is None
        assert view.one_time_count(old) == 0
        assert view.device(a(2)).static_key == KEY_B


def test_replace_with_the_same_key_is_a_fresh_device_too(bench):
    bench.register(ALICE, key=KEY_A)
    assert bench.register(ALICE, key=KEY_A) == a(2)


def test_add_tells_the_others(bench):
    bench.register(ALICE, key=KEY_A)
    answer = bench.verify(ALICE, bench.request_code(ALICE), key=KEY_B, mode="add", name="tablet")
    assert answer.effects == (
        Notify(a(1), Notice.DEVICE_ADDED, {"device": 2, "name": "tablet"}),
        AddDevice(a(2), KEY_B),
    )


def test_adding_a_device_that_is_there_changes_nothing(bench):
    bench.register(ALICE, key=KEY_A)
    answer = bench.verify(ALICE, bench.request_code(ALICE), key=KEY_A, mode="add")
    assert answer.effects == (AddDevice(a(1), KEY_A),)
    assert len(bench.devices(a(1), ALICE)) == 1


def test_an_account_holds_so_many_devices(bench):
    for n in range(limits.DEVICES_PER_ACCOUNT_MAX):
        bench.register(ALICE, key=bytes([n]) * 32, mode="add")
    code = bench.request_code(ALICE)
    with pytest.raises(RemoteError, match=r"^devices_full"):
        bench.verify(ALICE, code, key=b"z" * 32, mode="add")
    remove(bench, a(1), 2)
    assert bench.verify(ALICE, code, key=b"z" * 32, mode="add").body["address"] == a(9)


def test_numbers_go_round_and_pass_over_those_in_use():
    assert next_device(Account(ALICE, 0)) == 1
    assert next_device(Account(ALICE, 0, (1, 7), last_device=7)) == 8
    assert next_device(Account(ALICE, 0, (1, 2, 255), last_device=255)) == 3
    assert next_device(Account(ALICE, 0, (), last_device=254)) == 255


def test_a_number_that_comes_round_is_purged_first(bench):
    with bench.registry.write() as change:
        change.put(Account(ALICE, 0, (), last_device=255))
    answer = bench.verify(ALICE, bench.request_code(ALICE), key=KEY_A)
    assert answer.effects == (RemoveDevice(a(1), Code.REPLACED), AddDevice(a(1), KEY_A))


def test_remove_tells_the_remaining_ones(bench):
    for key in (KEY_A, KEY_B, KEY_C):
        bench.register(ALICE, key=key, mode="add")
    answer = remove(bench, a(1), 2)
    assert answer.effects == (
        Notify(a(1), Notice.DEVICE_REMOVED, {"device": 2}),
        Notify(a(3), Notice.DEVICE_REMOVED, {"device": 2}),
        RemoveDevice(a(2), Code.DEVICE_UNKNOWN),
    )
    assert [row["device"] for row in bench.devices(a(1), ALICE)] == [1, 3]


def test_remove_needs_a_device_that_is_there(bench):
    bench.register(ALICE, key=KEY_A)
    with pytest.raises(RemoteError, match=r"^address_unknown"):
        remove(bench, a(1), 2)
    remove(bench, a(1), 1)
    with pytest.raises(RemoteError, match=r"^not_registered"):
        remove(bench, a(1), 1)


def test_the_list_shows_names_to_the_owner_only(bench):
    bench.register(ALICE, key=KEY_A, name="phone")
    bob = bench.register(BOB, key=KEY_B)
    created = bench.now_ms // 1_000
    assert bench.devices(a(1), ALICE) == [{"device": 1, "name": "phone", "created": created}]
    assert bench.devices(bob, ALICE) == [{"device": 1, "name": None, "created": created}]


def test_an_account_without_devices_is_unknown(bench):
    bob = bench.register(BOB, key=KEY_B)
    with pytest.raises(RemoteError, match=r"^account_unknown"):
        bench.devices(bob, ALICE)
    bench.register(ALICE, key=KEY_A)
    remove(bench, a(1), 1)
    with pytest.raises(RemoteError, match=r"^account_unknown"):
        bench.devices(bob, ALICE)
