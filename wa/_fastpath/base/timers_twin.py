"""The timer wheel's twin: a dictionary of deadlines, rounded up to the wheel's resolution."""

RESOLUTION_MS = 4
WAIT_MS_MAX = 2**30


class TimerTwin:
    """Same methods as `wa._fastpath.base.timers.WheelFace`; `due` is the set that pop() may choose from."""

    def __init__(self) -> None:
        self.deadlines: dict[int, int] = {}

    def set(self, name: int, deadline_ms: int) -> None:
        self.deadlines[name] = deadline_ms

    def cancel(self, name: int) -> None:
        self.deadlines.pop(name, None)

    def due(self, now_ms: int) -> frozenset[int]:
        """Those whose deadline, rounded up, is not after now rounded down."""
        tick = now_ms // RESOLUTION_MS
        return frozenset(name for name, at_ms in self.deadlines.items() if -(-at_ms // RESOLUTION_MS) <= tick)

    def wait_ms_max(self, now_ms: int) -> int:
        """When the next timer is due, from now; -1 when there is none.  The wheel may say less."""
        if not self.deadlines:
            return -1
        fires_ms = -(-min(self.deadlines.values()) // RESOLUTION_MS) * RESOLUTION_MS
        return min(max(fires_ms - now_ms, 0), WAIT_MS_MAX)
