"""Negative control: the loss checker must catch a client that acknowledges before it has committed."""

from pathlib import Path

from faults.arena import NUMBERS, arena
from faults.checks import Violation
from faults.report import Outcome

MESSAGES = 150
ROSTER = {"ann": (NUMBERS[0], 1), "bob": (NUMBERS[1], 1)}


async def control(seed: int, parent: Path | None) -> Outcome:
    async with arena(seed, 2, parent) as ground:
        await ground.open(ROSTER, early_ack=("bob",))
        ann = ground.people.persons["ann"]
        ann.do("burst", to=NUMBERS[1], n=MESSAGES, size=100)
        await ground.until(lambda: ground.answered(ann) >= MESSAGES, "ann's messages were not all answered")
        recorded, found = await ground.account()
        rules = {violation.rule for violation in found}
        outcome = Outcome("control: acknowledges before its commit")
        outcome.facts = {
            "deaths of the client": ground.deaths_at_steps,
            "lost and caught": sum(violation.rule == "lost" for violation in found),
        }
        if "lost" not in rules:
            outcome.violations = [Violation("control", "messages were lost and no checker noticed")]
        outcome.violations += [each for each in found if each.rule not in ("lost", "unreadable", "pending")]
        ground.conclude(outcome, recorded)
        return outcome
