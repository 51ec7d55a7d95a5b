from collections.abc import Callable

from sim._native.net import SimNet
from wa._fastpath.os.host import Host

class SimHost(Host):
    """The simulated machine of one worker process.

    target: what SimNet.next_wake returns for it.  others: shared by all workers, filled by bus_listen.
    on_death: called when the process dies, also in the middle of a turn.  key_pool: ephemeral keys are drawn from so
    many fixed ones; 0 = always fresh.
    """

    on_wait: Callable[[int], object] | None
    """Called with the ns that a wait() with nothing to report may last.  None: no wait() lasts."""

    def __init__(
        self,
        net: SimNet,
        target: int,
        others: dict[int, SimHost],
        on_death: Callable[[], None] | None,
        key_pool: int = 0,
    ) -> None: ...
    def listen(self) -> int:
        """The fd of the listening socket for clients."""

    def connect(self, target: int, address: bytes, port: int = 0) -> int:
        """A new TCP connection of client `target`; its handle for SimNet.  Raises ConnectionRefusedError."""

    def ready(self) -> bool:
        """Would a wait() report anything now?"""

    def kill(self) -> None: ...
    def die_in(self, calls: int) -> None:
        """The process dies at its so-many-th call to the outside from now."""

    @property
    def dead(self) -> bool: ...
    @property
    def open_fds(self) -> int: ...
