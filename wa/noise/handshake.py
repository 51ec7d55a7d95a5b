"""The Python twin of `wa._fastpath.noise.noise.Handshake`: sections 5.2 and 5.3 of the Noise specification.

Theory of operation.  A handshake is one row of `patterns.MESSAGES`; `write` and `read` walk it, a message at a time.  A
message that the peer broke ends the handshake.  One exception: IK whose first message did not authenticate continues
with `fallback`.  Python cannot zero its bytes objects; this class only drops them.
"""

import os

from wa import limits
from wa.errors import Code, LocalError, RemoteError
from wa.noise import primitives
from wa.noise.patterns import MESSAGES, Pattern, Suite, Token, protocol_name
from wa.noise.primitives import KEY_BYTES, TAG_BYTES, LowOrderPoint, TagMismatch
from wa.noise.transport import Transport, transport_of

_KEYS = (Token.E, Token.S)


class SymmetricState:
    """h, ck, k and n of section 5.2."""

    def __init__(self, pattern: Pattern, suite: Suite, prologue: bytes) -> None:
        name = protocol_name(pattern, suite)
        self.suite = suite
        self.h = name.ljust(32, b"\0") if len(name) <= 32 else primitives.sha256(name)
        self.ck = self.h
        self.k: bytes | None = None
        self.n = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.h = primitives.sha256(self.h, data)

    def mix_key(self, material: bytes) -> None:
        self.ck, self.k = primitives.hkdf2(self.ck, material)
        self.n = 0

    def mix_key_and_hash(self, psk: bytes) -> None:
        self.ck, mixed, self.k = primitives.hkdf3(self.ck, psk)
        self.mix_hash(mixed)
        self.n = 0

    def encrypt_and_hash(self, plain: bytes) -> bytes:
        data = plain
        if self.k is not None:
            data = primitives.seal(self.suite, self.k, self.n, self.h, plain)
            self.n += 1
        self.mix_hash(data)
        return data

    def decrypt_and_hash(self, data: bytes) -> bytes:
        """Raises TagMismatch."""
        plain = data
        if self.k is not None:
            plain = primitives.unseal(self.suite, self.k, self.n, self.h, data)
            self.n += 1
        self.mix_hash(data)
        return plain


def _check_key(key: bytes, what: str) -> None:
    if len(key) != KEY_BYTES:
        raise LocalError(f"{what} is {KEY_BYTES} bytes, not {len(key)}")


