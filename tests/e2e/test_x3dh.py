"""X3DH against the PyPI package x3dh, and what must be refused."""

import hashlib
from dataclasses import replace

import pytest
import x3dh as reference
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st
from x3dh.crypto_provider import HashFunction
from x3dh.identity_key_pair import IdentityKeyPairSeed
from x3dh.types import Bundle, IdentityKeyFormat

from wa.e2e import x3dh
from wa.e2e.errors import InvalidBundle, InvalidKey
from wa.e2e.keys import IdentityKey, KeyPair, PreKeyBundle
from wa.e2e.primitives import x25519, x25519_of_ed25519_public

from .points import ED25519_REFUSED, X25519_LOW_ORDER, X25519_NON_CANONICAL
from .world import ALICE, BOB, SeededRandom

seeds = st.binary(min_size=32, max_size=32)


class ReferenceState(reference.BaseState):
    """The package under our constants; public keys are encoded as they are."""

    @staticmethod
    def _encode_public_key(key_format: IdentityKeyFormat, pub: bytes) -> bytes:
        return pub


def reference_state(seed: bytes) -> ReferenceState:
    return ReferenceState.create(
        IdentityKeyFormat.ED_25519, HashFunction.SHA_256, b"WhatsAppInitial", IdentityKeyPairSeed(seed)
    )


