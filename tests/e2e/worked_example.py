"""The worked example of docs/e2e.md, made from fixed private keys.

`python -m tests.e2e.worked_example` prints it; test_worked_example compares it with the document.
"""

from wa import ids
from wa.e2e import x3dh
from wa.e2e.double_ratchet import CHAIN_CONSTANT, CHAIN_INFO, MESSAGE_INFO, ROOT_INFO
from wa.e2e.keys import IdentityKey, KeyPair, PreKeyBundle
from wa.e2e.primitives import hkdf_sha256, x25519, x25519_of_ed25519_public
from wa.e2e.sessions import Sessions
from wa.e2e.stores import MemoryStore

ALICE = ids.address_of(15551230001, 1)
BOB = ids.address_of(15551230002, 2)
FILL = {
    "Alice identity seed": 0xA1,
    "Alice base private": 0xA2,
    "Alice ratchet private": 0xA3,
    "Alice next ratchet private": 0xA4,
    "Bob identity seed": 0xB1,
    "Bob signed prekey private": 0xB2,
    "Bob one-time prekey private": 0xB3,
    "Bob ratchet private": 0xB4,
}


class Script:
    """A random source that hands out the named secrets in order."""

    def __init__(self, *names: str) -> None:
        self._names = list(names)

    def __call__(self, count: int) -> bytes:
        return bytes([FILL[self._names.pop(0)]]) * count


def secret(name: str) -> bytes:
    return bytes([FILL[name]]) * 32


def example() -> str:
    alice_random = Script(
        "Alice identity seed", "Alice base private", "Alice ratchet private", "Alice next ratchet private"
    )
    bob_random = Script(
        "Bob identity seed", "Bob signed prekey private", "Bob one-time prekey private", "Bob ratchet private"
    )
    alice = Sessions(MemoryStore(), ALICE, now=lambda: 1_700_000_000, random=alice_random)
    bob = Sessions(MemoryStore(), BOB, now=lambda: 1_700_000_000, random=bob_random)
    alice.create_identity()
    bob.create_identity()
    upload = bob.prekey_upload(stock_on_server=99)
    ((one_time_id, one_time),) = upload.one_time
    bundle = PreKeyBundle(
        BOB,
        upload.identity_key,
        upload.signed_prekey_id,
        upload.signed_prekey,
        upload.signed_prekey_signature,
        one_time_id,
        one_time,
    )
    alice.start_session(bundle)
    first = alice.encrypt(BOB, b"hello Bob")
    assert bob.decrypt(ALICE, first) == b"hello Bob"
    reply = bob.encrypt(ALICE, b"hello Alice")
    assert alice.decrypt(BOB, reply) == b"hello Alice"
    lines: list[tuple[str, bytes]] = [(name, secret(name)) for name in FILL]
    lines += [
        ("Alice address", ALICE.to_bytes(8, "big")),
        ("Bob address", BOB.to_bytes(8, "big")),
        ("Alice identity key", alice.identity_key()),
        ("Bob identity key", bob.identity_key()),
        ("Bob signed prekey", upload.signed_prekey),
        ("signature", upload.signed_prekey_signature),
        ("Bob one-time prekey", one_time),
        *agreement(bundle),
        *first_step(bundle),
        ("initial message", first),
        ("reply", reply),
    ]
    return "".join(f"{name:<28}{value.hex()}\n" for name, value in lines)


def agreement(bundle: PreKeyBundle) -> list[tuple[str, bytes]]:
    identity = IdentityKey(secret("Alice identity seed"))
    base = KeyPair.of(secret("Alice base private"))
    assert bundle.one_time_prekey is not None
    agreed = x3dh.initiate(identity, bundle, Script("Alice base private"))
    return [
        ("Alice base key", base.public),
        ("DH1", bytes(x25519(identity.x25519_private, bundle.signed_prekey))),
        ("DH2", bytes(x25519(base.private, x25519_of_ed25519_public(bundle.identity_key)))),
        ("DH3", bytes(x25519(base.private, bundle.signed_prekey))),
        ("DH4", bytes(x25519(base.private, bundle.one_time_prekey))),
        ("X3DH secret", bytes(agreed.secret)),
        ("X3DH associated data", x3dh.associated_data(identity.public, bundle.identity_key, ALICE, BOB)),
    ]


def first_step(bundle: PreKeyBundle) -> list[tuple[str, bytes]]:
    """Alice's first root step and the first step of the chain it starts."""
    agreed = x3dh.initiate(IdentityKey(secret("Alice identity seed")), bundle, Script("Alice base private"))
    ratchet = KeyPair.of(secret("Alice ratchet private"))
    step = hkdf_sha256(agreed.secret, x25519(ratchet.private, bundle.signed_prekey), ROOT_INFO, 64)
    return [
        ("Alice ratchet key", ratchet.public),
        ("root key 1", bytes(step[:32])),
        ("chain key 0", bytes(step[32:])),
        ("chain key 1", bytes(hkdf_sha256(step[32:], CHAIN_CONSTANT, CHAIN_INFO, 32))),
        ("message key 0", bytes(hkdf_sha256(step[32:], CHAIN_CONSTANT, MESSAGE_INFO, 32))),
    ]


if __name__ == "__main__":
    print(example(), end="")
