"""Turns drafts into envelopes: encrypted for each device of the recipient, in one transaction with the ratchets.

No network: `missing` says which bundles are needed, `seal` takes them.  A plaintext becomes one envelope per device,
all with the same id (an envelope's identity includes its recipient), and a copy for each other device of our account.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from wa.client import content
from wa.client.account import Account
from wa.client.events import Event, IdentityChanged, State
from wa.client.inbox import Inbox
from wa.client.outbox_table import Draft
from wa.e2e.keys import PreKeyBundle
from wa.errors import Code
from wa.ids import address_of, device_of, format_number, number_of


@dataclass
class Sealed:
    """What `seal` did."""

    events: list[Event] = field(default_factory=list)
    done: bool = True  # False: the number is held, its drafts wait


class Sealer:
    def __init__(self, account: Account, inbox: Inbox) -> None:
        self._account = account
        self._inbox = inbox
        self._own_number = number_of(account.address)

    def own_devices(self) -> list[int]:
        """Our other devices that the user trusts."""
        account = self._account
        devices = account.contacts.devices(self._own_number)
        return [address for address in devices if address != account.address]

    def targets(self, number: int) -> list[int]:
        devices = self.own_devices() if number == self._own_number else self._account.contacts.devices(number)
        asked = {address_of(number, draft.device) for draft in self._account.outbox.drafts(number) if draft.device}
        return sorted(set(devices) | asked)

    def missing(self, addresses: Iterable[int]) -> list[int]:
        """Those of the devices whose bundle is needed."""
        account = self._account
        return [a for a in addresses if account.contacts.must_renew(a) or not account.sessions.has_session(a)]

    def is_ready(self, number: int) -> bool:
        """True when a message to the number can be sealed now, without the network."""
        contacts = self._account.contacts
        return (
            contacts.is_fresh(number)
            and contacts.is_fresh(self._own_number)
            and not contacts.is_held(number)
            and not self.missing([*self.targets(number), *self.own_devices()])
            and bool(self.targets(number))
        )

    def seal(self, number: int, bundles: Iterable[PreKeyBundle]) -> Sealed:
        """Seals all drafts of a number.  Devices without a session are left out."""
        result = Sealed()
        account = self._account
        if not self._start_sessions(bundles, result):
            result.done = False
            return result
        while drafts := account.outbox.drafts(number):
            with account.store.transaction():
                for draft in drafts:
                    self.seal_draft(draft, result)
                account.hook("send:encrypted")
            account.hook("send:committed")
        return result

    def _start_sessions(self, bundles: Iterable[PreKeyBundle], result: Sealed) -> bool:
        """False when an identity of the recipient changed."""
        account = self._account
        may_send = True
        with account.store.transaction():
            for bundle in bundles:
                number = number_of(bundle.address)
                account.sessions.start_session(bundle)
                account.contacts.set_renew(bundle.address, False)
                if account.sessions.pending_identity(bundle.address) is None:
                    continue
                may_send = may_send and number == self._own_number
                if account.contacts.hold(number):
                    event = IdentityChanged(format_number(number), device_of(bundle.address), False)
                    result.events.append(event)
        return may_send

    def seal_draft(self, draft: Draft, result: Sealed) -> None:
        """One draft; call inside a transaction."""
        account = self._account
        if draft.device:
            targets: list[int] = [address_of(draft.number, draft.device)]
        elif draft.number == self._own_number:
            targets = self.own_devices()
        else:
            targets = account.contacts.devices(draft.number)
        for address in targets:
            self._envelope(draft, address, draft.content)
        if draft.message is not None and not draft.device and draft.number != self._own_number:
            message = account.history.get(draft.message)
            copy = content.encode(content.Sync(draft.number, message.id, message.text, message.sent_ms))
            for address in self.own_devices():
                self._envelope(draft, address, copy)
        account.outbox.remove_draft(draft.seq)
        if draft.message is not None:
            event = self._inbox.update_message(draft.message)
            if event is not None:
                result.events.append(event)

    def _envelope(self, draft: Draft, address: int, plaintext: bytes) -> None:
        account = self._account
        if account.outbox.has(address, draft.id) or not account.sessions.has_session(address):
            return
        if account.sessions.pending_identity(address) is not None:
            return  # it is one of our own devices: nothing is sealed for a held recipient
        account.outbox.add(
            message=draft.message,
            recipient=address,
            envelope_id=draft.id,
            kind=draft.kind,
            own=number_of(address) == self._own_number,
            ciphertext=account.sessions.encrypt(address, plaintext),
        )

    def set_devices(self, number: int, addresses: Sequence[int]) -> list[Event]:
        """Stores a fetched device list; new devices of a number we know hold it."""
        with self._account.store.transaction():
            fresh = self._account.contacts.set_devices(number, addresses)
        return [IdentityChanged(format_number(number), device_of(address), True) for address in fresh]

    def set_stale(self, number: int) -> None:
        with self._account.store.transaction():
            self._account.contacts.set_stale(number)

    def fail(self, number: int, code: Code) -> list[Event]:
        """No device of the number can ever be reached: fails its drafts."""
        account = self._account
        events: list[Event] = []
        with account.store.transaction():
            while drafts := account.outbox.drafts(number):
                for draft in drafts:
                    account.outbox.remove_draft(draft.seq)
                    if draft.message is None:
                        continue
                    state, _ = account.outbox.state_of_message(draft.message)
                    if state is State.PENDING:
                        event = self._inbox.raise_message(draft.message, State.FAILED, code)
                        if event is not None:
                            events.append(event)
        return events
