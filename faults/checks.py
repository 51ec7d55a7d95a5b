"""The checkers: what must hold over a history once everything is up and quiet.  Each yields violations.

lost          an accepted message is at each of its devices, as it was written
pending       no message in a sender's store waits for ever, or failed
doubled       no message is shown twice
falling       receipts only rise
order         from one sender's device to one device, messages of one priority come in the order of sending
unreadable    no ratchet is torn and no identity changed: nobody was asked to encrypt anew
left          the server's mailboxes are empty
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from faults.history import Device, Envelope, History, Row
from wa._fastpath.mailbox.contract import Op
from wa.client.events import Direction, State
from wa.errors import Code
from wa.ids import format_number, number_of
from wa.wire.methods import PRIORITY, Kind

TOLD = (State.ACCEPTED, State.DELIVERED, State.READ)


@dataclass(frozen=True)
class Violation:
    """`tokens`: the messages whose stories explain the violation."""

    rule: str
    what: str
    tokens: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.rule}: {self.what}"


def lost(history: History) -> Iterator[Violation]:
    for sender in history.devices.values():
        for envelope in sender.envelopes:
            if envelope.message is None or envelope.state not in TOLD:
                continue
            message = sender.sent[envelope.message]
            recipient = history.devices.get(envelope.recipient)
            if recipient is None:
                where = _name(envelope.recipient)
                yield Violation("lost", f"{message.token} went to {where}, which is nobody", (message.token,))
            elif not _has(recipient, message):
                told = f"was told {envelope.state.name.lower()} and is not at {recipient.name}"
                yield Violation("lost", f"{message.token} {told}", (message.token,))
        yield from _lost_by_journal(history, sender)


def _lost_by_journal(history: History, sender: Device) -> Iterator[Violation]:
    """Messages that were told "accepted" before a crash, and that the sender's own store does not know."""
    states = {row.id: row for row in sender.sent.values()}
    for id_, told in sender.told_states.items():
        best = max(told)
        message = states.get(id_)
        if message is None:
            yield Violation("lost", f"{sender.name} was told {best.name.lower()} of {id_}, which its store never had")
        elif best in TOLD and not any(_has(device, message) for device in history.of_number(message.peer)):
            yield Violation("lost", f"{message.token} was told {best.name.lower()} and is nowhere", (message.token,))


def _has(device: Device, message: Row) -> bool:
    return any(row.text == message.text for row in device.shown_by_token.get(message.token, ()))


def pending(history: History) -> Iterator[Violation]:
    for sender in history.devices.values():
        if sender.drafts or sender.parked:
            yield Violation("pending", f"{sender.name} still has {sender.drafts} drafts and {sender.parked} parked")
        by_message: dict[int, list[Envelope]] = {}
        for envelope in sender.envelopes:
            if envelope.message is not None:
                by_message.setdefault(envelope.message, []).append(envelope)
            if envelope.state not in (State.DELIVERED, State.READ):
                token = sender.sent[envelope.message].token if envelope.message is not None else ""
                state = _state(envelope.state, envelope.reason)
                yield Violation("pending", f"{token} to {_name(envelope.recipient)} ended {state}", (token,))
        for message in sender.sent.values():
            if message.state not in (State.DELIVERED, State.READ):
                state = _state(message.state, message.reason)
                yield Violation("pending", f"{message.token} of {sender.name} ended {state}", (message.token,))
            there = {envelope.recipient for envelope in by_message.get(message.row, ())}
            for device in [*history.of_number(message.peer), *history.of_number(sender.number)]:
                if device is not sender and device.address not in there:
                    yield Violation("pending", f"{message.token} was never sent to {device.name}", (message.token,))


def _state(state: State, reason: int) -> str:
    return f"{state.name.lower()} ({Code(reason).name.lower()})" if reason else state.name.lower()


