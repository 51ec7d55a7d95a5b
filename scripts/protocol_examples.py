"""Writes the worked examples of docs/protocol.md, section 10, by running the code with fixed keys.

    python scripts/protocol_examples.py          shows them
    python scripts/protocol_examples.py --write  puts them between the markers of the document

Every key is the SHA-256 of a label, so that a reader can make it too.  A test fails when the document and the
code differ, another one plays the sessions with independent Noise implementations.
"""

import hashlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from wa import limits
from wa.client import content
from wa.e2e.keys import PreKeyBundle
from wa.e2e.sessions import Sessions
from wa.e2e.stores import MemoryStore
from wa.errors import Code
from wa.ids import address_of
from wa.noise import backend, certificate
from wa.noise.patterns import Suite
from wa.noise.primitives import public_key
from wa.noise.records import MAGIC, Intent, Login, Ticket
from wa.noise.session import ClientSession, RecordPlain, ServerSession, State
from wa.wire import frames, methods
from wa.wire.methods import Kind, Method, Notice

Body = dict[str, Any]

DOCUMENT = Path(__file__).parent.parent / "docs/protocol.md"
BEGIN = "<!-- begin: scripts/protocol_examples.py -->"
END = "<!-- end: scripts/protocol_examples.py -->"
HEX_BYTES_PER_LINE = 48

NOW_S = 1_800_000_000
ALICE, BOB = address_of(15551230001, 1), address_of(15551230002, 1)
LENGTHS = 0, 63, 64, 1023, 1024, 5000, 60_000
IDS = 0x0102030405060708, 0x1112131415161718


def key(label: str) -> bytes:
    return hashlib.sha256(f"wa example {label}".encode()).digest()


ROOT, SERVER, OLD_SERVER, DEVICE = key("root"), key("server"), key("old server"), key("device")
PSK = key("psk")
TICKET = Ticket(bytes(range(0xE0, 0x100)), PSK)


def hex_lines(data: bytes) -> Iterator[str]:
    for at in range(0, len(data), HEX_BYTES_PER_LINE):
        yield f"    {data[at : at + HEX_BYTES_PER_LINE].hex()}"


def block(lines: list[str]) -> list[str]:
    return ["```text", *lines, "```", ""]


# --- values -------------------------------------------------------------------------------------------


def keys() -> list[str]:
    rows = ["name                         private (or Ed25519 seed) = SHA-256(label), then public", ""]
    for name, label in (
        ("server static", "server"),
        ("server static, a year ago", "old server"),
        ("device static", "device"),
        ("client ephemeral", "client ephemeral"),
        ("server ephemeral", "server ephemeral"),
    ):
        rows += [f'{name}: "wa example {label}"', f"    {key(label).hex()}", f"    {public_key(key(label)).hex()}"]
    rows += ['root, Ed25519: "wa example root"', f"    {ROOT.hex()}", f"    {certificate.root_public(ROOT).hex()}"]
    rows += ['psk of the ticket in section 10.7: "wa example psk"', f"    {PSK.hex()}"]
    rows += ["certificate of the server static key, valid from 1799990000 to 1807776000"]
    return [*rows, *hex_lines(make_certificate(SERVER))]


def make_certificate(static_private: bytes) -> bytes:
    return certificate.make(ROOT, public_key(static_private), 1_799_990_000, 1_807_776_000)


def numbers() -> list[str]:
    rows = [f"varint {n:<32} {frames.varint(n).hex()}" for n in (0, 127, 128, 300, 2**64 - 1)]
    return [*rows, f"address of +15551230001, device 1      {ALICE:016x}"]


# --- frames -------------------------------------------------------------------------------------------


