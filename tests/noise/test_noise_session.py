"""The sans-I/O sessions: hello, records, certificate, fallback, refusals, limits."""

import pytest
from noise_harness import (
    BACKENDS,
    CERTIFICATE,
    CLIENT,
    CLIENT_PUBLIC,
    LOGIN,
    NOW_S,
    OLD_CERTIFICATE,
    PATTERNS,
    ROOT_PUBLIC,
    ROOT_SECRET,
    SERVER,
    SERVER_PUBLIC,
    Backend,
    client_session,
    converse,
    key,
    server_session,
)

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import certificate, records, session
from wa.noise.backend import DEFAULT, FAST
from wa.noise.patterns import Pattern, Suite
from wa.noise.primitives import aes_is_fast, preferred_suite
from wa.noise.records import Intent, Kind, Login, Refused
from wa.noise.session import ClientSession, HandshakeDone, LoginReceived, RecordPlain, ServerSession, State


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_conversation(backend: Backend, other_backend: Backend, suite: Suite, pattern: Pattern) -> None:
    used_fallback = pattern is Pattern.XXFALLBACK
    client, server = client_session(pattern, suite, backend), server_session(other_backend)
    resumed = pattern is Pattern.NNPSK0
    talk = converse(client, server, [b"open", b"x" * limits.RECORD_PLAIN_BYTES_MAX], [b"ready"])
    assert talk.client_events == [
        HandshakeDone(SERVER_PUBLIC, CERTIFICATE, used_fallback, resumed),
        RecordPlain(b"ready"),
    ]
    assert talk.server_events == [
        LoginReceived(None if resumed else CLIENT_PUBLIC, LOGIN, used_fallback),
        RecordPlain(b"open"),
        RecordPlain(b"x" * limits.RECORD_PLAIN_BYTES_MAX),
    ]
    offered = Pattern.IK if used_fallback else pattern
    assert talk.to_server[:8] == b"wa\r\n\x01" + bytes((suite, offered, 0))
    assert talk.to_client[4] == (Kind.FALLBACK if used_fallback else Kind.MESSAGE)
    client.end_of_stream()
    server.end_of_stream()


def test_every_transition_has_its_method() -> None:
    for side, table in ((ClientSession, session.CLIENT_TABLE), (ServerSession, session.SERVER_TABLE)):
        assert all(callable(getattr(side, method)) for method in table.values())


def test_defaults() -> None:
    assert DEFAULT is FAST
    assert preferred_suite() is (Suite.AESGCM if aes_is_fast() else Suite.CHACHA)
    client = ClientSession(static_private=CLIENT, login=LOGIN, root_public=ROOT_PUBLIC, now_s=NOW_S)
    server = ServerSession(static_private=SERVER, certificate=CERTIFICATE)
    assert [type(e) for e in converse(client, server).client_events] == [HandshakeDone]


@pytest.mark.parametrize("pattern", [Pattern.IK, Pattern.NNPSK0], ids=lambda p: p.name)
def test_early_data_waits_for_a_record(pattern: Pattern) -> None:
    """A replayed first message gets as far as LoginReceived, and no further."""
    recorded = client_session(pattern).bytes_to_send()
    server = server_session()
    assert [type(e) for e in server.receive(recorded)] == [LoginReceived]
    with pytest.raises(RemoteError) as refused:
        server.receive(records.record(bytes(40)))
    assert refused.value.code is Code.DECRYPT_FAILED


# --- certificates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [Pattern.XX, Pattern.XXFALLBACK], ids=lambda p: p.name)
@pytest.mark.parametrize(
    "bad",
    [
        certificate.make(key("another root"), SERVER_PUBLIC, NOW_S - 1, NOW_S + 1),
        certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S - 2, NOW_S),
        certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S + 1, NOW_S + 2),
        OLD_CERTIFICATE,
        CERTIFICATE[:-1],
        b"",
    ],
    ids=["another root", "expired", "not yet", "another key", "short", "none"],
)
def test_bad_certificate(pattern: Pattern, bad: bytes) -> None:
    """The client says nothing more: its login stays unsent."""
    client, server = client_session(pattern), server_session(certificate=bad)
    server.receive(client.bytes_to_send())
    with pytest.raises(RemoteError) as refused:
        client.receive(server.bytes_to_send())
    assert refused.value.code is Code.HANDSHAKE_FAILED
    assert client.bytes_to_send() == b""
    assert client.fault is refused.value


@pytest.mark.parametrize(
    "stored",
    [
        certificate.make(key("another root"), SERVER_PUBLIC, NOW_S - 1, NOW_S + 1),
        certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S - 2, NOW_S),
        certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S + 1, NOW_S + 2),
        CERTIFICATE[:-1],
        b"",
    ],
    ids=["another root", "expired", "not yet", "short", "empty"],
)
def test_stored_certificate_that_is_no_longer_good(stored: bytes) -> None:
    """IK is not offered: the server must show a new certificate."""
    client = ClientSession(
        static_private=CLIENT, login=LOGIN, root_public=ROOT_PUBLIC, now_s=NOW_S, certificate=stored
    )
    talk = converse(client, server_session(BACKENDS["fast"]))
    assert talk.to_server[6] == Pattern.XX
    assert talk.client_events == [HandshakeDone(SERVER_PUBLIC, CERTIFICATE, False)]


