"""What a broken, hostile or misused handshake comes to: a named error, and nothing left to use."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_harness import (
    BACKENDS,
    CLIENT,
    CLIENT_PUBLIC,
    LOW_ORDER,
    PATTERNS,
    PROLOGUE,
    PSK,
    SERVER_PUBLIC,
    Backend,
    Pair,
    key,
    run,
    start_pair,
)

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import primitives
from wa.noise.backend import HandshakeLike
from wa.noise.patterns import MESSAGES, Pattern, Suite

EVERY_MESSAGE = [(pattern, step) for pattern in PATTERNS for step in range(len(MESSAGES[pattern]))]
message_ids = [f"{pattern.name} message {step + 1}" for pattern, step in EVERY_MESSAGE]


def test_both_sides_know_each_other(backend: Backend, other_backend: Backend, suite: Suite) -> None:
    for pattern in PATTERNS:
        pair = start_pair(pattern, suite, backend, other_backend)
        here, there = run(pair, [b"one", b"two", b"three"])
        has_static = pattern is not Pattern.NNPSK0
        assert pair.client.remote_static == (SERVER_PUBLIC if has_static else None)
        assert pair.server.remote_static == (CLIENT_PUBLIC if has_static else None)
        assert pair.client.pattern == pair.server.pattern == pattern
        assert there.open(here.seal(b"to the server")) == b"to the server"
        assert here.open(there.seal(b"to the client")) == b"to the client"


def test_the_prologue_is_bound(backend: Backend, suite: Suite) -> None:
    """A hello changed on the way (to another suite or pattern) breaks the handshake."""
    for pattern in (Pattern.XX, Pattern.IK, Pattern.NNPSK0):
        pair = start_pair(pattern, suite, backend, backend)
        pair.server = start_pair(pattern, suite, backend, backend, prologue=PROLOGUE + b"!").server
        with pytest.raises(RemoteError):
            run(pair)


def test_the_fallback_prologue_is_bound(backend: Backend, suite: Suite) -> None:
    pair = start_pair(Pattern.XXFALLBACK, suite, backend, backend)
    other = start_pair(Pattern.XXFALLBACK, suite, backend, backend, prologue=PROLOGUE + b"!")
    pair.client = other.client
    with pytest.raises(RemoteError):
        run(pair)


def test_fresh_ephemerals_unless_given(backend: Backend, suite: Suite) -> None:
    first, second = (start_pair(Pattern.XX, suite, backend, backend).client.write() for _ in range(2))
    assert len(first) == 32
    assert first != second


# --- broken on the way --------------------------------------------------------------------------------


def before(pattern: Pattern, step: int, suite: Suite, backend: Backend) -> Pair:
    """A pair whose next message is number `step`."""
    pair = start_pair(pattern, suite, backend, backend)
    for _ in range(step):
        writer, reader = pair.next_sides()
        reader.read(writer.write(b"payload"))
    return pair


def is_dead(side: HandshakeLike) -> None:
    with pytest.raises(LocalError):
        side.write(b"")
    with pytest.raises(LocalError):
        side.read(bytes(200))
    with pytest.raises(LocalError):
        side.split()
    assert not side.done
    assert not side.my_turn


def broken(side: HandshakeLike, message: bytes) -> bool:
    """Reads; True when that failed, with the one error that may come of it."""
    try:
        side.read(message)
    except RemoteError as error:
        assert error.code is Code.HANDSHAKE_FAILED
        is_dead(side)
        return True
    return False


@pytest.mark.parametrize(("pattern", "step"), EVERY_MESSAGE, ids=message_ids)
def test_every_truncation(backend: Backend, pattern: Pattern, step: int) -> None:
    """Cut anywhere, even where only the payload is shorter: no handshake comes of it."""
    pair = before(pattern, step, Suite.CHACHA, backend)
    writer, _ = pair.next_sides()
    message = writer.write(b"payload")
    for n in range(len(message)):
        fresh = before(pattern, step, Suite.CHACHA, backend)
        _, reader = fresh.next_sides()
        if not broken(reader, message[:n]):
            assert (pattern, step) == (Pattern.XX, 0), "only XX starts without authentication"
            assert n >= 32


@pytest.mark.parametrize(("pattern", "step"), EVERY_MESSAGE, ids=message_ids)
@settings(max_examples=40)
@given(data=st.data())
def test_mutations(pattern: Pattern, step: int, data: st.DataObject) -> None:
    """One message is changed on the way: at least one side gives up before both are done."""
    backend = BACKENDS[data.draw(st.sampled_from(sorted(BACKENDS)))]
    pair = before(pattern, step, Suite.CHACHA, backend)
    writer, reader = pair.next_sides()
    message = writer.write(b"payload")
    changed = data.draw(
        st.one_of(
            st.binary(max_size=300),
            st.binary(min_size=1, max_size=20).map(lambda extra: message + extra),
            st.integers(0, len(message) * 8 - 1).map(lambda bit: flipped(message, bit)),
        )
    )
    if changed == message or broken(reader, changed):
        return
    with pytest.raises(RemoteError) as refused:
        run(pair)
    assert refused.value.code is Code.HANDSHAKE_FAILED


def flipped(message: bytes, bit: int) -> bytes:
    out = bytearray(message)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


def test_over_the_longest_message(backend: Backend, suite: Suite) -> None:
    server = start_pair(Pattern.XX, suite, backend, backend).server
    assert broken(server, bytes(limits.NOISE_MESSAGE_BYTES_MAX + 1))


def test_the_longest_message(backend: Backend, suite: Suite) -> None:
    pair = start_pair(Pattern.XX, suite, backend, backend)
    payload = bytes(limits.NOISE_MESSAGE_BYTES_MAX - 32)
    with pytest.raises(LocalError):
        pair.client.write(payload + b"!")
    assert pair.server.read(pair.client.write(payload)) == payload


# --- points of low order ------------------------------------------------------------------------------


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_low_order_points(backend: Backend, suite: Suite, point: bytes) -> None:
    """Whichever key it stands for, the first Diffie-Hellman with it ends the handshake, fallback included."""
    in_xx = start_pair(Pattern.XX, suite, backend, backend).server
    in_xx.read(point)
    with pytest.raises(RemoteError) as refused:
        in_xx.write(b"")
    assert refused.value.code is Code.HANDSHAKE_FAILED
    is_dead(in_xx)

    in_ik = start_pair(Pattern.IK, suite, backend, backend).server
    assert broken(in_ik, point + bytes(64))
    assert not in_ik.can_fall_back
    with pytest.raises(LocalError):
        in_ik.fallback(PROLOGUE)

    as_server_key = backend.start(
        Pattern.IK, suite, initiator=True, prologue=PROLOGUE, static_private=CLIENT, remote_static=point
    )
    with pytest.raises(RemoteError):
        as_server_key.write(b"")
    is_dead(as_server_key)

    client = start_pair(Pattern.XX, suite, backend, backend).client
    client.write(b"")
    assert broken(client, point + bytes(64))


@pytest.mark.parametrize("point", LOW_ORDER, ids=bytes.hex)
def test_low_order_points_under_a_psk(
    backend: Backend, suite: Suite, point: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even one who knows the psk cannot choose the shared secret."""
    pair = start_pair(Pattern.NNPSK0, suite, BACKENDS["twin"], backend)
    monkeypatch.setattr(primitives, "public_key", lambda private: point)
    first = pair.client.write(b"login")
    assert first[:32] == point
    monkeypatch.undo()
    assert pair.server.read(first) == b"login"
    with pytest.raises(RemoteError) as refused:
        pair.server.write(b"")
    assert refused.value.code is Code.HANDSHAKE_FAILED
    is_dead(pair.server)


