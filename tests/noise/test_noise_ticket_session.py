"""Resumption in the sans-I/O sessions: what a ticket is good for, and how a refused one ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_harness import (
    CERTIFICATE,
    CLIENT,
    CLIENT_PUBLIC,
    LOGIN,
    NOW_S,
    PSK,
    ROOT_PUBLIC,
    ROOT_SECRET,
    SERVER,
    SERVER_PUBLIC,
    TICKET,
    Backend,
    client_session,
    converse,
    key,
    server_session,
)

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import certificate, records
from wa.noise.patterns import Pattern, Suite
from wa.noise.records import Intent, Kind, Login, Ticket
from wa.noise.session import ClientSession, HandshakeDone, LoginReceived, RecordPlain, ServerSession

HELLO = records.hello(Suite.CHACHA, Pattern.NNPSK0)


def resuming(ticket: Ticket = TICKET, login: Login = LOGIN) -> ClientSession:
    return client_session(Pattern.NNPSK0, ticket=ticket, login=login)


def fell_back(client: ClientSession, server: ServerSession) -> None:
    """Both went on with IK on the same connection, at once, and it works."""
    talk = converse(client, server, [b"open"], [b"ready"])
    assert talk.to_client[:5] == records.handshake_record(Kind.TICKET_REFUSED, b"")
    assert talk.client_events == [HandshakeDone(SERVER_PUBLIC, CERTIFICATE, False), RecordPlain(b"ready")]
    login = talk.server_events[0]
    assert isinstance(login, LoginReceived)
    assert login.client_static == CLIENT_PUBLIC
    assert talk.server_events[1:] == [RecordPlain(b"open")]


def test_bytes_of_a_resumption() -> None:
    """One round trip; the login is inside the first flight, encrypted."""
    client, server = resuming(), server_session()
    first = client.bytes_to_send()
    assert first[:8] == HELLO
    assert len(first) == 8 + 4 + 1 + 2 + len(TICKET.sealed) + records.TICKET_MESSAGE_BYTES
    assert records.login_payload(LOGIN) not in first
    assert PSK not in first
    server.receive(first)
    assert len(server.bytes_to_send()) == 4 + 1 + 48


def test_a_ticket_that_the_server_does_not_know() -> None:
    fell_back(resuming(Ticket(b"of another server", PSK)), server_session())


def test_a_server_without_tickets() -> None:
    fell_back(resuming(), ServerSession(static_private=SERVER, certificate=CERTIFICATE))


def test_a_ticket_without_its_secret() -> None:
    """Who has only seen the ticket go by cannot use it."""
    fell_back(resuming(Ticket(TICKET.sealed, key("guess"))), server_session())


@pytest.mark.parametrize("login", [Login(Intent.LOG_IN, LOGIN.address + 1), Login(Intent.REGISTER, LOGIN.address)])
def test_a_ticket_of_one_device_is_no_other_device(login: Login) -> None:
    fell_back(resuming(login=login), server_session())


@pytest.mark.parametrize("where", ["ticket", "message"])
@settings(max_examples=40)
@given(data=st.data())
def test_flipped_bits(where: str, data: st.DataObject) -> None:
    client, server = resuming(), server_session()
    first = bytearray(client.bytes_to_send())
    begin = 15 if where == "ticket" else len(first) - records.TICKET_MESSAGE_BYTES
    end = begin + (len(TICKET.sealed) if where == "ticket" else records.TICKET_MESSAGE_BYTES)
    bit = data.draw(st.integers(begin * 8, end * 8 - 1))
    first[bit // 8] ^= 1 << bit % 8
    assert server.receive(bytes(first)) == []
    assert client.receive(server.bytes_to_send()) == []
    fell_back_events = converse(client, server).client_events
    assert fell_back_events == [HandshakeDone(SERVER_PUBLIC, CERTIFICATE, False)]


def test_the_reply_proves_the_server(backend: Backend) -> None:
    """Only who opened the ticket can answer: a flipped bit ends the connection."""
    client = client_session(Pattern.NNPSK0, backend=backend)
    server = server_session(backend)
    server.receive(client.bytes_to_send())
    reply = bytearray(server.bytes_to_send())
    reply[-1] ^= 1
    with pytest.raises(RemoteError) as refused:
        client.receive(bytes(reply))
    assert refused.value.code is Code.HANDSHAKE_FAILED


def test_one_ticket_a_connection() -> None:
    server = server_session()
    bad = resuming(Ticket(b"of another server", PSK)).bytes_to_send()
    assert server.receive(bad) == []
    with pytest.raises(RemoteError) as refused:
        server.receive(bad)
    assert refused.value.code is Code.PATTERN_UNSUPPORTED


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"\x00\x00" + bytes(57),
        b"\x00\x01" + bytes(57),
        b"\x00\x01" + bytes(59),
        b"\x01\x00" + bytes(256 + 57),
        b"\xff\xff" + bytes(100),
    ],
)
def test_malformed_ticket_records(content: bytes) -> None:
    server = server_session()
    with pytest.raises(RemoteError) as refused:
        server.receive(HELLO + records.handshake_record(Kind.TICKET, content))
    assert refused.value.code is Code.PROTOCOL_ERROR


def test_a_refusal_that_says_too_much() -> None:
    with pytest.raises(RemoteError) as refused:
        resuming().receive(records.handshake_record(Kind.TICKET_REFUSED, b"x"))
    assert refused.value.code is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("n", [0, limits.TICKET_BYTES_MAX + 1])
def test_impossible_tickets(n: int) -> None:
    with pytest.raises(LocalError):
        resuming(Ticket(bytes(n), PSK))


def test_a_ticket_does_not_outlive_the_certificate() -> None:
    """The client trusts the server's key for as long as the root says, and no resumption makes that longer."""
    expired = certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S - 2, NOW_S)
    for stored in (expired, None):
        client = ClientSession(
            static_private=CLIENT,
            login=LOGIN,
            root_public=ROOT_PUBLIC,
            now_s=NOW_S,
            certificate=stored,
            ticket=TICKET,
        )
        assert client.bytes_to_send()[6] == Pattern.XX


def test_secrets_are_not_shown() -> None:
    assert "psk" not in repr(TICKET)
