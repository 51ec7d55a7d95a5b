"""One simulated server process: a real Loop on a simulated machine, a disk, and a cold path that admits devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sim._native.memory_store import MemoryMailDisk
from sim._native.poller import SimHost
from sim._native.store import SimMailStore
from wa._fastpath.loop.loop import Gone, Login, Loop, PeerMessage, Request, Wake
from wa.errors import Code
from wa.ids import number_of
from wa.routing.shards import worker_of, worker_of_number
from wa.wire.methods import Method, pack, unpack

if TYPE_CHECKING:
    from sim.ledger import Ledger
    from sim.world import World

CHECK_TURNS: Final = 32  # turns between two checks of a loop's invariants
STORE_TARGETS: Final = 32  # worker k is wake target k, its disk 32 + k


class MailDisk(MemoryMailDisk):
    """Tells the ledger of every envelope that an fsync made durable."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self.ledger = ledger

    def sync(self) -> None:
        # One that was put and expired in the same commit counts: its sender hears both.
        for table, key, _ in self.journal:
            if table is self.ident:
                recipient, sender, id_ = key
                self.ledger.on_disk((sender, recipient, id_))
        super().sync()

    def tables(self) -> list[Any]:
        return [self.mail, self.ident, self.expiry, self.receipts]


class Door:
    """The cold path: admits a device whose key is the registered one, and answers receipts.status."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.later: list[tuple[int, int]] = []
        self.woken: dict[int, int] = {}  # device -> ns of its wake-up since it was last online

    def on_batch(self, events: list[Any]) -> None:
        for event in events:
            if isinstance(event, Login):
                self._login(event)
            elif isinstance(event, Request):
                self._request(event)
            elif isinstance(event, Wake):
                self._wake(event.address)
            elif isinstance(event, Gone):
                self.woken.pop(event.address, None)  # it was online
            else:
                assert isinstance(event, PeerMessage)

    def on_wake(self) -> None:
        later, self.later = self.later, []
        for conn, address in later:
            self.worker.loop.admit(conn, address)

    def on_tick(self) -> None:
        self.worker.check_bounds()

    def _wake(self, address: int) -> None:
        world = self.worker.world
        last = self.woken.get(address)
        again_ns = (world.settings.bound("call_wake_again_ms") - 1000) * 1_000_000  # it counts in whole seconds
        if last is not None and world.net.now_ns - last < again_ns:
            world.ledger.violate("push", f"{address} is woken again while one wake-up is pending")
        self.woken[address] = world.net.now_ns

    def _login(self, event: Login) -> None:
        world = self.worker.world
        if world.registry.get(event.address) != event.static_key:
            self.worker.loop.refuse(event.conn, Code.DEVICE_UNKNOWN)
        elif world.rng.random() < 0.2:
            self.later.append((event.conn, event.address))
            world.after(world.rng.randrange(200_000_000), self.worker.nudge)
        else:
            self.worker.loop.admit(event.conn, event.address)

    def _request(self, event: Request) -> None:
        loop = self.worker.loop
        if event.method != Method.RECEIPTS_STATUS:
            loop.respond(event.conn, event.request_id, Code.UNKNOWN_METHOD, pack({}))
            return
        asked = unpack(event.body)
        number = asked["number"]
        owner = self.worker.world.workers[worker_of_number(number, len(self.worker.world.workers))]
        if not owner.alive:
            loop.respond(event.conn, event.request_id, Code.REQUEST_TIMEOUT, pack({}))
            return
        keys = [(number << 8 | device, event.address, id_) for device, id_ in asked["items"]]
        waiting = [owner.loop.is_waiting(*key) or loop.is_reported(*key) for key in keys]
        loop.respond(event.conn, event.request_id, 0, pack({"waiting": waiting}))


class Worker:
    """Worker k of a world.  `crash()` and `start()` make one process after another over the same disk."""

    def __init__(self, world: World, k: int, disk: MailDisk) -> None:
        self.world = world
        self.k = k
        self.disk = disk
        self.loop: Any = None
        self.host: Any = None
        self.store: Any = None
        self.due_ns = 0
        self.not_before_ns = 0
        self.armed_ns = 0  # a wake for not_before_ns is on the agenda
        self.stalled_disk = False
        self.stopping = False
        self.rows = 0

    @property
    def name(self) -> str:
        return f"worker {self.k}"

    @property
    def alive(self) -> bool:
        return self.loop is not None and not self.host.dead

    def start(self) -> None:
        world, s = self.world, self.world.settings
        self.host = SimHost(world.net, self.k, world.hosts, self._died, s.key_pool)
        self.store = SimMailStore(world.net, STORE_TARGETS + self.k, self.disk, sync=s.fsync, control=s.store_control)
        self.store.latency_ns, self.store.jitter_ns = s.disk_ns, s.disk_jitter_ns
        self.loop = Loop(
            worker=self.k,
            workers=len(world.workers),
            store=self.store,
            sink=Door(self),
            static_private=world.static_private,
            certificate=bytes(113),
            run_dir="",
            overrides=s.overrides,
            host=self.host,
        )
        for address, key in world.registry.items():
            if worker_of(address, len(world.workers)) == self.k:
                # Every other number is recognised by the loop; the rest are the door's to judge, at once or later.
                self.loop.add_device(address, key if number_of(address) % 2 else None)
        self.loop.listen(self.host.listen())
        self.loop.start()
        self.due_ns = self.not_before_ns = 0
        world.net.wake(self.k, world.net.now_ns)
        world.ledger.event(self.name, "started")

    def _died(self) -> None:
        """The process died, perhaps in the middle of a turn: its store takes nothing any more."""
        self.store.kill()
        self.world.ledger.event(self.name, "died")

    def crash(self) -> None:
        """kill -9."""
        if self.loop is not None:
            self.host.kill()
            self.bury()

    def bury(self) -> None:
        self.world.died = True
        if self.loop is not None and self.loop.stats()["refused"]:
            self.world.refused = True
        self.loop = self.host = self.store = None

    def stop(self) -> None:
        """SIGTERM: clients are told, everything is committed, and the process ends by itself."""
        host, loop, store = self.host, self.loop, self.store
        self.world.ledger.event(self.name, "stops")
        host.on_wait = lambda ns: self.world.pump(host, ns)
        loop.stop()
        self.stopping = True
        loop.run()
        self.stopping = False
        if self.host is host:  # it was not killed meanwhile
            store.kill()
            host.kill()
            self.bury()

    def lose_power(self, torn_ops: int | None) -> None:
        """torn_ops: so many operations of the batch that was being written survive."""
        if self.loop is None:
            self.disk.rollback()
            return
        store = self.store
        if torn_ops is not None:
            store.inner.tear(torn_ops)
            store.step()
        store.power_loss()
        self.crash()

    def nudge(self) -> None:
        if self.alive:
            self.loop.wake()

    def soon(self) -> None:
        """Something was done to the loop from outside: it takes a turn."""
        self.due_ns = self.world.net.now_ns
        self.world.net.wake(self.k, self.due_ns)

    def turn(self) -> None:
        if not self.alive or self.stopping:
            return
        net = self.world.net
        now = net.now_ns
        if now < self.not_before_ns:
            if self.armed_ns != self.not_before_ns:
                self.armed_ns = self.not_before_ns
                net.wake(self.k, self.not_before_ns)
            return
        if now < self.due_ns and not self.host.ready():
            return
        wait_ms = self.loop.turn()
        self.world.turns += 1
        if self.world.turns % CHECK_TURNS == 0 and not self.host.dead:
            self.loop.check()
        if self.host.dead:
            self.bury()
            self.world.faults.restart_later(self)
            return
        self.due_ns = now + wait_ms * 1_000_000
        self.not_before_ns = now + self.world.settings.turn_ns
        at = self.not_before_ns if self.host.ready() else max(self.due_ns, self.not_before_ns)
        if at == self.not_before_ns:
            self.armed_ns = at
        net.wake(self.k, at)

    def commit(self) -> None:
        """The disk is done with what was submitted."""
        if self.loop is None or self.stalled_disk or not self.store.step():
            return
        rows = self.disk.mail.order
        if len(rows) > self.rows:
            self._check_cap(rows)
        self.rows = len(rows)

    def _check_cap(self, rows: list[tuple[int, ...]]) -> None:
        counts: dict[int, int] = {}
        for row in rows:
            recipient = row[0] if row not in self.disk.damaged else 0
            counts[recipient] = counts.get(recipient, 0) + 1
        counts.pop(0, None)  # damaged ones are in nobody's way
        cap = self.world.settings.bound("mailbox_envelopes_max")
        for recipient, n in counts.items():
            if n > cap:
                self.world.ledger.violate("cap", f"{n} envelopes in the mailbox of {recipient}, cap {cap}")
        if len(self.disk.ident.rows) != len(rows):
            self.world.ledger.violate("queued", f"{len(rows)} envelopes of {len(self.disk.ident.rows)} identities")

    def check_bounds(self) -> None:
        s = self.world.settings
        stats = self.loop.stats()
        entries = stats["custody_entries"] - stats["custody_deleting"]  # those are bounded by the batches
        receipts = stats["connections"] * s.bound("delivery_window_max")
        removed = len(self.world.ledger.removed)  # what they had in custody stays until its commit is done
        if entries > (stats["devices"] + removed) * s.bound("mailbox_envelopes_max") + receipts:
            self.world.ledger.violate("bounds", f"{entries} entries in custody")
        per_conn = s.bound("output_bytes_max") + s.bound("delivery_window_bytes_max") + 4 * 131_072
        if stats["slab_used_bytes"] > (stats["connections"] + 4) * per_conn:
            self.world.ledger.violate("bounds", f"{stats['slab_used_bytes']} bytes of the slab in use")

    @property
    def quiet(self) -> bool:
        """Custody and mailboxes are empty, except for corrupt envelopes and those of removed devices."""
        left = [key for key in self.disk.mail.order if not self._excused(key)]
        return self.alive and not left and not self.loop.stats()["custody_entries"]

    def _excused(self, key: tuple[int, ...]) -> bool:
        return key in self.disk.damaged or self.world.was_removed(key)

    def check_quiet(self) -> None:
        """All clients are gone and everything is acknowledged: nothing may be left."""
        stats = self.loop.stats()
        for name in ("connections", "half_open", "custody_entries", "slab_used_bytes"):
            if stats[name]:
                self.world.ledger.violate("leak", f"{self.name}: {name} = {stats[name]}")
        if stats["bus_lost"] and not self.world.died:
            self.world.ledger.violate("contract", f"{self.name} lost the bus to a worker that lives")
        fds = 1 if len(self.world.workers) == 1 else 2 * len(self.world.workers)
        if self.host.open_fds != fds:
            self.world.ledger.violate("leak", f"{self.name}: {self.host.open_fds} descriptors, not {fds}")
        damaged = {key[0] for key in self.disk.damaged}
        for name, table in zip(("mail", "ident", "expiry", "receipts"), self.disk.tables(), strict=True):
            rows = [key for key in table.rows if not damaged and not self.world.was_removed(key)]
            if name == "receipts":  # a damaged envelope expires when everybody has gone, and says so
                rows = [key for key in rows if not self.world.ledger.envelopes[key].damaged]
            if rows:
                self.world.ledger.violate("leak", f"{self.name}: {len(rows)} rows in {name}: {rows[:3]}")
