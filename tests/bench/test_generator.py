"""The load generator tells the truth: it counts what a server and the floor deliver, and notices what they do not."""

import mmap
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench._load.fleet import Fleet as Lines
from bench._load.fleet import bucket
from bench.addresses import BASE, addresses, key_index, owners
from bench.children import Child, ChildError
from bench.crowd import Crowd
from bench.fleets import Fleet, make_group, make_pairs
from bench.generator import Load
from bench.generator import start as start_generator
from bench.histogram import BOUNDS, Histogram
from bench.kernel import Memory, is_gone, needs
from bench.population import PER_SOURCE, plan
from bench.relay import OTHER, SAME
from bench.results import Report, Series
from bench.servers import Floor, Running, Sizing, WaServe
from bench.settings import Settings
from bench.storm import everyone_has_a_ticket
from bench.streams import Streams
from wa import limits
from wa.routing.shards import worker_of
from wa.wire import frames

PAIRS = 4
CORES = sorted(os.sched_getaffinity(0))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(pairs=PAIRS, where=tmp_path, server_cores=CORES, generator_cores=CORES)


@pytest.fixture
def crowd() -> Crowd:
    return Crowd(devices=200, workers=2, streams=64)


@pytest.fixture
def running() -> Iterator[Running]:
    with Running() as block:
        yield block


def exact(load: Load, crowd: Crowd) -> int:
    """Asserts that all that was sent was heard and receipted; returns how much."""
    assert load.faults() == {}
    verdict = crowd.streams.verdict()
    assert verdict.wrong == 0
    assert verdict.sent == verdict.heard
    n = load.counts["sent"]
    assert n == load.counts["delivered"] == load.counts["received"] == load.to_recipient.n == load.to_receipt.n
    return n


# --- against real servers -------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "owner"), [(SAME, 0), (OTHER, 1)])
def test_pairs_on_the_real_server(
    settings: Settings, crowd: Crowd, running: Running, label: str, owner: int
) -> None:
    server = running.add(WaServe(Sizing(2, CORES, settings.where), crowd))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), server, label, settings)
    make_pairs(fleet, crowd, crowd.devices.take(PAIRS, 0), crowd.devices.take(PAIRS, owner))
    load = fleet.load("run", seconds=60.0, window=16, per_sender=50)
    assert exact(load, crowd) == 50 * PAIRS
    assert load.server_cpu.total > 0
    assert load.counts["bytes_in"] > 50 * PAIRS * 100
    assert fleet.counts()["live"] == 2 * PAIRS


def test_a_fleet_logs_in_step_by_step(settings: Settings, crowd: Crowd, running: Running) -> None:
    """The last step may name more lines than this client process has: parts of a population differ by one."""
    floor = running.add(Floor(CORES))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), floor, "floor", settings)
    fleet.add(crowd.devices.take(5))
    for upto, live in ((2, 2), (6, 5)):
        assert fleet.load("login", seconds=60.0, concurrent=4, upto=upto).drained
        assert fleet.counts()["live"] == live


def test_messages_for_absent_devices_are_stored_and_drained(
    settings: Settings, crowd: Crowd, running: Running
) -> None:
    server = running.add(WaServe(Sizing(2, CORES, settings.where), crowd))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), server, "absent", settings)
    sender, away = crowd.devices.take(1), crowd.devices.take(10)
    fleet.add(sender)
    fleet.login()
    fleet.send_to(0, away, crowd.streams.take(10))
    stored = fleet.load("run", seconds=60.0, window=64, per_sender=200, one_tick=True)
    assert stored.faults() == {}
    assert stored.counts["accepted"] == 200
    assert stored.counts["received"] == 0
    fleet.add(away)
    drained = fleet.load("wait_for", received=200, delivered=200)
    assert drained.faults() == {}
    assert drained.counts["received"] == drained.counts["delivered"] == 200
    assert crowd.streams.verdict().wrong == 0


