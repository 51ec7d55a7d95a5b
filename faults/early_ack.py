"""The negative control: a client that acknowledges a delivery before its own commit, and is killed in between.

The switch is here and not in the SDK.  With it the loss checker has to find messages that were told
"delivered" and that nobody has.
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
    """Changes the SDK in this process, for good."""
    committing_first = Link._take

    def take(link: Link, connection: Connection, outbox: Outbox, items: Sequence[Item], seqs: Sequence[int]) -> None:
        if seqs:
            connection.acknowledge(seqs)
            if rng.random() < DIE_CHANCE:
                os.kill(os.getpid(), signal.SIGKILL)
        committing_first(link, connection, outbox, items, seqs)

    Link._take = take  # type: ignore[method-assign, assignment]
