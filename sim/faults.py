"""The faults: small functions, each started at random times of the active phase."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.settings import MS, SECOND
from wa._fastpath.mailbox.contract import Result
from wa.routing.shards import worker_of

if TYPE_CHECKING:
    from sim.device import Device
    from sim.worker import Worker
    from sim.world import World


class Faults:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.rng
        self.calm = False

    def start(self) -> None:
        if self.world.settings.faults:
            self._next()

    def _next(self) -> None:
        self.world.after(int(self.rng.expovariate(1 / self.world.settings.fault_every_ns)), self._strike)

    def _strike(self) -> None:
        if self.calm:
            return
        kind = self.rng.choice(self.world.settings.faults)
        getattr(self, kind)()
        self.world.ledger.counts[f"fault_{kind}"] += 1
        self._next()

    def stop(self) -> None:
        """Ends all faults: from here on everything works."""
        self.calm = True
        world = self.world
        for worker in world.workers:
            if worker.alive:
                worker.host.die_in(0)
                worker.store.inner.fail(0)
                worker.store.read_errors = 0
                worker.store.latency_ns = world.settings.disk_ns
                worker.not_before_ns = 0
            self._healthy(worker)
            if not worker.alive:
                worker.crash()
                worker.start()
            worker.soon()
        for device in world.devices:
            device.deaf = device.mute = False
            device.online = True
            if device.line is not None and world.settings.fresh_start:
                device.hang_up("calm")
            device.connect()
            device.on_wake()

    def _healthy(self, worker: Worker) -> None:
        worker.stalled_disk = False
        worker.commit()

    def _say(self, text: str) -> None:
        self.world.ledger.event("world", "fault", None, text)

    def _device(self) -> Device:
        return self.rng.choice(self.world.devices)

    def _worker(self) -> Worker:
        return self.rng.choice(self.world.workers)

    def _span(self) -> int:
        return self.rng.choice([20 * MS, 300 * MS, 2 * SECOND, 8 * SECOND])

    # --- clients and their connections --------------------------------------------------------------------

    def cut(self) -> None:
        device = self._device()
        if device.line is None:
            return
        if self.rng.random() < 0.5:
            self._say(f"connection of {device.who} reset")
            self.world.net.reset(device.line.handle)
        else:
            device.hang_up("cut")

    def vanish(self) -> None:
        device = self._device()
        if device.line is not None:
            self._say(f"connection of {device.who} goes silent")
            self.world.net.vanish(device.line.handle)
            if self.rng.random() < 0.5:
                device.hang_up("changed networks")

    def crash_client(self) -> None:
        self._device().crash()

    def offline(self) -> None:
        device = self._device()
        device.online = False
        device.hang_up("offline")

        def back() -> None:
            device.online = True
            device.connect()

        self.world.after(self._span(), back)

    def deaf(self) -> None:
        device = self._device()
        device.deaf = True
        self._say(f"{device.who} stops reading")

        def back() -> None:
            device.deaf = False
            device.on_wake()

        self.world.after(self._span(), back)

    def mute(self) -> None:
        device = self._device()
        device.mute = True
        self._say(f"{device.who} stops acknowledging")

        def back() -> None:
            # It had committed without acknowledging: a real client would only do so by crashing.
            device.mute = False
            if self.calm:
                return
            if device.line is not None:
                device.crash()

        self.world.after(self._span(), back)

    def storm(self) -> None:
        """A login storm: one device logs in many times at once, as many phones do after an outage."""
        device = self._device()
        if not device.removed:
            self._say(f"{device.who} logs in many times at once")
            device.storm(self.rng.choice([3] * 12 + [20] * 3 + [200]))

    def remove_device(self) -> None:
        left = [d for d in self.world.devices if not d.removed]
        if len(left) > 2:
            self.world.remove(self.rng.choice(left))

    # --- processes ----------------------------------------------------------------------------------------

    def restart_later(self, worker: Worker) -> None:
        def back() -> None:
            if not worker.alive and worker in self.world.workers:
                worker.crash()
                worker.start()

        self.world.after(0 if self.calm else self.rng.choice([MS, 50 * MS, 2 * SECOND]), back)

    def crash_worker(self) -> None:
        worker = self._worker()
        if worker.alive:
            worker.crash()
            self.restart_later(worker)

    def restart(self) -> None:
        worker = self._worker()
        if worker.alive and not worker.stopping:
            worker.stop()
            if not worker.alive and worker in self.world.workers:
                self.restart_later(worker)

    def crash_midway(self) -> None:
        worker = self._worker()
        if worker.alive:
            worker.host.die_in(self.rng.randint(1, 12))

    def crash_all(self) -> None:
        for worker in self.world.workers:
            worker.crash()
            self.restart_later(worker)

    def power_loss(self) -> None:
        self._say("power loss")
        for worker in self.world.workers:
            worker.lose_power(self.rng.randrange(8) if self.rng.random() < 0.3 else None)
            self.restart_later(worker)

    def resize(self) -> None:
        for worker in self.world.workers:
            worker.crash()
        self.world.resize(self.rng.randint(1, 4))
        for worker in self.world.workers:
            self.restart_later(worker)

    def stall(self) -> None:
        worker = self._worker()
        self._say(f"{worker.name} stalls")
        worker.not_before_ns = self.world.net.now_ns + self._span()

    # --- disks and clocks ---------------------------------------------------------------------------------

    def disk_full(self) -> None:
        self._fail(Result.FULL)

    def disk_failed(self) -> None:
        self._fail(Result.FAILED)

    def _fail(self, result: Result) -> None:
        worker = self._worker()
        if worker.alive:
            n = self.rng.choice([1, 3, 20])
            deletes = result == Result.FULL and self.rng.random() < 0.5
            self._say(f"disk of {worker.name}: {result.name.lower()} for {n} commits")
            worker.store.inner.fail(n, result, deletes=deletes)

    def read_errors(self) -> None:
        worker = self._worker()
        if worker.alive:
            worker.store.read_errors = self.rng.choice([1, 5, 50])
            self._say(f"disk of {worker.name}: {worker.store.read_errors} reads fail")

    def slow_disk(self) -> None:
        worker = self._worker()
        self._say(f"disk of {worker.name} hangs")
        worker.stalled_disk = True
        self.world.after(self._span(), lambda: self._healthy(worker))

    def clock_step(self) -> None:
        step_s = self.rng.choice([-86_400, -3600, -2, 2, 30, 3600])
        self._say(f"wall clock steps by {step_s} s")
        self.world.step_wall(step_s)

    def damage(self) -> None:
        worker = self._worker()
        rows = worker.disk.mail.order
        # A corrupt record keeps its place in the mailbox until it expires: a tiny cap would stay full for a month.
        if rows and self.world.settings.bound("mailbox_envelopes_max") >= 20:
            key = self.rng.choice(rows)
            worker.disk.damaged.add(key)
            sender, id_ = worker.disk.mail.rows[key][:2]
            self.world.damaged((sender, key[0], id_))

    def owner_of(self, address: int) -> Worker:
        return self.world.workers[worker_of(address, len(self.world.workers))]