def test_another_psk(backend: Backend, suite: Suite) -> None:
    pair = start_pair(Pattern.NNPSK0, suite, backend, backend)
    pair.server = backend.start(Pattern.NNPSK0, suite, initiator=False, prologue=PROLOGUE, psk=key("another"))
    assert broken(pair.server, pair.client.write(b"login"))
    assert not pair.server.can_fall_back


def test_one_psk_never_makes_the_same_keys_twice(backend: Backend, suite: Suite) -> None:
    """Forward secrecy is that of `ee`: both sides' ephemeral keys are fresh."""
    states = set()
    for _ in range(2):
        pair = start_pair(Pattern.NNPSK0, suite, backend, backend)
        pair.server.read(pair.client.write(b""))
        pair.client.read(pair.server.write(b""))
        states.add(pair.client.split().state()[:64])
    assert len(states) == 2


# --- misuse -------------------------------------------------------------------------------------------


def test_out_of_turn(backend: Backend, suite: Suite) -> None:
    pair = start_pair(Pattern.XX, suite, backend, backend)
    with pytest.raises(LocalError):
        pair.client.read(bytes(32))
    with pytest.raises(LocalError):
        pair.server.write(b"")
    with pytest.raises(LocalError):
        pair.client.split()
    with pytest.raises(LocalError):
        pair.client.fallback(PROLOGUE)
    run(pair)  # and nothing was changed by it
    for side in (pair.client, pair.server):
        with pytest.raises(LocalError):
            side.split()
        with pytest.raises(LocalError):
            side.write(b"")
        assert side.done


