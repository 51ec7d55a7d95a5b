"""Who owns a shard is what the table says, also where the table is not the remainder."""

from pathlib import Path

import pytest

from sim._native.memory_store import MemoryMailStore
from tests.integration.rig import OpenDoor, Rig, running
from wa import limits
from wa._fastpath.loop.loop import Loop
from wa.errors import LocalError
from wa.routing.shards import owners_of, shard_of
from wa.wire.frames import Accepted, Ack, Deliver, Delivered, MarkRead, Read, Send, StoredReceipt

ALICE, BOB = 15551230001, 15551230002
A, B = ALICE << 8 | 1, BOB << 8 | 1


def moved(workers: int) -> list[int]:
    """As data directories are laid out, but for the shard of Bob, which went to the next worker."""
    owners = list(owners_of(workers))
    owners[shard_of(BOB)] = (owners[shard_of(BOB)] + 1) % workers
    return owners


@pytest.mark.parametrize("workers", [2, 3])
def test_messages_logins_and_receipts_go_where_the_table_says(tmp_path: Path, workers: int) -> None:
    rig = Rig(tmp_path, workers, ticket_key=bytes(32), owners=moved(workers))
    for number in (ALICE, BOB):
        rig.add_device(number, known=True)
    with running(rig):
        alice = rig.phone(A)
        alice.send(Send(1, B, 1, b"before Bob is there"))
        assert alice.expect(Accepted) == Accepted(B, 1)
        owner = moved(workers)[shard_of(BOB)]
        assert [len(store.census()) for store in rig.stores] == [k == owner for k in range(workers)]
        for _ in range(workers * 2):  # whichever worker accepts
            bob = rig.phone(B)
            assert [loop.is_connected(B) for loop in rig.loops] == [k == owner for k in range(workers)]
        assert bob.expect(Deliver).body == b"before Bob is there"
        bob.send(Ack(1), MarkRead(A, 1))
        assert [alice.expect((Delivered, Read)) for _ in range(2)] == [Delivered(B, 1), Read(B, 1)]
        alice.close()
        bob.send(Send(1, A, 2, b"back"), MarkRead(A, 1))
        assert bob.expect(Accepted) == Accepted(A, 2)
        alice = rig.phone(A)
        come = {type(frame): frame for frame in (alice.expect((Deliver, StoredReceipt)) for _ in range(2))}
        assert (come[Deliver].body, come[StoredReceipt].level) == (b"back", 0x22)


@pytest.mark.parametrize(
    "owners", [[0] * 1_023, [0] * 1_025, [2] * 1_024, [-1] * 1_024, ["0"] * 1_024, [0.0] * 1_024, []]
)
def test_a_table_that_is_none_is_refused(tmp_path: Path, owners: list[object]) -> None:
    assert limits.SHARDS == 1_024
    with pytest.raises(LocalError, match="owners"):
        Loop(
            worker=0,
            workers=2,
            store=MemoryMailStore(),
            sink=OpenDoor(),
            static_private=bytes(32),
            certificate=bytes(113),
            run_dir=str(tmp_path),
            owners=owners,  # type: ignore[arg-type]
        )
