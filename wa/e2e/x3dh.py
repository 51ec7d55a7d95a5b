"""X3DH: two devices that may never be online together agree on a secret.

Source: The X3DH Key Agreement Protocol, revision 1 (Signal, 2016), sections 2.2, 3.3 and 3.4, with

    curve X25519, hash SHA-256, info "WhatsAppInitial"
    secret = HKDF(salt 32 zero bytes, 0xFF x 32 || DH1 || DH2 || DH3 [|| DH4], info, 32 bytes)
    DH1 = identity(initiator), signed prekey(responder)      DH2 = base key, identity(responder)
    DH3 = base key, signed prekey                            DH4 = base key, one-time prekey
    associated data = identity key(initiator) 32 || identity key(responder) 32
                      || version 1 || address(initiator) 8 || address(responder) 8

The base key is the initiator's ephemeral key.  The associated data binds both identity keys and both addresses to every
later message, so the server cannot swap them (section 4.8, unknown key share).

Elsewhere: where prekeys live and replay (`prekeys`), which identities are trusted (`identities`).
"""

from dataclasses import dataclass, field

from wa.e2e.codec import u64
from wa.e2e.errors import InvalidBundle, InvalidKey
from wa.e2e.keys import IdentityKey, KeyPair, PreKeyBundle, Random
from wa.e2e.primitives import hkdf_sha256, wipe, x25519, x25519_of_ed25519_public

E2E_VERSION = 1
INFO = b"WhatsAppInitial"
_PADDING = b"\xff" * 32
_SALT = bytes(32)


@dataclass(frozen=True)
class Agreement:
    """The secret both sides now share (wipe it after use) and the initiator's public base key."""

    secret: bytearray = field(repr=False)
    base_key: bytes


def associated_data(
    initiator_identity: bytes, responder_identity: bytes, initiator_address: int, responder_address: int
) -> bytes:
    """81 bytes that every message of the session authenticates."""
    return (
        initiator_identity
        + responder_identity
        + bytes([E2E_VERSION])
        + u64(initiator_address)
        + u64(responder_address)
    )


def initiate(identity: IdentityKey, bundle: PreKeyBundle, random: Random) -> Agreement:
    """The initiator's half.  Verifies the bundle first.  Raises InvalidBundle."""
    bundle.verify()
    base = KeyPair.generate(random)
    try:
        secrets = [
            x25519(identity.x25519_private, bundle.signed_prekey),
            x25519(base.private, x25519_of_ed25519_public(bundle.identity_key)),
            x25519(base.private, bundle.signed_prekey),
        ]
        if bundle.one_time_prekey is not None:
            secrets.append(x25519(base.private, bundle.one_time_prekey))
    except InvalidKey as error:
        raise InvalidBundle(str(error)) from None
    return Agreement(_derive(secrets), base.public)


def respond(
    identity: IdentityKey,
    signed_prekey_private: bytes,
    one_time_prekey_private: bytes | None,
    initiator_identity: bytes,
    base_key: bytes,
) -> Agreement:
    """The responder's half.  Raises InvalidKey for keys of the initiator that are refused."""
    peer = x25519_of_ed25519_public(initiator_identity)
    secrets = [
        x25519(signed_prekey_private, peer),
        x25519(identity.x25519_private, base_key),
        x25519(signed_prekey_private, base_key),
    ]
    if one_time_prekey_private is not None:
        secrets.append(x25519(one_time_prekey_private, base_key))
    return Agreement(_derive(secrets), base_key)


def _derive(secrets: list[bytearray]) -> bytearray:
    joined = bytearray(_PADDING)
    for secret in secrets:
        joined += secret
    out = hkdf_sha256(_SALT, joined, INFO, 32)
    wipe(joined, *secrets)
    return out
