"""What `Client.events()` yields, and the states of a message."""

from dataclasses import dataclass
from enum import IntEnum

from wa.errors import Code


class State(IntEnum):
    """How far a message is.  A state only rises, so a refusal after the delivery is ignored."""

    PENDING = 0  # in the outbox
    ACCEPTED = 1  # one tick: the server has custody
    FAILED = 2  # refused for good, expired or dropped; `reason` says which
    DELIVERED = 3  # two ticks: a device of the recipient has it
    READ = 4  # two blue ticks


class Direction(IntEnum):
    RECEIVED = 0
    SENT = 1


@dataclass(frozen=True)
class Connected:
    """Logged in.  `queued` envelopes waited on the server."""

    queued: int


@dataclass(frozen=True)
class Disconnected:
    """`retry_in`: seconds until the next attempt; None: there is none, and `code` says why."""

    reason: str
    code: Code | None
    retry_in: float | None


@dataclass(frozen=True)
class MessageReceived:
    """Comes at least once per message: a crash in the handler brings it again, with the same `id`."""

    text: str
    sender: str  # "+15551230001"
    device: int
    time_ms: int  # the sender's clock, Unix ms
    id: int
    row: int  # order of arrival on this device


@dataclass(frozen=True)
class MessageSynced:
    """Another device of this account sent this message."""

    text: str
    recipient: str
    time_ms: int
    id: int
    row: int


@dataclass(frozen=True)
class MessageUnreadable:
    """An envelope could not be decrypted; its sender was asked to encrypt it anew."""

    sender: str
    device: int
    id: int
    reason: str


@dataclass(frozen=True)
class ReceiptChanged:
    """A message of ours rose to `state`."""

    id: int
    recipient: str
    state: State
    reason: Code | None
    row: int


@dataclass(frozen=True)
class IdentityChanged:
    """The identity keys of `number` changed: nothing is sent to it until `Client.acknowledge_identity(number)`.

    `new_device`: true when a device was added, false when a known device has another key."""

    number: str
    device: int
    new_device: bool


@dataclass(frozen=True)
class DevicesChanged:
    """A device of our own account was added or removed."""

    device: int
    added: bool
    name: str


Event = (
    Connected
    | Disconnected
    | MessageReceived
    | MessageSynced
    | MessageUnreadable
    | ReceiptChanged
    | IdentityChanged
    | DevicesChanged
)