# --- hello and refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (b"GET / HT", Code.PROTOCOL_ERROR),
        (b"wa\r\n\x02\x01\x01\x00", Code.VERSION_UNSUPPORTED),
        (b"wa\r\n\x01\x00\x01\x00", Code.SUITE_UNSUPPORTED),
        (b"wa\r\n\x01\x03\x01\x00", Code.SUITE_UNSUPPORTED),
        (b"wa\r\n\x01\x01\x00\x00", Code.PATTERN_UNSUPPORTED),
        (b"wa\r\n\x01\x01\x04\x00", Code.PATTERN_UNSUPPORTED),
        (b"wa\r\n\x01\x01\x01\x01", Code.PROTOCOL_ERROR),
    ],
)
def test_bad_hello(hello: bytes, code: Code) -> None:
    server = server_session()
    with pytest.raises(RemoteError) as refused:
        server.receive(hello)
    assert refused.value.code is code
    client = client_session(Pattern.XX)
    assert client.receive(server.bytes_to_send()) == [Refused(code, 0, "")]


def test_a_suite_that_this_server_does_not_have() -> None:
    server = ServerSession(static_private=SERVER, certificate=CERTIFICATE, suites=(Suite.CHACHA,))
    with pytest.raises(RemoteError) as refused:
        server.receive(records.hello(Suite.AESGCM, Pattern.XX))
    assert refused.value.code is Code.SUITE_UNSUPPORTED


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_refusal(pattern: Pattern) -> None:
    """An event, not a fault; afterwards whatever comes is ignored and nothing can be sent."""
    client, server = client_session(pattern), server_session()
    server.refuse(Code.BUSY, retry_after_ms=1_500, text="später")
    refusal = server.bytes_to_send()
    assert client.receive(refusal + b"and more") == [Refused(Code.BUSY, 1_500, "später")]
    assert client.receive(bytes(2_000)) == []
    client.end_of_stream()
    with pytest.raises(LocalError):
        client.send_record(b"x")


def test_a_code_that_a_newer_server_has() -> None:
    client = client_session(Pattern.XX)
    assert client.receive(records.refusal(60_000, 0, "")) == [Refused(60_000, 0, "")]


@pytest.mark.parametrize("content", [b"", b"\x00\x0d\x00\x00\x00", b"\x00\x0d\x00\x00\x00\x00\xff"])
def test_malformed_refusal(content: bytes) -> None:
    with pytest.raises(RemoteError) as refused:
        client_session(Pattern.XX).receive(records.handshake_record(Kind.REFUSAL, content))
    assert refused.value.code is Code.PROTOCOL_ERROR


def test_no_refusal_in_the_clear_after_the_handshake() -> None:
    """Then it is only a record that does not authenticate."""
    client, server = client_session(Pattern.XX), server_session()
    converse(client, server)
    with pytest.raises(LocalError):
        server.refuse(Code.BUSY)
    with pytest.raises(RemoteError) as refused:
        client.receive(records.refusal(Code.BUSY, 0, "a long enough text"))
    assert refused.value.code is Code.DECRYPT_FAILED


def test_impossible_refusals_and_logins() -> None:
    with pytest.raises(LocalError):
        records.refusal(Code.BUSY, 1 << 32, "")
    with pytest.raises(LocalError):
        records.refusal(Code.BUSY, 0, "x" * (records.REFUSAL_TEXT_BYTES_MAX + 1))
    with pytest.raises(LocalError):
        records.login_payload(Login(Intent.LOG_IN, 1 << 64))
    longest = records.refusal(Code.BUSY, 0, "x" * records.REFUSAL_TEXT_BYTES_MAX)
    assert len(longest) == 4 + limits.HANDSHAKE_RECORD_BYTES_MAX
    assert len(client_session(Pattern.XX).receive(longest)) == 1


# --- what may come when -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "kind"), [
        (Pattern.XX, 0),
        (Pattern.XX, Kind.FALLBACK),
        (Pattern.XX, Kind.TICKET_REFUSED),
        (Pattern.IK, Kind.TICKET),
        (Pattern.IK, Kind.TICKET_REFUSED),
        (Pattern.IK, 255),
        (Pattern.NNPSK0, Kind.FALLBACK),
        (Pattern.NNPSK0, Kind.TICKET),
    ]
)
def test_client_gets_a_kind_that_it_does_not_await(pattern: Pattern, kind: int) -> None:
    with pytest.raises(RemoteError) as refused:
        client_session(pattern).receive(records.record(bytes((kind,)) + bytes(100)))
    assert refused.value.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [0, Kind.FALLBACK, Kind.REFUSAL, Kind.TICKET, Kind.TICKET_REFUSED])