class Handshake:
    """One side of a Noise handshake.  A peer's fault is RemoteError(HANDSHAKE_FAILED), a misuse LocalError.

    pattern: XX, IK or NNpsk0.  prologue: the hello.  static_private: 32 bytes, for XX and IK.
    remote_static: the responder's key, for the initiator of IK and for nobody else.
    psk: 32 bytes, for both sides of NNpsk0, which has no static keys.
    """

    def __init__(
        self,
        pattern: int,
        suite: int,
        *,
        initiator: bool,
        prologue: bytes,
        static_private: bytes | None = None,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> None:
        if pattern not in (Pattern.XX, Pattern.IK, Pattern.NNPSK0):
            raise LocalError("a handshake starts as XX, IK or NNpsk0; use fallback() for XXfallback")
        if suite not in (Suite.CHACHA, Suite.AESGCM):
            raise LocalError(f"suite {suite} is not known")
        if (remote_static is not None) != (pattern == Pattern.IK and initiator):
            raise LocalError("remote_static is for the initiator of IK, and it needs one")
        has_psk = pattern == Pattern.NNPSK0
        if (psk is not None) != has_psk or (static_private is None) != has_psk:
            raise LocalError(
                "NNpsk0 needs a psk and no static key, the other patterns need static_private and no psk"
            )
        for key, what in ((static_private, "static_private"), (remote_static, "remote_static"), (psk, "psk")):
            if key is not None:
                _check_key(key, what)
        self._pattern = Pattern(pattern)
        self._suite = Suite(suite)
        self._initiator = initiator
        self._s = static_private or b""
        self._s_public = primitives.public_key(self._s) if self._s else b""
        self._psk = psk or b""
        self._e = self._e_public = b""
        self._rs = remote_static
        self._re: bytes | None = None
        self._step = 0
        self._ended = False
        self._symmetric = SymmetricState(self._pattern, self._suite, prologue)
        if pattern == Pattern.IK:
            self._symmetric.mix_hash(remote_static or self._s_public)

    # --- messages -------------------------------------------------------------------------------------

    def write(self, payload: bytes = b"", *, ephemeral: bytes | None = None) -> bytes:
        """The next handshake message.  ephemeral: 32 bytes, fresh random ones when not given."""
        if not self.my_turn:
            raise LocalError("it is not this side's turn to write")
        payload_max = limits.NOISE_MESSAGE_BYTES_MAX - self._overhead()
        if len(payload) > payload_max:
            raise LocalError(f"a handshake payload here is at most {payload_max} bytes")
        if ephemeral is None:
            ephemeral = os.urandom(KEY_BYTES)
        _check_key(ephemeral, "ephemeral")
        out = b""
        try:
            for token in MESSAGES[self._pattern][self._step]:
                out += self._write_token(token, ephemeral)
        except LowOrderPoint:
            self._wipe()
            raise RemoteError(Code.HANDSHAKE_FAILED, "the peer sent a low-order point") from None
        out += self._symmetric.encrypt_and_hash(payload)
        self._step += 1
        return out

    def read(self, message: bytes) -> bytes:
        """The payload of the peer's next handshake message."""
        if self._ended or self.done or self.my_turn:
            raise LocalError("it is not the peer's turn to write")
        wrong_form = "a handshake message has a wrong length or a low-order point"
        if not self._overhead() <= len(message) <= limits.NOISE_MESSAGE_BYTES_MAX:
            self._wipe()
            raise RemoteError(Code.HANDSHAKE_FAILED, wrong_form)
        rest = message
        try:
            for token in MESSAGES[self._pattern][self._step]:
                rest = self._read_token(token, rest)
            payload = self._symmetric.decrypt_and_hash(rest)
        except LowOrderPoint:
            self._wipe()
            raise RemoteError(Code.HANDSHAKE_FAILED, wrong_form) from None
        except TagMismatch:
            if self._pattern is Pattern.IK and self._step == 0:
                self._ended = True
            else:
                self._wipe()
            raise RemoteError(Code.HANDSHAKE_FAILED, "a handshake message did not authenticate") from None
        self._step += 1
        return payload

    def fallback(self, prologue: bytes) -> None:
        """Go on as XXfallback after IK failed at its first message."""
        if not self.can_fall_back:
            raise LocalError("only IK that failed at its first message can fall back")
        self._pattern = Pattern.XXFALLBACK
        self._initiator = not self._initiator
        self._rs = None
        self._step = 0
        self._ended = False
        self._symmetric = SymmetricState(self._pattern, self._suite, prologue)
        # The pre-message: the ephemeral key of the side that was the initiator of IK.
        self._symmetric.mix_hash(self._re if self._re is not None else self._e_public)

    def split(self) -> Transport:
        """The transport of a handshake that is done."""
        if not self.done or self._ended:
            raise LocalError("the handshake is not done, or was split before")
        first, second = primitives.hkdf2(self._symmetric.ck, b"")
        send_key, recv_key = (first, second) if self._initiator else (second, first)
        self._s = self._e = self._psk = self._symmetric.ck = b""
        self._symmetric.k = None
        self._ended = True
        return transport_of(self._suite, send_key, recv_key)

    # --- what is known --------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """True when every message has been written and read."""
        return self._step == len(MESSAGES[self._pattern])

    @property
    def my_turn(self) -> bool:
        """True when the next message is to be written, not read, by this side."""
        return not self._ended and not self.done and (self._step % 2 == 0) == self._initiator

    @property
    def can_fall_back(self) -> bool:
        """True when fallback() may be called."""
        if self._pattern is not Pattern.IK or self.done:
            return False
        if self._initiator:
            return self._step == 1 and not self._ended
        return self._ended and self._re is not None

    @property
    def pattern(self) -> int:
        return self._pattern

    @property
    def suite(self) -> int:
        return self._suite

    @property
    def remote_static(self) -> bytes | None:
        """The peer's static key, 32 bytes, once known."""
        return self._rs

    @property
    def hash(self) -> bytes:
        """The handshake hash, 32 bytes: a channel binding once done."""
        return self._symmetric.h

    # --- tokens ---------------------------------------------------------------------------------------

    def _overhead(self) -> int:
        """Length of the next message without its payload."""
        keyed = self._symmetric.k is not None
        total = 0
        for token in MESSAGES[self._pattern][self._step]:
            if token not in _KEYS:
                keyed = True
            else:
                total += KEY_BYTES + (TAG_BYTES if token is Token.S and keyed else 0)
        return total + (TAG_BYTES if keyed else 0)

    def _write_token(self, token: Token, ephemeral: bytes) -> bytes:
        if token is Token.E:
            self._e, self._e_public = ephemeral, primitives.public_key(ephemeral)
            self._mix_ephemeral(self._e_public)
            return self._e_public
        if token is Token.S:
            return self._symmetric.encrypt_and_hash(self._s_public)
        self._mix_secret(token)
        return b""

    def _read_token(self, token: Token, rest: bytes) -> bytes:
        """What is left of the message; its length has been checked."""
        if token is Token.E:
            self._re = rest[:KEY_BYTES]
            self._mix_ephemeral(self._re)
            return rest[KEY_BYTES:]
        if token is Token.S:
            n = KEY_BYTES + (TAG_BYTES if self._symmetric.k is not None else 0)
            self._rs = self._symmetric.decrypt_and_hash(rest[:n])
            return rest[n:]
        self._mix_secret(token)
        return rest

    def _mix_ephemeral(self, public: bytes) -> None:
        """Where a pattern has a psk, the ephemeral key is mixed into the key too (section 9.2)."""
        self._symmetric.mix_hash(public)
        if self._pattern is Pattern.NNPSK0:
            self._symmetric.mix_key(public)

    def _mix_secret(self, token: Token) -> None:
        if token is Token.PSK:
            self._symmetric.mix_key_and_hash(self._psk)
        else:
            self._symmetric.mix_key(self._diffie_hellman(token))

    def _diffie_hellman(self, token: Token) -> bytes:
        with_own_static = token is Token.SS or (token is Token.ES) != self._initiator
        with_their_static = token is Token.SS or (token is Token.ES) == self._initiator
        if token is Token.EE:
            with_own_static = with_their_static = False
        private = self._s if with_own_static else self._e
        public = self._rs if with_their_static else self._re
        assert public is not None, "the pattern table names a key before it was read"
        return primitives.diffie_hellman(private, public)

    def _wipe(self) -> None:
        self._s = self._e = self._psk = b""
        self._rs = self._re = None
        self._symmetric.h = bytes(32)
        self._symmetric.ck = b""
        self._symmetric.k = None
        self._ended = True
