"""One byte of a stored envelope is changed on disk while the server is down."""

from pathlib import Path

from faults.arena import NUMBERS, Arena, arena
from faults.checks import Violation
from faults.report import Outcome
from wa._fastpath.mailbox.contract import Op
from wa._fastpath.mailbox.store import LmdbMailStore
from wa.ids import number_of, parse_number

ROSTER = {"ann": (NUMBERS[0], 1), "bob": (NUMBERS[1], 1), "cid": (NUMBERS[2], 1)}
MESSAGES = 20


async def corrupt(seed: int, parent: Path | None) -> Outcome:
    async with arena(seed, 2, parent) as ground:
        await ground.open(ROSTER)
        ann, bob, cid = ground.people.persons.values()
        ann.do("burst", to=NUMBERS[1], n=2, size=100)
        await ground.until(lambda: ground.shown(bob) == 2, "the first messages did not arrive")
        await ground.people.stop(bob)
        ann.do("burst", to=NUMBERS[1], n=MESSAGES, size=200)
        cid.do("burst", to=NUMBERS[1], n=MESSAGES, size=200)
        await ground.until(
            lambda: ground.answered(ann) == MESSAGES + 2 and ground.answered(cid) == MESSAGES, "not all was accepted"
        )
        await ground.server.stop()
        victim = _damage(ground)
        await ground.server.start()
        ground.people.start(bob)
        wanted = 2 + 2 * MESSAGES - 1
        await ground.until(lambda: ground.shown(bob) >= wanted, "the neighbours of the damaged one did not come")
        await ground.until(lambda: "mailbox_corrupt" in ground.server.event_names(), "nothing was reported in the log")
        recorded, found = await ground.account(missing=1)
        # Only the damaged one stays where it is: accepted, not delivered, not given up.
        about = {
            row.token for device in recorded.devices.values() for row in device.sent.values() if row.id == victim.id
        }
        outcome = Outcome("a corrupt record")
        outcome.violations = [each for each in found if not set(each.tokens) & about and each.rule != "left"]
        rest = [each for each in found if each.rule == "left"]
        if len(about) != 1 or not any(set(each.tokens) & about for each in found):
            outcome.violations.append(Violation("corrupt", f"the damaged envelope {victim.id:x} was not missed"))
        outcome.facts = {
            "waiting": 2 * MESSAGES,
            "damaged": 1,
            "shown": len(recorded.devices[victim.recipient].shown),
            "left on disk": len(rest),
        }
        ground.conclude(outcome, recorded)
        return outcome


def _damage(ground: Arena) -> Op:
    """Changes one byte in the middle of a body.  -> the envelope."""
    number = parse_number(NUMBERS[1])
    for path in ground.server.mailbox_paths():
        store = LmdbMailStore(path)
        rows = [
            row
            for recipient, priority in sorted({key[:2] for key in store.census()})
            if number_of(recipient) == number
            for row in store.read(recipient, priority)
        ]
        store.close()
        if rows:
            victim = ground.rng.choice(rows[1:-1])  # it has neighbours
            _flip(path / "data.mdb", victim.body, ground.rng.randrange(len(victim.body)))
            return victim
    raise AssertionError("nothing waits for bob")


def _flip(path: Path, body: bytes, at: int) -> None:
    """Flips it in every copy of the body in the file: LMDB may have left old pages."""
    data = bytearray(path.read_bytes())
    places = 0
    place = data.find(body)
    while place >= 0:
        data[place + at] ^= 0x40
        places += 1
        place = data.find(body, place + 1)
    assert places, "the body is on overflow pages or in pieces"
    path.write_bytes(data)