def finish(coroutine):
    """The result of a coroutine that never waits."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


def appendix(initiator: int, responder: int) -> bytes:
    return b"\x01" + initiator.to_bytes(8, "big") + responder.to_bytes(8, "big")


@settings(max_examples=30, deadline=None)
@given(alice_seed=seeds, bob_seed=seeds, one_time=st.booleans())
def test_our_initiator_agrees_with_their_responder(
    alice_seed: bytes, bob_seed: bytes, one_time: bool
) -> None:
    identity, bob = IdentityKey(alice_seed), reference_state(bob_seed)
    bob.generate_pre_keys(1)
    (prekey,) = bob.bundle.pre_keys
    bundle = PreKeyBundle(
        BOB,
        bob.bundle.identity_key,
        1,
        bob.bundle.signed_pre_key,
        bob.bundle.signed_pre_key_sig,
        1 if one_time else None,
        prekey if one_time else None,
    )
    ours = x3dh.initiate(identity, bundle, SeededRandom("alice"))
    header = reference.Header(identity.public, ours.base_key, bundle.signed_prekey, bundle.one_time_prekey)
    secret, associated_data, _ = finish(
        bob.get_shared_secret_passive(header, appendix(ALICE, BOB), require_pre_key=one_time)
    )
    assert ours.secret == secret
    assert x3dh.associated_data(identity.public, bundle.identity_key, ALICE, BOB) == associated_data


@settings(max_examples=30, deadline=None)
@given(alice_seed=seeds, bob_seed=seeds, one_time=st.booleans())
def test_our_responder_agrees_with_their_initiator(
    alice_seed: bytes, bob_seed: bytes, one_time: bool
) -> None:
    alice, identity = reference_state(alice_seed), IdentityKey(bob_seed)
    random = SeededRandom("bob")
    signed, prekey = KeyPair.generate(random), KeyPair.generate(random)
    bundle = Bundle(
        identity.public,
        signed.public,
        identity.sign(signed.public),
        frozenset({prekey.public} if one_time else ()),
    )
    secret, associated_data, header = finish(
        alice.get_shared_secret_active(bundle, appendix(ALICE, BOB), require_pre_key=one_time)
    )
    ours = x3dh.respond(
        identity,
        signed.private,
        prekey.private if one_time else None,
        header.identity_key,
        header.ephemeral_key,
    )
    assert ours.secret == secret
    assert x3dh.associated_data(header.identity_key, identity.public, ALICE, BOB) == associated_data


def bob_bundle() -> PreKeyBundle:
    random = SeededRandom("bob")
    identity = IdentityKey(random(32))
    signed, prekey = KeyPair.generate(random), KeyPair.generate(random)
    return PreKeyBundle(
        BOB, identity.public, 1, signed.public, identity.sign(signed.public), 1, prekey.public
    )


def test_the_signature_is_verified_before_any_secret_is_made() -> None:
    bundle = bob_bundle()
    for at in range(64):
        signature = bytearray(bundle.signed_prekey_signature)
        signature[at] ^= 1
        random = SeededRandom("alice")
        with pytest.raises(InvalidBundle, match="signature"):
            x3dh.initiate(
                IdentityKey(bytes(32)), replace(bundle, signed_prekey_signature=bytes(signature)), random
            )
        assert random(32) == SeededRandom("alice")(32), "a base key was drawn before the check"


@pytest.mark.parametrize(
    "change",
    [
        {"signed_prekey": bytes(31)},
        {"signed_prekey_signature": bytes(63)},
        {"identity_key": bytes(33)},
        {"signed_prekey_id": 0},
        {"signed_prekey_id": 1 << 32},
        {"one_time_prekey_id": None},
        {"one_time_prekey": None},
        {"one_time_prekey_id": 0},
        {"one_time_prekey": bytes(31)},
    ],
)
def test_a_malformed_bundle_is_refused(change: dict) -> None:
    with pytest.raises(InvalidBundle):
        x3dh.initiate(IdentityKey(bytes(32)), replace(bob_bundle(), **change), SeededRandom("alice"))


@pytest.mark.parametrize("point", X25519_LOW_ORDER + X25519_NON_CANONICAL, ids=bytes.hex)
def test_bad_x25519_points_are_refused_everywhere(point: bytes) -> None:
    random = SeededRandom("anyone")
    identity = IdentityKey(random(32))
    with pytest.raises(InvalidKey):
        x25519(random(32), point)
    signed = replace(bob_bundle(), identity_key=identity.public, signed_prekey=point)
    signed = replace(signed, signed_prekey_signature=identity.sign(point))
    for bundle in (signed, replace(bob_bundle(), one_time_prekey=point)):
        with pytest.raises(InvalidBundle):
            x3dh.initiate(IdentityKey(bytes(32)), bundle, random)
    with pytest.raises(InvalidKey):
        x3dh.respond(identity, random(32), None, identity.public, point)


@pytest.mark.parametrize("point", ED25519_REFUSED, ids=bytes.hex)
def test_bad_identity_keys_are_refused(point: bytes) -> None:
    random = SeededRandom("anyone")
    with pytest.raises(InvalidKey):
        x25519_of_ed25519_public(point)
    with pytest.raises(InvalidBundle):
        x3dh.initiate(IdentityKey(bytes(32)), replace(bob_bundle(), identity_key=point), random)
    with pytest.raises(InvalidKey):
        x3dh.respond(IdentityKey(bytes(32)), random(32), None, point, KeyPair.generate(random).public)


def test_the_secret_is_the_formula_of_the_specification() -> None:
    """Spelt out with the `cryptography` package: padding, order of the four secrets, zero salt, info."""

    def dh(private: bytes, public: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )

    random = SeededRandom("everyone")
    alice_seed, bob_seed, base, signed, prekey = (random(32) for _ in range(5))
    alice_private = hashlib.sha512(alice_seed).digest()[:32]
    alice, bob = IdentityKey(alice_seed), IdentityKey(bob_seed)
    base_public = KeyPair.of(base).public
    bob_u = x25519_of_ed25519_public(bob.public)
    signed_public, prekey_public = KeyPair.of(signed).public, KeyPair.of(prekey).public
    material = b"\xff" * 32 + dh(alice_private, signed_public) + dh(base, bob_u)
    material += dh(base, signed_public) + dh(base, prekey_public)
    expected = HKDF(SHA256(), 32, bytes(32), b"WhatsAppInitial").derive(material)
    assert x3dh.respond(bob, signed, prekey, alice.public, base_public).secret == expected