def test_muted_recipients_get_everything_and_acknowledge_it_later(
    settings: Settings, crowd: Crowd, running: Running
) -> None:
    server = running.add(WaServe(Sizing(2, CORES, settings.where), crowd))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), server, "silent", settings)
    make_group(fleet, crowd, crowd.devices.take(1), crowd.devices.take(10))
    assert exact(fleet.load("run", seconds=60.0, window=16, per_sender=30), crowd) == 30
    fleet.mute(1, 10)
    silent = fleet.load("run", seconds=60.0, window=16, per_sender=200, one_tick=True)
    assert silent.faults() == {}
    assert (silent.counts["accepted"], silent.counts["delivered"]) == (200, 0)
    assert silent.to_receipt.n == 200
    # Nothing is accepted before its linger is over (the server's clock has steps of a millisecond).
    assert silent.to_receipt.quantile_ms(0.001) > limits.LINGER_MS - 2
    fleet.speak(1, 10)
    loud = fleet.load("wait_for", received=230, delivered=230)
    assert loud.faults() == {}
    assert fleet.counts()["delivered"] == fleet.counts()["received"] == 230
    assert crowd.streams.verdict().wrong == 0


def test_a_server_is_killed_and_started_on_its_data(settings: Settings, crowd: Crowd, running: Running) -> None:
    server = running.add(WaServe(Sizing(1, CORES, settings.where), crowd))
    generator = running.add(start_generator("generator", crowd, CORES))
    away, before = crowd.devices.take(3), server.pids()
    fleet = Fleet.make(generator, server, "fill", settings)
    fleet.add(crowd.devices.take(1))
    fleet.login()
    fleet.send_to(0, away, crowd.streams.take(3))
    assert fleet.load("run", seconds=60.0, window=64, per_sender=90, one_tick=True).counts["accepted"] == 90
    generator.call("drop", fleet=fleet.name)
    server.kill()
    assert all(is_gone(pid) for pid in before)
    server.start()
    assert not set(before) & set(server.pids())
    again = Fleet.make(generator, server, "drain", settings)
    again.add(away)
    assert again.load("wait_for", received=90, delivered=0).faults() == {}
    assert crowd.streams.verdict().wrong == 0


def test_tickets_are_used_and_replaced_and_a_refused_one_is_not_the_end(
    settings: Settings, crowd: Crowd, running: Running
) -> None:
    server = running.add(WaServe(Sizing(2, CORES, settings.where), crowd))
    generator = running.add(start_generator("generator", crowd, CORES))
    fleet = Fleet.make(generator, server, "resuming", settings, tickets=True)
    fleet.add(crowd.devices.take(10))
    for round_, (resumed, refused) in enumerate([(0, 0), (10, 0), (10, 0), (0, 10)], 1):
        load = fleet.login()
        assert load.faults() == {}
        counts = load.counts
        assert (counts["logins"], counts["resumed"], counts["tickets_refused"]) == (10, resumed, refused)
        everyone_has_a_ticket(fleet, 10 * round_)
        fleet.down(0, 10)
        if round_ == 3:
            server.kill()
            server.start()
    without = Fleet.make(generator, server, "without", settings)
    without.add(crowd.devices.take(3))
    for _ in range(2):
        assert without.login().counts["resumed"] == 0
        without.down(0, 3)


def test_memory_of_its_own_is_told_from_mapped_files(tmp_path: Path) -> None:
    path, size = tmp_path / "file", 16 << 20
    path.write_bytes(bytes(size))
    before = Memory.of(os.getpid())
    with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] for at in range(0, size, mmap.PAGESIZE)) == 0
        # Not from the heap, where pages that earlier tests gave back would be taken again.
        own = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        for at in range(0, len(own), mmap.PAGESIZE):
            own[at] = 1
        grown = Memory.of(os.getpid()) - before
        assert abs(grown.rss_anon - len(own)) < size // 4
        assert abs(grown.pss_anon - len(own)) < size // 4
        assert abs(grown.pss_file - size) < size // 4


