"""The sessions of docs/protocol.md, read from the page and played with other people's Noise implementations.

Nothing of wa is imported: what is checked here is that the page alone is enough.
"""

import hashlib
import re
from pathlib import Path

import pytest
from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.keypair import KeyPair
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.fallback import FallbackPatternModifier
from noise.connection import Keypair, NoiseConnection

DOCUMENT = (Path(__file__).parent.parent.parent / "docs/protocol.md").read_text()
KIND_MESSAGE, KIND_FALLBACK, KIND_TICKET, KIND_TICKET_REFUSED = 1, 2, 4, 5


def labelled(section: str) -> list[tuple[str, bytes]]:
    """(label, bytes) of each entry of the example in a section; indented hex lines belong to the label above."""
    match = re.search(rf"^### {re.escape(section)} .*?```text\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None
    entries: list[tuple[str, bytes]] = []
    for line in match[1].splitlines():
        if line.startswith("    "):
            label, data = entries.pop()
            entries.append((label, data + bytes.fromhex(line)))
        else:
            entries.append((line, b""))
    return entries


def private(label: str) -> bytes:
    return hashlib.sha256(f"wa example {label}".encode()).digest()


def public(label: str) -> bytes:
    listed = {entry: data for entry, data in labelled("10.1")}
    (data,) = [data for entry, data in listed.items() if entry.endswith(f'"wa example {label}"')]
    assert data[:32] == private(label)
    return data[32:]


class Wire:
    """The entries of one session, taken one after the other."""

    def __init__(self, section: str) -> None:
        self._entries = labelled(section)
        self._at = 0

    def hello(self) -> bytes:
        return self._take("C> hello")

    def handshake(self, label: str) -> tuple[int, bytes]:
        """(kind, message)"""
        record = self._record(label)
        assert 1 <= len(record) <= 1024
        return record[0], record[1:]

    def rest(self) -> list[tuple[str, bytes, bytes]]:
        """(who, plaintext, record) of every transport record."""
        out, plain = [], b""
        while self._at < len(self._entries):
            label, data = self._entries[self._at]
            if label[1] == ":":
                plain += data
                self._at += 1
            else:
                out.append((label[0], plain, self._record(f"{label[0]}> record")))
                plain = b""
        assert out
        return out

    def _take(self, label: str) -> bytes:
        found, data = self._entries[self._at]
        assert found == label
        self._at += 1
        return data

    def _record(self, label: str) -> bytes:
        data = self._take(label)
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        return data[4:]


def noise_side(
    name: bytes, hello: bytes, *, client: bool, server_known: bool = False, psk: bytes | None = None
) -> NoiseConnection:
    side = NoiseConnection.from_name(name)
    if client:
        side.set_as_initiator()
    else:
        side.set_as_responder()
    side.set_prologue(hello)
    static, ephemeral = ("device", "client ephemeral") if client else ("server", "server ephemeral")
    if psk is None:
        side.set_keypair_from_private_bytes(Keypair.STATIC, private(static))
    else:
        side.set_psks(psk=psk)
    side.set_keypair_from_private_bytes(Keypair.EPHEMERAL, private(ephemeral))
    if client and server_known:
        side.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, public("server"))
    with pytest.warns(UserWarning, match="ephemeral keypairs"):  # fixed ones are for tests, it says
        side.start_handshake()
    return side


def check_transport(wire: Wire, client: NoiseConnection, server: NoiseConnection) -> None:
    for who, plain, record in wire.rest():
        sender, receiver = (client, server) if who == "C" else (server, client)
        assert sender.encrypt(plain) == record
        assert receiver.decrypt(record) == plain


@pytest.mark.parametrize(
    ("section", "name", "messages"),
    [
        ("10.4", b"Noise_XX_25519_ChaChaPoly_SHA256", ["C> XX 1", "S> XX 2", "C> XX 3"]),
        ("10.5", b"Noise_IK_25519_AESGCM_SHA256", ["C> IK 1", "S> IK 2"]),
    ],
)
def test_session_with_noiseprotocol(section: str, name: bytes, messages: list[str]) -> None:
    wire = Wire(section)
    hello = wire.hello()
    suite = 1 if b"ChaCha" in name else 2
    pattern = 1 if b"XX" in name else 2
    assert hello == b"wa\r\n" + bytes([1, suite, pattern, 0])
    known = b"_IK_" in name
    client = noise_side(name, hello, client=True, server_known=known)
    server = noise_side(name, hello, client=False, server_known=known)
    payloads = []
    for label in messages:
        kind, message = wire.handshake(label)
        assert kind == KIND_MESSAGE
        writer, reader = (client, server) if label[0] == "C" else (server, client)
        payload = bytes(reader.read_message(message))
        assert bytes(writer.write_message(payload)) == message
        payloads.append(payload)
    (certificate,) = [data for label, data in labelled("10.1") if label.startswith("certificate")]
    intent_register = bytes([0]) if known else bytes([1])
    number = 15551230001 << 8
    login = intent_register + (number + known).to_bytes(8, "big")
    assert payloads == ([login, b""] if known else [b"", certificate, login])
    check_transport(wire, client, server)


