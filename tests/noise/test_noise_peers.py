"""Other people's implementations at the opposite end, in both roles: noiseprotocol and dissononce."""

from typing import Any

import pytest
from dissononce.cipher.aesgcm import AESGCMCipher
from dissononce.cipher.chachapoly import ChaChaPolyCipher
from dissononce.dh.x25519.private import PrivateKey
from dissononce.dh.x25519.public import PublicKey
from dissononce.dh.x25519.x25519 import X25519DH
from dissononce.hash.sha256 import SHA256Hash
from dissononce.processing.handshakepatterns.interactive.IK import IKHandshakePattern
from dissononce.processing.handshakepatterns.interactive.NN import NNHandshakePattern
from dissononce.processing.handshakepatterns.interactive.XX import XXHandshakePattern
from dissononce.processing.impl.cipherstate import CipherState
from dissononce.processing.impl.handshakestate import HandshakeState
from dissononce.processing.impl.symmetricstate import SymmetricState
from dissononce.processing.modifiers.fallback import FallbackPatternModifier
from dissononce.processing.modifiers.psk import PSKPatternModifier
from noise.connection import Keypair, NoiseConnection
from noise_harness import (
    CLIENT,
    CLIENT_PUBLIC,
    OLD_SERVER_PUBLIC,
    PROLOGUE,
    PSK,
    SERVER,
    SERVER_PUBLIC,
    Backend,
)

from wa import limits
from wa.errors import RemoteError
from wa.noise.backend import HandshakeLike, TransportLike
from wa.noise.patterns import Pattern, Suite, protocol_name

OFFERED = [Pattern.XX, Pattern.IK, Pattern.NNPSK0]


def ours(backend: Backend, pattern: Pattern, suite: Suite, *, initiator: bool) -> HandshakeLike:
    return backend.start(
        pattern,
        suite,
        initiator=initiator,
        prologue=PROLOGUE,
        static_private=None if pattern is Pattern.NNPSK0 else CLIENT if initiator else SERVER,
        remote_static=SERVER_PUBLIC if initiator and pattern is Pattern.IK else None,
        psk=PSK if pattern is Pattern.NNPSK0 else None,
    )


def their_static(pattern: Pattern, *, initiator: bool) -> bytes | None:
    """What our side, starting or not, must have learned."""
    if pattern is Pattern.NNPSK0:
        return None
    return SERVER_PUBLIC if initiator else CLIENT_PUBLIC


# --- noiseprotocol ------------------------------------------------------------------------------------


def noiseprotocol_peer(pattern: Pattern, suite: Suite, *, initiator: bool) -> Any:
    peer = NoiseConnection.from_name(protocol_name(pattern, suite))
    peer.set_prologue(PROLOGUE)
    if pattern is Pattern.NNPSK0:
        peer.set_psks(psk=PSK)
    else:
        peer.set_keypair_from_private_bytes(Keypair.STATIC, CLIENT if initiator else SERVER)
    if initiator:
        peer.set_as_initiator()
        if pattern is Pattern.IK:
            peer.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, SERVER_PUBLIC)
    else:
        peer.set_as_responder()
    peer.start_handshake()
    return peer


def meet_noiseprotocol(
    backend: Backend, pattern: Pattern, suite: Suite, *, initiator: bool
) -> tuple[TransportLike, Any]:
    mine = ours(backend, pattern, suite, initiator=initiator)
    peer = noiseprotocol_peer(pattern, suite, initiator=not initiator)
    step = 0
    while not mine.done:
        payload = bytes(step * 50)
        if mine.my_turn:
            assert peer.read_message(mine.write(payload)) == payload
        else:
            assert mine.read(bytes(peer.write_message(payload))) == payload
        step += 1
    assert peer.handshake_finished
    assert mine.hash == peer.get_handshake_hash()
    assert mine.remote_static == their_static(pattern, initiator=initiator)
    return mine.split(), peer


@pytest.mark.parametrize("initiator", [True, False], ids=["we start", "they start"])
@pytest.mark.parametrize("pattern", OFFERED, ids=lambda p: p.name)
def test_noiseprotocol(backend: Backend, suite: Suite, pattern: Pattern, initiator: bool) -> None:
    transport, peer = meet_noiseprotocol(backend, pattern, suite, initiator=initiator)
    for n in (0, 1, 1_000, limits.RECORD_PLAIN_BYTES_MAX):
        assert peer.decrypt(transport.seal(bytes(n))) == bytes(n)
        assert transport.open(peer.encrypt(bytes(n))) == bytes(n)


def test_noiseprotocol_across_a_rekey(backend: Backend, suite: Suite) -> None:
    """The peer's own Rekey() replaces the key where ours does, and the nonce goes on."""
    transport, peer = meet_noiseprotocol(backend, Pattern.XX, suite, initiator=True)
    last = limits.REKEY_MESSAGES - 1
    keys, nonces = transport.state()[:64], last.to_bytes(8, "little") * 2
    transport = type(transport)(suite, keys + nonces)  # type: ignore[call-arg]
    peer.noise_protocol.cipher_state_encrypt.set_nonce(last)
    peer.noise_protocol.cipher_state_decrypt.set_nonce(last)

    assert peer.decrypt(transport.seal(b"the last under the old key")) == b"the last under the old key"
    peer.rekey_inbound_cipher()
    assert peer.noise_protocol.cipher_state_decrypt.n == limits.REKEY_MESSAGES
    assert peer.decrypt(transport.seal(b"the first under the new one")) == b"the first under the new one"

    assert transport.open(peer.encrypt(b"and the other way")) == b"and the other way"
    peer.rekey_outbound_cipher()
    assert transport.open(peer.encrypt(b"round")) == b"round"