@pytest.mark.parametrize(("suite", "each"), [(2, False), (1, True), (0, False), (0, True)])
def test_pairs_on_the_floor(settings: Settings, crowd: Crowd, running: Running, suite: int, each: bool) -> None:
    floor = running.add(Floor(CORES, each=each))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), floor, "floor", settings, suite)
    make_pairs(fleet, crowd, crowd.devices.take(PAIRS), crowd.devices.take(PAIRS))
    assert exact(fleet.load("run", seconds=60.0, window=16, per_sender=100), crowd) == 100 * PAIRS
    # One outstanding: four records with prefix, header and tag each, as docs/protocol.md has them.
    load = fleet.load("run", seconds=60.0, window=1, per_sender=20)
    tags = 4 * 16 if suite else 0
    # delivery numbers are 101 to 120: one byte each
    sizes = (1 + 16 + 1 + 100) + (1 + 1 + 16 + 1 + 100) + (1 + 1) + (1 + 16)
    assert load.counts["bytes_in"] + load.counts["bytes_out"] == 20 * PAIRS * (4 * 4 + tags + sizes)


def test_a_group_on_the_floor_at_a_fixed_rate(settings: Settings, crowd: Crowd, running: Running) -> None:
    floor = running.add(Floor(CORES))
    fleet = Fleet.make(running.add(start_generator("generator", crowd, CORES)), floor, "floor", settings)
    make_group(fleet, crowd, crowd.devices.take(1), crowd.devices.take(20))
    assert exact(fleet.load("run", seconds=60.0, window=64, per_sender=200), crowd) == 200
    load = fleet.load("run_rate", seconds=0.2, rate=500.0, window=64, spin=False)
    assert load.faults() == {}
    assert 0 < load.counts["sent"] <= 101


def test_a_generator_that_fails_says_so(settings: Settings, crowd: Crowd, running: Running) -> None:
    child: Child = running.add(start_generator("generator", crowd, CORES))
    with pytest.raises(ChildError, match="a body has"):
        child.call("make", fleet="x", port=1, suite=0, server_public=b"", body_bytes=1)


# --- against a relay that lies ----------------------------------------------------------------------------


