"""Resumption on real loops: a ticket is good once, for its device, and a replayed first message does nothing."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pysodium
import pytest

from tests.integration.rig import WAIT_S, OpenDoor, Phone, Rig, until
from wa import limits
from wa._fastpath.loop.loop import Login
from wa.errors import Code
from wa.noise import primitives, records, ticket
from wa.noise.backend import FAST, TWIN
from wa.noise.patterns import Pattern, Suite
from wa.noise.records import Intent, Kind, Ticket
from wa.noise.records import Login as LoginPayload
from wa.routing.shards import worker_of
from wa.wire.frames import Ack, Deliver, Delivered, Open, Ping, Pong, Ready, Send

ALICE, BOB = 15551230001, 15551230002
A, B = ALICE << 8 | 1, BOB << 8 | 1
KEY = pysodium.crypto_generichash(b"ticket key", outlen=32)


def made(path: Path, workers: int, **more: Any) -> Rig:
    rig = Rig(path, workers, **{"ticket_key": KEY, **more})
    for number in (ALICE, BOB):
        rig.add_device(number)
    return rig


@pytest.fixture(params=[1, 3])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    rig = made(tmp_path, request.param)
    rig.start()
    yield rig
    rig.stop()


def ticket_of(phone: Phone) -> Ticket:
    """The one that came right behind READY."""
    phone.ping()
    (found,) = phone.tickets
    return found


def resume(rig: Rig, address: int, found: Ticket, **more: Any) -> Phone:
    return rig.phone(address, ticket=found, known=rig.certificate, **more)


def logins(rig: Rig) -> int:
    """How often the cold path was asked."""
    return sum(isinstance(event, Login) for door in rig.doors for event in door.events)


def raw(rig: Rig, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S)
    sock.sendall(data)
    return sock


def kind_of_answer(sock: socket.socket) -> int:
    data = b""
    while len(data) < 5:
        chunk = sock.recv(65536)
        assert chunk, "the server closed without a word"
        data += chunk
    return data[4]


# --- what it is for -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", list(Suite), ids=lambda s: s.name)
def test_a_resumed_login_is_a_login(rig: Rig, suite: Suite) -> None:
    if suite not in (FAST or TWIN).suites:
        pytest.skip("no AES instructions")
    bob = rig.phone(B)
    found = ticket_of(bob)
    bob.close()
    until(lambda: not rig.loops[worker_of(B, rig.workers)].is_connected(B))
    alice = rig.phone(A)
    alice.send(Send(1, B, 7, b"hello"))
    alice.next()
    asked = logins(rig)
    bob = resume(rig, B, found, suite=suite)
    assert bob.resumed
    assert bob.ready.queued == 1
    assert bob.expect(Deliver).body == b"hello"
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    assert logins(rig) == asked, "no Python is needed for it"
    assert (rig.stat("resumptions"), rig.stat("tickets_refused")) == (1, 0)
    again = ticket_of(bob)
    assert again.sealed != found.sealed
    assert again.psk != found.psk


def test_over_and_over_on_whatever_worker_accepts(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    handed = rig.stat("hand_overs_in")
    for _ in range(15):
        phone = resume(rig, A, found)
        assert phone.resumed
        found = ticket_of(phone)
    assert rig.stat("resumptions") == 15
    if rig.workers > 1:
        assert rig.stat("hand_overs_in") > handed
    until(lambda: rig.stat("connections") == 1)
    assert rig.stat("half_open") == 0


def test_it_takes_over_from_an_older_connection(rig: Rig) -> None:
    old = rig.phone(A)
    new = resume(rig, A, ticket_of(old))
    assert old.closed_with() == Code.REPLACED
    new.ping()


def test_a_ticket_holds_what_its_twin_reads(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    now_ms = time.time_ns() // 1_000_000
    grant = ticket.unseal(KEY, found.sealed, now_ms)
    assert grant is not None
    assert (grant.address, grant.psk) == (A, found.psk)
    assert grant.serial > 0
    assert grant.expires_ms - grant.issued_ms == limits.TICKET_LIFETIME_S * 1_000
    assert now_ms - WAIT_S * 1_000 <= grant.issued_ms <= now_ms
    assert ticket.unseal(bytes(32), found.sealed, now_ms) is None
    assert ticket.unseal(KEY, found.sealed, grant.expires_ms) is None
    assert ticket.unseal(KEY, found.sealed, grant.issued_ms - 1) is None
    assert ticket.unseal(KEY, found.sealed[:-1], now_ms) is None


# --- replay -------------------------------------------------------------------------------------------


def test_a_replayed_first_message_has_no_effect(rig: Rig) -> None:
    alice, bob = rig.phone(A), rig.phone(B)
    found = ticket_of(bob)
    replay = rig.first_flight(B, found)
    socks = [raw(rig, replay) for _ in range(3)]
    assert [kind_of_answer(sock) for sock in socks] == [Kind.MESSAGE] * 3
    # The live connection stays, and stays the one that deliveries go to.
    alice.send(Send(1, B, 7, b"to whom?"))
    assert bob.expect(Deliver).body == b"to whom?"
    bob.send(Ack(1))
    assert alice.expect(Delivered) == Delivered(B, 7)
    for sock in socks:
        sock.sendall(records.record(bytes(40)))  # all that somebody without the psk can say
        assert sock.recv(65536), "a close frame, which only the holder of the psk can read"
        assert sock.recv(65536) == b""
        sock.close()
    assert rig.stat("decrypt_failures") == 3
    bob.ping()
    assert resume(rig, B, found).resumed, "the ticket was not used up by it"
    assert rig.stat("resumptions") == 1


def test_a_replay_of_a_used_ticket_is_refused(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    replay = rig.first_flight(A, found)
    alice = resume(rig, A, found)
    handshakes = rig.stat("handshakes")
    with raw(rig, replay) as sock:
        assert kind_of_answer(sock) == Kind.TICKET_REFUSED
    assert rig.stat("handshakes") == handshakes, "and costs no Diffie-Hellman"
    alice.ping()


def test_the_first_record_uses_it_up(rig: Rig) -> None:
    """Whatever is in it: its peer has shown the psk."""
    found = ticket_of(rig.phone(A))
    phone = resume(rig, A, found, open=False)
    phone.send(Ping(5))
    assert phone.expect(Pong) == Pong(5)
    assert rig.stat("resumptions") == 1
    assert not resume(rig, A, found, open=False).resumed
    phone.send(Open(1))
    phone.expect(Ready)


def test_one_ticket_on_two_connections_at_once(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    first, second = (resume(rig, A, found, open=False) for _ in range(2))
    assert first.resumed
    assert second.resumed
    first.send(Open(1))
    first.expect(Ready)
    second.send(Open(1))
    assert second.closed_with() == Code.TICKET_VOID
    first.ping()
    assert rig.stat("resumptions") == 1


# --- void tickets: IK follows on the same connection -----------------------------------------------------


def refused(rig: Rig, address: int, found: Ticket, **more: Any) -> Phone:
    before = rig.stat("tickets_refused")
    phone = resume(rig, address, found, **more)
    assert not phone.resumed
    assert not phone.used_fallback
    phone.ping()
    assert rig.stat("tickets_refused") == before + 1
    return phone


def test_a_used_ticket(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    assert resume(rig, A, found).resumed
    refused(rig, A, found)


def test_a_superseded_ticket(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    newer = ticket_of(rig.phone(A))
    with raw(rig, rig.first_flight(A, found)) as sock:
        assert kind_of_answer(sock) == Kind.TICKET_REFUSED
    assert resume(rig, A, newer).resumed


def test_a_ticket_of_another_device(rig: Rig) -> None:
    """With the ticket and the psk of Alice nobody becomes Bob; the key that follows decides who it is."""
    found = ticket_of(rig.phone(A))
    refused(rig, B, found)
    somebody = resume(rig, B, found, key=bytes(31) + b"\1", open=False)
    assert somebody.closed_with() == Code.DEVICE_UNKNOWN
    assert resume(rig, A, found).resumed, "and it is still Alice's"


def test_flipped_bits(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    for at in (0, 23, 24, 50, len(found.sealed) - 1):
        sealed = bytearray(found.sealed)
        sealed[at] ^= 1 << at % 8
        phone = resume(rig, A, Ticket(bytes(sealed), found.psk), open=False)
        assert not phone.resumed
    for at in (0, 31):
        psk = bytearray(found.psk)
        psk[at] ^= 0x80
        assert not resume(rig, A, Ticket(found.sealed, bytes(psk)), open=False).resumed
    assert resume(rig, A, found).resumed


@pytest.mark.parametrize(
    "what", ["expired", "future", "another device", "another serial", "another epoch", "another key"]
)
def test_well_sealed_but_wrong(rig: Rig, what: str) -> None:
    """What the server would never seal, sealed with its key."""
    found = ticket_of(rig.phone(A))
    now_ms = time.time_ns() // 1_000_000
    good = ticket.unseal(KEY, found.sealed, now_ms)
    assert good is not None
    fields = vars(good) | {
        "expired": {"issued_ms": now_ms - 2_000, "expires_ms": now_ms - 1_000},
        "future": {"issued_ms": now_ms + 60_000},
        "another device": {"address": B},
        "another serial": {"serial": good.serial ^ 1},
        "another epoch": {"epoch": good.epoch ^ 1},
        "another key": {},
    }[what]
    sealed = ticket.seal(bytes(32) if what == "another key" else KEY, ticket.Grant(**fields), bytes(24))
    refused(rig, A, Ticket(sealed, good.psk))


def test_an_expired_ticket(tmp_path: Path) -> None:
    rig = made(tmp_path, 1, ticket_lifetime_s=0)
    rig.start()
    refused(rig, A, ticket_of(rig.phone(A)))
    rig.stop()


@pytest.mark.parametrize("key", [KEY, bytes(32), None], ids=["same key", "new key", "tickets off"])
def test_tickets_of_before_a_restart(tmp_path: Path, key: bytes | None) -> None:
    """Its worker has forgotten the serial, or the server the key: the client loses nothing but time."""
    rig = made(tmp_path, 1)
    rig.start()
    found = ticket_of(rig.phone(A))
    rig.stop()
    rig.ticket_key = key
    rig.start()
    phone = refused(rig, A, found)
    assert len(phone.tickets) == (key is not None)
    rig.stop()


def test_a_removed_device(rig: Rig) -> None:
    found = ticket_of(rig.phone(A))
    owner = worker_of(A, rig.workers)
    loop, door = rig.loops[owner], rig.doors[owner]
    waiting = resume(rig, A, found, open=False)
    assert waiting.resumed

    def removed_and_back() -> None:
        door.on_wake = OpenDoor.on_wake.__get__(door)  # type: ignore[method-assign]
        loop.remove_device(A, Code.DEVICE_UNKNOWN)
        loop.add_device(A)

    door.on_wake = removed_and_back  # type: ignore[method-assign]
    loop.wake()
    until(lambda: not loop.is_connected(A))
    waiting.send(Open(1))
    assert waiting.closed_with() == Code.TICKET_VOID
    refused(rig, A, found)


# --- broken records ---------------------------------------------------------------------------------------

HELLO = records.hello(Suite.CHACHA, Pattern.NNPSK0)


def refusal_of(rig: Rig, data: bytes) -> Code:
    with raw(rig, data) as sock:
        answer = b""
        while chunk := sock.recv(65536):
            answer += chunk
    assert answer[4] == Kind.REFUSAL
    return Code(int.from_bytes(answer[5:7], "big"))


@pytest.mark.parametrize(
    "content", [b"", b"\x00", b"\x00\x00" + bytes(57), b"\x00\x70" + bytes(168), b"\x01\x00" + bytes(313)]
)
def test_malformed_ticket_records(rig: Rig, content: bytes) -> None:
    assert refusal_of(rig, HELLO + records.handshake_record(Kind.TICKET, content)) is Code.PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [Kind.MESSAGE, Kind.FALLBACK, Kind.TICKET_REFUSED])
def test_another_record_where_the_ticket_belongs(rig: Rig, kind: Kind) -> None:
    assert refusal_of(rig, HELLO + records.handshake_record(kind, bytes(57))) is Code.PROTOCOL_ERROR


def test_one_ticket_a_connection(rig: Rig) -> None:
    bad = rig.first_flight(A, Ticket(bytes(112), bytes(32)))
    with raw(rig, bad) as sock:
        assert kind_of_answer(sock) == Kind.TICKET_REFUSED
        sock.sendall(bad)
        assert sock.recv(65536)[4:7] == bytes([Kind.REFUSAL, 0, Code.PATTERN_UNSUPPORTED])


def test_a_low_order_point_under_the_right_psk(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    found = ticket_of(rig.phone(A))
    side = TWIN.start(Pattern.NNPSK0, Suite.CHACHA, initiator=True, prologue=HELLO, psk=found.psk)
    with monkeypatch.context() as patch:
        patch.setattr(primitives, "public_key", lambda private: bytes(32))
        message = side.write(records.login_payload(LoginPayload(Intent.LOG_IN, A)))
    content = records.ticket_content(found.sealed, message)
    assert refusal_of(rig, HELLO + records.handshake_record(Kind.TICKET, content)) is Code.HANDSHAKE_FAILED
    assert resume(rig, A, found).resumed


def test_a_client_that_sends_a_ticket_frame(rig: Rig) -> None:
    phone = rig.phone(A)
    phone.session.send_record(bytes([7, 1, 33]) + bytes(33))
    phone.flush()
    assert phone.closed_with() == Code.NOT_PERMITTED


def test_tickets_from_another_worker_wait_for_their_turn_like_all_handshakes(tmp_path: Path) -> None:
    """However many come over the bus at once, connected clients wait for two and no more."""
    rig = made(tmp_path, 2)
    rig.start()
    found = ticket_of(rig.phone(A))
    owner = worker_of(A, 2)
    loop, other = rig.loops[owner], rig.loops[1 - owner]
    busy, go_on = threading.Event(), threading.Event()
    rig.doors[owner].asked.append(lambda: (busy.set(), go_on.wait(WAIT_S)))
    loop.wake()
    assert busy.wait(WAIT_S)
    before, handed = loop.stats(), other.stats()["hand_overs_out"]
    accepted = other.stats()["accepts"]
    count = 32
    flights = [raw(rig, rig.first_flight(A, found)) for _ in range(count)]
    pause = threading.Event()
    share, seen = 0, -1
    for _ in range(100):  # until the other worker has handed over its whole share
        pause.wait(0.1)
        seen, share = share, other.stats()["hand_overs_out"] - handed
        if share == seen == other.stats()["accepts"] - accepted > 1:
            break
    go_on.set()
    until(lambda: loop.stats()["handshakes"] - before["handshakes"] == count)
    after = loop.stats()
    assert after["hand_overs_in"] - before["hand_overs_in"] == share
    assert after["turns"] - before["turns"] >= count // 2
    for sock in flights:
        sock.close()
    rig.stop()
