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

from wa.errors import Code
from wa.ids import Address, address_of
from wa.noise import backend, certificate
from wa.noise.patterns import Suite
from wa.noise.primitives import public_key
from wa.noise.records import Intent, Login
from wa.noise.session import ClientSession, LoginReceived, RecordPlain, ServerSession
from wa.wire import frames, methods
from wa.wire.methods import Kind, Method, Notice

DOCUMENT = Path(__file__).parent.parent / "docs/protocol.md"
BEGIN = "<!-- begin: scripts/protocol_examples.py -->"
END = "<!-- end: scripts/protocol_examples.py -->"
HEX_BYTES_PER_LINE = 48

NOW_S = 1_800_000_000
ALICE, BOB = address_of(15551230001, 1), address_of(15551230002, 1)
IDS = 0x0102030405060708, 0x1112131415161718


def key(label: str) -> bytes:
    return hashlib.sha256(f"wa example {label}".encode()).digest()


ROOT, SERVER, OLD_SERVER, DEVICE = key("root"), key("server"), key("old server"), key("device")


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
    rows += ["certificate of the server static key, valid from 1799990000 to 1807776000"]
    return [*rows, *hex_lines(make_certificate(SERVER))]


def make_certificate(static_private: bytes) -> bytes:
    return certificate.make(ROOT, public_key(static_private), 1_799_990_000, 1_807_776_000)


def numbers() -> list[str]:
    rows = [f"varint {n:<22} {frames.encode(frames.F_PING, number=n)[1:].hex()}" for n in (0, 127, 128, 300, 2**64 - 1)]
    rows += [f"address {who:<21} {address:016x}" for who, address in (("+15551230001, device 1", ALICE),)]
    return rows


# --- frames -------------------------------------------------------------------------------------------


def frame_examples() -> list[tuple[str, bytes]]:
    """One of each frame, with what it says."""
    f, e = frames, frames.encode
    first, second = IDS
    stock = methods.pack({})
    return [
        ("open: version 1, no flags", e(f.F_OPEN, number=1)),
        ("ping: token 300", e(f.F_PING, number=300)),
        ("pong: token 300", e(f.F_PONG, number=300)),
        ("close: busy, come back in 1500 ms", e(f.F_CLOSE, number=Code.BUSY, extra=1500)),
        ("ready: version 1, 3 queued, the time", e(f.F_READY, number=1, extra=3, address=NOW_S * 1000)),
        ("error: unknown_frame", e(f.F_ERROR, number=Code.UNKNOWN_FRAME, body=b"extension 81 is not known")),
        ("request 7: keys.stock {}", e(f.F_REQUEST, number=7, extra=Method.KEYS_STOCK, body=stock)),
        (
            "response 7: ok {count: 100, signed_id: 1}",
            e(f.F_RESPONSE, number=7, extra=0, body=methods.pack({"count": 100, "signed_id": 1})),
        ),
        (
            'response 8: account_unknown {detail: ""}',
            e(f.F_RESPONSE, number=8, extra=Code.ACCOUNT_UNKNOWN, body=methods.pack({"detail": ""})),
        ),
        (
            "notice: prekeys_low {count: 20}",
            e(f.F_NOTICE, number=Notice.PREKEYS_LOW, body=methods.pack({"count": 20})),
        ),
        ("accepted: by +15551230002/1", e(f.F_ACCEPTED, address=BOB, id=first)),
        ("delivered", e(f.F_DELIVERED, address=BOB, id=first)),
        ("read", e(f.F_READ, address=BOB, id=first)),
        ("refused: mailbox_full", e(f.F_REFUSED, address=BOB, id=first, number=Code.MAILBOX_FULL)),
        ("stored_receipt: seq 5, read", e(f.F_STORED_RECEIPT, number=5, extra=f.F_READ, address=BOB, id=first)),
        (
            "stored_receipt: seq 6, refused with expired",
            e(f.F_STORED_RECEIPT, number=6, extra=f.F_REFUSED, address=BOB, id=second, code=Code.EXPIRED),
        ),
        ("ack: seq 1", e(f.F_ACK, number=1)),
        ("ack_range: seq 1 to 64", e(f.F_ACK_RANGE, number=1, extra=64)),
        ("mark_read: from +15551230001/1", e(f.F_MARK_READ, address=ALICE, id=first)),
        ('send: text "hi"', e(f.F_SEND, kind=Kind.TEXT, address=BOB, id=first, body=b"hi")),
        ("send_ttl: call, 30 s", e(f.F_SEND_TTL, kind=Kind.CALL, address=BOB, id=second, extra=30, body=b"ring")),
        ("deliver: seq 1, text", e(f.F_DELIVER, kind=Kind.TEXT, number=1, address=ALICE, id=first, body=b"hi")),
        (
            "deliver_queued: seq 2, text, accepted at 1800000000",
            e(f.F_DELIVER_QUEUED, kind=Kind.TEXT, number=2, address=ALICE, id=second, extra=NOW_S, body=b"hi"),
        ),
        ("extension 81: 2 bytes", e(f.F_EXTENSION, kind=1, body=b"\xca\xfe")),
    ]


# --- sessions -----------------------------------------------------------------------------------------