LOGIN = bytes([0]) + ((15551230001 << 8) + 1).to_bytes(8, "big")


def ticket_and_message(record: tuple[int, bytes]) -> tuple[bytes, bytes]:
    kind, content = record
    assert kind == KIND_TICKET
    n = int.from_bytes(content[:2], "big")
    ticket, message = content[2 : 2 + n], content[2 + n :]
    assert (len(ticket), len(message)) == (n, 57)
    return ticket, message


def exchange(client: NoiseConnection, server: NoiseConnection, first: bytes, second: bytes) -> None:
    assert bytes(server.read_message(first)) == LOGIN
    assert bytes(client.write_message(LOGIN)) == first
    assert bytes(client.read_message(second)) == b""
    assert bytes(server.write_message(b"")) == second


def test_resumption_with_noiseprotocol() -> None:
    wire = Wire("10.7")
    hello = wire.hello()
    assert hello == b"wa\r\n" + bytes([1, 2, 3, 0])
    (psk,) = [data for label, data in labelled("10.1") if label.startswith("psk")]
    assert psk == private("psk")
    name = b"Noise_NNpsk0_25519_AESGCM_SHA256"
    client, server = (noise_side(name, hello, client=side, psk=psk) for side in (True, False))
    ticket, first = ticket_and_message(wire.handshake("C> NNpsk0 1"))
    assert len(ticket) == 32
    kind, second = wire.handshake("S> NNpsk0 2")
    assert kind == KIND_MESSAGE
    exchange(client, server, first, second)
    check_transport(wire, client, server)


def test_refused_ticket_with_noiseprotocol() -> None:
    wire = Wire("10.8")
    assert wire.hello()[6] == 3
    ticket_and_message(wire.handshake("C> NNpsk0 1"))
    assert wire.handshake("S> ticket refused") == (KIND_TICKET_REFUSED, b"")
    hello = wire.hello()
    assert hello[6] == 2
    name = b"Noise_IK_25519_ChaChaPoly_SHA256"
    client, server = (noise_side(name, hello, client=side, server_known=side) for side in (True, False))
    (_, first), (_, second) = wire.handshake("C> IK 1"), wire.handshake("S> IK 2")
    exchange(client, server, first, second)
    check_transport(wire, client, server)


class FixedEphemeral(X25519DH):
    """Always makes the server's ephemeral key of the examples."""

    def generate_keypair(self, privatekey: PrivateKey | None = None) -> KeyPair:
        return super().generate_keypair(privatekey or PrivateKey(private("server ephemeral")))


def dissononce_side(*, client: bool, hello: bytes) -> HandshakeState:
    """A side of XXfallback; dissononce calls the client initiator although the server sends first."""
    dh = FixedEphemeral()
    state = HandshakeState(SymmetricState(CipherState(ChaChaPolyCipher()), SHA256Hash()), dh)
    pattern = FallbackPatternModifier().modify(XXHandshakePattern())
    static = dh.generate_keypair(PrivateKey(private("device" if client else "server")))
    early = dh.generate_keypair(PrivateKey(private("client ephemeral")))
    if client:
        state.initialize(pattern, True, hello, s=static, e=early)
    else:
        state.initialize(pattern, False, hello, s=static, re=PublicKey(public("client ephemeral")))
    return state


def test_fallback_with_dissononce() -> None:
    wire = Wire("10.6")
    hello = wire.hello()
    kind, failed = wire.handshake("C> IK 1")
    assert kind == KIND_MESSAGE
    assert failed[:32] == public("client ephemeral")
    client, server = (dissononce_side(client=side, hello=hello) for side in (True, False))
    kind, first = wire.handshake("S> XXfallback 1")
    assert kind == KIND_FALLBACK
    kind, second = wire.handshake("C> XXfallback 2")
    assert kind == KIND_MESSAGE
    certificate, login, wrote = bytearray(), bytearray(), bytearray()
    client.read_message(first, certificate)
    (listed,) = [data for label, data in labelled("10.1") if label.startswith("certificate")]
    assert bytes(certificate) == listed
    server.write_message(bytes(certificate), wrote)
    assert bytes(wrote) == first
    server_send, server_receive = server.read_message(second, login)
    assert bytes(login) == bytes([0]) + ((15551230001 << 8) + 1).to_bytes(8, "big")
    wrote = bytearray()
    # The first key is the server's, which sent the pattern's first message.
    client_receive, client_send = client.write_message(bytes(login), wrote)
    assert bytes(wrote) == second
    for who, plain, record in wire.rest():
        sender, receiver = (client_send, server_receive) if who == "C" else (server_send, client_receive)
        assert sender.encrypt_with_ad(b"", plain) == record
        assert receiver.decrypt_with_ad(b"", record) == plain