def test_fallback_only_after_a_failed_first_message(backend: Backend, suite: Suite) -> None:
    pair = start_pair(Pattern.IK, suite, backend, backend)
    assert not pair.client.can_fall_back
    assert not pair.server.can_fall_back
    assert pair.server.read(pair.client.write(b"")) == b""
    assert pair.client.can_fall_back  # until the answer is there it cannot know
    assert not pair.server.can_fall_back
    assert pair.client.read(pair.server.write(b"")) == b""
    assert not pair.client.can_fall_back

    pair = before(Pattern.IK, 1, suite, backend)
    assert broken(pair.client, bytes(48))
    assert not pair.client.can_fall_back


@pytest.mark.parametrize(
    ("pattern", "initiator", "keys"),
    [
        (Pattern.XXFALLBACK, True, {"static_private": key("k")}),
        (Pattern.XX, True, {"static_private": key("k"), "remote_static": key("r")}),
        (Pattern.IK, False, {"static_private": key("k"), "remote_static": key("r")}),
        (Pattern.IK, True, {"static_private": key("k")}),
        (Pattern.IK, True, {"static_private": key("k"), "remote_static": key("r")[:31]}),
        (Pattern.XX, True, {"static_private": key("k")[:31]}),
        (Pattern.XX, True, {}),
        (Pattern.XX, True, {"psk": PSK}),
        (Pattern.XX, True, {"static_private": key("k"), "psk": PSK}),
        (Pattern.NNPSK0, True, {}),
        (Pattern.NNPSK0, True, {"static_private": key("k"), "psk": PSK}),
        (Pattern.NNPSK0, True, {"remote_static": key("r"), "psk": PSK}),
        (Pattern.NNPSK0, False, {"psk": PSK[:31]}),
        (0, True, {"static_private": key("k")}),
    ],
)
def test_impossible_starts(backend: Backend, pattern: int, initiator: bool, keys: dict[str, bytes]) -> None:
    with pytest.raises(LocalError):
        backend.start(pattern, Suite.CHACHA, initiator=initiator, prologue=PROLOGUE, **keys)


def test_impossible_suite_and_ephemeral(backend: Backend) -> None:
    with pytest.raises(LocalError):
        backend.start(Pattern.XX, 3, initiator=True, prologue=PROLOGUE, static_private=CLIENT)
    side = start_pair(Pattern.XX, Suite.CHACHA, backend, backend).client
    with pytest.raises(LocalError):
        side.write(b"", ephemeral=bytes(31))
    assert side.my_turn
