"""Negative controls: each breaks one promise on purpose, and the checkers must notice.

A control names the rules that must be violated.  The same faults with the promise kept must pass.  One control that is
not caught, or one false alarm, fails the command.
"""

from dataclasses import dataclass

from sim.runner import play
from sim.settings import settings_of


@dataclass(frozen=True)
class Control:
    name: str  # of settings.Settings.control
    breaks: str
    faults: tuple[str, ...]
    rules: tuple[str, ...]  # all of these must be violated


CONTROLS = (
    Control("no_fsync", "the store says done without fsync", ("power_loss", "offline"), ("lost", "accepted")),
    Control("early", "accepted is told before the commit", ("power_loss", "offline"), ("lost", "accepted")),
    Control("forgetful", "the mailbox entry is deleted before the acknowledgement", ("cut", "crash_client"), ("lost",)),
    Control("no_dedup", "the store does not deduplicate", ("cut", "crash_client", "offline"), ("queued",)),
    Control("silent", "what is taken out leaves no receipt", ("offline", "crash_worker"), ("lost",)),
    Control("client_no_dedup", "the client does not deduplicate", ("cut", "crash_client"), ("twice",)),
    Control("client_early_ack", "the client acknowledges before its commit", ("crash_client",), ("lost", "delivered")),
)
SEEDS = range(1, 61)
POSITIVE_SEEDS = range(1, 13)


@dataclass(frozen=True)
class Outcome:
    control: Control
    caught_by: dict[str, int]  # rule -> the seed that first violated it
    false_alarms: list[int]  # seeds that fail with the promise kept

    @property
    def good(self) -> bool:
        return not self.false_alarms and all(rule in self.caught_by for rule in self.control.rules)


def run_control(control: Control) -> Outcome:
    caught: dict[str, int] = {}
    for seed in SEEDS:
        world = play(settings_of(seed, control=control.name, faults=control.faults))
        for violation in world.ledger.violations:
            caught.setdefault(violation.rule, seed)
        if all(rule in caught for rule in control.rules):
            break
    alarms = [seed for seed in POSITIVE_SEEDS if play(settings_of(seed, faults=control.faults)).ledger.violations]
    return Outcome(control, caught, alarms)
