"""A few hundred simulated worlds, replays, and the negative controls.  `make sim` runs as many as one likes."""

import pytest

from sim.controls import CONTROLS, Control, run_control
from sim.runner import play, run_seeds
from sim.settings import FAULTS, settings_of
from wa._fastpath.mailbox.contract import live_batches

SEEDS = 240
CHUNK = 20
# What these found: order after a crash, identity of a victim, connection of a drop, the clock stepping back.
ONCE_FAILED = (173, 653, 1087, 2796, 7887, 202427, 3010961, 3049571, 3064192, 4057728, 4072548, 4095064)


@pytest.mark.parametrize("first", range(1, SEEDS, CHUNK))
def test_every_rule_holds_under_every_fault(first: int) -> None:
    summary = run_seeds(range(first, first + CHUNK))
    assert summary.failures == []
    assert live_batches() == 0
    assert summary.counts["shown"] > 100 and summary.counts["delivered"] > 100


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_was_mended_stays_mended(seed: int) -> None:
    assert run_seeds([seed]).failures == []


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_alone_does_happen_and_holds(fault: str) -> None:
    summary = run_seeds(range(1, 5), (fault,))
    assert summary.failures == []
    assert summary.counts[f"fault_{fault}"] > 0


def test_without_faults_everything_is_delivered() -> None:
    summary = run_seeds(range(1, 25), ())
    assert summary.failures == []


def test_a_seed_replays_exactly() -> None:
    for seed in range(300, 306):
        worlds = [play(settings_of(seed), history=True) for _ in range(2)]
        assert worlds[0].history.events == worlds[1].history.events
        assert worlds[0].history.digest() == worlds[1].history.digest()
        assert len(worlds[0].history.events) > 50


def test_seeds_differ() -> None:
    assert len({play(settings_of(seed), history=True).history.digest() for seed in range(300, 306)}) == 6


@pytest.mark.parametrize("control", CONTROLS, ids=lambda c: c.name)
def test_a_promise_broken_on_purpose_is_noticed(control: Control) -> None:
    outcome = run_control(control)
    assert set(control.rules) <= set(outcome.caught_by), outcome.caught_by
    assert outcome.false_alarms == []
