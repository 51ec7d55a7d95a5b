"""The bodies of docs/protocol.md, section 10.9, opened by following section 9 with the `cryptography` package.

Nothing of wa is imported: what is checked here is that the page alone is enough.
"""

import hashlib
import re
from pathlib import Path

import msgpack
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

DOCUMENT = (Path(__file__).parent.parent.parent / "docs/protocol.md").read_text()
P = 2**255 - 19
ALICE, BOB = (15551230001 << 8) + 1, (15551230002 << 8) + 1


def example() -> list[tuple[str, bytes]]:
    match = re.search(r"^### 10\.9 .*?```text\n(.*?)```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert match is not None
    entries: list[tuple[str, bytes]] = []
    for line in match[1].splitlines():
        if line.startswith("    "):
            label, data = entries.pop()
            entries.append((label, data + bytes.fromhex(line)))
        else:
            entries.append((line, b""))
    return [(label, data) for label, data in entries if data]


def private(label: str) -> bytes:
    return hashlib.sha256(f"wa example {label}".encode()).digest()


def dh(own: bytes, other: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(own).exchange(X25519PublicKey.from_public_bytes(other))


def hkdf(salt: bytes, secret: bytes, info: str, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info.encode()).derive(secret)


def x25519_of_identity_seed(seed: bytes) -> bytes:
    return hashlib.sha512(seed).digest()[:32]


def x25519_of_identity(key: bytes) -> bytes:
    y = int.from_bytes(key, "little") % 2**255
    return ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")


class Chain:
    def __init__(self, key: bytes) -> None:
        self.key = key

    def message_key(self) -> bytes:
        made = hkdf(self.key, b"\x01", "WhatsAppMessageKey", 32)
        self.key = hkdf(self.key, b"\x01", "WhatsAppChainKey", 32)
        return made


def root_step(root: bytes, own: bytes, other: bytes) -> tuple[bytes, Chain]:
    derived = hkdf(root, dh(own, other), "WhatsAppRootKey", 64)
    return derived[:32], Chain(derived[32:])


def opened(chain: Chain, data: bytes, header_at: int, associated: bytes) -> bytes:
    return AESGCM(chain.message_key()).decrypt(bytes(12), data[header_at + 40 :], associated + data[: header_at + 40])


def unpadded(content: bytes) -> dict[str, object]:
    body = msgpack.unpackb(content.rstrip(b"\0").removesuffix(b"\x80"))
    assert isinstance(body, dict)
    return body


def test_bodies() -> None:
    published = dict(example()[:4])
    identity, signed, signature, one_time = published.values()
    Ed25519PublicKey.from_public_bytes(identity).verify(signature, signed)
    contents = [data for label, data in example() if label.startswith("content")]
    first, second, answer = [data for label, data in example() if label == "body"]

    assert first[:2] == second[:2] == b"\x01\x01"
    alice_identity, base = first[2:34], first[34:66]
    assert first[66:74] == bytes.fromhex("00000001 00000001")
    signed_private, one_time_private = private("bob signed prekey"), private("bob one-time prekey")
    assert X25519PrivateKey.from_private_bytes(one_time_private).public_key().public_bytes_raw() == one_time
    secrets = (
        dh(signed_private, x25519_of_identity(alice_identity)),
        dh(x25519_of_identity_seed(private("bob identity")), base),
        dh(signed_private, base),
        dh(one_time_private, base),
    )
    secret = hkdf(bytes(32), b"\xff" * 32 + b"".join(secrets), "WhatsAppInitial", 32)
    addresses = ALICE.to_bytes(8, "big") + BOB.to_bytes(8, "big")
    associated = alice_identity + identity + b"\x01" + addresses

    root, receiving = root_step(secret, signed_private, first[74:106])
    generation = bytes(4)
    assert first[106:114] == bytes.fromhex("00000000 00000000")
    assert opened(receiving, first, 74, associated) == generation + contents[0]
    assert second[106:114] == bytes.fromhex("00000000 00000001")
    assert opened(receiving, second, 74, associated) == generation + contents[1]

    assert answer[:2] == b"\x01\x02"
    ratchet = X25519PrivateKey.from_private_bytes(private("bob ratchet")).public_key().public_bytes_raw()
    assert answer[2:34] == ratchet
    root, sending = root_step(root, private("bob ratchet"), first[74:106])
    assert opened(sending, answer, 2, associated) == generation + contents[2]
    assert [unpadded(content)["text"] for content in contents] == ["hello", "are you there?", "yes"]
