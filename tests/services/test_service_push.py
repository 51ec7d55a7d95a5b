"""Push tokens: one per device, the latest; gone with the device, or when the push service does not know it."""

import pytest
from services_bench import ALICE, BOB, KEY_A, KEY_B

from wa import ids, limits
from wa.errors import RemoteError
from wa.services.base import Request
from wa.services.push import forget_token
from wa.storage.records import PushToken
from wa.wire.methods import Method


def register(bench, address, token="token 1", platform="fcm"):
    return bench.call(Method.PUSH_REGISTER, address, {"platform": platform, "token": token}).body


def token_of(bench, address):
    with bench.registry.read() as view:
        return view.push_token(address)


def forget(bench, address, token):
    with bench.registry.write() as change:
        request = Request(change, None, address, b"", "", bench.now_ms, None)
        assert forget_token(request, {"token": token}).body == {}


def test_the_latest_token_counts(bench):
    alice = bench.register(ALICE, key=KEY_A)
    assert register(bench, alice) == {}
    bench.advance(60)
    assert register(bench, alice, "token 2", "apns") == {}
    assert token_of(bench, alice) == PushToken(alice, "apns", "token 2", bench.now_ms // 1_000)
    assert bench.call(Method.PUSH_UNREGISTER, alice).body == {}
    assert token_of(bench, alice) is None
    assert bench.call(Method.PUSH_UNREGISTER, alice).body == {}


def test_each_device_has_its_own(bench):
    alice, bob = bench.register(ALICE, key=KEY_A), bench.register(BOB, key=KEY_B)
    register(bench, alice, "a")
    register(bench, bob, "b")
    bench.call(Method.PUSH_UNREGISTER, alice)
    assert token_of(bench, bob).token == "b"


def test_it_goes_with_its_device(bench):
    old = bench.register(ALICE, key=KEY_A)
    register(bench, old)
    new = bench.register(ALICE, key=KEY_B)
    assert token_of(bench, old) is token_of(bench, new) is None
    with pytest.raises(RemoteError, match=r"^not_registered"):
        register(bench, old)


@pytest.mark.parametrize(
    ("platform", "token"),
    [
        ("", "t"),
        ("FCM", "t"),
        ("fcm ", "t"),
        ("-fcm", "t"),
        ("f" * (limits.PUSH_PLATFORM_BYTES_MAX + 1), "t"),
        ("fcm", ""),
        ("fcm", "line\nbreak"),
        ("fcm", "ü" * (limits.PUSH_TOKEN_BYTES_MAX // 2) + "x"),
    ],
)
def test_what_is_no_token_is_refused(bench, platform, token):
    alice = bench.register(ALICE, key=KEY_A)
    with pytest.raises(RemoteError, match=r"^bad_params"):
        register(bench, alice, token, platform)
    assert token_of(bench, alice) is None


def test_the_longest_ones(bench):
    alice = bench.register(ALICE, key=KEY_A)
    longest = "ü" * (limits.PUSH_TOKEN_BYTES_MAX // 2)
    register(bench, alice, longest, "f" * limits.PUSH_PLATFORM_BYTES_MAX)
    assert token_of(bench, alice).token == longest


def test_a_token_that_is_gone_is_forgotten_but_not_a_newer_one(bench):
    alice = bench.register(ALICE, key=KEY_A)
    register(bench, alice, "old")
    register(bench, alice, "new")
    forget(bench, alice, "old")
    assert token_of(bench, alice).token == "new"
    forget(bench, alice, "new")
    assert token_of(bench, alice) is None
    forget(bench, ids.address_of(ALICE, 9), "new")


def test_a_token_is_not_shown(bench):
    alice = bench.register(ALICE, key=KEY_A)
    register(bench, alice, "secret")
    assert "secret" not in repr(token_of(bench, alice))
