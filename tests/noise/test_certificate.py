"""The 113 bytes that tie a server's Noise key to the pinned root."""

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from noise_harness import CERTIFICATE, NOW_S, OLD_SERVER_PUBLIC, ROOT_PUBLIC, ROOT_SECRET, SERVER_PUBLIC, key

from wa.errors import Code, LocalError, RemoteError
from wa.noise import certificate


def refused(
    data: bytes, *, root: bytes = ROOT_PUBLIC, static: bytes = SERVER_PUBLIC, now: int = NOW_S
) -> str:
    with pytest.raises(RemoteError) as caught:
        certificate.verify(data, root, static, now)
    assert caught.value.code is Code.HANDSHAKE_FAILED
    return caught.value.detail


def test_form() -> None:
    """Byte for byte as docs/protocol.md section 1.1 has it."""
    assert len(CERTIFICATE) == certificate.CERTIFICATE_BYTES == 113
    times = (NOW_S - 100).to_bytes(8, "big") + (NOW_S + 100).to_bytes(8, "big")
    assert CERTIFICATE[:49] == b"\x01" + SERVER_PUBLIC + times


def test_signature_by_another_library() -> None:
    """`cryptography` accepts the signature over the context and the first 49 bytes."""
    root = Ed25519PublicKey.from_public_bytes(ROOT_PUBLIC)
    root.verify(CERTIFICATE[49:], b"wa certificate 1" + CERTIFICATE[:49])


def test_good() -> None:
    found = certificate.verify(CERTIFICATE, ROOT_PUBLIC, SERVER_PUBLIC, NOW_S)
    assert found == certificate.Certificate(SERVER_PUBLIC, NOW_S - 100, NOW_S + 100)
    assert certificate.parse(CERTIFICATE, ROOT_PUBLIC) == found


def test_a_new_root() -> None:
    secret, public = certificate.make_root()
    made = certificate.make(secret, SERVER_PUBLIC, 1, 2)
    assert certificate.verify(made, public, SERVER_PUBLIC, 1).not_after == 2
    assert certificate.root_public(secret) == public
    assert certificate.make_root()[0] != secret


def test_wrong_root() -> None:
    assert "root" in refused(CERTIFICATE, root=certificate.root_public(key("another root")))


def test_wrong_key() -> None:
    assert "key" in refused(CERTIFICATE, static=OLD_SERVER_PUBLIC)


@pytest.mark.parametrize(
    ("now", "why"), [(NOW_S - 101, "not valid yet"), (NOW_S + 100, "expired"), (NOW_S + 10**9, "expired")]
)
def test_out_of_time(now: int, why: str) -> None:
    assert why in refused(CERTIFICATE, now=now)


@pytest.mark.parametrize("now", [NOW_S - 100, NOW_S + 99])
def test_the_edges_of_its_time(now: int) -> None:
    certificate.verify(CERTIFICATE, ROOT_PUBLIC, SERVER_PUBLIC, now)


def test_every_bit_counts() -> None:
    for bit in range(len(CERTIFICATE) * 8):
        changed = bytearray(CERTIFICATE)
        changed[bit // 8] ^= 1 << bit % 8
        refused(bytes(changed))


@pytest.mark.parametrize("n", [0, 1, 49, 112])
def test_cut_short(n: int) -> None:
    assert f"not {n}" in refused(CERTIFICATE[:n])


def test_longer() -> None:
    assert "not 114" in refused(CERTIFICATE + b"\0")


def test_another_version() -> None:
    assert "version 2" in refused(b"\x02" + CERTIFICATE[1:])


@given(st.binary(max_size=130))
def test_anything_else(data: bytes) -> None:
    refused(data)


def test_misuse() -> None:
    for attempt in (
        lambda: certificate.make(ROOT_SECRET, SERVER_PUBLIC[:31], 1, 2),
        lambda: certificate.make(ROOT_SECRET[:31], SERVER_PUBLIC, 1, 2),
        lambda: certificate.make(ROOT_SECRET, SERVER_PUBLIC, 2, 2),
        lambda: certificate.make(ROOT_SECRET, SERVER_PUBLIC, -1, 2),
        lambda: certificate.make(ROOT_SECRET, SERVER_PUBLIC, 1, 1 << 64),
        lambda: certificate.verify(CERTIFICATE, ROOT_PUBLIC[:31], SERVER_PUBLIC, NOW_S),
    ):
        with pytest.raises(LocalError):
            attempt()