def test_server_gets_a_kind_that_it_does_not_await(kind: int) -> None:
    for pattern in (Pattern.XX, Pattern.IK):
        hello = client_session(pattern).bytes_to_send()[:8]
        with pytest.raises(RemoteError) as refused:
            server_session().receive(hello + records.record(bytes((kind,)) + bytes(100)))
        assert refused.value.code is Code.PROTOCOL_ERROR


def test_payloads_where_none_belongs(backend: Backend) -> None:
    hello = records.hello(Suite.CHACHA, Pattern.XX)
    with pytest.raises(RemoteError) as refused:
        server_session(backend).receive(hello + records.handshake_record(Kind.MESSAGE, bytes(33)))
    assert refused.value.code is Code.PROTOCOL_ERROR

    client = client_session(Pattern.IK, backend=backend)
    sent = client.bytes_to_send()
    side = backend.start(Pattern.IK, Suite.CHACHA, initiator=False, prologue=sent[:8], static_private=SERVER)
    side.read(sent[8 + 5 :])
    with pytest.raises(RemoteError) as refused:
        client.receive(records.handshake_record(Kind.MESSAGE, side.write(b"surprise")))
    assert refused.value.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("login", [b"", bytes(8), bytes(10), b"\x02" + bytes(8)])
def test_malformed_login(backend: Backend, login: bytes) -> None:
    hello = records.hello(Suite.CHACHA, Pattern.IK)
    side = backend.start(
        Pattern.IK,
        Suite.CHACHA,
        initiator=True,
        prologue=hello,
        static_private=CLIENT,
        remote_static=SERVER_PUBLIC,
    )
    with pytest.raises(RemoteError) as refused:
        server_session(backend).receive(hello + records.handshake_record(Kind.MESSAGE, side.write(login)))
    assert refused.value.code is Code.PROTOCOL_ERROR


# --- lengths ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, limits.HANDSHAKE_RECORD_BYTES_MAX + 1, 0xFFFFFFFF])
def test_handshake_record_length(n: int) -> None:
    """Refused at the prefix: nothing of such a record is ever held."""
    server = server_session()
    hello = client_session(Pattern.XX).bytes_to_send()[:8]
    for side, start in ((client_session(Pattern.XX), b""), (server, hello)):
        with pytest.raises(RemoteError) as refused:
            side.receive(start + n.to_bytes(4, "big"))
        assert refused.value.code is Code.RECORD_TOO_LARGE


@pytest.mark.parametrize("n", [0, 16, limits.NOISE_MESSAGE_BYTES_MAX + 1, 0xFFFFFFFF])
def test_transport_record_length(n: int) -> None:
    client, server = client_session(Pattern.XX), server_session()
    converse(client, server)
    for side in (client, server):
        with pytest.raises(RemoteError) as refused:
            side.receive(n.to_bytes(4, "big"))
        assert refused.value.code is Code.RECORD_TOO_LARGE
        assert side.bytes_to_send() == b""


@pytest.mark.parametrize("n", [0, limits.RECORD_PLAIN_BYTES_MAX + 1])
def test_impossible_records_to_send(n: int) -> None:
    client = client_session(Pattern.XX)
    with pytest.raises(LocalError):
        client.send_record(b"too early")
    converse(client, server_session())
    with pytest.raises(LocalError):
        client.send_record(bytes(n))


# --- ends ---------------------------------------------------------------------------------------------


def test_events_in_front_of_a_fault_are_not_lost() -> None:
    client, server = client_session(Pattern.XX), server_session()
    converse(client, server)
    client.send_record(b"close frame")
    assert server.receive(client.bytes_to_send() + records.record(bytes(17))) == [RecordPlain(b"close frame")]
    assert server.fault is not None
    for _ in range(2):
        with pytest.raises(RemoteError) as refused:
            server.receive(b"")
        assert refused.value is server.fault
    with pytest.raises(RemoteError):
        server.end_of_stream()
    with pytest.raises(LocalError):
        server.send_record(b"x")


def test_truncation() -> None:
    """An end inside the handshake or inside a record is a fault; an end between records is not."""
    client, server = client_session(Pattern.XX), server_session()
    for side in (client_session(Pattern.XX), server_session()):
        with pytest.raises(RemoteError) as refused:
            side.end_of_stream()
        assert refused.value.code is Code.PROTOCOL_ERROR
    converse(client, server)
    client.send_record(b"frame")
    server.receive(client.bytes_to_send()[:-1])
    with pytest.raises(RemoteError) as refused:
        server.end_of_stream()
    assert refused.value.code is Code.PROTOCOL_ERROR
    assert server.state is State.ENDED
