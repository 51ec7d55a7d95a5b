class SimNet:
    """The network of one simulation, its clock and its agenda.  Times in virtual ns."""

    def __init__(self, seed: int) -> None: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def wall_ms(self) -> int: ...
    @property
    def ends(self) -> int:
        """Ends of streams and listeners that exist."""

    def step_wall(self, by_ms: int) -> None:
        """Sets the wall clock forward or back."""

    def link(
        self,
        local: bool,
        latency_ns: int,
        jitter_ns: int,
        split_percent: int,
        short_percent: int,
        limit: int,
    ) -> None:
        """For TCP (local=False) or the bus: what bytes go through; limit: bytes sent and not read, of new streams."""

    def wake(self, target: int, at_ns: int) -> None: ...
    def next_wake(self) -> int:
        """Moves the clock to the next wake and returns its target; -1 when there is none."""

    def breaches(self) -> list[str]:
        """Rules of os/poller.pxd that a loop broke."""

    def send(self, handle: int, data: bytes) -> int:
        """Bytes taken, 0 when the stream is full.  Raises ConnectionResetError."""

    def recv(self, handle: int) -> bytes | None:
        """What has arrived, b"" at the end of the stream, None when there is nothing.  ConnectionResetError."""

    def close(self, handle: int) -> None: ...
    def reset(self, handle: int) -> None:
        """Both sides see the connection break; what is on its way is gone."""

    def vanish(self, handle: int) -> None:
        """Nothing arrives any more, and neither side is told."""
