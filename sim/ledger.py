"""The ledger of what every party was told about every envelope, and the checkers over it.

Rules that are checked as things happen, by the names that a report shows:
    accepted    told ✓ only when the envelope was on stable storage or committed by its device at that time
    delivered   told ✓✓ only when the device had committed it
    read        told only when the recipient had said so
    rising      live receipts of an envelope that was sent once never fall, unless a worker died meanwhile
    twice       shown at most once
    altered     the body, kind and sender are what was sent
    order       between one sender and one recipient, equal priority is first shown in the order of sending
    refused     refusals name a reason that can be true
    status      receipts.status says "not waiting" of an accepted envelope only after it was delivered, or its end told
    window      never more unacknowledged deliveries on a connection than the window
    cap         no mailbox over its cap
    queued      no envelope in a mailbox twice
    bounds      custody and slab stay under their bounds
    push        at most one wake-up is pending per device
    contract    the loop keeps the rules of os/poller.pxd

Rules that are checked at the end, when everything works again and every device has connected:
    lost        told ✓ but neither shown nor reported expired, refused or dropped
    unresolved  the sender never got a final answer, or does not know the envelope's end
    leak        entries, buffers, connections, rows or counts that nothing accounts for
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from sim.history import History, short
from wa.errors import Code
from wa.wire.methods import PRIORITY, RETENTION_S, Kind

Key = tuple[int, int, int]
"""(sender, recipient, id)"""

ACCEPTED, DELIVERED, READ, REFUSED = 0x20, 0x21, 0x22, 0x23
LATER = (Code.TRY_LATER, Code.MAILBOX_FULL)
FINAL = (Code.EXPIRED, Code.DROPPED, Code.ADDRESS_UNKNOWN)


@dataclass(slots=True)
class Envelope:
    key: Key
    kind: int
    ttl_s: int
    order: int
    sent_wall_s: int
    durable: bool = False  # has been on stable storage
    committed: bool = False  # by the recipient's device
    shown: int = 0
    marked_read: bool = False
    accepted: bool = False
    delivered: bool = False
    final: int = 0  # the code of a final refusal
    retried: bool = False  # refused or unanswered and sent again: its place in the order is gone
    damaged: bool = False
    gone: bool = False  # one of its two devices was removed
    not_waiting: bool = False  # receipts.status told its sender so
    sent_times: int = 1
    highest: int = 0  # of the receipts told

    @property
    def lifetime_s(self) -> int:
        return self.ttl_s or RETENTION_S[Kind(self.kind)]


@dataclass(frozen=True)
class Violation:
    rule: str
    text: str
    envelope: Key | None


class Ledger:
    def __init__(
        self,
        history: History,
        clock: "Clock",
        prunes: bool,
        disorder: Callable[[], bool],
        redelivers: Callable[[], bool],
    ) -> None:
        """prunes: may a full mailbox drop other envelopes than status?
        disorder: may an envelope have been refused, or lost between workers, without its sender hearing so?
        redelivers: may what was acknowledged have been delivered again?
        """
        self.prunes = prunes
        self.redelivers = redelivers
        self.disorder = disorder
        self.history = history
        self.clock = clock
        self.envelopes: dict[Key, Envelope] = {}
        self.violations: list[Violation] = []
        self.removed: set[int] = set()  # addresses that were removed at least once
        self._order: dict[tuple[int, int, int], list[Envelope]] = defaultdict(list)  # shown, per pair and priority
        self.counts: dict[str, int] = defaultdict(int)

    def event(self, who: str, what: str, key: Key | None = None, detail: str = "") -> None:
        if self.history.kept:
            self.history.add(self.clock.now_ns, who, what, key, detail)

    def violate(self, rule: str, text: str, key: Key | None = None) -> None:
        self.event("checker", "VIOLATION", key, f"{rule}: {text}")
        self.violations.append(Violation(rule, text, key))

    # --- senders ---------------------------------------------------------------------------------------

    def sent(self, key: Key, kind: int, ttl_s: int, order: int) -> Envelope:
        envelope = Envelope(key, kind, ttl_s, order, self.clock.wall_ms // 1000)
        self.envelopes[key] = envelope
        self.event(short(key[0]), "wrote", key, f"{Kind(kind).name.lower()}" + (f" ttl {ttl_s} s" if ttl_s else ""))
        return envelope

    def sent_again(self, key: Key, reason: str) -> None:
        envelope = self.envelopes[key]
        envelope.sent_times += 1
        if reason != "reconnected":
            envelope.retried = True
        self.event(short(key[0]), "sent again", key, reason)

    def told(self, key: Key, level: int, code: int, stored: bool) -> None:
        """A receipt reached the sender."""
        self.event(
            short(key[0]),
            Code(code).name.lower() if level == REFUSED else LEVEL[level],
            key,
            "stored receipt" if stored else "",
        )
        envelope = self.envelopes.get(key)
        if envelope is None:
            self.violate("refused", "a receipt for what was never sent", key)
            return
        if level == REFUSED:
            self._refused(envelope, code)
        else:
            self._rose(envelope, level, stored)

    def _rose(self, e: Envelope, level: int, stored: bool) -> None:
        if level == ACCEPTED:
            self.counts["accepted"] += 1
            if not e.durable and not e.committed:
                self.violate("accepted", "told accepted, and on no disk", e.key)
            e.accepted = True
        elif level == DELIVERED:
            self.counts["delivered"] += 1
            if not e.committed:
                self.violate("delivered", "told delivered before the device had committed it", e.key)
            e.accepted = e.delivered = True
        elif level == READ and not e.marked_read:
            self.violate("read", "told read, which nobody said", e.key)
        if level < e.highest and e.sent_times == 1 and not stored and not self.redelivers():
            self.violate("rising", f"{LEVEL[level]} after {LEVEL[e.highest]}", e.key)
        e.highest = max(e.highest, level)

    def _refused(self, e: Envelope, code: int) -> None:
        self.counts[Code(code).name.lower()] += 1
        if code in LATER:
            e.retried = True
        elif code == Code.EXPIRED:
            e.final = code
            if not self.may_have_expired(e):
                self.violate("refused", "told expired before its time", e.key)
        elif code == Code.ADDRESS_UNKNOWN:
            e.final = code
            if e.key[1] not in self.removed:
                self.violate("refused", "told address_unknown of a device that was always there", e.key)
        elif code == Code.DROPPED and (e.kind == Kind.STATUS or self.prunes):
            e.final = code
        else:
            self.violate("refused", f"{Code(code).name.lower()}: no reason for it", e.key)

    def not_waiting(self, key: Key) -> None:
        """receipts.status said so of an envelope that its sender knows to be accepted."""
        self.event(short(key[0]), "not waiting", key)
        e = self.envelopes[key]
        if not (e.committed or e.final or e.damaged or e.gone):
            self.violate("status", "said to be not waiting, and it was neither delivered nor reported", key)
        e.not_waiting = True

    def marked_read(self, key: Key) -> None:
        self.envelopes[key].marked_read = True

    def may_have_expired(self, e: Envelope) -> bool:
        return self.clock.wall_max_s >= e.sent_wall_s - self.clock.stepped_back_s + e.lifetime_s

    # --- recipients -------------------------------------------------------------------------------------

    def arrived(self, key: Key, kind: int, intact: bool, detail: str) -> None:
        """A delivery reached the device; nothing is committed yet."""
        self.event(short(key[1]), "arrived", key, detail)
        envelope = self.envelopes.get(key)
        if envelope is None or envelope.kind != kind or not intact:
            self.violate("altered", "not what its sender sent", key)

    def committed(self, key: Key) -> None:
        self.envelopes[key].committed = True

    def shown(self, key: Key) -> None:
        e = self.envelopes.get(key)
        if e is None:
            return
        self.event(short(key[1]), "shown", key)
        self.counts["shown"] += 1
        e.shown += 1
        if e.shown > 1:
            self.violate("twice", f"shown {e.shown} times", key)
            return
        before = self._order[key[0], key[1], PRIORITY[Kind(e.kind)]]
        refused_unheard = e.sent_times > 1 and self.disorder()
        if not (e.retried or e.damaged or e.final) and not self.may_have_expired(e) and not refused_unheard:
            late = [other for other in before if other.order > e.order and not other.retried]
            if late:
                self.violate("order", f"shown after #{late[0].key[2]}, which was sent later", key)
        else:
            self.counts["order_excused"] += 1
        before.append(e)

    # --- disks ------------------------------------------------------------------------------------------

    def on_disk(self, key: Key) -> None:
        envelope = self.envelopes.get(key)
        if envelope is not None and not envelope.durable:
            envelope.durable = True
            self.event("disk", "durable", key)

    # --- the end ----------------------------------------------------------------------------------------

    def finish(self, knows: dict[Key, str]) -> None:
        """knows: what each sender believes in the end, for every envelope of a device that still exists."""
        for key, e in self.envelopes.items():
            if e.damaged or e.gone:
                continue
            if e.accepted and not e.shown and not e.final:
                self.violate("lost", "accepted, then neither shown nor reported", key)
            elif key in knows and knows[key] == "unanswered":
                self.violate("unresolved", "its sender still waits for an answer", key)
            elif key in knows and knows[key] == "accepted":
                self.violate("unresolved", "its sender still does not know that it was delivered", key)


LEVEL = {ACCEPTED: "accepted", DELIVERED: "delivered", READ: "read"}


class Clock:
    """Virtual time, as the ledger needs it."""

    now_ns: int = 0
    wall_ms: int = 0
    wall_max_s: int = 0
    stepped_back_s: int = 0  # sum of all steps back