def doubled(history: History) -> Iterator[Violation]:
    for device in history.devices.values():
        for token, rows in device.shown_by_token.items():
            if len(rows) > 1:
                places = [f"row {row.row} id {row.id}" for row in rows]
                yield Violation("doubled", f"{token} is {len(rows)} times at {device.name}: {places}", (token,))
        seen: dict[tuple[int, str], int] = {}
        rows_of: dict[str, int] = {}
        for told in device.told:
            if told.what not in ("shown", "synced"):
                continue
            token, row = told.fields["token"], told.fields["row"]
            seen[told.life, token] = seen.get((told.life, token), 0) + 1
            if seen[told.life, token] > 1:
                yield Violation("doubled", f"{token} was shown twice in one life of {device.name}", (token,))
            if rows_of.setdefault(token, row) != row:
                yield Violation("doubled", f"{token} was shown as two messages at {device.name}", (token,))


def invented(history: History) -> Iterator[Violation]:
    """Every shown message was written, by its named sender, for this recipient."""
    written = {row.token: (device, row) for device in history.devices.values() for row in device.sent.values()}
    for device in history.devices.values():
        for row in device.shown:
            if row.direction is Direction.RECEIVED and row.state is State.PENDING:
                yield Violation("unreadable", f"{device.name} has an unreadable message in row {row.row}")
                continue
            sender, message = written.get(row.token, (None, None))
            if sender is None or message is None:
                yield Violation("invented", f"{row.token[:40]} at {device.name} was never written", (row.token[:40],))
                continue
            peer = sender.number if row.direction is Direction.RECEIVED else message.peer
            if row.text != message.text or row.sender != sender.address or row.peer != peer:
                yield Violation("invented", f"{row.token} at {device.name} is not as it was written", (row.token,))


def falling(history: History) -> Iterator[Violation]:
    for device in history.devices.values():
        rows = {row.id: row for row in device.sent.values()}
        for id_, states in device.told_states.items():
            token = rows[id_].token if id_ in rows else ""
            if any(later <= earlier for earlier, later in pairwise(states)):
                names = " ".join(state.name.lower() for state in states)
                yield Violation("falling", f"{token} of {device.name} was told {names}", (token,))
            if id_ in rows and rows[id_].state < max(states):
                yield Violation("falling", f"{token} of {device.name} fell below {max(states).name.lower()}", (token,))


def order(history: History) -> Iterator[Violation]:
    for recipient in history.devices.values():
        for sender in history.devices.values():
            if sender is recipient:
                continue
            for priority in sorted(set(PRIORITY.values())):
                yield from _order(sender, recipient, priority)


def _order(sender: Device, recipient: Device, priority: int) -> Iterator[Violation]:
    place = {
        sender.sent[envelope.message].token: envelope.seq
        for envelope in sender.envelopes
        if envelope.recipient == recipient.address and envelope.message is not None
    }
    came = [
        row
        for row in recipient.shown
        if row.sender == sender.address and PRIORITY[Kind(row.kind)] == priority and row.token in place
    ]
    for before, after in pairwise(came):
        if place[after.token] < place[before.token]:
            what = f"{sender.name} wrote {after.token} before {before.token}, {recipient.name} got it after"
            yield Violation("order", what, (after.token, before.token))


def unreadable(history: History) -> Iterator[Violation]:
    for device in history.devices.values():
        for told in device.told:
            if told.what in ("unreadable", "identity changed"):
                yield Violation("unreadable", f"{device.name} was told {told.what}: {told.fields}")
        for envelope in device.envelopes:
            if envelope.message is None:
                yield Violation("unreadable", f"{device.name} asked {_name(envelope.recipient)} to encrypt anew")


CHECKS: tuple[Callable[[History], Iterator[Violation]], ...] = (
    lost,
    pending,
    doubled,
    invented,
    falling,
    order,
    unreadable,
)


def check(history: History) -> list[Violation]:
    return [violation for checker in CHECKS for violation in checker(history)]


def left(rows: Sequence[Op]) -> list[Violation]:
    """rows: `Server.left` of the stopped server."""
    return [
        Violation("left", f"{row.what.name} of {_name(row.sender)} for {_name(row.recipient)}, id {row.id}")
        for row in rows
    ]


def _name(address: int) -> str:
    return f"{format_number(number_of(address))}/{address & 0xFF}"
