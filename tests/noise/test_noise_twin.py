"""The compiled Noise and its Python twin write the same bytes and end in the same state."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_harness import BACKENDS, NO_AES, PATTERNS, established, key, start_pair

from wa import limits
from wa._fastpath.noise import noise as fast
from wa.errors import Code, LocalError, RemoteError
from wa.noise.patterns import Pattern, Suite
from wa.noise.transport import TRANSPORT_BYTES, Transport

FAST, TWIN = BACKENDS["fast"], BACKENDS["twin"]
# As a list, not the fixture: hypothesis runs one test many times over, and fixtures are made once per test.
SUITES_OF_BOTH = [
    Suite.CHACHA,
    pytest.param(Suite.AESGCM, marks=pytest.mark.skipif(Suite.AESGCM not in FAST.suites, reason=NO_AES)),
]
BOTH_TRANSPORTS = [fast.Transport, Transport]
payloads = st.lists(st.binary(max_size=300), min_size=3, max_size=3)


def test_a_transport_is_80_bytes() -> None:
    assert fast.TRANSPORT_BYTES == TRANSPORT_BYTES == 80


def test_the_numbers_of_both_faces_agree() -> None:
    assert tuple(Pattern) == (fast.XX, fast.IK, fast.NNPSK0, fast.XXFALLBACK)
    assert tuple(Suite) == (fast.SUITE_CHACHA, fast.SUITE_AESGCM)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
@pytest.mark.parametrize("suite", SUITES_OF_BOTH, ids=lambda s: s.name)
@settings(max_examples=30)
@given(payloads=payloads, prologue=st.binary(max_size=100))
def test_same_messages(pattern: Pattern, suite: Suite, payloads: list[bytes], prologue: bytes) -> None:
    """Each message is written by all four, and each reads what the other kind wrote."""
    pairs = [
        start_pair(pattern, suite, one, other, prologue=prologue)
        for one, other in ((FAST, TWIN), (TWIN, FAST))
    ]
    for payload in payloads:
        if pairs[0].client.done:
            break
        messages = set()
        for pair in pairs:
            writer, reader = pair.next_sides()
            name = "client ephemeral" if writer is pair.client else "server ephemeral"
            message = writer.write(payload, ephemeral=key(name))
            assert reader.read(message) == payload
            messages.add(message)
        assert len(messages) == 1
    sides = [side for pair in pairs for side in (pair.client, pair.server)]
    assert len({side.hash for side in sides}) == 1
    assert pairs[0].client.remote_static == pairs[1].client.remote_static
    client_states = {pair.client.split().state() for pair in pairs}
    server_states = {pair.server.split().state() for pair in pairs}
    assert len(client_states) == len(server_states) == 1


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 4_096, limits.RECORD_PLAIN_BYTES_MAX])
def test_same_records(suite: Suite, n: int) -> None:
    plain = key("plain") * (n // 32) + key("rest")[: n % 32]
    state = key("send") + key("receive") + (7).to_bytes(8, "little") * 2
    back = key("receive") + key("send") + (7).to_bytes(8, "little") * 2
    sealed = {one(suite, state).seal(plain) for one in BOTH_TRANSPORTS}
    assert len(sealed) == 1
    (cipher,) = sealed
    assert len(cipher) == n + limits.NOISE_TAG_BYTES
    assert [one(suite, back).open(cipher) for one in BOTH_TRANSPORTS] == [plain, plain]

    buffer = bytearray(plain)
    fast.Transport(suite, state).seal_in_place(buffer)
    assert buffer == cipher
    fast.Transport(suite, back).open_in_place(buffer)
    assert buffer == plain


def test_opening_in_place_leaves_a_forgery_as_it_was(suite: Suite) -> None:
    forged = bytearray(100)
    transport = fast.Transport(suite, bytes(80))
    with pytest.raises(RemoteError):
        transport.open_in_place(forged)
    assert forged == bytearray(100)
    assert transport.state() == bytes(80)


# --- rekey --------------------------------------------------------------------------------------------


def test_rekey_by_counting_all_the_way(suite: Suite) -> None:
    """65,536 real messages and some, one direction; the other direction keeps its key."""
    sender, receiver = established(Pattern.XX, suite, FAST, FAST)
    before = sender.state()
    for _ in range(limits.REKEY_MESSAGES + 3):
        assert receiver.open(sender.seal(b"")) == b""
    after = sender.state()
    assert after[:32] != before[:32]
    assert after[32:64] == before[32:64]
    assert after[64:72] == (limits.REKEY_MESSAGES + 3).to_bytes(8, "little")
    twin = Transport(suite, before[:64] + (limits.REKEY_MESSAGES - 1).to_bytes(8, "little") + bytes(8))
    for _ in range(4):
        twin.seal(b"")
    assert twin.state() == after


@pytest.mark.parametrize("boundary", [1, 2, 3, 1_000])
def test_rekey_at_each_boundary(suite: Suite, boundary: int) -> None:
    nonce = (boundary * limits.REKEY_MESSAGES - 2).to_bytes(8, "little") * 2
    senders = [one(suite, key("a") + key("b") + nonce) for one in BOTH_TRANSPORTS]
    receivers = [one(suite, key("b") + key("a") + nonce) for one in reversed(BOTH_TRANSPORTS)]
    keys = []
    for n in range(4):
        sealed = {sender.seal(bytes(n)) for sender in senders}
        assert len(sealed) == 1
        (cipher,) = sealed
        assert [receiver.open(cipher) for receiver in receivers] == [bytes(n)] * 2
        states = {sender.state() for sender in senders}
        assert len(states) == 1
        keys.append(states.pop()[:32])
    assert keys[0] != keys[1]
    assert keys[1] == keys[2] == keys[3]


def test_a_forgery_at_the_boundary_does_not_rekey(backend_transport: type[Transport], suite: Suite) -> None:
    nonce = (limits.REKEY_MESSAGES - 1).to_bytes(8, "little") * 2
    sender = backend_transport(suite, key("a") + key("b") + nonce)
    receiver = backend_transport(suite, key("b") + key("a") + nonce)
    before = receiver.state()
    with pytest.raises(RemoteError) as refused:
        receiver.open(bytes(40))
    assert refused.value.code is Code.DECRYPT_FAILED
    assert receiver.state() == before
    assert receiver.open(sender.seal(b"true")) == b"true"


# --- the edges of a transport -------------------------------------------------------------------------


@pytest.fixture(params=BOTH_TRANSPORTS, ids=["fast", "twin"])
def backend_transport(request: pytest.FixtureRequest) -> type[Transport]:
    chosen: type[Transport] = request.param
    return chosen


def test_nonces_end(backend_transport: type[Transport], suite: Suite) -> None:
    last = (2**64 - 2).to_bytes(8, "little") * 2
    sender = backend_transport(suite, key("a") + key("b") + last)
    receiver = backend_transport(suite, key("b") + key("a") + last)
    assert receiver.open(sender.seal(b"the last one")) == b"the last one"
    with pytest.raises(LocalError):
        sender.seal(b"one too many")
    with pytest.raises(RemoteError) as refused:
        receiver.open(bytes(20))
    assert refused.value.code is Code.DECRYPT_FAILED


@pytest.mark.parametrize("n", [0, 1, 15, limits.NOISE_MESSAGE_BYTES_MAX + 1])
def test_records_of_an_impossible_length(backend_transport: type[Transport], suite: Suite, n: int) -> None:
    with pytest.raises(RemoteError) as refused:
        backend_transport(suite, bytes(80)).open(bytes(n))
    assert refused.value.code is Code.DECRYPT_FAILED


def test_misuse_of_a_transport(backend_transport: type[Transport], suite: Suite) -> None:
    with pytest.raises(LocalError):
        backend_transport(suite, bytes(80)).seal(bytes(limits.RECORD_PLAIN_BYTES_MAX + 1))
    with pytest.raises(LocalError):
        backend_transport(suite, bytes(79))
    with pytest.raises(LocalError):
        backend_transport(3, bytes(80))


@settings(max_examples=50)
@given(data=st.data(), plain=st.binary(max_size=200))
def test_any_changed_bit_is_noticed(data: st.DataObject, plain: bytes) -> None:
    for one in BOTH_TRANSPORTS:
        sealed = bytearray(one(Suite.CHACHA, key("a") + key("b") + bytes(16)).seal(plain))
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        receiver = one(Suite.CHACHA, key("b") + key("a") + bytes(16))
        with pytest.raises(RemoteError):
            receiver.open(bytes(sealed))
        assert receiver.state() == key("b") + key("a") + bytes(16)


def test_records_cannot_be_swapped_or_repeated(suite: Suite) -> None:
    sender, receiver = established(Pattern.IK, suite, FAST, TWIN)
    first, second = sender.seal(b"1"), sender.seal(b"2")
    with pytest.raises(RemoteError):
        receiver.open(second)
    assert receiver.open(first) == b"1"
    with pytest.raises(RemoteError):
        receiver.open(first)
    assert receiver.open(second) == b"2"
