"""Wrapping under a passphrase: what opens, what does not, and what a header may ask for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wa import limits
from wa.e2e.errors import E2EError, InvalidState, WrongPassphrase
from wa.e2e.passphrase import MEMORY_BYTES, OPERATIONS, Vault
from wa.errors import LocalError

from .world import SeededRandom

LIGHT = {"operations": 1, "memory_bytes": 8192}


def vault(passphrase: str = "correct horse") -> Vault:
    return Vault.create(passphrase, SeededRandom("vault"), **LIGHT)


@settings(max_examples=50, deadline=None)
@given(value=st.binary(max_size=300), label=st.binary(max_size=40), flip=st.integers(0, 1 << 16))
def test_what_was_wrapped_unwraps_and_nothing_else(value: bytes, label: bytes, flip: int) -> None:
    made = vault()
    wrapped = bytearray(made.wrap(value, label))
    opened = Vault.open("correct horse", made.header, SeededRandom("later"))
    assert opened.unwrap(bytes(wrapped), label) == value
    with pytest.raises(InvalidState):
        opened.unwrap(bytes(wrapped), label + b"x")
    wrapped[flip % len(wrapped)] ^= 1
    with pytest.raises(InvalidState):
        opened.unwrap(bytes(wrapped), label)


def test_nonces_are_fresh() -> None:
    made = vault()
    assert len({made.wrap(b"same", b"label")[:24] for _ in range(100)}) == 100


def test_the_wrong_passphrase_is_told_at_once() -> None:
    with pytest.raises(WrongPassphrase):
        Vault.open("correct house", vault().header, SeededRandom("later"))


def test_the_spelling_of_accents_does_not_matter() -> None:
    assert Vault.open("cafe\u0301", vault("caf\u00e9").header, SeededRandom("later")).header


def test_an_empty_passphrase_is_our_own_mistake() -> None:
    with pytest.raises(LocalError):
        vault("")


def test_a_damaged_header_never_opens() -> None:
    header = vault().header
    for at in [0, *range(13, len(header))]:  # the Argon2id parameters have their own test
        with pytest.raises(E2EError):
            Vault.open(
                "correct horse", header[:at] + bytes([header[at] ^ 1]) + header[at + 1 :], SeededRandom("x")
            )
    for end in range(len(header)):
        with pytest.raises(InvalidState):
            Vault.open("correct horse", header[:end], SeededRandom("x"))


@pytest.mark.parametrize(
    ("operations", "memory_bytes"),
    [
        (0, 8192),
        (limits.PASSPHRASE_OPERATIONS_MAX + 1, 8192),
        (1, limits.PASSPHRASE_MEMORY_BYTES_MAX + 1),
        (1, 0),
    ],
)
def test_a_header_cannot_ask_for_unbounded_work(operations: int, memory_bytes: int) -> None:
    header = vault().header
    forged = header[:1] + operations.to_bytes(4, "big") + memory_bytes.to_bytes(8, "big") + header[13:]
    with pytest.raises(InvalidState, match="asks for"):
        Vault.open("correct horse", forged, SeededRandom("x"))


def test_the_default_is_moderate_and_within_bounds() -> None:
    """RFC 9106's second choice is 3 passes over 64 MiB; libsodium's moderate is 3 over 256 MiB."""
    assert OPERATIONS >= 3
    assert MEMORY_BYTES >= 256 * 1024 * 1024
    assert OPERATIONS <= limits.PASSPHRASE_OPERATIONS_MAX
    assert MEMORY_BYTES <= limits.PASSPHRASE_MEMORY_BYTES_MAX
