"""What the compiled handshake has not from libsodium: SHA-256, HKDF, and public keys by way of the Edwards curve."""

import hashlib
import hmac

import pysodium
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wa._fastpath.noise.curve import x25519_public_of
from wa._fastpath.noise.hkdf import hkdf_of, sha256_of
from wa.errors import LocalError

KEYS = st.binary(min_size=32, max_size=32)


@given(KEYS)
@example(bytes(32))  # the Edwards multiplication refuses it; X25519 sets its top bit
@example(b"\xff" * 32)
@example(bytes([7]) + bytes(31))  # the bits that X25519 clears
@example(bytes(31) + b"\x80")
def test_a_public_key_is_libsodiums(private: bytes) -> None:
    assert x25519_public_of(private) == pysodium.crypto_scalarmult_curve25519_base(private)


@pytest.mark.parametrize(
    ("private", "public"),
    [
        (
            "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
            "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
        ),
        (
            "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
            "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
        ),
    ],
)
def test_public_keys_of_rfc_7748_section_6_1(private: str, public: str) -> None:
    assert x25519_public_of(bytes.fromhex(private)).hex() == public


@given(st.binary(max_size=200), st.binary(max_size=200))
@example(b"", b"")
@example(bytes(32), bytes(32))  # one block exactly, and the padding in the next
def test_sha256_of_two_parts(a: bytes, b: bytes) -> None:
    assert sha256_of(a, b) == hashlib.sha256(a + b).digest()


@given(KEYS, st.binary(max_size=64))
@example(bytes(32), b"")
def test_hkdf_is_that_of_noise_section_4_3(chaining_key: bytes, material: bytes) -> None:
    temporary = hmac.digest(chaining_key, material, "sha256")
    first = hmac.digest(temporary, b"\x01", "sha256")
    second = hmac.digest(temporary, first + b"\x02", "sha256")
    third = hmac.digest(temporary, second + b"\x03", "sha256")
    assert hkdf_of(chaining_key, material) == (first, second, third)


@pytest.mark.parametrize("wrong", [b"", bytes(31), bytes(33)])
def test_keys_have_32_bytes(wrong: bytes) -> None:
    with pytest.raises(LocalError, match=f"has 32 bytes, not {len(wrong)}"):
        x25519_public_of(wrong)
    with pytest.raises(LocalError, match=f"has 32 bytes, not {len(wrong)}"):
        hkdf_of(wrong, b"")
