"""Codes: their life, their tries, their budgets, and the repetition after a lost answer."""

import pytest
from services_bench import ALICE, BOB, KEY_A, KEY_B

from wa import ids, limits
from wa.errors import Code, RemoteError
from wa.services.base import AddDevice
from wa.wire.methods import Method


def fails(code):
    return pytest.raises(RemoteError, match=f"^{code.name.lower()}:")


def wrong(code):
    return str((int(code) + 1) % 10**6).zfill(6)


def test_a_code_has_six_digits_and_is_not_stored(bench):
    code = bench.request_code(ALICE)
    assert len(code) == 6
    assert code.isdecimal()
    with bench.registry.read() as view:
        (record,) = view.codes()
    assert code.encode() not in record.encode()
    assert record.expires_s == bench.now_ms // 1_000 + limits.CODE_LIFETIME_S


def test_small_codes_keep_their_zeros(bench):
    bench.seeded.randrange = lambda high: 42
    assert bench.request_code(ALICE) == "000042"


def test_the_right_code_registers(bench):
    answer = bench.verify(ALICE, bench.request_code(ALICE), key=KEY_A)
    address = ids.address_of(ALICE, 1)
    assert answer.body == {"address": address}
    assert answer.effects == (AddDevice(address, KEY_A),)


def test_no_code_no_registration(bench):
    with fails(Code.CODE_EXPIRED):
        bench.verify(ALICE, "000000", key=KEY_A)


def test_a_code_is_good_for_its_number_only(bench):
    code = bench.request_code(ALICE)
    other = bench.request_code(BOB)
    assert code != other
    assert bench.verify(BOB, code, key=KEY_A).status is Code.CODE_WRONG


def test_a_code_expires(bench):
    code = bench.request_code(ALICE)
    bench.advance(limits.CODE_LIFETIME_S - 1)
    assert bench.verify(ALICE, wrong(code), key=KEY_A).status is Code.CODE_WRONG
    bench.advance(1)
    with fails(Code.CODE_EXPIRED):
        bench.verify(ALICE, code, key=KEY_A)


def test_wrong_codes_are_counted_and_then_the_right_one_is_useless(bench):
    code = bench.request_code(ALICE)
    for left in reversed(range(limits.CODE_TRIES_MAX)):
        answer = bench.verify(ALICE, wrong(code), key=KEY_A)
        assert answer.status is Code.CODE_WRONG
        assert answer.body["tries_left"] == left
    with fails(Code.TOO_MANY_ATTEMPTS):
        bench.verify(ALICE, code, key=KEY_A)
    assert bench.verify(ALICE, bench.request_code(ALICE), key=KEY_A).status is Code.OK


def test_a_new_code_replaces_the_old_one(bench):
    old = bench.request_code(ALICE)
    new = bench.request_code(ALICE)
    assert old != new
    assert bench.verify(ALICE, old, key=KEY_A).status is Code.CODE_WRONG
    assert bench.verify(ALICE, new, key=KEY_A).status is Code.OK


@pytest.mark.parametrize("mode", ["replace", "add"])
def test_a_repeated_verification_of_the_same_device_succeeds(bench, mode):
    code = bench.request_code(ALICE)
    first = bench.verify(ALICE, code, key=KEY_A, mode=mode)
    bench.advance(limits.VERIFY_RETRY_S - 1)
    assert bench.verify(ALICE, code, key=KEY_A, mode=mode) == first
    assert [row["device"] for row in bench.devices(first.body["address"], ALICE)] == [1]


def test_nobody_else_can_use_a_used_code(bench):
    code = bench.request_code(ALICE)
    bench.verify(ALICE, code, key=KEY_A)
    assert bench.verify(ALICE, code, key=KEY_B).status is Code.CODE_WRONG


def test_repetition_ends(bench):
    code = bench.request_code(ALICE)
    bench.verify(ALICE, code, key=KEY_A)
    bench.advance(limits.VERIFY_RETRY_S)
    with fails(Code.CODE_EXPIRED):
        bench.verify(ALICE, code, key=KEY_A)


def test_a_removed_device_cannot_come_back_by_repetition(bench):
    code = bench.request_code(ALICE)
    address = bench.verify(ALICE, code, key=KEY_A).body["address"]
    bench.call(Method.DEVICES_REMOVE, address, {"device": 1})
    with fails(Code.CODE_EXPIRED):
        bench.verify(ALICE, code, key=KEY_A)


def test_budget_per_number(bench):
    for _ in range(limits.CODES_PER_NUMBER_PER_DAY_MAX):
        bench.request_code(ALICE)
        bench.advance(60)
    with fails(Code.BUDGET_EXHAUSTED) as caught:
        bench.request_code(ALICE)
    assert caught.value.retry_after_ms == (86_400 - 600) * 1_000
    bench.request_code(BOB)
    bench.advance(86_400 - 600)
    bench.request_code(ALICE)


def test_budget_per_ip_is_shared_by_the_workers(bench):
    bench.workers = limits.CODES_PER_ADDRESS_PER_HOUR_MAX // 3
    for number in range(3):
        bench.request_code(ALICE + number)
    with fails(Code.BUDGET_EXHAUSTED):
        bench.request_code(ALICE + 3)
    bench.request_code(ALICE + 3, peer="203.0.113.8")
    bench.advance(3_600)
    bench.request_code(ALICE + 4)


def test_an_ipv6_client_counts_as_its_network(bench):
    bench.workers = limits.CODES_PER_ADDRESS_PER_HOUR_MAX
    bench.request_code(ALICE, peer="2001:db8:0:1::1")
    with fails(Code.BUDGET_EXHAUSTED):
        bench.request_code(BOB, peer="2001:db8:0:1:ffff::2")
    bench.request_code(BOB, peer="2001:db8:0:2::1")


def test_no_ip_address_is_stored(bench):
    bench.request_code(ALICE)
    with bench.registry.read() as view:
        stored = b"".join(budget.key() + budget.encode() for budget in view.budgets())
    assert bytes([203, 0, 113, 7]) not in stored
    assert b"203.0.113.7" not in stored


def test_an_impossible_number_gets_no_code(bench):
    with fails(Code.NUMBER_INVALID):
        bench.call(Method.REGISTER_REQUEST_CODE, ids.address_of(19, 0))


def test_mode_is_checked_before_the_code(bench):
    code = bench.request_code(ALICE)
    with fails(Code.BAD_PARAMS):
        bench.verify(ALICE, code, key=KEY_A, mode="merge")