def frame_examples() -> list[tuple[str, frames.Frame]]:
    """One of each frame, with what it says."""
    first, second = IDS
    counts = methods.pack({"count": 100, "signed_id": 1})
    return [
        ("open: version 1, no flags", frames.Open(1)),
        ("ping: token 300", frames.Ping(300)),
        ("pong: token 300", frames.Pong(300)),
        ("close: busy, come back in 1500 ms", frames.Close(Code.BUSY, 1500)),
        ("ready: version 1, 3 queued, the time", frames.Ready(1, 3, NOW_S * 1000)),
        ("error: unknown_frame", frames.Error(Code.UNKNOWN_FRAME, b"extension 81 is not known")),
        ("ticket: 86400 s, psk, and a ticket of 16 bytes", frames.Ticket(86_400, PSK + bytes(range(16)))),
        ("request 7: keys.stock {}", request(7, Method.KEYS_STOCK, {})),
        ("response 7: ok {count: 100, signed_id: 1}", frames.Response(7, Code.OK, counts)),
        ('response 8: account_unknown {detail: ""}', failure(8, Code.ACCOUNT_UNKNOWN)),
        ("notice: prekeys_low {count: 20}", frames.Notice(Notice.PREKEYS_LOW, methods.pack({"count": 20}))),
        ("accepted: for +15551230002/1", frames.Accepted(BOB, first)),
        ("delivered", frames.Delivered(BOB, first)),
        ("read", frames.Read(BOB, first)),
        ("refused: mailbox_full", frames.Refused(BOB, first, Code.MAILBOX_FULL)),
        ("stored_receipt: seq 5, read", frames.StoredReceipt(5, frames.Level.READ, BOB, first)),
        (
            "stored_receipt: seq 6, refused with expired",
            frames.StoredReceipt(6, frames.Level.REFUSED, BOB, second, Code.EXPIRED),
        ),
        ("ack: seq 1", frames.Ack(1)),
        ("ack_range: seq 1 to 64", frames.AckRange(1, 64)),
        ("mark_read: from +15551230001/1", frames.MarkRead(ALICE, first)),
        ('send: text "hi"', frames.Send(Kind.TEXT, BOB, first, b"hi")),
        ("send_ttl: call, 30 s", frames.Send(Kind.CALL, BOB, second, b"ring", ttl_s=30)),
        ("deliver: seq 1, text", frames.Deliver(Kind.TEXT, 1, ALICE, first, b"hi")),
        (
            "deliver_queued: seq 2, text, accepted at 1800000000",
            frames.Deliver(Kind.TEXT, 2, ALICE, second, b"hi", accepted_at_s=NOW_S),
        ),
        ("extension 81: 2 bytes", frames.Extension(0x81, b"\xca\xfe")),
    ]


def request(request_id: int, method: Method, body: Body) -> frames.Request:
    return frames.Request(request_id, method, methods.pack(body))


def response(request_id: int, body: Body) -> frames.Response:
    return frames.Response(request_id, Code.OK, methods.pack(body))


def failure(request_id: int, code: Code) -> frames.Response:
    return frames.Response(request_id, code, methods.pack({"detail": ""}))


# --- sessions -----------------------------------------------------------------------------------------


class Tape:
    """Both ends of one connection and a record of everything that crossed it."""

    def __init__(
        self, suite: Suite, login: Login, known: bytes | None = None, ticket: Ticket | None = None
    ) -> None:
        self.rows: list[str] = []
        self.client = ClientSession(
            static_private=DEVICE,
            login=login,
            root_public=certificate.root_public(ROOT),
            now_s=NOW_S,
            certificate=None if known is None else make_certificate(known),
            ticket=ticket,
            suite=suite,
            backend=backend.TWIN,
            random_bytes=lambda n: key("client ephemeral"),
        )
        self.server = ServerSession(
            static_private=SERVER,
            certificate=make_certificate(SERVER),
            open_ticket=lambda sealed: (PSK, ALICE) if sealed == TICKET.sealed else None,
            backend=backend.TWIN,
            random_bytes=lambda n: key("server ephemeral"),
        )

    def handshake(self, *labels: str) -> None:
        """Crosses until both sides are done; each label, "C …" or "S …", names one crossing."""
        for label in labels:
            here, there = (self.client, self.server) if label[0] == "C" else (self.server, self.client)
            data = rest = here.bytes_to_send()
            if data.startswith(MAGIC):
                self._row("C> hello", data[: limits.HELLO_BYTES])
                rest = data[limits.HELLO_BYTES :]
            self._row(f"{label[0]}> {label[2:]}", rest)
            there.receive(data)
        assert self.client.state is self.server.state is State.RECORD

    def say(self, who: str, *said: tuple[str, frames.Frame]) -> None:
        """One record with these frames."""
        here, there = (self.client, self.server) if who == "C" else (self.server, self.client)
        plain = b"".join(frames.encode(frame) for _, frame in said)
        for label, frame in said:
            self._row(f"{who}: {label}", frames.encode(frame))
        here.send_record(plain)
        data = here.bytes_to_send()
        self._row(f"{who}> record", data)
        assert there.receive(data) == [RecordPlain(plain)]

    def _row(self, label: str, data: bytes) -> None:
        self.rows += [label, *hex_lines(data)]


