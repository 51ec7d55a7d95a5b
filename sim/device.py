"""A person's device: a client with a durable store.  It is honest unless a control or a fault makes it misbehave.

It keeps the client's side of docs/protocol.md, section 4:
- an id is used once, and the outbox is durable before the first send;
- a delivery is acknowledged after the commit of its id and content; a committed one that comes again is acknowledged
  and not shown;
- receipts only rise; unanswered envelopes are resent after 10 s or a reconnect.

`crash()` forgets everything since the last commit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sim.ledger import ACCEPTED, DELIVERED, LATER, REFUSED, Key
from sim.line import Broken, Line
from sim.settings import MS, SECOND
from wa._fastpath.noise.noise import IK, SUITE_AESGCM, SUITE_CHACHA, XX
from wa._fastpath.wire import frames
from wa.errors import Code
from wa.wire.methods import Method, pack, unpack

if TYPE_CHECKING:
    from sim.world import World

READY, CLOSE, RESPONSE, PONG, ERROR = 0x05, 0x04, 0x11, 0x03, 0x06
STORED_RECEIPT, SEND, SEND_TTL, DELIVER, DELIVER_QUEUED = 0x28, 0x40, 0x50, 0x60, 0x70
QUIET_NS: Final = 9 * SECOND  # after so long without a byte the connection is given up
PING_NS: Final = 3 * SECOND
STATUS_MAX: Final = 32
NOBODY: Final = 1 << 17  # wake target of a connection that is polled


def body_of(key: Key, size: int) -> bytes:
    seed = b"%d %d %d;" % key
    return (seed * (size // len(seed) + 1))[:size]


@dataclass(slots=True)
class Item:
    """One envelope in the outbox.  `sent_ns` and `retry_ns` are volatile."""

    kind: int
    ttl_s: int
    size: int
    ever_sent: bool = False
    sent_ns: int = -1  # on the present connection; -1 not yet
    retry_ns: int = 0  # refused for now: not before this


@dataclass(slots=True)
class Change:
    """Not committed yet.  what: "seen" (peer = sender) or "level" (peer = recipient)."""

    what: str
    peer: int
    id: int
    level: int
    line: Line | None  # where to acknowledge
    seq: int


class Device:
    def __init__(self, world: World, index: int, address: int, key: bytes) -> None:
        self.world = world
        self.index = index
        self.target = 64 + index
        self.address = address
        self.key = key
        # durable
        self.outbox: dict[tuple[int, int], Item] = {}
        self.seen: set[tuple[int, int]] = set()
        self.level: dict[tuple[int, int], int] = {}
        self.next_id = 1
        self.orders = 0
        # volatile
        self.changes: list[Change] = []
        self.heard: dict[tuple[int, int], int] = {}  # levels not committed yet
        self.acks: list[tuple[Line, int]] = []
        self.reads: list[Key] = []
        self.line: Line | None = None
        self.ready: int | None = None
        self.unacked: set[int] = set()  # delivery numbers of this connection
        self.acked: set[int] = set()
        self.asked: dict[int, list[tuple[int, int]]] = {}
        self.gone: set[tuple[int, int]] = set()  # receipts.status said: not waiting any more
        self.next_request = 1
        self.connected_ns = self.heard_ns = 0
        self.plain: list[bytes] = []
        self.commit_set = self.ack_set = False
        # behaviour
        self.pipeline = world.settings.pipeline
        self.online = True
        self.deaf = False  # does not read
        self.mute = False  # does not acknowledge
        self.removed = False
        self.asleep = False  # the end: it does not come back

    @property
    def who(self) -> str:
        return self.world.name_of(self.address)

    # --- connections ------------------------------------------------------------------------------------

    def connect(self) -> None:
        world = self.world
        if self.line is not None or not self.online or self.removed or self.asleep:
            return
        rng = world.rng
        alive = [w for w in world.workers if w.alive]
        if not alive:
            self._again()
            return
        try:
            handle = rng.choice(alive).host.connect(self.target, bytes([10, 0, 0, self.index + 1]))
        except ConnectionRefusedError:
            self._again()
            return
        self.ready = None
        self.unacked = set()
        self.acked = set()
        self.asked = {}
        self.acks = []
        self.plain = []
        self.connected_ns = self.heard_ns = world.net.now_ns
        for item in self.outbox.values():
            item.sent_ns = -1
        try:
            self.line = self._line(handle)
        except Broken:
            world.net.close(handle)
            self._again()

    def _line(self, handle: int) -> Line:
        rng = self.world.rng
        return Line(
            self.world.net,
            handle,
            suite=SUITE_CHACHA if rng.random() < 0.2 else SUITE_AESGCM,
            pattern=XX if rng.random() < 0.2 else IK,
            static_private=self.key,
            server_static=self.world.static_public,
            login=b"\0" + self.address.to_bytes(8, "big"),
            ephemeral=self.world.ephemeral(),
        )

    def storm(self, n: int) -> None:
        """Opens this many connections, shakes hands as far as it gets, and drops them a little later."""
        alive = [w for w in self.world.workers if w.alive]
        lines: list[Line] = []
        for _ in range(n if alive else 0):
            handle = self.world.rng.choice(alive).host.connect(NOBODY, bytes([10, 0, 1, self.index + 1]))
            try:
                lines.append(self._line(handle))
            except Broken:
                self.world.net.close(handle)

        def go_on(rounds: int) -> None:
            for line in list(lines):
                try:
                    was_open = line.open
                    line.frames_in()
                    line.flush()
                    if line.open and not was_open:
                        line.send(frames.encode(0x01, number=1))
                except Broken:
                    rounds_over(line)
            if rounds:
                self.world.after(20 * MS, lambda: go_on(rounds - 1))
            else:
                for line in list(lines):
                    rounds_over(line)

        def rounds_over(line: Line) -> None:
            lines.remove(line)
            line.close()

        self.world.after(MS, lambda: go_on(self.world.rng.choice([2, 20, 60])))

    def _again(self) -> None:
        self.world.after(self.world.rng.randrange(10 * MS, 2 * SECOND), self.connect)

    def hang_up(self, reason: str) -> None:
        if self.line is None:
            return
        self.world.ledger.event(self.who, "hung up", None, reason)
        self.line.close()
        self.line = None
        self.reads = []
        self.plain = []
        self._again()

    def crash(self) -> None:
        """The process dies: everything since the last commit is lost."""
        self.world.ledger.event(self.who, "crashed", None, f"{len(self.changes)} changes lost")
        self.changes = []
        self.heard = {}
        self.acks = []
        self.reads = []
        self.gone = set()
        self.hang_up("crash")

    def remove(self) -> None:
        self.removed = True
        self.hang_up("removed")

    # --- reading ----------------------------------------------------------------------------------------

    def on_wake(self) -> None:
        line = self.line
        if line is None or self.deaf:
            return
        try:
            was_open = line.open
            got = line.frames_in()
            line.flush()
            if line.open and not was_open:
                self.plain.insert(0, frames.encode(0x01, number=1))
            if got or line.open != was_open:
                self.heard_ns = self.world.net.now_ns
            for frame in got:
                self._on_frame(frame)
                if self.line is not line:
                    return
            if got and self.ready is not None and self.outbox:
                self.send_outbox()
            self.flush()
        except Broken:
            if self.line is line:
                self.hang_up(f"refused {line.refusal}" if line.refusal else "connection ended")

    def _on_frame(self, f: frames.RawFrame) -> None:
        type_, _, code, address, id_, number, extra, body = f
        if type_ in (DELIVER, DELIVER_QUEUED):
            self._on_delivery(f)
        elif type_ == STORED_RECEIPT:
            self._in_flight(number)
            self._on_receipt(address, id_, extra, code, number)
        elif 0x20 <= type_ <= 0x23:
            self._on_receipt(address, id_, type_, number, 0)
        elif type_ == READY:
            self.ready = extra
            self.world.ledger.event(self.who, "ready", None, f"{extra} queued")
            self.send_outbox()
        elif type_ == RESPONSE:
            self._on_response(number, extra, body)
        elif type_ == CLOSE:
            self.world.closes[number] = self.world.closes.get(number, 0) + 1
            self.hang_up(f"told {Code(number).name.lower()}")
        else:
            assert type_ in (PONG, ERROR), f

    def _in_flight(self, seq: int) -> None:
        if seq in self.acked:
            return  # sent again while our acknowledgement was on its way
        self.unacked.add(seq)
        window = self.world.settings.bound("delivery_window_max")
        if len(self.unacked) > window or seq - min(self.unacked) >= window:
            self.world.ledger.violate("window", f"{self.who}: {len(self.unacked)} unacknowledged, seq {seq}")

    def _on_delivery(self, f: frames.RawFrame) -> None:
        type_, kind, _, sender, id_, seq, _, body = f
        key = (sender, self.address, id_)
        known = (sender, id_) in self.seen
        detail = f"seq {seq}" + (" queued" if type_ == DELIVER_QUEUED else "") + (" known" if known else "")
        self.world.ledger.arrived(key, kind, body == body_of(key, len(body)), detail)
        self._in_flight(seq)
        line = self.line
        if self.world.settings.control == "client_early_ack":
            self.acks.append((line, seq))  # type: ignore[arg-type]
            self._ack_later()
            line = None
        self._change(Change("seen", sender, id_, 0, line, seq))

    def _on_receipt(self, recipient: int, id_: int, level: int, code: int, seq: int) -> None:
        key = (self.address, recipient, id_)
        self.world.ledger.told(key, level, code, bool(seq))
        if level == REFUSED and code in LATER:
            item = self.outbox.get((recipient, id_))
            if item is not None:
                item.sent_ns = -1
                item.retry_ns = self.world.net.now_ns + self.world.rng.randrange(SECOND // 2, 2 * SECOND)
            level = 0
        if level or seq:
            self._change(Change("level", recipient, id_, level, self.line if seq else None, seq))

    def _on_response(self, request: int, status: int, body: bytes) -> None:
        keys = self.asked.pop(request)
        if status:
            return
        for (recipient, id_), waiting in zip(keys, unpack(body)["waiting"], strict=True):
            if not waiting:
                self.gone.add((recipient, id_))
                self.world.ledger.not_waiting((self.address, recipient, id_))

    # --- committing ---------------------------------------------------------------------------------------

    def _change(self, change: Change) -> None:
        self.changes.append(change)
        if change.what == "level" and change.level:
            key = (change.peer, change.id)
            self.heard[key] = max(change.level, self.heard.get(key, 0))
        if not self.commit_set:
            self.commit_set = True
            self.world.after(self.world.settings.commit_ns, self.commit)

    def commit(self) -> None:
        self.commit_set = False
        changes, self.changes = self.changes, []
        self.heard = {}
        for c in changes:
            if c.what == "seen":
                self._commit_seen(c)
            elif c.level:
                key = (c.peer, c.id)
                self.outbox.pop(key, None)
                if c.level == REFUSED or self.level.get(key) != REFUSED:
                    self.level[key] = max(c.level, self.level.get(key, 0))
            if c.line is not None and c.line is self.line and not self.mute:
                self.acks.append((c.line, c.seq))
                self._ack_later()

    def _commit_seen(self, c: Change) -> None:
        key = (c.peer, self.address, c.id)
        known = (c.peer, c.id) in self.seen
        self.seen.add((c.peer, c.id))
        self.world.ledger.committed(key)
        if not known or self.world.settings.control == "client_no_dedup":
            self.world.ledger.shown(key)
            if c.line is not None and c.line is self.line and not self.mute and c.id % 3 == 0:
                self.reads.append(key)
                self._ack_later()

    def _ack_later(self) -> None:
        if not self.ack_set:
            self.ack_set = True
            self.world.after(self.world.settings.ack_ns, self.send_acks)

    def send_acks(self) -> None:
        self.ack_set = False
        acks, self.acks = self.acks, []
        seqs = sorted({seq for line, seq in acks if line is self.line})
        if self.line is not None and self.ready is not None:
            at = 0
            while at < len(seqs):
                n = 1
                while at + n < len(seqs) and seqs[at + n] == seqs[at] + n and n < 64:
                    n += 1
                if n == 1:
                    self.plain.append(frames.encode(0x30, number=seqs[at], extra=1))
                else:
                    self.plain.append(frames.encode(0x31, number=seqs[at], extra=n))
                at += n
            self.unacked.difference_update(seqs)
            self.acked.update(seqs)
            for key in self.reads:
                self.world.ledger.marked_read(key)
                self.plain.append(frames.encode(0x32, address=key[0], id=key[2]))
        self.reads = []
        self.flush()

    # --- sending ------------------------------------------------------------------------------------------

    def write(self, recipient: int, kind: int, ttl_s: int, size: int) -> None:
        """A new message, durable in the outbox before it is sent."""
        id_ = self.next_id
        self.next_id += 1
        self.orders += 1
        self.world.ledger.sent((self.address, recipient, id_), kind, ttl_s, self.orders)
        item = Item(kind, ttl_s, size)
        self.outbox[recipient, id_] = item
        if self.line is not None and self.ready is not None:
            self.send_outbox()
            self.flush()

    def send_outbox(self) -> None:
        """Sends unanswered envelopes in the order of writing, up to the client's own window."""
        now = self.world.net.now_ns
        heard = self.heard
        waiting = [(key, item) for key, item in self.outbox.items() if key not in heard]
        room = self.pipeline - sum(item.sent_ns >= 0 for _, item in waiting)
        for (recipient, id_), item in waiting:
            if item.sent_ns >= 0 or item.retry_ns > now:
                continue
            if room <= 0:
                return
            room -= 1
            self._send(recipient, id_, item, "refused before" if item.retry_ns else "reconnected")
            item.retry_ns = 0

    def _send(self, recipient: int, id_: int, item: Item, reason: str) -> None:
        key = (self.address, recipient, id_)
        if item.ever_sent:
            self.world.ledger.sent_again(key, reason)
        item.ever_sent = True
        item.sent_ns = self.world.net.now_ns
        body = body_of(key, item.size)
        if item.ttl_s:
            self.plain.append(
                frames.encode(SEND_TTL, kind=item.kind, address=recipient, id=id_, extra=item.ttl_s, body=body)
            )
        else:
            self.plain.append(frames.encode(SEND, kind=item.kind, address=recipient, id=id_, body=body))

    def flush(self) -> None:
        """Sends all pending frames, in records of at most 60 kB."""
        line = self.line
        if line is None or not line.open or not self.plain:
            return
        waiting, self.plain = self.plain, []
        record: list[bytes] = []
        size = 0
        try:
            for data in waiting:
                if record and size + len(data) > 60_000:
                    line.send(b"".join(record))
                    record, size = [], 0
                record.append(data)
                size += len(data)
            line.send(b"".join(record))
        except Broken:
            self.hang_up("connection broke")

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """About once a second."""
        if self.removed:
            return
        now = self.world.net.now_ns
        self.world.after(SECOND, self.tick)
        if self.line is None:
            return
        if now - self.heard_ns > QUIET_NS and not self.deaf:
            self.hang_up("silence")
            return
        if self.ready is None or self.deaf:
            return
        resend = self.world.settings.resend_after_ns
        for (recipient, id_), item in self.outbox.items():
            if (recipient, id_) not in self.heard and item.sent_ns >= 0 and now - item.sent_ns > resend:
                self._send(recipient, id_, item, "no answer")
        self.send_outbox()
        if now - self.heard_ns > PING_NS:
            self.plain.append(frames.encode(0x02, number=1))
        self._ask_status()
        self.flush()

    def _ask_status(self) -> None:
        if self.asked:
            return
        by_number: dict[int, list[tuple[int, int]]] = {}
        for key, level in self.level.items():
            if level == ACCEPTED and key not in self.gone and key not in self.heard:
                by_number.setdefault(key[0] >> 8, []).append(key)
        for number, believed in by_number.items():
            keys = believed[:STATUS_MAX]
            self.asked[self.next_request] = keys
            items = [[recipient & 0xFF, id_] for recipient, id_ in keys]
            body = pack({"number": number, "items": items})
            self.plain.append(frames.encode(0x10, number=self.next_request, extra=Method.RECEIPTS_STATUS, body=body))
            self.next_request += 1
            if len(self.asked) == 8:
                return

    # --- the end ------------------------------------------------------------------------------------------

    def knows(self) -> dict[Key, str]:
        out: dict[Key, str] = {}
        for (recipient, id_), level in self.level.items():
            word = "final" if level == REFUSED or (recipient, id_) in self.gone else "accepted"
            out[self.address, recipient, id_] = word if level == REFUSED or level < DELIVERED else "delivered"
        for recipient, id_ in self.outbox:
            out[self.address, recipient, id_] = "unanswered"
        return out

    @property
    def settled(self) -> bool:
        return self.removed or (
            not self.changes
            and not self.acks
            and not self.outbox
            and not self.unacked
            and "accepted" not in self.knows().values()
        )
