"""A cold path with its real registry and registry thread; of the loop only a recorder of what it is told."""

import io
import random
import threading

import wa._fastpath.loop.loop as fastpath
from wa import ids
from wa.log import Log
from wa.runtime.cold import ColdPath
from wa.runtime.registry_thread import RegistryThread
from wa.services.base import Site
from wa.wire import methods
from wa.wire.methods import Method

ALICE = 15551230001
BOB = 15551230002
KEY_A, KEY_B, KEY_C = (bytes([n]) * 32 for n in (1, 2, 3))


def event(kind, **fields):
    """An event of the loop's own type with these fields, which only the loop can set otherwise."""
    return type(kind.__name__, (kind,), fields)()


def login_event(conn, intent, address, key):
    fields = {"conn": conn, "intent": intent, "address": address, "static_key": key}
    return event(fastpath.Login, **fields, peer="203.0.113.7")


def peer_event(worker, body):
    return event(fastpath.PeerMessage, worker=worker, body=body)


def wake_event(address):
    return event(fastpath.Wake, address=address)


class RecordingLoop:
    """What the cold path tells the loop, in order.

    bus: messages to other workers, or None when these are not reachable.
    """

    def __init__(self):
        self.told = []
        self.bus = []
        self.woken = threading.Event()
        self.waiting = set()
        self.reported = set()

    def __getattr__(self, name):
        if name not in ("admit", "refuse", "respond", "notice", "add_device", "remove_device", "wake_lost"):
            raise AttributeError(name)

        def record(*args):
            self.told.append((name, *args))
            return True

        return record

    def is_waiting(self, *envelope):
        return envelope in self.waiting

    def is_reported(self, *envelope):
        return envelope in self.reported

    def call_peer(self, worker, body):
        if self.bus is None:
            return False
        self.bus.append((worker, body))
        return True

    def stats(self):
        return {"connections": 0}

    def take(self):
        told, self.told = self.told, []
        return told


class Codes:
    def __init__(self):
        self.sent = []

    def send(self, number, code):
        self.sent.append((number, code))


class Bench:
    """One worker of `workers`; an account belongs to number % workers."""

    def __init__(self, registry, worker=0, workers=1, push=None):
        self.registry, self.worker, self.push = registry, worker, push
        self.log = io.StringIO()
        self.now_ms = 1_800_000_000_000
        self.monotonic_ms = 0
        self.codes = Codes()
        self.loop = RecordingLoop()
        self.reports = []
        seeded = random.Random(worker)
        site = Site(seeded.randrange, seeded.randbytes, b"p" * 32, workers, "0.1")
        log = Log(f"worker-{worker}", "debug", stream=self.log)
        self.cold = ColdPath(
            worker,
            registry,
            site,
            owner=lambda number: number % workers,
            now_ms=lambda: self.now_ms,
            monotonic_ms=lambda: self.monotonic_ms,
            report=self.reports.append,
            log=log,
            push=push,
        )
        self.thread = RegistryThread(
            registry, site, self.codes, wake=self.loop.woken.set, now_ms=lambda: self.now_ms, log=log
        )
        self.cold.attach(self.loop, self.thread)
        self._last_id = 0

    def send(self, method, address, params=None, *, conn=1, key=b""):
        """One request without waiting for its answer; returns its id."""
        self._last_id += 1
        body = methods.pack(params or {})
        request = event(
            fastpath.Request,
            conn=conn,
            address=address,
            static_key=key,
            peer="203.0.113.7",
            request_id=self._last_id,
            method=method,
            body=body,
        )
        self.cold.on_batch([request])
        return self._last_id

    def settle(self):
        """Waits for the registry's thread to be idle and takes what it finished."""
        while self.thread.waiting():
            self.loop.woken.wait(30)
            self.loop.woken.clear()
        self.cold.on_wake()

    def answer(self, request_id):
        (found,) = [told for told in self.loop.told if told[0] == "respond" and told[2] == request_id]
        return found[3], methods.unpack(found[4])

    def call(self, method, address, params=None, **more):
        request_id = self.send(method, address, params, **more)
        self.settle()
        return self.answer(request_id)

    def register(self, number, key, *, conn=1, mode="replace"):
        account = ids.address_of(number, 0)
        assert self.call(Method.REGISTER_REQUEST_CODE, account, conn=conn, key=key)[0] == 0
        params = {"code": self.codes.sent[-1][1], "mode": mode, "name": "phone"}
        status, body = self.call(Method.REGISTER_VERIFY, account, params, conn=conn, key=key)
        assert status == 0
        return body["address"]

    def close(self):
        self.thread.close()
        self.registry.close()
        if self.push is not None:
            self.push.close()