def first_contact() -> list[str]:
    """XX, suite 01: a phone registers its number."""
    tape = Tape(Suite.CHACHA, Login(Intent.REGISTER, address_of(15551230001, 0)))
    tape.handshake("C XX 1", "S XX 2", "C XX 3")
    tape.say("C", ("request 1: register.request_code {}", request(1, Method.REGISTER_REQUEST_CODE, {})))
    tape.say("S", ("response 1: {expires_in_s: 600}", response(1, {"expires_in_s": 600})))
    verify: Body = {"code": "123456", "mode": "replace", "name": "phone"}
    tape.say(
        "C",
        (
            'request 2: register.verify {code: "123456", mode: "replace", name: "phone"}',
            request(2, Method.REGISTER_VERIFY, verify),
        ),
    )
    tape.say("S", (f"response 2: {{address: {ALICE}}}", response(2, {"address": ALICE})))
    tape.say("C", ("close: ok", frames.Close(Code.OK)))
    return tape.rows


def return_and_chat() -> list[str]:
    """IK, suite 02: the phone logs in, receives a queued message and sends one."""
    first, second = IDS
    tape = Tape(Suite.AESGCM, Login(Intent.LOG_IN, ALICE), known=SERVER)
    tape.handshake("C IK 1", "S IK 2")
    tape.say("C", ("open: version 1", frames.Open(1)))
    tape.say(
        "S",
        ("ready: 1 queued", frames.Ready(1, 1, NOW_S * 1000)),
        (
            "deliver_queued: seq 1, text from +15551230002/1",
            frames.Deliver(Kind.TEXT, 1, BOB, second, b"yo", accepted_at_s=NOW_S - 60),
        ),
    )
    tape.say(
        "C",
        ("ack: seq 1", frames.Ack(1)),
        ("send: text to +15551230002/1", frames.Send(Kind.TEXT, BOB, first, b"hi")),
    )
    tape.say("S", ("delivered: and so accepted", frames.Delivered(BOB, first)))
    tape.say("C", ("mark_read", frames.MarkRead(BOB, second)))
    tape.say("S", ("read", frames.Read(BOB, first)))
    tape.say("C", ("close: ok", frames.Close(Code.OK)))
    return tape.rows


def new_server_key() -> list[str]:
    """XXfallback, suite 01: the phone knows a key that the server no longer has."""
    tape = Tape(Suite.CHACHA, Login(Intent.LOG_IN, ALICE), known=OLD_SERVER)
    tape.handshake("C IK 1", "S XXfallback 1", "C XXfallback 2")
    tape.say("C", ("open: version 1", frames.Open(1)))
    tape.say("S", ("ready: nothing queued", frames.Ready(1, 0, NOW_S * 1000)))
    tape.say("S", ("close: shutting_down, come back in 2000 ms", frames.Close(Code.SHUTTING_DOWN, 2000)))
    return tape.rows


def resumption() -> list[str]:
    """NNpsk0, suite 02: the phone comes back with the ticket of its last connection and gets the next one."""
    tape = Tape(Suite.AESGCM, Login(Intent.LOG_IN, ALICE), known=SERVER, ticket=TICKET)
    tape.handshake("C NNpsk0 1", "S NNpsk0 2")
    tape.say("C", ("open: version 1", frames.Open(1)))
    tape.say(
        "S",
        ("ready: nothing queued", frames.Ready(1, 0, NOW_S * 1000)),
        ("ticket: 86400 s, the next one", frames.Ticket(86_400, key("next psk") + bytes(range(0xC0, 0xE0)))),
    )
    tape.say("C", ("close: ok", frames.Close(Code.OK)))
    return tape.rows


