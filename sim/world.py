"""The scheduler of one simulation: virtual time, the agenda, and everything that lives in it."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import Final

import pysodium

from sim._native.memory_disk import Table
from sim._native.net import SimNet
from sim._native.poller import SimHost
from sim.device import NOBODY, Device
from sim.faults import Faults
from sim.history import History, short
from sim.ledger import Clock, Key, Ledger
from sim.settings import MS, SECOND, Link, Settings
from sim.worker import STORE_TARGETS, MailDisk, Worker
from wa import ids
from wa._fastpath.mailbox.contract import rank_of
from wa.routing.shards import worker_of
from wa.wire.methods import RETENTION_S, Kind

AGENDA: Final = 1 << 16  # wake target
WALL_START_MS: Final = 1_800_000_000_000
SETTLE_NS_MAX: Final = 300 * SECOND
EVENTS_MAX: Final = 2_000_000
KINDS: Final = (Kind.TEXT,) * 6 + (Kind.VOICE, Kind.IMAGE, Kind.CALL, Kind.STATUS)


class NetClock(Clock):
    def __init__(self, net: SimNet) -> None:
        self.net = net
        self.stepped_back_s = 0
        self.forward_ms = WALL_START_MS

    @property
    def now_ns(self) -> int:  # type: ignore[override]
        return self.net.now_ns

    @property
    def wall_ms(self) -> int:  # type: ignore[override]
        return self.net.wall_ms

    @property
    def wall_max_s(self) -> int:  # type: ignore[override]
        """The highest the wall clock can have been up to now."""
        return (self.forward_ms + self.net.now_ns // MS) // 1000


class World:
    def __init__(self, settings: Settings, *, history: bool = True) -> None:
        self.settings = settings
        self.rng = random.Random(f"world {settings.seed}")
        self.net = SimNet(settings.seed)
        self.net.step_wall(WALL_START_MS)
        self._links(settings.tcp, settings.bus)
        self.history = History(kept=history)
        self.clock = NetClock(self.net)
        prunes = bool(settings.bound("overflow_prune"))
        self.ledger = Ledger(self.history, self.clock, prunes, self.disorder, lambda: self.died)
        self.static_private = bytes([7]) * 32
        self.static_public: bytes = pysodium.crypto_scalarmult_curve25519_base(self.static_private)
        self.registry: dict[int, bytes] = {}
        self.devices: list[Device] = []
        self.hosts: dict[int, SimHost] = {}
        self.workers: list[Worker] = []
        self.closes: dict[int, int] = {}
        self.turns = 0
        self.refused = False  # some loop that is gone refused something
        self.died = False  # some worker died
        self._agenda: list[tuple[int, int, Callable[[], object]]] = []
        self._order = 0
        self._ended = False
        self._make_devices()
        self.workers = [Worker(self, k, MailDisk(self.ledger)) for k in range(settings.workers)]
        self.faults = Faults(self)

    def _links(self, tcp: Link, bus: Link) -> None:
        for local, k in ((False, tcp), (True, bus)):
            self.net.link(local, k.latency_ns, k.jitter_ns, k.split_percent, k.short_percent, k.limit_bytes)

    def _make_devices(self) -> None:
        for n, devices in enumerate(self.settings.devices_of):
            for device in range(1, devices + 1):
                address = ids.address_of(15551230001 + n * 7, device)
                key = (address * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") * 4
                self.registry[address] = pysodium.crypto_scalarmult_curve25519_base(key)
                self.devices.append(Device(self, len(self.devices), address, key))

    @staticmethod
    def name_of(address: int) -> str:
        return short(address)

    def ephemeral(self) -> bytes:
        pool = self.settings.key_pool
        return (self.rng.randrange(1, pool + 1).to_bytes(8, "little") * 4) if pool else self.rng.randbytes(32)

    def disorder(self) -> bool:
        refused = any(w.loop.stats()["refused"] for w in self.workers if w.loop is not None)
        return self.refused or refused or (self.died and len(self.workers) > 1)

    # --- agenda -------------------------------------------------------------------------------------------

    def after(self, delay_ns: int, action: Callable[[], object]) -> None:
        at = self.net.now_ns + delay_ns
        self._order += 1
        heapq.heappush(self._agenda, (at, self._order, action))
        self.net.wake(AGENDA, at)

    def _due(self) -> None:
        now = self.net.now_ns
        while self._agenda and self._agenda[0][0] <= now:
            heapq.heappop(self._agenda)[2]()

    # --- running ------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Runs the whole life of this world; afterwards the ledger has the violations."""
        for worker in self.workers:
            worker.start()
        for device in self.devices:
            self.after(self.rng.randrange(SECOND), device.connect)
            self.after(self.rng.randrange(SECOND), device.tick)
        for _ in range(self.settings.sends):
            self.after(self.rng.randrange(self.settings.active_ns), self._write)
        self.faults.start()
        self.after(self.settings.active_ns, self._settle)
        self._loop()

    def _loop(self) -> None:
        for _ in range(EVENTS_MAX):
            self._event()
            if self._ended:
                return
        self.ledger.violate("unresolved", "the simulation does not come to rest")

    def _event(self) -> None:
        target = self.net.next_wake()
        if target == AGENDA:
            self._due()
        elif NOBODY > target >= 64:
            self.devices[target - 64].on_wake()
        elif target >= STORE_TARGETS:
            if target - STORE_TARGETS < len(self.workers):
                self.workers[target - STORE_TARGETS].commit()
        elif target < len(self.workers):
            self.workers[target].turn()

    def pump(self, host: SimHost, ns: int) -> None:
        """Runs the world while one worker, which is stopping, waits for its sockets and its disk."""
        until = self.net.now_ns + ns
        self.after(ns, lambda: None)
        while self.net.now_ns < until and not host.dead and not host.ready():
            self._event()

    def _write(self) -> None:
        sender = self.rng.choice(self.devices)
        others = [d for d in self.devices if d is not sender]
        if sender.removed:
            return
        burst = self.rng.choice([1, 1, 1, 3, 10])
        recipient = self.rng.choice(others).address
        for _ in range(burst):
            kind = self.rng.choice(KINDS)
            ttl = self.rng.choice([0, 0, 0, 1, 5, 40])
            size = self.rng.choice([0, 10, 100, 100, 1000, 5000, 60_000 if self.rng.random() < 0.1 else 50])
            sender.write(recipient, kind, min(ttl, RETENTION_S[kind]), size)

    # --- the end --------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        self.ledger.event("world", "calm", None, "every fault is over")
        self.faults.stop()
        self._settle_until = self.net.now_ns + SETTLE_NS_MAX
        self.after(SECOND, self._settling)

    def _settling(self) -> None:
        quiet = all(d.settled for d in self.devices) and all(w.quiet for w in self.workers)
        if quiet or self.net.now_ns > self._settle_until:
            self.ledger.event("world", "at rest")
            self.after(3 * SECOND, self._reconnect)
        else:
            self.after(SECOND, self._settling)

    def _reconnect(self) -> None:
        for device in self.devices:
            device.hang_up("final look")
            device.connect()
        self._look_until = self.net.now_ns + 10 * SECOND
        self.after(SECOND, self._looking)

    def _looking(self) -> None:
        if self.net.now_ns < self._look_until and any(d.ready is None and not d.removed for d in self.devices):
            self.after(SECOND, self._looking)
        else:
            self.after(SECOND, self._look)

    def _look(self) -> None:
        for device in self.devices:
            device.asleep = True
            if device.removed:
                continue
            damaged = any(e.damaged for k, e in self.ledger.envelopes.items() if k[1] == device.address)
            if device.ready and not damaged:
                self.ledger.violate("leak", f"{device.who} is told of {device.ready} queued, and there is nothing")
            elif device.ready is None:
                self.ledger.violate("unresolved", f"{device.who} cannot log in")
            device.hang_up("good night")
        # A connection that went silent ends by the idle timer.
        silent = "vanish" in self.settings.faults
        self.after(self.settings.bound("idle_ms_max") * MS + SECOND if silent else 4 * SECOND, self._end)

    def _end(self) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.check_quiet()
            else:
                self.ledger.violate("leak", f"{worker.name} is not running")
        for breach in self.net.breaches():
            self.ledger.violate("contract", breach)
        knows: dict[Key, str] = {}
        for device in self.devices:
            if not device.removed:
                knows.update(device.knows())
        self.ledger.finish(knows)
        for worker in self.workers:
            worker.crash()
        self._ended = True

    # --- what faults do ---------------------------------------------------------------------------------------

    def step_wall(self, by_s: int) -> None:
        self.net.step_wall(by_s * 1000)
        if by_s > 0:
            self.clock.forward_ms += by_s * 1000
        else:
            self.clock.stepped_back_s += -by_s

    def damaged(self, key: Key) -> None:
        envelope = self.ledger.envelopes[key]
        envelope.damaged = True
        self.ledger.event("world", "damaged", key)

    def remove(self, device: Device) -> None:
        self.ledger.event("world", "removed", None, device.who)
        del self.registry[device.address]
        self.ledger.removed.add(device.address)
        for key, envelope in self.ledger.envelopes.items():
            if device.address in key[:2]:
                envelope.gone = True
        owner = self.workers[worker_of(device.address, len(self.workers))]
        if owner.alive:
            owner.loop.remove_device(device.address, 11)
            owner.soon()
        device.remove()

    @staticmethod
    def _move(table: Table, key: tuple[int, ...], to: Table, receipts: bool) -> None:
        """Of two receipts of one envelope, one of them a report under way, the higher is kept."""
        row, there = table.rows[key], to.rows.get(key)
        if not (receipts and there and rank_of(there[0]) >= rank_of(row[0])):
            to.set(key, row)

    def was_removed(self, row: tuple[int, ...]) -> bool:
        return any(part in self.ledger.removed for part in row)

    def resize(self, workers: int) -> None:
        """Every worker is down.  Mailboxes go to the disks of their new owners."""
        self.ledger.event("world", "resized", None, f"{len(self.workers)} to {workers} workers")
        disks = [MailDisk(self.ledger) for _ in range(workers)]
        for worker in self.workers:
            for at, table in enumerate(worker.disk.tables()):
                for key in list(table.order):
                    recipient = key[1] if table is worker.disk.expiry else key[0]
                    to = disks[worker_of(recipient, workers)].tables()[at]
                    self._move(table, key, to, table is worker.disk.receipts)
            for key in worker.disk.damaged:
                disks[worker_of(key[0], workers)].damaged.add(key)
        for disk in disks:
            disk.sync()
        self.hosts.clear()
        self.workers = [Worker(self, k, disks[k]) for k in range(workers)]