# --- dissononce ---------------------------------------------------------------------------------------


class Dissononce:
    """A dissononce handshake behind bytes.

    knows: the server's key, for an IK client.  ephemeral, remote_ephemeral: what XXfallback takes over.
    """

    def __init__(
        self,
        pattern: Pattern,
        suite: Suite,
        *,
        client: bool,
        knows: bytes | None = None,
        ephemeral: Any = None,
        remote_ephemeral: bytes | None = None,
    ) -> None:
        cipher = ChaChaPolyCipher() if suite is Suite.CHACHA else AESGCMCipher()
        self.state = HandshakeState(SymmetricState(CipherState(cipher), SHA256Hash()), X25519DH())
        self.ciphers: Any = None
        shape = {
            Pattern.XX: XXHandshakePattern(),
            Pattern.IK: IKHandshakePattern(),
            Pattern.NNPSK0: PSKPatternModifier(0).modify(NNHandshakePattern()),
            Pattern.XXFALLBACK: FallbackPatternModifier().modify(XXHandshakePattern()),
        }[pattern]
        assert f"_{shape.name}_" in protocol_name(pattern, suite).decode()
        own = None
        if pattern is not Pattern.NNPSK0:
            own = X25519DH().generate_keypair(PrivateKey(CLIENT if client else SERVER))
        self.state.initialize(
            shape,
            client,
            PROLOGUE,
            s=own,
            e=ephemeral,
            rs=PublicKey(knows) if knows else None,
            re=PublicKey(remote_ephemeral) if remote_ephemeral else None,
            psks=[PSK] if pattern is Pattern.NNPSK0 else None,
        )

    def write(self, payload: bytes) -> bytes:
        out = bytearray()
        self.ciphers = self.state.write_message(payload, out)
        return bytes(out)

    def read(self, message: bytes) -> bytes:
        out = bytearray()
        self.ciphers = self.state.read_message(message, out)
        return bytes(out)

    @property
    def hash(self) -> bytes:
        return bytes(self.state.symmetricstate.get_handshake_hash())


def finish_with_dissononce(mine: HandshakeLike, peer: Dissononce, *, we_sent_first: bool) -> None:
    """The remaining messages, then some of the transport, whose first key is of the pattern's starter."""
    step = 0
    while not mine.done:
        payload = bytes(step * 50 + 1)
        if mine.my_turn:
            assert peer.read(mine.write(payload)) == payload
        else:
            assert mine.read(peer.write(payload)) == payload
        step += 1
    assert mine.hash == peer.hash
    transport = mine.split()
    first, second = peer.ciphers
    to_peer, from_peer = (first, second) if we_sent_first else (second, first)
    for n in (1, 1_000, 65_000):
        assert to_peer.decrypt_with_ad(b"", transport.seal(bytes(n))) == bytes(n)
        assert transport.open(from_peer.encrypt_with_ad(b"", bytes(n))) == bytes(n)


@pytest.mark.parametrize("initiator", [True, False], ids=["we start", "they start"])
@pytest.mark.parametrize("pattern", OFFERED, ids=lambda p: p.name)
def test_dissononce(backend: Backend, suite: Suite, pattern: Pattern, initiator: bool) -> None:
    mine = ours(backend, pattern, suite, initiator=initiator)
    knows = SERVER_PUBLIC if pattern is Pattern.IK and not initiator else None
    peer = Dissononce(pattern, suite, client=not initiator, knows=knows)
    finish_with_dissononce(mine, peer, we_sent_first=initiator)
    assert mine.remote_static == their_static(pattern, initiator=initiator)


def test_our_client_falls_back_with_dissononce(backend: Backend, suite: Suite) -> None:
    mine = backend.start(
        Pattern.IK,
        suite,
        initiator=True,
        prologue=PROLOGUE,
        static_private=CLIENT,
        remote_static=OLD_SERVER_PUBLIC,
    )
    first = mine.write(b"login")
    mine.fallback(PROLOGUE)
    peer = Dissononce(Pattern.XXFALLBACK, suite, client=False, remote_ephemeral=first[:32])
    finish_with_dissononce(mine, peer, we_sent_first=False)
    assert mine.remote_static == SERVER_PUBLIC
    assert mine.pattern == Pattern.XXFALLBACK


def test_our_server_falls_back_with_dissononce(backend: Backend, suite: Suite) -> None:
    mine = backend.start(Pattern.IK, suite, initiator=False, prologue=PROLOGUE, static_private=SERVER)
    failed = Dissononce(Pattern.IK, suite, client=True, knows=OLD_SERVER_PUBLIC)
    with pytest.raises(RemoteError):
        mine.read(failed.write(b"login"))
    mine.fallback(PROLOGUE)
    peer = Dissononce(Pattern.XXFALLBACK, suite, client=True, ephemeral=failed.state.e)
    finish_with_dissononce(mine, peer, we_sent_first=True)
    assert mine.remote_static == CLIENT_PUBLIC
