"""The scenarios of `python -m faults`, each once and short: true server processes, true clients, true faults.

They keep their files in the system's temporary directory: pytest's own paths are too long for Unix sockets.
"""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path

import pytest

from faults import checks, journal
from faults.control import control
from faults.corrupt import corrupt
from faults.cuts import cuts
from faults.disk_full import disk_full
from faults.history import Device, Envelope, History, Row, Told
from faults.kills import kills
from faults.report import Outcome, judged
from faults.slow_reader import blocked_control, slow_reader
from wa.client.events import Direction, State
from wa.wire.methods import Kind

SEED = 1
ANN, BOB = 15551230001 << 8 | 1, 15551230002 << 8 | 1


pytestmark = pytest.mark.timeout(300)


def nothing(done: int) -> None:
    """Progress that nobody watches."""


SCENARIOS: dict[str, Callable[[], Coroutine[None, None, Outcome]]] = {
    "kills": lambda: kills(25, SEED, None, nothing),
    "disk full": lambda: disk_full(SEED, None),
    "cuts": lambda: cuts(15, SEED, None, nothing),
    "slow reader": lambda: slow_reader(4.0, SEED, None),
    "corrupt": lambda: corrupt(SEED, None),
    "control": lambda: control(SEED, None),
    "blocked control": lambda: blocked_control(SEED, None),
}


@pytest.fixture(scope="module")
def played() -> dict[str, Outcome]:
    """All of them beside one another, each with a server of its own: they mostly wait."""

    async def play() -> list[Outcome]:
        return await asyncio.gather(*(judged(name, scenario()) for name, scenario in SCENARIOS.items()))

    return dict(zip(SCENARIOS, asyncio.run(play()), strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_scenario_holds(played: dict[str, Outcome], name: str) -> None:
    outcome = played[name]
    if outcome.skipped:
        pytest.skip(outcome.skipped)
    assert outcome.is_good, "\n".join([*outcome.lines(SEED), f"kept in {outcome.kept}"])


# --- the checkers themselves: each catches what it is for ------------------------------------------------


def row(number: int, sender: int, text: str, state: State, direction: Direction) -> Row:
    peer = "+15551230001" if sender == BOB or direction is Direction.RECEIVED else "+15551230002"
    return Row(number, peer, sender, number, direction, Kind.TEXT, text, state, 0, 0)


def two(*texts: str) -> tuple[History, Device, Device]:
    """ann has sent the texts to bob, and all is well."""
    ann, bob = Device("ann", ANN), Device("bob", BOB)
    for at, text in enumerate(texts, 1):
        ann.rows.append(row(at, ANN, text, State.DELIVERED, Direction.SENT))
        ann.envelopes.append(Envelope(at, at, BOB, at, Kind.TEXT, False, State.DELIVERED, 0))
        bob.rows.append(row(at, ANN, text, State.DELIVERED, Direction.RECEIVED))
    return History({ANN: ann, BOB: bob}), ann, bob


def rules(history: History) -> set[str]:
    return {violation.rule for violation in checks.check(history)}


def test_checkers_are_silent_when_all_is_well() -> None:
    history, ann, _ = two("a.1.1 x", "a.1.2 y")
    ann.told = [Told(n, 1, "receipt", {"id": 1, "state": state}) for n, state in enumerate((1, 3, 4))]
    ann.rows[0] = row(1, ANN, "a.1.1 x", State.READ, Direction.SENT)
    assert checks.check(history) == []


def test_what_is_not_there_is_lost() -> None:
    history, _, bob = two("a.1.1 x", "a.1.2 y")
    del bob.rows[0]
    assert rules(history) == {"lost"}


def test_what_was_told_before_the_store_forgot_it_is_lost() -> None:
    history, ann, _ = two("a.1.1 x")
    ann.told = [Told(0, 1, "receipt", {"id": 99, "state": int(State.ACCEPTED)})]
    assert rules(history) == {"lost"}


@pytest.mark.parametrize("state", [State.PENDING, State.ACCEPTED, State.FAILED])
def test_what_stays_undelivered_is_pending(state: State) -> None:
    history, ann, _ = two("a.1.1 x")
    ann.envelopes[0] = Envelope(1, 1, BOB, 1, Kind.TEXT, False, state, 0)
    assert rules(history) == {"pending"}


def test_what_was_not_sent_to_every_device_is_pending() -> None:
    history, _, _ = two("a.1.1 x")
    history.devices[BOB + 1] = Device("bob2", BOB + 1)
    assert rules(history) == {"pending"}


def test_the_same_text_twice_is_doubled() -> None:
    history, _, bob = two("a.1.1 x")
    bob.rows.append(row(2, ANN, "a.1.1 x", State.DELIVERED, Direction.RECEIVED))
    assert rules(history) == {"doubled"}


def test_shown_again_is_doubled_in_one_life_and_right_after_a_crash() -> None:
    shown = {"token": "a.1.1", "row": 1, "id": 1}
    history, _, bob = two("a.1.1 x")
    bob.told = [Told(0, 1, "shown", shown), Told(1, 2, "shown", shown)]
    assert rules(history) == set()
    bob.told.append(Told(2, 2, "shown", shown))
    assert rules(history) == {"doubled"}


@pytest.mark.parametrize("states", [(3, 1), (1, 1), (4, 3)])
def test_a_receipt_that_does_not_rise_is_falling(states: tuple[int, int]) -> None:
    history, ann, _ = two("a.1.1 x")
    ann.rows[0] = row(1, ANN, "a.1.1 x", State.READ, Direction.SENT)
    ann.told = [Told(n, n, "receipt", {"id": 1, "state": state}) for n, state in enumerate(states)]
    assert rules(history) == {"falling"}


def test_overtaking_is_an_order_violation() -> None:
    history, _, bob = two("a.1.1 x", "a.1.2 y", "a.1.3 z")
    bob.rows = [bob.rows[1], bob.rows[0], bob.rows[2]]
    assert rules(history) == {"order"}


def test_what_nobody_wrote_is_invented() -> None:
    history, _, bob = two("a.1.1 x")
    bob.rows.append(row(2, ANN, "a.1.2 y", State.DELIVERED, Direction.RECEIVED))
    assert rules(history) == {"invented"}
    history, _, bob = two("a.1.1 x")
    bob.rows[0] = row(1, ANN, "a.1.1 changed", State.DELIVERED, Direction.RECEIVED)
    assert rules(history) == {"lost", "invented"}


def test_a_torn_ratchet_is_unreadable() -> None:
    history, _, bob = two("a.1.1 x")
    bob.told = [Told(0, 1, "unreadable", {"sender": "+15551230001", "id": 1, "reason": "x"})]
    assert rules(history) == {"unreadable"}


def test_a_journal_that_a_kill_has_cut(tmp_path: Path) -> None:
    path = tmp_path / journal.NAME
    for _ in range(2):
        journal.Journal(path).tell("shown", token="t")
        with path.open("ab") as file:
            file.write(b'{"what": "sho')
    assert [(life, entry["what"]) for life, entry in journal.read(path)] == [
        (1, "born"),
        (1, "shown"),
        (2, "born"),
        (2, "shown"),
    ]
    with path.open("ab") as file:
        file.write(b'\n{"what": "shown"}\n')
    with pytest.raises(ValueError, match="damaged"):
        list(journal.read(path))
