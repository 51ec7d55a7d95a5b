"""Handshake patterns and suites of the Noise Protocol Framework (revision 34) that wa speaks.

The table is data; `handshake.py` walks it.  XXfallback is written from its own initiator, the server (section
10.2: a Bob-initiated pattern), so `es` and `se` are exchanged against the arrows of docs/protocol.md.
"""

from enum import Enum, IntEnum
from typing import Final


class Suite(IntEnum):
    """Numbers of the hello's suite byte."""

    CHACHA = 1  # 25519_ChaChaPoly_SHA256
    AESGCM = 2  # 25519_AESGCM_SHA256


class Pattern(IntEnum):
    """Numbers of the hello's pattern byte; XXFALLBACK is never offered, only fallen back to."""

    XX = 1
    IK = 2
    NNPSK0 = 3
    XXFALLBACK = 4


class Token(Enum):
    """What one side does while it writes or reads a handshake message (section 7.1)."""

    E = "e"
    S = "s"
    EE = "ee"
    ES = "es"
    SE = "se"
    SS = "ss"
    PSK = "psk"


_ROWS: Final = {
    Pattern.XX: "e / e ee s es / s se",
    Pattern.IK: "e es s ss / e ee se",
    Pattern.NNPSK0: "psk e / e ee",
    Pattern.XXFALLBACK: "e ee s se / s es",
}
MESSAGES: Final[dict[Pattern, tuple[tuple[Token, ...], ...]]] = {
    pattern: tuple(tuple(Token(word) for word in message.split()) for message in row.split("/"))
    for pattern, row in _ROWS.items()
}

_PATTERN_NAME: Final = {
    Pattern.XX: "XX",
    Pattern.IK: "IK",
    Pattern.NNPSK0: "NNpsk0",
    Pattern.XXFALLBACK: "XXfallback",
}
_CIPHER_NAME: Final = {Suite.CHACHA: "ChaChaPoly", Suite.AESGCM: "AESGCM"}


def protocol_name(pattern: Pattern, suite: Suite) -> bytes:
    """The name that starts the handshake hash, section 8."""
    return f"Noise_{_PATTERN_NAME[pattern]}_25519_{_CIPHER_NAME[suite]}_SHA256".encode()
