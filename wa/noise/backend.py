"""Chooses the Noise implementation: the compiled one where it is built, else its Python twin.  Both have one face."""

from dataclasses import dataclass
from typing import Final, Protocol

from wa.noise.handshake import Handshake as TwinHandshake
from wa.noise.patterns import Suite
from wa.noise.primitives import aes_is_fast

try:
    from wa._fastpath.noise.noise import Handshake as FastHandshake
except ImportError:  # not built for this platform: a client can be pure Python
    FastHandshake = None  # type: ignore[assignment, misc]


class TransportLike(Protocol):
    """Both directions of an established connection; see wa.noise.transport."""

    def seal(self, plain: bytes) -> bytes: ...
    def open(self, cipher: bytes) -> bytes: ...
    def state(self) -> bytes: ...
    @property
    def suite(self) -> int: ...


class HandshakeLike(Protocol):
    """One side of a handshake; see wa.noise.handshake."""

    def write(self, payload: bytes = b"", *, ephemeral: bytes | None = None) -> bytes: ...
    def read(self, message: bytes) -> bytes: ...
    def fallback(self, prologue: bytes) -> None: ...
    def split(self) -> TransportLike: ...
    @property
    def done(self) -> bool: ...
    @property
    def my_turn(self) -> bool: ...
    @property
    def can_fall_back(self) -> bool: ...
    @property
    def pattern(self) -> int: ...
    @property
    def suite(self) -> int: ...
    @property
    def remote_static(self) -> bytes | None: ...
    @property
    def hash(self) -> bytes: ...


class StartHandshake(Protocol):
    """The constructor that both Handshake classes have."""

    def __call__(
        self,
        pattern: int,
        suite: int,
        *,
        initiator: bool,
        prologue: bytes,
        static_private: bytes | None = None,
        remote_static: bytes | None = None,
        psk: bytes | None = None,
    ) -> HandshakeLike: ...


@dataclass(frozen=True)
class Backend:
    """`start` makes a handshake, and a handshake makes its transport.  suites: those that run here."""

    name: str
    start: StartHandshake
    suites: tuple[Suite, ...]


_BOTH: Final = (Suite.CHACHA, Suite.AESGCM)
TWIN: Final = Backend("twin", TwinHandshake, _BOTH)
FAST: Final = (
    None
    if FastHandshake is None
    else Backend("fast", FastHandshake, _BOTH if aes_is_fast() else (Suite.CHACHA,))
)
DEFAULT: Final = FAST or TWIN
