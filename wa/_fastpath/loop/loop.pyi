"""Python face of a worker's event loop.  One thread runs it; only `wake` may be called from another."""

from collections.abc import Sequence
from typing import Protocol

from typing_extensions import Buffer

from wa._fastpath.mailbox.contract import MailStoreBase
from wa._fastpath.os.host import Host

# A connection handle: index in the low 32 bits, generation in the high ones.  Stale handles are harmless:
# every method that takes one returns False when that connection is gone.
Conn = int

class Login:
    """A handshake is done and the connection was handed to us, the owner of `address`; its key is not the one that
    `add_device` named.

    Answer with `admit` or `refuse`, now or in a later batch; nothing is read from the connection before.
    intent 0 = log in (admit only if `static_key` is bound to `address`), 1 = register (device number 0).
    """

    conn: Conn
    intent: int
    address: int
    static_key: bytes  # 32
    peer: str  # "203.0.113.7" for budgets

class Request:
    """A request frame.  `address` is the caller's (device 0 while registering)."""

    conn: Conn
    address: int
    static_key: bytes  # of registering connections; b"" else
    peer: str
    request_id: int
    method: int
    body: bytes

class PeerMessage:
    """Bytes another worker's cold path sent with `call_peer`."""

    worker: int
    body: bytes

class Gone:
    """A live connection of `address` ended."""

    address: int

class Wake:
    """An envelope waits for `address`, which is not connected: a push is due (custody rule 12).

    Once until the device has been online again, or `wake_lost` was called; a call repeats it after
    CALL_WAKE_AGAIN_MS.
    """

    address: int

Event = Login | Request | PeerMessage | Gone | Wake

class Sink(Protocol):
    """The cold path.  An exception out of either method is a programming error and stops the worker."""

    def on_batch(self, events: list[Event]) -> None:
        """Everything cold of one loop turn, in order of arrival."""

    def on_wake(self) -> None:
        """After `wake()` from another thread (several wakes may join)."""

    def on_tick(self) -> None:
        """About once a second."""

class Loop:
    def __init__(
        self,
        *,
        worker: int,
        workers: int,
        store: MailStoreBase,
        sink: Sink,
        static_private: bytes,
        certificate: bytes,
        run_dir: str,
        ticket_key: bytes | None = None,
        overrides: dict[str, int] | None = None,
        host: Host | None = None,
        trace: Buffer | None = None,
        owners: Sequence[int] | None = None,
    ) -> None:
        """Bounds come from wa.limits; `overrides` (same names, lower case) replaces some, e.g. linger_ms.

        ticket_key: 32 bytes that all workers of a server share; without it no resumption tickets are given or taken.
        host: the real machine when None; a simulator hands in its own.
        trace: writable memory for the ring of wa.runtime.trace, mapped for as long as the loop lives.
        owners: the worker of each shard, the same for all workers; None: as wa.routing.shards.owners_of has it.
        """

    def listen(self, fd: int) -> None:
        """Accept clients on this listening TCP socket (non-blocking).  The caller keeps it open."""

    def start(self) -> None:
        """Counts what the mailbox holds and opens the bus: from here on other workers reach this one.  Once."""

    def run(self) -> None:
        """Turns until `stop`; then closes every connection with shutting_down and commits what is pending."""

    def turn(self) -> int:
        """One turn that never waits, for a scheduler outside; returns how many ms the next one may wait."""

    def check(self) -> None:
        """Raises AssertionError when an invariant of the worker's state does not hold.  Slow; a debug build calls
        it every few turns, a simulator after each."""

    def stop(self) -> None:
        """Ends `run` after the current turn.  Also safe in a signal handler."""

    def wake(self) -> None: ...
    def add_device(self, address: int, static_key: bytes | None = None) -> None:
        """Envelopes to this address are taken from now on.  Call for every known device before `run`.

        static_key: the one bound to it; whoever proves it is admitted without a Login.  None: every login is a Login.
        Raises LocalError when it has not 32 bytes."""

    def remove_device(self, address: int, code: int) -> None:
        """Refuses further envelopes, closes its connection with `code`, purges its mailbox (senders are told)."""

    def admit(self, conn: Conn, address: int) -> bool:
        """The login or registration is good: the connection now is the device's, an older one is closed with
        `replaced` once the first transport record opened.  After a registration it is live at once."""

    def refuse(self, conn: Conn, code: int, retry_after_ms: int = 0) -> bool:
        """Sends close and ends the connection."""

    def respond(self, conn: Conn, request_id: int, status: int, body: bytes) -> bool: ...
    def notice(self, address: int, notice: int, body: bytes) -> bool:
        """False when the device is not connected here."""

    def is_connected(self, address: int) -> bool: ...
    def wake_lost(self, address: int) -> None:
        """The device was not woken after all: the next envelope that waits for it is a Wake again."""

    def is_waiting(self, recipient: int, sender: int, envelope_id: int) -> bool:
        """True while the envelope is in custody here: in flight, on its way to disk, in the mailbox, or reported."""

    def is_reported(self, recipient: int, sender: int, envelope_id: int) -> bool:
        """True while a receipt for its sender waits here: how it ended is still on the way."""

    def call_peer(self, worker: int, body: bytes) -> bool:
        """To another worker's sink as PeerMessage, best effort.  False when that worker is not reachable now."""

    def stats(self) -> dict[str, int]:
        """Counters since start and gauges; names are metric names without prefix."""
