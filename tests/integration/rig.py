"""Real worker loops in threads of this process, and raw clients that speak the real protocol to them.

Only the cold path is replaced: `OpenDoor` binds the Noise key of whoever comes first.  The tests of the whole server
with its services are in test_serve.py.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pysodium

from wa import ids
from wa._fastpath.loop.loop import Gone, Login, Loop, PeerMessage, Request, Wake
from wa._fastpath.mailbox.store import LmdbMailStore
from wa._fastpath.os.sockets import listen_tcp
from wa.noise import certificate
from wa.noise.patterns import Suite
from wa.noise.records import Intent, Ticket
from wa.noise.records import Login as LoginPayload
from wa.noise.session import ClientSession, HandshakeDone, RecordPlain, Refused
from wa.runtime.trace import create_ring
from wa.wire import frames

WAIT_S = 10.0


def key_of(address: int) -> bytes:
    """The private key of a phone for which the test names none."""
    return pysodium.crypto_generichash(str(address).encode(), outlen=32)


class OpenDoor:
    """A cold path that admits every device that the directory knows, binding its first key."""

    def __init__(self) -> None:
        self.loop: Any = None
        self.keys: dict[int, bytes] = {}
        self.events: list[Any] = []
        self.asked: list[Callable[[], object]] = []  # for the loop's thread: append, then `loop.wake()`

    def on_batch(self, events: list[Any]) -> None:
        for event in events:
            self.events.append(event)
            if isinstance(event, Login):
                if self.keys.setdefault(event.address, event.static_key) == event.static_key:
                    self.loop.admit(event.conn, event.address)
                else:
                    self.loop.refuse(event.conn, 11)
            elif isinstance(event, Request):
                self.loop.respond(event.conn, event.request_id, 0, event.body)
            else:
                assert isinstance(event, Gone | PeerMessage | Wake)

    def on_wake(self) -> None:
        while self.asked:
            self.asked.pop(0)()

    def on_tick(self) -> None:
        pass


class Rig:
    """`workers` loops over one directory; `phone()` makes clients."""

    def __init__(
        self,
        path: Path,
        workers: int = 1,
        sync: bool = True,
        ticket_key: bytes | None = None,
        owners: Sequence[int] | None = None,
        **overrides: int,
    ) -> None:
        self.path = path
        self.workers = workers
        self.sync = sync
        self.ticket_key = ticket_key
        self.owners = owners
        self.overrides = overrides
        self.root_secret, self.root = certificate.make_root()
        self.static = pysodium.randombytes(32)
        public = pysodium.crypto_scalarmult_curve25519_base(self.static)
        self.certificate = certificate.make(self.root_secret, public, 0, 2**40)
        self.devices: dict[int, bytes | None] = {}
        self.doors = [OpenDoor() for _ in range(workers)]
        self.loops: list[Any] = []
        self.stores: list[LmdbMailStore] = []
        self.threads: list[threading.Thread] = []
        self.listeners: list[socket.socket] = []
        self.port = 0
        self.phones: list[Phone] = []

    def start(self, *, run: bool = True) -> None:
        """run: each loop in a thread of its own; otherwise the test calls `turn` of each itself."""
        for k in range(self.workers):
            directory = self.path / f"mail-{k}"
            store = LmdbMailStore(directory, sync=self.sync)
            store.start()
            self.stores.append(store)
            loop = Loop(
                worker=k,
                workers=self.workers,
                store=store,
                sink=self.doors[k],
                static_private=self.static,
                certificate=self.certificate,
                run_dir=str(self.path),
                ticket_key=self.ticket_key,
                overrides=self.overrides,
                trace=create_ring(self.path, k),
                owners=self.owners,
            )
            self.doors[k].loop = loop
            for address, key in self.devices.items():
                loop.add_device(address, key)
            listener = listen_tcp("127.0.0.1", self.port, 512, True)
            self.port = listener.getsockname()[1]
            self.listeners.append(listener)
            loop.listen(listener.fileno())
            loop.start()
            self.loops.append(loop)
        self.threads = [threading.Thread(target=loop.run, daemon=True) for loop in self.loops if run]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        for phone in self.phones:
            phone.close()
        self.phones = []
        for loop in self.loops:
            loop.stop()
        for thread in self.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()
        for listener in self.listeners:
            listener.close()
        for store in self.stores:
            store.close()
        for door in self.doors:
            door.loop = None
        self.loops, self.stores, self.threads, self.listeners = [], [], [], []

    def add_device(self, number: int, device: int = 1, *, known: bool = False) -> int:
        """Before start().  known: with its key, so that the loop admits it without asking the door."""
        address = ids.address_of(number, device)
        self.devices[address] = pysodium.crypto_scalarmult_curve25519_base(key_of(address)) if known else None
        return address

    def phone(self, address: int, *, open: bool = True, key: bytes | None = None, **kwargs: Any) -> "Phone":
        phone = Phone(self, address, key or key_of(address), **kwargs)
        self.phones.append(phone)
        if open:
            phone.send(frames.Open(1))
            phone.ready = phone.expect(frames.Ready)
        return phone

    def first_flight(self, address: int, ticket: Ticket | None = None) -> bytes:
        """Hello and first record of that phone, of IK without a ticket, as somebody on the way records them."""
        session = ClientSession(
            static_private=key_of(address),
            login=LoginPayload(Intent.LOG_IN, address),
            root_public=self.root,
            now_s=int(time.time()),
            certificate=self.certificate,
            ticket=ticket,
            suite=Suite.CHACHA,
        )
        return session.bytes_to_send()

    def stat(self, name: str) -> int:
        return sum(loop.stats()[name] for loop in self.loops)


class Closed(Exception):
    """The server ended the connection; args[0] is the code of its close frame, or None."""


class Phone:
    """One connection of one device, blocking, frame by frame."""

    def __init__(
        self,
        rig: Rig,
        address: int,
        key: bytes,
        *,
        intent: Intent = Intent.LOG_IN,
        suite: Any = None,
        known: bytes | None = None,
        ticket: Ticket | None = None,
        port: int | None = None,
    ) -> None:
        self.address = address
        self.queue: list[Any] = []
        self.ready: Any = None
        self.certificate: bytes | None = None
        self.tickets: list[Ticket] = []  # that came, without disturbing the other frames
        self.resumed = False
        self.used_fallback = False
        self.received_bytes = 0
        self.sock = socket.create_connection(("127.0.0.1", port or rig.port), timeout=WAIT_S)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.session = ClientSession(
            static_private=key,
            login=LoginPayload(intent, address),
            root_public=rig.root,
            now_s=int(time.time()),
            certificate=known,
            ticket=ticket,
            suite=suite,
        )
        try:
            self.flush()
            while self.certificate is None:
                self._read()
        except BaseException:
            self.sock.close()
            raise

    def flush(self) -> None:
        data = self.session.bytes_to_send()
        if data:
            self.sock.sendall(data)

    def send(self, *items: Any) -> None:
        self.session.send_record(b"".join(frames.encode(frame) for frame in items))
        self.flush()

    def _read(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise Closed(None)
        self.received_bytes += len(data)
        for event in self.session.receive(data):
            if isinstance(event, HandshakeDone):
                self.certificate = event.certificate
                self.used_fallback = event.used_fallback
                self.resumed = event.resumed
            elif isinstance(event, RecordPlain):
                self._take(frames.decode_all(event.data))
            elif isinstance(event, Refused):
                raise Closed(event.code)
        self.flush()

    def _take(self, batch: list[Any]) -> None:
        for frame in batch:
            if isinstance(frame, frames.Ticket):
                self.tickets.append(Ticket(frame.secret[32:], frame.secret[:32]))
            else:
                self.queue.append(frame)

    def next(self, timeout: float = WAIT_S) -> Any:
        """The next frame.  Raises Closed when the connection ends, TimeoutError when nothing comes."""
        deadline = time.monotonic() + timeout
        while not self.queue:
            self.sock.settimeout(max(deadline - time.monotonic(), 0.001))
            self._read()
        frame = self.queue.pop(0)
        if isinstance(frame, frames.Close):
            raise Closed(frame.code)
        return frame

    def expect(self, kind: type | tuple[type, ...], timeout: float = WAIT_S) -> Any:
        frame = self.next(timeout)
        assert isinstance(frame, kind), frame
        return frame

    def collect(self, n: int, kind: type | tuple[type, ...], timeout: float = WAIT_S) -> list[Any]:
        return [self.expect(kind, timeout) for _ in range(n)]

    def quiet(self, seconds: float) -> bool:
        """True when nothing at all comes for so long."""
        try:
            self.queue.insert(0, self.next(seconds))
        except TimeoutError:
            return True
        return False

    def ping(self) -> None:
        """Returns when everything sent before has been processed; keeps other frames that come meanwhile."""
        self.send(frames.Ping(77))
        others = []
        while not isinstance(frame := self.next(), frames.Pong):
            others.append(frame)
        self.queue[:0] = others

    def closed_with(self, timeout: float = WAIT_S) -> Any:
        """Reads on until the end; returns the code of the close frame, or None."""
        try:
            while True:
                self.next(timeout)
        except Closed as end:
            return end.args[0]
        except ConnectionResetError:
            return None

    def close(self) -> None:
        self.sock.close()


@contextmanager
def running(rig: Rig) -> Iterator[Rig]:
    rig.start()
    try:
        yield rig
    finally:
        rig.stop()


def until(condition: Callable[[], bool]) -> None:
    """Polls what another thread brings about."""
    deadline = time.monotonic() + WAIT_S
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "this did not come about"
        pause.wait(0.002)
