"""Units of the fast path beside their Python twins.

Each benchmark does ROUNDS operations, in the fast path without Python in between, so groups compare directly.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from bench._load import micro
from bench.addresses import addresses
from sim._native.memory_store import MemoryMailStore
from wa._fastpath.base.timers_twin import RESOLUTION_MS, TimerTwin
from wa._fastpath.mailbox.contract import MailStoreBase, Op, Result, What
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.noise.patterns import Pattern, Suite
from wa.noise.primitives import aes_is_fast
from wa.noise.transport import Transport
from wa.wire import frames

ROUNDS = 1_000
BODY = bytes(100)
SEND = frames.encode(frames.Send(1, 99_000_000_000_001 << 8 | 1, 7, BODY))
ACK = frames.encode(frames.AckRange(100, 16))
SUITES = [Suite.CHACHA, Suite.AESGCM] if aes_is_fast() else [Suite.CHACHA]
CONNECTIONS = 20_000
BATCH = 256
Benchmark = Callable[..., Any]  # the fixture of pytest-benchmark, which has no types


def repeat(operation: Callable[[], object]) -> Callable[[], None]:
    def run() -> None:
        for _ in range(ROUNDS):
            operation()

    return run


# --- frame codec --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("frame", [SEND, ACK], ids=["send, 100 bytes", "ack range"])
class TestFrames:
    @pytest.mark.benchmark(group="frame codec: parse")
    def test_parse(self, benchmark: Benchmark, frame: bytes) -> None:
        benchmark(micro.parse_frames, frame, ROUNDS)

    @pytest.mark.benchmark(group="frame codec: parse")
    def test_parse_twin(self, benchmark: Benchmark, frame: bytes) -> None:
        benchmark(repeat(lambda: frames.decode(frame)))

    @pytest.mark.benchmark(group="frame codec: write")
    def test_write(self, benchmark: Benchmark, frame: bytes) -> None:
        benchmark(micro.rewrite_frame, frame, ROUNDS)

    @pytest.mark.benchmark(group="frame codec: write")
    def test_write_twin(self, benchmark: Benchmark, frame: bytes) -> None:
        parsed, _ = frames.decode(frame)
        benchmark(repeat(lambda: frames.encode(parsed)))


# --- Noise handshake ---------------------------------------------------------------------------------------------

LOGINS = 50
TURNS = 40
HANDSHAKES = [Pattern.IK, Pattern.NNPSK0]


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
@pytest.mark.parametrize("pattern", HANDSHAKES, ids=lambda pattern: pattern.name)
@pytest.mark.benchmark(group=f"login: the server's side of {LOGINS} handshakes, ticket opened and the next one sealed")
def test_login(benchmark: Benchmark, pattern: Pattern, suite: Suite) -> None:
    benchmark(micro.Logins(pattern, suite).run, LOGINS)


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
def test_a_resumption_costs_at_most_half_of_ik(suite: Suite, capsys: pytest.CaptureFixture[str]) -> None:
    """Turn about, so that a machine that changes its speed changes both."""
    sides = [micro.Logins(pattern, suite) for pattern in HANDSHAKES]
    spent_s: list[list[float]] = [[], []]
    for _ in range(TURNS):
        for side, times in zip(sides, spent_s, strict=True):
            begun = time.thread_time()
            side.run(LOGINS)
            times.append(time.thread_time() - begun)
    ik, resumed = (median(times) / LOGINS * 1e3 for times in spent_s)
    ratios = sorted(b / a for a, b in zip(*spent_s, strict=True))
    with capsys.disabled():
        print(
            f"\n{suite.name}: IK {ik:.3f} ms, resumption {resumed:.3f} ms of CPU, ratio {median(ratios):.2f}"
            f" (quarter to three quarters of the turns: {ratios[TURNS // 4]:.2f} to {ratios[TURNS * 3 // 4]:.2f})"
        )
    assert median(ratios) <= 0.5


# --- Noise transport ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [119, 4_096])
@pytest.mark.parametrize("suite", [1, 2], ids=["chacha", "aesgcm"])
@pytest.mark.benchmark(group="Noise: seal and open")
class TestNoise:
    def test_seal_and_open(self, benchmark: Benchmark, suite: int, size: int) -> None:
        benchmark(micro.seal_and_open, suite, size, ROUNDS)

    def test_seal_and_open_twin(self, benchmark: Benchmark, suite: int, size: int) -> None:
        here = Transport(suite, bytes(80))
        there = Transport(suite, bytes(80))
        benchmark(repeat(lambda: there.open(here.seal(bytes(size)))))


# --- timer wheel ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1_000, CONNECTIONS])
@pytest.mark.benchmark(group="timer wheel: a due timer, set again")
class TestTimers:
    def test_wheel(self, benchmark: Benchmark, n: int) -> None:
        benchmark(micro.Wheel(n).pop_and_set, ROUNDS)

    def test_wheel_twin(self, benchmark: Benchmark, n: int) -> None:
        twin = TimerTwin()
        for name in range(n):
            twin.set(name, 1 + name * 5_000 // n)
        now_ms = 0

        def turns() -> None:
            nonlocal now_ms
            left = ROUNDS
            while left > 0:
                for name in twin.due(now_ms):
                    twin.set(name, now_ms + 5_000)
                    left -= 1
                now_ms += RESOLUTION_MS

        benchmark.pedantic(turns, rounds=2)  # type: ignore[attr-defined]


# --- tables -----------------------------------------------------------------------------------------------------


class TestTables:
    @pytest.fixture
    def tables(self) -> micro.Tables:
        return micro.Tables(addresses(0, CONNECTIONS).tolist())

    @pytest.mark.benchmark(group="look-up among 20,000")
    def test_device(self, benchmark: Benchmark, tables: micro.Tables) -> None:
        some = addresses(0, CONNECTIONS)[np.random.default_rng(1).permutation(CONNECTIONS)[:ROUNDS]]
        benchmark(tables.find_devices, some)

    @pytest.mark.benchmark(group="look-up among 20,000")
    def test_connection(self, benchmark: Benchmark, tables: micro.Tables) -> None:
        which = np.random.default_rng(1).permutation(CONNECTIONS)[:ROUNDS].astype(np.uint32)
        benchmark(tables.find_connections, which)

    @pytest.mark.benchmark(group="look-up among 20,000")
    def test_device_twin(self, benchmark: Benchmark) -> None:
        everything = {address: object() for address in addresses(0, CONNECTIONS).tolist()}
        some = addresses(0, CONNECTIONS)[np.random.default_rng(1).permutation(CONNECTIONS)[:ROUNDS]].tolist()
        benchmark(lambda: [everything[address] for address in some])

    @pytest.mark.benchmark(group="connection: made and released")
    def test_new_and_release(self, benchmark: Benchmark, tables: micro.Tables) -> None:
        benchmark(tables.new_and_release, ROUNDS)


# --- bus ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 50])
@pytest.mark.benchmark(group="bus: an envelope of 100 bytes, sent and read by the other side")
def test_bus(benchmark: Benchmark, batch: int) -> None:
    bus = micro.Bus()
    benchmark(bus.send, ROUNDS, batch, BODY)
    bus.close()


@pytest.mark.benchmark(group="bus: an envelope of 100 bytes, sent and read by the other side")
def test_bus_twin(benchmark: Benchmark) -> None:
    queue: deque[bytes] = deque()

    def run() -> None:
        for _ in range(ROUNDS):
            queue.append(BODY)
        while queue:
            queue.popleft()

    benchmark(run)


# --- mailbox --------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["lmdb", "lmdb without fsync", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MailStoreBase]:
    made: LmdbMailStore | MemoryMailStore
    if request.param == "memory":
        made = MemoryMailStore()
    else:
        made = LmdbMailStore(tmp_path / "mail", sync=request.param == "lmdb")
    made.start()
    yield made
    made.close()


@pytest.mark.benchmark(group=f"mailbox: {BATCH} envelopes committed in one batch, then deleted in one")
def test_commit(benchmark: Benchmark, store: MailStoreBase) -> None:
    seq = 0

    def run() -> None:
        nonlocal seq
        puts = [
            Op(What.PUT, recipient=1 << 8 | 1, sender=2 << 8 | 1, id=seq + k, seq=seq + k + 1, priority=10, kind=1,
               accepted_s=1, expires_s=2**31, body=BODY)
            for k in range(BATCH)
        ]  # fmt: skip
        assert set(store.apply(puts).results) == {Result.OK}
        assert set(store.apply([op._replace(what=What.DELETE, body=b"") for op in puts]).results) == {Result.OK}
        seq += BATCH

    benchmark.pedantic(run, rounds=20, warmup_rounds=1)  # type: ignore[attr-defined]
