"""The negative control's client: it acknowledges a delivery before its own commit, and may be killed in between.

The loss checker must find messages that are "delivered" and that nobody has.  The SDK has no such switch: this patches
it.
"""

import os
import random
import signal
from collections.abc import Sequence

from wa.client.connection import Connection
from wa.client.inbox import Item
from wa.client.link import Link
from wa.client.outbox import Outbox

DIE_CHANCE = 0.2  # per batch of deliveries, between acknowledgement and commit


def acknowledge_early(rng: random.Random) -> None:
    """Patches the SDK in this process, for good."""
    committing_first = Link._take

    def take(link: Link, connection: Connection, outbox: Outbox, items: Sequence[Item], seqs: Sequence[int]) -> None:
        if seqs:
            connection.acknowledge(seqs)
            if rng.random() < DIE_CHANCE:
                os.kill(os.getpid(), signal.SIGKILL)
        committing_first(link, connection, outbox, items, seqs)

    Link._take = take  # type: ignore[method-assign, assignment]
