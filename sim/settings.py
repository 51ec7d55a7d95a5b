"""Settings of a run: what a seed decides before it starts."""

import random
from dataclasses import dataclass, field
from typing import Final

from wa import limits

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000

FAULTS: Final = (
    "cut",
    "vanish",
    "crash_client",
    "offline",
    "deaf",
    "mute",
    "crash_worker",
    "crash_midway",
    "restart",
    "crash_all",
    "power_loss",
    "resize",
    "disk_full",
    "disk_failed",
    "slow_disk",
    "read_errors",
    "storm",
    "stall",
    "clock_step",
    "damage",
    "remove_device",
)


@dataclass(frozen=True)
class Link:
    latency_ns: int
    jitter_ns: int
    split_percent: int
    short_percent: int
    limit_bytes: int


@dataclass(frozen=True)
class Settings:
    """Times in ns unless named otherwise."""

    seed: int
    workers: int
    devices_of: tuple[int, ...]  # how many devices each number has
    active_ns: int  # faults and new envelopes until then
    sends: int
    overrides: dict[str, int]
    tcp: Link
    bus: Link
    disk_ns: int
    disk_jitter_ns: int
    turn_ns: int  # least time between the starts of a worker's turns
    commit_ns: int  # from a client's first change to its commit
    ack_ns: int
    resend_after_ns: int
    fault_every_ns: int
    faults: tuple[str, ...]
    pipeline: int = 64  # envelopes that a client sends before it waits for answers
    fresh_start: bool = True  # when the faults are over everybody reconnects, or connections go on as they are
    key_pool: int = 64
    control: str = "none"
    bounds: dict[str, int] = field(default_factory=dict)

    @property
    def store_control(self) -> str:
        return self.control if self.control in ("early", "forgetful", "no_dedup", "silent") else "none"

    @property
    def fsync(self) -> bool:
        return self.control != "no_fsync"

    def bound(self, name: str) -> int:
        """A bound of wa.limits, by its lower-case name, with this run's overrides."""
        value = self.overrides.get(name)
        return int(getattr(limits, name.upper())) if value is None else value


def _link(rng: random.Random, local: bool) -> Link:
    if local:
        latency, jitter = rng.choice([(20_000, 20_000), (20_000, 2 * MS), (5 * MS, 50 * MS)])
        limit = rng.choice([4096, 212_992])
    else:
        latency, jitter = rng.choice([(200_000, 100_000), (10 * MS, 5 * MS), (100 * MS, 400 * MS)])
        # A window of a kilobyte only where a large body still gets through before it counts as unacknowledged.
        limit = rng.choice([1024, 16_384, 131_072]) if latency < MS else rng.choice([65_536, 131_072])
    return Link(latency, jitter, rng.choice([0, 5, 50]), rng.choice([0, 0, 10]), limit)


def _overrides(rng: random.Random, answer_ns: int) -> dict[str, int]:
    """answer_ns: how long an honest client may take to acknowledge."""
    out = {
        "linger_ms": rng.choice([0, 5, 50, 50, 400]),
        "idle_ms_max": 15_000,
        "authenticate_ms_max": 12_000,
        "handshake_step_ms_max": 6_000,
    }
    if rng.random() < 0.5:
        out["delivery_window_max"] = rng.choice([1, 2, 3, 8])
    if rng.random() < 0.4:
        out["sender_window_max"] = rng.choice([1, 2, 5, 16])
    if rng.random() < 0.4:
        out["mailbox_envelopes_max"] = rng.choice([1, 2, 5, 20])
        out["overflow_prune"] = rng.choice([0, 1])
    if rng.random() < 0.5:
        out["resend_after_ms"] = max(rng.choice([300, 1000]), answer_ns // MS)
    if rng.random() < 0.2:
        out["delivery_window_bytes_max"] = 2_000
    if rng.random() < 0.15:
        out["bus_buffer_bytes_max"] = 70_000
    if rng.random() < 0.15:
        out["batch_bytes_max"] = 70_000
    if rng.random() < 0.1:
        out["output_bytes_max"] = 400_000
    return out


def settings_of(
    seed: int, *, control: str = "none", faults: tuple[str, ...] | None = None, sends: int | None = None
) -> Settings:
    """Deterministic: the same arguments give the same settings.  faults=() is a run without any."""
    rng = random.Random(f"settings {seed}")
    drawn = tuple(f for f in FAULTS if rng.random() < rng.choice([0.2, 0.6]))
    kinds = drawn if faults is None else faults
    active = rng.choice([4, 8, 8, 15]) * SECOND
    tcp, bus = _link(rng, False), _link(rng, True)
    commit_ns = rng.choice([0, 2 * MS, 40 * MS, 500 * MS])
    ack_ns = rng.choice([0, 0, 5 * MS, 100 * MS])
    overrides = _overrides(rng, 2 * (tcp.latency_ns + tcp.jitter_ns) + commit_ns + ack_ns)
    return Settings(
        seed=seed,
        workers=rng.choice([1, 1, 2, 2, 3, 4]),
        devices_of=tuple(rng.choice([1, 1, 1, 2, 3]) for _ in range(rng.randint(2, 5))),
        active_ns=active,
        sends=sends if sends is not None else rng.choice([10, 30, 30, 60]),
        overrides=overrides,
        tcp=tcp,
        bus=bus,
        disk_ns=rng.choice([100_000, 2 * MS, 20 * MS]),
        disk_jitter_ns=rng.choice([100_000, 10 * MS, 100 * MS]),
        turn_ns=rng.choice([20_000, 200_000, 3 * MS]),
        commit_ns=commit_ns,
        ack_ns=ack_ns,
        resend_after_ns=rng.choice([10, 10, 3]) * SECOND,
        fault_every_ns=active // rng.choice([2, 6, 12, 25]),
        faults=kinds,
        pipeline=10_000 if rng.random() < 0.1 else overrides.get("sender_window_max", 64),
        fresh_start=rng.random() < 0.5,
        key_pool=rng.choice([64] * 49 + [0]),
        control=control,
    )
