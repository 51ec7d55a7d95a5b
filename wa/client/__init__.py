"""The client SDK: `Client`, its events and its errors (docs/client.md)."""

import logging

from wa.client.client import Client
from wa.client.connection import ConnectionLost
from wa.client.events import (
    Connected,
    DevicesChanged,
    Direction,
    Disconnected,
    Event,
    IdentityChanged,
    MessageReceived,
    MessageSynced,
    MessageUnreadable,
    ReceiptChanged,
    State,
)
from wa.client.history import Conversation, StoredMessage
from wa.client.message import Message, SendFailed
from wa.client.timing import Timing

# The program decides whether anything is logged: by default nothing goes to its screen.
logging.getLogger("wa.client").addHandler(logging.NullHandler())

__all__ = [
    "Client",
    "Connected",
    "ConnectionLost",
    "Conversation",
    "DevicesChanged",
    "Direction",
    "Disconnected",
    "Event",
    "IdentityChanged",
    "Message",
    "MessageReceived",
    "MessageSynced",
    "MessageUnreadable",
    "ReceiptChanged",
    "SendFailed",
    "State",
    "StoredMessage",
    "Timing",
]