def refused_ticket() -> list[str]:
    """IK after a ticket that the server does not know, suite 01: it was restarted."""
    tape = Tape(Suite.CHACHA, Login(Intent.LOG_IN, ALICE), known=SERVER, ticket=Ticket(bytes(32), PSK))
    tape.handshake("C NNpsk0 1", "S ticket refused", "C IK 1", "S IK 2")
    tape.say("C", ("open: version 1", frames.Open(1)))
    return tape.rows


SESSIONS: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ("First contact: XX, suite 01, registration", first_contact),
    ("Return: IK, suite 02, a message each way", return_and_chat),
    ("The server has a new key: XXfallback, suite 01", new_server_key),
    ("Resumption: NNpsk0, suite 02", resumption),
    ("A ticket is refused, suite 01", refused_ticket),
)


# --- inside a body ------------------------------------------------------------------------------------


def chooser(*labels: str) -> Callable[[int], bytes]:
    """A source of "random" bytes: the keys of these labels, one after the other."""
    rest = iter(labels)
    return lambda n: key(next(rest))[:n]


def bodies() -> list[str]:
    """The first message from +15551230001/1 to +15551230002/1, the next one, and the first answer."""
    labels = "bob identity", "bob signed prekey", "bob one-time prekey", "bob ratchet"
    bob = Sessions(MemoryStore(), BOB, now=lambda: NOW_S, random=chooser(*labels))
    bob.create_identity()
    keys = bob.prekey_upload(stock_on_server=limits.ONE_TIME_PREKEYS_MAX - 1)
    one_time_id, one_time = keys.one_time[0]
    signed = keys.signed_prekey_id, keys.signed_prekey, keys.signed_prekey_signature
    labels = "alice identity", "alice base key", "alice ratchet", "alice ratchet 2"
    alice = Sessions(MemoryStore(), ALICE, now=lambda: NOW_S, random=chooser(*labels))
    alice.create_identity()
    alice.start_session(PreKeyBundle(BOB, keys.identity_key, *signed, one_time_id, one_time))
    rows = ["+15551230002/1 has published:"]
    for what, data in (
        ('identity key, seed "wa example bob identity"', keys.identity_key),
        (f'signed prekey {signed[0]}, private "wa example bob signed prekey"', keys.signed_prekey),
        ("its signature", keys.signed_prekey_signature),
        (f'one-time prekey {one_time_id}, private "wa example bob one-time prekey"', one_time),
    ):
        rows += [what, *hex_lines(data)]
    rows += ["", '+15551230001/1 has identity seed "wa example alice identity", base key "wa example alice base key",']
    rows += ['first ratchet key "wa example alice ratchet"; the answer is under "wa example bob ratchet"']
    for sender, receiver, text in ((alice, bob, "hello"), (alice, bob, "are you there?"), (bob, alice, "yes")):
        plain = content.encode(content.Text(text, NOW_S * 1000))
        body = sender.encrypt(receiver.address, plain)
        assert receiver.decrypt(sender.address, body) == plain
        rows += [f'content: text "{text}", padded', *hex_lines(plain), "body", *hex_lines(body)]
    return rows


def padded_lengths() -> list[str]:
    rows = (f"{n:>6} bytes of content are padded to {content.padded_length(n):>6}" for n in LENGTHS)
    return list(rows)


# --- the document -------------------------------------------------------------------------------------


def markdown() -> str:
    frame_rows = [line for what, frame in frame_examples() for line in (what, *hex_lines(frames.encode(frame)))]
    parts = ["### 10.1 Keys", "", *block(keys())]
    parts += ["### 10.2 Numbers", "", *block(numbers())]
    parts += ["### 10.3 Frames", "", *block(frame_rows)]
    for number, (title, play) in enumerate(SESSIONS, 4):
        parts += [f"### 10.{number} {title}", "", *block(play())]
    parts += ["### 10.9 Inside a body", "", *block(bodies()), *block(padded_lengths())]
    return "\n".join(parts)


def with_examples(document: str) -> str:
    """The document with fresh examples between its markers."""
    before, rest = document.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{markdown()}{END}{after}"


def main(arguments: list[str]) -> None:
    if arguments == ["--write"]:
        DOCUMENT.write_text(with_examples(DOCUMENT.read_text()))
    else:
        print(markdown())


if __name__ == "__main__":
    main(sys.argv[1:])
