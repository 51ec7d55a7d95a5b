"""Deliveries: all that came in one read are one transaction, then they are acknowledged.

A delivery is acknowledged only after plaintext, ratchet state and id are committed together.  After `kill -9` before
the commit it comes again; after the commit it is known, and not shown again.  Nothing is dropped:

    decrypted                        -> history
    repeated                         -> acknowledged again, nothing else
    from an identity not accepted    -> parked, decrypted when the user accepts it
    not decryptable                  -> a placeholder in the history; the sender is asked to encrypt it anew
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from wa import limits
from wa.client import content
from wa.client.account import Account
from wa.client.events import Direction, Event, IdentityChanged, MessageUnreadable, ReceiptChanged, State
from wa.e2e.errors import E2EError
from wa.e2e.errors import IdentityChanged as IdentityError
from wa.errors import Code, RemoteError
from wa.ids import NUMBER_MAX, device_of, format_number, number_of
from wa.wire.methods import Kind

TIME_MS_MAX = (1 << 63) - 1
UNREADABLE = "This message could not be decrypted yet. Its sender has been asked to send it again."
UNSUPPORTED = "This message needs a newer version of wa."
RETRIABLE = frozenset({Code.TRY_LATER, Code.MAILBOX_FULL})


@dataclass(frozen=True)
class Delivery:
    """A deliver frame, queued or not."""

    sender: int
    id: int
    kind: int
    body: bytes


@dataclass(frozen=True)
class Receipt:
    """A receipt frame, live or stored."""

    recipient: int
    id: int
    state: State
    code: int = 0


Item = Delivery | Receipt


@dataclass
class Outcome:
    """What a batch led to: events for the user, and work for the outbox."""

    events: list[Event] = field(default_factory=list)
    answered: list[tuple[int, int]] = field(default_factory=list)  # (recipient, id) with a receipt
    drafts: bool = False  # there is something new to encrypt
    messages: bool = False  # there is something new for consumers


class Inbox:
    def __init__(self, account: Account) -> None:
        self._account = account

    def take(self, items: Sequence[Item], *, durable: bool) -> Outcome:
        """Commits the batch.  `durable`: with an fsync, needed when any of it will be acknowledged."""
        outcome = Outcome()
        account = self._account
        with account.store.transaction(durable=durable):
            for item in items:
                if isinstance(item, Delivery):
                    self._deliver(item, outcome)
                    account.hook("receive:decrypted")
                else:
                    self._receipt(item, outcome)
                    account.hook("receipt:read")
        if any(isinstance(item, Delivery) for item in items):
            account.hook("receive:committed")
        else:
            account.hook("receipt:committed")
        return outcome

    def unpark(self, number: int) -> Outcome:
        """Decrypts the parked envelopes of `number`, which the user has accepted; one page per transaction."""
        outcome = Outcome()
        contacts = self._account.contacts
        while page := contacts.parked(number):
            with self._account.store.transaction():
                for parked in page:
                    contacts.unpark(parked.seq)
                    self._open(Delivery(parked.sender, parked.id, parked.kind, parked.body), outcome)
            if contacts.is_held(number):
                break
        return outcome

    # --- deliveries ---

    def _deliver(self, delivery: Delivery, outcome: Outcome) -> None:
        history = self._account.history
        if history.is_received(delivery.sender, delivery.id):
            return
        history.set_received(delivery.sender, delivery.id)
        self._open(delivery, outcome)

    def _open(self, delivery: Delivery, outcome: Outcome) -> None:
        account = self._account
        sender = delivery.sender
        number = number_of(sender)
        was_held = account.contacts.is_held(number)
        if not account.contacts.meet(sender):
            if not was_held:
                outcome.events.append(IdentityChanged(format_number(number), device_of(sender), True))
            account.contacts.park(sender, delivery.id, delivery.kind, delivery.body)
            return
        try:
            with account.store.savepoint():
                plaintext = account.sessions.decrypt(sender, delivery.body)
        except IdentityError as change:
            account.sessions.record_identity_change(change)
            if account.contacts.hold(number):
                outcome.events.append(IdentityChanged(format_number(number), device_of(sender), False))
            account.contacts.park(sender, delivery.id, delivery.kind, delivery.body)
            return
        except E2EError as error:
            self._unreadable(delivery, type(error).__name__, outcome)
            return
        try:
            inner = content.decode(plaintext)
        except RemoteError:
            inner = content.Unsupported("malformed")
        self._show(delivery, inner, outcome)

    def _show(self, delivery: Delivery, inner: content.Content, outcome: Outcome) -> None:
        sender = delivery.sender
        now = self._account.store.clock_ms()
        match inner:
            case content.Text(text, ts_ms, original_id):
                message_id = delivery.id if original_id is None else original_id
                self._add(delivery, outcome, message_id=message_id, peer=number_of(sender), text=text, ts_ms=ts_ms)
            case content.Sync(to, message_id, text, ts_ms) if self._is_own(sender) and 0 < to <= NUMBER_MAX:
                self._add(delivery, outcome, message_id=message_id, peer=to, text=text, ts_ms=ts_ms)
            case content.Again(message_id):
                self._encrypt_anew(sender, message_id, outcome)
            case _:
                self._add(
                    delivery,
                    outcome,
                    message_id=delivery.id,
                    peer=number_of(sender),
                    text=UNSUPPORTED,
                    ts_ms=now,
                )

    def _add(self, delivery: Delivery, outcome: Outcome, *, message_id: int, peer: int, text: str, ts_ms: int) -> None:
        history = self._account.history
        own = self._is_own(delivery.sender)
        earlier = history.find(delivery.sender, message_id)
        if earlier is not None:
            if earlier.state is not State.PENDING:
                return
            history.remove(earlier.row)  # its placeholder
        history.add(
            peer=peer,
            sender=delivery.sender,
            message_id=message_id,
            direction=Direction.SENT if own else Direction.RECEIVED,
            kind=delivery.kind,
            text=text,
            state=State.ACCEPTED if own else State.DELIVERED,
            sent_ms=min(ts_ms, TIME_MS_MAX),
            seen=False,
        )
        outcome.messages = True

    def _is_own(self, sender: int) -> bool:
        return number_of(sender) == number_of(self._account.address)

    def _unreadable(self, delivery: Delivery, reason: str, outcome: Outcome) -> None:
        account = self._account
        sender = delivery.sender
        now = account.store.clock_ms()
        account.history.add(
            peer=number_of(sender),
            sender=sender,
            message_id=delivery.id,
            direction=Direction.RECEIVED,
            kind=delivery.kind,
            text=UNREADABLE,
            state=State.PENDING,
            sent_ms=now,
            seen=True,
        )
        event = MessageUnreadable(format_number(number_of(sender)), device_of(sender), delivery.id, reason)
        outcome.events.append(event)
        if account.outbox.count_drafts(number_of(sender)) >= limits.CLIENT_DRAFTS_UNREADABLE_MAX:
            return
        account.contacts.set_renew(sender, True)
        account.outbox.add_draft(
            message=None,
            number=number_of(sender),
            device=device_of(sender),
            message_id=account.store.new_id(),
            kind=Kind.OTHER,
            content=content.encode(content.Again(delivery.id, now)),
        )
        outcome.drafts = True

    def _encrypt_anew(self, device: int, envelope_id: int, outcome: Outcome) -> None:
        """A device could not read our envelope: drafts the same message for it, in a new envelope."""
        account = self._account
        row = account.outbox.message_of(device, envelope_id)
        if row is None or account.outbox.count_to(row, device) > limits.CLIENT_ASKS_AGAIN_MAX:
            return
        message = account.history.get(row)
        to = int(message.peer[1:])
        inner: content.Text | content.Sync
        if self._is_own(device) and to != number_of(device):
            inner = content.Sync(to, message.id, message.text, message.sent_ms)
        else:
            inner = content.Text(message.text, message.sent_ms, message.id)
        account.outbox.add_draft(
            message=row,
            number=number_of(device),
            device=device_of(device),
            message_id=account.store.new_id(),
            kind=message.kind,
            content=content.encode(inner),
        )
        outcome.drafts = True

    # --- receipts ---

    def _receipt(self, receipt: Receipt, outcome: Outcome) -> None:
        account = self._account
        if receipt.state is State.FAILED and receipt.code in RETRIABLE:
            return
        change = account.outbox.raise_state(receipt.recipient, receipt.id, receipt.state, receipt.code)
        outcome.answered.append((receipt.recipient, receipt.id))
        if change is None or change.message is None:
            return
        if receipt.code == Code.ADDRESS_UNKNOWN and self._look_again(change.message, receipt):
            outcome.drafts = True
            return
        event = self.update_message(change.message)
        if event is not None:
            outcome.events.append(event)

    def _look_again(self, row: int, receipt: Receipt) -> bool:
        """The device is gone: drafts the message for the number's new devices, if there are any."""
        account = self._account
        number = number_of(receipt.recipient)
        account.contacts.set_stale(number)
        message = account.history.get(row)
        if self._is_own(receipt.recipient) or receipt.id != message.id:
            return False
        account.outbox.add_draft(
            message=row,
            number=number,
            device=0,
            message_id=message.id,
            kind=message.kind,
            content=content.encode(content.Text(message.text, message.sent_ms)),
        )
        return True

    def update_message(self, row: int) -> ReceiptChanged | None:
        """Raises a message to what its envelopes say; call inside a transaction."""
        account = self._account
        if account.outbox.has_draft_of(row):
            state, reason = account.outbox.state_of_message(row)
            if state < State.DELIVERED:
                return None
        else:
            state, reason = account.outbox.state_of_message(row)
        return self.raise_message(row, state, reason)

    def raise_message(self, row: int, state: State, reason: int) -> ReceiptChanged | None:
        """None when the message was as far already; call inside a transaction."""
        message = self._account.history.raise_state(row, state, reason)
        if message is None:
            return None
        return ReceiptChanged(message.id, message.peer, message.state, message.reason, row)
