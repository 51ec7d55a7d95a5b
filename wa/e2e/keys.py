"""Identity keys, prekeys and the bundles that carry their public halves.

The identity key is an Ed25519 key pair (RFC 8032).  It signs the signed prekey with plain Ed25519 and takes
part in Diffie-Hellman after the birational map to Curve25519 that libsodium provides.  Signal does the
reverse: a Curve25519 identity key that signs with XEdDSA.  Both give one key pair for both jobs; Ed25519 was
chosen because every library verifies its signatures (the server's included) and because they are
deterministic, so that no signature depends on a random source.  It is `IdentityKeyFormat.ED_25519` of the
`x3dh` package.  The identity key is independent of the Noise transport key.

What the identity key signs: the 32 raw bytes of a signed prekey, and nothing else of that length.  Any
further use of it as a signing key must sign messages that begin with a label and are longer than 32 bytes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from wa.e2e.errors import InvalidBundle, InvalidKey
from wa.e2e.primitives import (
    KEY_BYTES,
    check_x25519_public,
    ed25519_of_seed,
    ed25519_sign,
    ed25519_verifies,
    x25519_of_ed25519_public,
    x25519_of_ed25519_secret,
    x25519_public,
)

PREKEY_ID_MAX = (1 << 32) - 1

Random = Callable[[int], bytes]
"""`random(n)` returns n bytes fit for keys (in production `os.urandom`)."""
Now = Callable[[], int]
"""`now()` returns wall-clock seconds since the epoch."""


@dataclass(frozen=True)
class PreKeyBundle:
    """What the server hands out about one device, for one session."""

    address: int  # of the device, wa.ids
    identity_key: bytes  # Ed25519, 32
    signed_prekey_id: int  # 1..2^32-1
    signed_prekey: bytes  # X25519, 32
    signed_prekey_signature: bytes  # 64, Ed25519 by identity_key over signed_prekey
    one_time_prekey_id: int | None = None  # 1..2^32-1
    one_time_prekey: bytes | None = None  # X25519, 32

    def verify(self) -> None:
        """Checks form, signature and keys; raises InvalidBundle.  Must precede any use of the bundle."""
        if (self.one_time_prekey_id is None) != (self.one_time_prekey is None):
            raise InvalidBundle("a one-time prekey without its id, or the reverse")
        for prekey_id in (self.signed_prekey_id, self.one_time_prekey_id):
            if prekey_id is not None and not 1 <= prekey_id <= PREKEY_ID_MAX:
                raise InvalidBundle("a prekey id is out of range")
        try:
            x25519_of_ed25519_public(self.identity_key)
            if not ed25519_verifies(self.identity_key, self.signed_prekey, self.signed_prekey_signature):
                raise InvalidBundle("the signature of the signed prekey does not verify")
            check_x25519_public(self.signed_prekey)
            if self.one_time_prekey is not None:
                check_x25519_public(self.one_time_prekey)
        except InvalidKey as error:
            raise InvalidBundle(str(error)) from None


@dataclass(frozen=True)
class PreKeyUpload:
    """The public halves that go to the server."""

    identity_key: bytes
    signed_prekey_id: int
    signed_prekey: bytes
    signed_prekey_signature: bytes
    one_time: list[tuple[int, bytes]]  # (id, key); adds to the server's stock


class IdentityKey:
    """This device's identity key pair, made from its 32-byte Ed25519 seed."""

    __slots__ = ("_secret", "public", "x25519_private")

    def __init__(self, seed: bytes) -> None:
        self.public, self._secret = ed25519_of_seed(seed)
        self.x25519_private = x25519_of_ed25519_secret(self._secret)

    def sign(self, message: bytes) -> bytes:
        return ed25519_sign(self._secret, message)


@dataclass(frozen=True)
class KeyPair:
    """An X25519 key pair."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def of(cls, private: bytes) -> "KeyPair":
        return cls(private, x25519_public(private))

    @classmethod
    def generate(cls, random: Random) -> "KeyPair":
        return cls.of(random(KEY_BYTES))