class Liar(threading.Thread):
    """A plaintext floor for one pair that repeats message 3, loses message 5, damages message 7 and answers all."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]

    def run(self) -> None:
        socks = [self.listener.accept()[0] for _ in range(2)]
        by_address = {}
        for sock in socks:
            hello = self.exactly(sock, 16)
            by_address[int.from_bytes(hello[8:], "big")] = sock
            self.send(sock, frames.Ready(1, 0, 0))
        sender = by_address[min(by_address)]
        recipient = by_address[max(by_address)]
        seq = 0
        while record := self.record(sender):
            for frame in frames.decode_all(record):
                if isinstance(frame, frames.Close):
                    break
                assert isinstance(frame, frames.Send)
                body = frame.body if frame.id != 7 else frame.body[:-1] + b"\0"
                for _ in range({3: 2, 5: 0}.get(frame.id, 1)):
                    seq += 1
                    self.send(recipient, frames.Deliver(1, seq, min(by_address), frame.id, body))
                    self.record(recipient)
                self.send(sender, frames.Delivered(frame.recipient, frame.id))
        for sock in socks:
            sock.close()

    def exactly(self, sock: socket.socket, n: int) -> bytes:
        data = b""
        while len(data) < n and (more := sock.recv(n - len(data))):
            data += more
        return data

    def record(self, sock: socket.socket) -> bytes:
        return self.exactly(sock, int.from_bytes(self.exactly(sock, 4), "big"))

    def send(self, sock: socket.socket, frame: frames.Frame) -> None:
        data = frames.encode(frame)
        sock.sendall(len(data).to_bytes(4, "big") + data)


def test_losses_repetitions_and_damage_are_noticed() -> None:
    liar = Liar()
    liar.start()
    streams = Streams(1)
    lines = Lines(
        port=liar.port, suite=0, server_public=b"", keys=bytes(32), sent=streams.sent, heard=streams.heard
    )
    pair = addresses(0, 2)
    lines.add(pair, np.zeros(2, dtype=np.uint16), 0)
    assert lines.login(10.0)
    lines.send_to(0, pair[1:], streams.take(1))
    lines.begin(1, 10)
    lines.run(10.0)
    assert lines.drain(10.0)
    counts = lines.counts()
    assert (counts["sent"], counts["delivered"], counts["received"]) == (10, 10, 8)
    assert counts["duplicates"] == 1
    assert counts["gaps"] == 2  # 6 after 4, and 8 after 6
    assert counts["bad_bodies"] == 1
    lines.down(0, 2)
    liar.join(10.0)
    liar.listener.close()
    assert not liar.is_alive()


def test_a_stream_that_was_not_heard_to_its_end_is_wrong() -> None:
    streams = Streams(3)
    streams.take(3)
    streams.sent[:] = [5, 7, 0]
    streams.heard[:] = [5, 6, 0]
    verdict = streams.verdict()
    assert (verdict.sent, verdict.heard, verdict.wrong) == (12, 11, 1)
    with pytest.raises(ValueError, match="3 streams were planned"):
        streams.take(1)


# --- arithmetic ---------------------------------------------------------------------------------------------


def test_owners_are_those_of_the_server() -> None:
    some = addresses(12_345, 300)
    for workers in (1, 2, 3, 128):
        assert owners(some, workers).tolist() == [worker_of(address, workers) for address in some.tolist()]
    assert key_index(some)[0] == 12_345 % 1_024
    assert some[0] >> np.uint64(8) == BASE + 12_345


def test_buckets_hold_what_their_bounds_say() -> None:
    for value in [0, 1, 63, 64, 65, 127, 128, 1_000, 999_999, 10**9, 2**40 + 1, 2**62]:
        at = bucket(value)
        assert BOUNDS[at] <= value < BOUNDS[at + 1]
        assert BOUNDS[at + 1] - BOUNDS[at] <= max(1, value / 64)


def test_quantiles_of_a_known_distribution() -> None:
    counts = np.zeros(len(BOUNDS) - 1, dtype=np.uint64)
    for ms in range(1, 101):
        counts[bucket(ms * 1_000_000)] += 1
    histogram = Histogram(counts)
    assert histogram.quantile_ms(0.5) == pytest.approx(50, rel=0.016)
    assert histogram.quantile_ms(0.99) == pytest.approx(99, rel=0.016)
    assert (histogram + histogram).n == 200


def test_a_ratio_compares_rounds_with_themselves() -> None:
    report = Report("x", {})
    a, b = Series("a", ""), Series("b", "")
    for slow in (1.0, 2.0, 4.0):
        a.samples.append({"cpu_us": 3 * slow})
        b.samples.append({"cpu_us": 2 * slow})
    target = report.ratio("a / b", a, b, "cpu_us")
    assert (target.value, target.low, target.high) == (1.5, 1.5, 1.5)
    target.bound, target.at_most = 1.4, True
    assert target.met is False


@pytest.mark.parametrize("connections", [100, 20_000, 200_000, 1_000_000, 2_000_000])
def test_a_plan_stays_within_descriptors(connections: int) -> None:
    made = plan(connections, 20_000)
    assert connections / made.clients <= 20_000 - 100
    most = np.bincount(owners(addresses(0, connections), made.workers), minlength=made.workers).max()
    assert most + 2 * made.workers < 20_000
    assert all(need.command.startswith("sysctl -w ") for need in needs(connections, made.processes, PER_SOURCE))


def test_a_plan_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 256 workers"):
        plan(2_000_000, 1_024)