class Tape:
    """Both ends of one connection and a record of everything that crossed it."""

    def __init__(self, suite: Suite, login: Login, known: bytes | None = None) -> None:
        self.rows: list[str] = []
        self.client = ClientSession(
            static_private=DEVICE,
            login=login,
            root_public=certificate.root_public(ROOT),
            now_s=NOW_S,
            certificate=None if known is None else make_certificate(known),
            suite=suite,
            backend=backend.TWIN,
            random_bytes=lambda n: key("client ephemeral"),
        )
        self.server = ServerSession(
            static_private=SERVER,
            certificate=make_certificate(SERVER),
            backend=backend.TWIN,
            random_bytes=lambda n: key("server ephemeral"),
        )

    def handshake(self, *labels: str) -> None:
        """Crosses until both sides are done; each label, "C …" or "S …", names one crossing."""
        hello = True
        for label in labels:
            here, there = (self.client, self.server) if label[0] == "C" else (self.server, self.client)
            data = here.bytes_to_send()
            if hello:
                self._row("C> hello", data[:8])
            self._row(f"{label[0]}> {label[2:]}", data[8:] if hello else data)
            hello = False
            events = there.receive(data)
            if there is self.server and events:
                assert isinstance(events[0], LoginReceived)

    def say(self, who: str, *said: tuple[str, bytes]) -> None:
        """One record with these frames."""
        here, there = (self.client, self.server) if who == "C" else (self.server, self.client)
        plain = b"".join(frame for _, frame in said)
        for label, frame in said:
            self._row(f"{who}: {label}", frame)
        here.send_record(plain)
        data = here.bytes_to_send()
        self._row(f"{who}> record", data)
        assert there.receive(data) == [RecordPlain(plain)]

    def _row(self, label: str, data: bytes) -> None:
        self.rows += [label, *hex_lines(data)]


def request(request_id: int, method: Method, body: methods.Params) -> bytes:
    return frames.encode(frames.F_REQUEST, number=request_id, extra=method, body=methods.pack(body))


def response(request_id: int, body: methods.Params) -> bytes:
    return frames.encode(frames.F_RESPONSE, number=request_id, extra=Code.OK, body=methods.pack(body))


def close() -> tuple[str, bytes]:
    return "close: ok", frames.encode(frames.F_CLOSE, number=Code.OK)


def first_contact() -> list[str]:
    """XX, suite 01: a phone registers its number."""
    tape = Tape(Suite.CHACHA, Login(Intent.REGISTER, Address(ALICE & ~0xFF)))
    tape.handshake("C XX 1", "S XX 2", "C XX 3")
    tape.say("C", ("request 1: register.request_code {}", request(1, Method.REGISTER_REQUEST_CODE, {})))
    tape.say("S", ("response 1: {expires_in_s: 600}", response(1, {"expires_in_s": 600})))
    verify: methods.Params = {"code": "123456", "mode": "replace", "name": "phone"}
    tape.say(
        "C", ('request 2: register.verify {code: "123456", …}', request(2, Method.REGISTER_VERIFY, verify))
    )
    tape.say("S", ("response 2: {address: +15551230001/1}", response(2, {"address": ALICE})))
    tape.say("C", close())
    return tape.rows


def return_and_chat() -> list[str]:
    """IK, suite 02: the phone logs in, sends one message and receives a queued one."""
    f, e, (first, second) = frames, frames.encode, IDS
    tape = Tape(Suite.AESGCM, Login(Intent.LOG_IN, ALICE), known=SERVER)
    tape.handshake("C IK 1", "S IK 2")
    tape.say("C", ("open: version 1", e(f.F_OPEN, number=1)))
    queued = e(f.F_DELIVER_QUEUED, kind=Kind.TEXT, number=1, address=BOB, id=second, extra=NOW_S - 60, body=b"yo")
    tape.say(
        "S",
        ("ready: 1 queued", e(f.F_READY, number=1, extra=1, address=NOW_S * 1000)),
        ("deliver_queued: seq 1, from +15551230002/1", queued),
    )
    tape.say(
        "C",
        ("ack: seq 1", e(f.F_ACK, number=1)),
        ("send: text to +15551230002/1", e(f.F_SEND, kind=Kind.TEXT, address=BOB, id=first, body=b"hi")),
    )
    tape.say("S", ("delivered: accepted, too", e(f.F_DELIVERED, address=BOB, id=first)))
    tape.say("C", ("mark_read", e(f.F_MARK_READ, address=BOB, id=second)))
    tape.say("S", ("read", e(f.F_READ, address=BOB, id=first)))
    tape.say("C", close())
    return tape.rows


def new_server_key() -> list[str]:
    """XXfallback, suite 01: the phone knows a key that the server no longer has."""
    tape = Tape(Suite.CHACHA, Login(Intent.LOG_IN, ALICE), known=OLD_SERVER)
    tape.handshake("C IK 1", "S XXfallback 1", "C XXfallback 2")
    tape.say("C", ("open: version 1", frames.encode(frames.F_OPEN, number=1)))
    ready = frames.encode(frames.F_READY, number=1, address=NOW_S * 1000)
    tape.say("S", ("ready: nothing queued", ready))
    tape.say("S", ("close: shutting_down", frames.encode(frames.F_CLOSE, number=Code.SHUTTING_DOWN, extra=2000)))
    return tape.rows


SESSIONS: tuple[tuple[str, Callable[[], list[str]]], ...] = (
    ("First contact: XX, suite 01, registration", first_contact),
    ("Return: IK, suite 02, a message each way", return_and_chat),
    ("The server has a new key: XXfallback, suite 01", new_server_key),
)


# --- the document -------------------------------------------------------------------------------------


def markdown() -> str:
    frame_rows = [line for what, data in frame_examples() for line in (what, *hex_lines(data))]
    parts = ["### 10.1 Keys", "", *block(keys())]
    parts += ["### 10.2 Numbers", "", *block(numbers())]
    parts += ["### 10.3 Frames", "", *block(frame_rows)]
    for number, (title, play) in enumerate(SESSIONS, 4):
        parts += [f"### 10.{number} {title}", "", *block(play())]
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
