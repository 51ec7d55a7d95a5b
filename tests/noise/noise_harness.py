"""Two sides of a handshake in one process, fixed keys, and a random source that can be replayed."""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from wa.errors import RemoteError
from wa.noise import certificate, primitives
from wa.noise.backend import FAST, TWIN, Backend, HandshakeLike, TransportLike
from wa.noise.patterns import Pattern, Suite
from wa.noise.records import Intent, Login, Ticket
from wa.noise.session import ClientSession, Event, ServerSession

assert FAST is not None, "build the fast path first: python setup.py build_ext --inplace"
BACKENDS: dict[str, Backend] = {"fast": FAST, "twin": TWIN}
NO_AES = "libsodium's AES-GCM needs a processor with AES instructions, and this one has none"
PATTERNS = list(Pattern)
PROLOGUE = b"wa\r\n\x01\x01\x01\x00"


def key(name: str) -> bytes:
    """A private key of 32 bytes that is the same in every run."""
    return hashlib.sha256(name.encode()).digest()


CLIENT, SERVER, OLD_SERVER = key("client"), key("server"), key("old server")
PSK = key("psk")
CLIENT_PUBLIC, SERVER_PUBLIC, OLD_SERVER_PUBLIC = map(primitives.public_key, (CLIENT, SERVER, OLD_SERVER))

# Points of small order on Curve25519 and its twist (RFC 7748, section 7; cr.yp.to/ecdh.html).
LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@dataclass
class Pair:
    """The client is the side that opens the connection; in XXfallback it is not the pattern's initiator."""

    client: HandshakeLike
    server: HandshakeLike

    def next_sides(self) -> tuple[HandshakeLike, HandshakeLike]:
        return (self.client, self.server) if self.client.my_turn else (self.server, self.client)


def start_pair(
    pattern: Pattern, suite: Suite, client: Backend, server: Backend, *, prologue: bytes = PROLOGUE
) -> Pair:
    """Both sides right before the first message of the pattern; an IK has failed before an XXfallback."""
    if pattern is Pattern.NNPSK0:
        return Pair(
            client.start(pattern, suite, initiator=True, prologue=prologue, psk=PSK),
            server.start(pattern, suite, initiator=False, prologue=prologue, psk=PSK),
        )
    offered = Pattern.XX if pattern is Pattern.XX else Pattern.IK
    known = {Pattern.XX: None, Pattern.IK: SERVER_PUBLIC, Pattern.XXFALLBACK: OLD_SERVER_PUBLIC}[pattern]
    pair = Pair(
        client.start(
            offered, suite, initiator=True, prologue=prologue, static_private=CLIENT, remote_static=known
        ),
        server.start(offered, suite, initiator=False, prologue=prologue, static_private=SERVER),
    )
    if pattern is Pattern.XXFALLBACK:
        failed = False
        try:
            pair.server.read(pair.client.write(b"login", ephemeral=key("client ephemeral")))
        except RemoteError:
            failed = True
        assert failed, "IK to a key that the server no longer has must not authenticate"
        pair.server.fallback(prologue)
        pair.client.fallback(prologue)
    return pair


def run(pair: Pair, payloads: Iterable[bytes] = ()) -> tuple[TransportLike, TransportLike]:
    """All messages with fixed ephemeral keys; then both transports, the client's first."""
    waiting = list(payloads)
    while not (pair.client.done and pair.server.done):
        writer, reader = pair.next_sides()
        payload = waiting.pop(0) if waiting else b""
        ephemeral = key("client ephemeral" if writer is pair.client else "server ephemeral")
        assert reader.read(writer.write(payload, ephemeral=ephemeral)) == payload
    assert pair.client.hash == pair.server.hash
    return pair.client.split(), pair.server.split()


def established(
    pattern: Pattern, suite: Suite, client: Backend, server: Backend
) -> tuple[TransportLike, TransportLike]:
    return run(start_pair(pattern, suite, client, server))


# --- sessions -----------------------------------------------------------------------------------------

ROOT_SECRET = key("root")
ROOT_PUBLIC = certificate.root_public(ROOT_SECRET)
NOW_S = 1_900_000_000
CERTIFICATE = certificate.make(ROOT_SECRET, SERVER_PUBLIC, NOW_S - 100, NOW_S + 100)
OLD_CERTIFICATE = certificate.make(ROOT_SECRET, OLD_SERVER_PUBLIC, NOW_S - 200, NOW_S + 50)
LOGIN = Login(Intent.LOG_IN, 15_551_230_001 << 8 | 1)
STORED = {
    Pattern.XX: None,
    Pattern.IK: CERTIFICATE,
    Pattern.NNPSK0: CERTIFICATE,
    Pattern.XXFALLBACK: OLD_CERTIFICATE,
}
TICKET = Ticket(b"opaque to the client", PSK)


def open_ticket(sealed: bytes) -> tuple[bytes, int] | None:
    return (PSK, LOGIN.address) if sealed == TICKET.sealed else None


def replayable(seed: str) -> Callable[[int], bytes]:
    """A random source that gives the same bytes in every run."""
    count = 0

    def random_bytes(n: int) -> bytes:
        nonlocal count
        count += 1
        return hashlib.shake_256(f"{seed} {count}".encode()).digest(n)

    return random_bytes


def client_session(
    pattern: Pattern,
    suite: Suite = Suite.CHACHA,
    backend: Backend = TWIN,
    *,
    root_public: bytes = ROOT_PUBLIC,
    ticket: Ticket = TICKET,
    login: Login = LOGIN,
) -> ClientSession:
    return ClientSession(
        static_private=CLIENT,
        login=login,
        root_public=root_public,
        now_s=NOW_S,
        certificate=STORED[pattern],
        ticket=ticket if pattern is Pattern.NNPSK0 else None,
        suite=suite,
        backend=backend,
        random_bytes=replayable("client"),
    )


def server_session(backend: Backend = TWIN, *, certificate: bytes = CERTIFICATE) -> ServerSession:
    return ServerSession(
        static_private=SERVER,
        certificate=certificate,
        backend=backend,
        open_ticket=open_ticket,
        random_bytes=replayable("server"),
    )


@dataclass
class Conversation:
    """What each side sent and what came out of it."""

    to_server: bytes
    to_client: bytes
    client_events: list[Event]
    server_events: list[Event]


def converse(
    client: ClientSession,
    server: ServerSession,
    client_says: Iterable[bytes] = (),
    server_says: Iterable[bytes] = (),
) -> Conversation:
    """Exchanges bytes until both are silent, then the given records."""
    talk = Conversation(b"", b"", [], [])

    def exchange() -> None:
        while True:
            to_server, to_client = client.bytes_to_send(), server.bytes_to_send()
            if not to_server and not to_client:
                return
            talk.to_server += to_server
            talk.to_client += to_client
            talk.server_events += server.receive(to_server)
            talk.client_events += client.receive(to_client)

    exchange()
    for plain in client_says:
        client.send_record(plain)
    for plain in server_says:
        server.send_record(plain)
    exchange()
    return talk
