"""Some clients get TCP trouble through the proxy; the calm ones talk straight to the server and must not notice."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from faults.arena import NUMBERS, Arena, arena
from faults.checks import Violation
from faults.history import Device, History
from faults.proxy import Proxy, plan
from faults.report import Outcome
from wa.client.events import State

TROUBLED = {"ann": (NUMBERS[0], 1), "ann2": (NUMBERS[0], 2), "bob": (NUMBERS[1], 1)}
CALM = {"cid": (NUMBERS[2], 1), "dee": (NUMBERS[3], 1)}
CALM_MS_MAX = 5_000  # from sending to "delivered" between calm clients, on a machine that may be busy


async def cuts(incidents: int, seed: int, parent: Path | None, progress: Callable[[int], None]) -> Outcome:
    async with arena(seed, 2, parent) as ground:
        proxy = Proxy(ground.server.port)
        await proxy.open()
        try:
            return await _play(ground, proxy, incidents, progress)
        finally:
            await proxy.close()


async def _play(ground: Arena, proxy: Proxy, incidents: int, progress: Callable[[int], None]) -> Outcome:
    ground.ports = dict.fromkeys(TROUBLED, proxy.port)
    await ground.open(TROUBLED | CALM)
    proxy.planned = [plan(ground.rng) for _ in range(incidents)]
    for person in ground.people.persons.values():
        person.go(True)
    for name in TROUBLED:  # logins, so that the plan begins
        person = ground.people.persons[name]
        await ground.people.stop(person)
        ground.people.start(person, going=True)

    def is_over() -> bool:
        progress(len(proxy.happened))
        return not proxy.planned and len(proxy.happened) >= incidents * 0.5

    await ground.until(is_over, "not all planned incidents happened", 60 + incidents * 3)
    recorded, violations = await ground.account()
    outcome = Outcome("TCP cuts", violations)
    for name in CALM:
        device = next(device for device in recorded.devices.values() if device.name == name)
        outcome.violations += _disturbed(recorded, device)
    outcome.facts = {
        **Counter(incident.what.value for incident in proxy.happened),
        "messages": sum(len(device.sent) for device in recorded.devices.values()),
        "shown": sum(len(device.shown) for device in recorded.devices.values()),
        "slowest of the others, ms": max((_delay_ms(recorded, device) for device in _calm(recorded)), default=0),
    }
    ground.conclude(outcome, recorded)
    return outcome


def _calm(recorded: History) -> list[Device]:
    return [device for device in recorded.devices.values() if device.name in CALM]


def _disturbed(recorded: History, device: Device) -> list[Violation]:
    lost = [told for told in device.told if told.what == "disconnected"]
    found = [Violation("disturbed", f"{device.name}, a calm client, was disconnected: {lost}")] if lost else []
    slowest = _delay_ms(recorded, device)
    if slowest > CALM_MS_MAX:
        found.append(Violation("disturbed", f"a message between calm clients took {slowest} ms"))
    return found


def _delay_ms(recorded: History, device: Device) -> int:
    """The longest time from sending to "delivered" among messages to the other calm one."""
    numbers = {each.number for each in _calm(recorded)}
    delivered = {
        told.fields["id"]: told.at_us // 1_000
        for told in reversed(device.told)
        if told.what == "receipt" and told.fields["state"] >= State.DELIVERED
    }
    sent = [row for row in device.sent.values() if row.peer in numbers and row.id in delivered]
    return max((delivered[row.id] - row.sent_ms for row in sent), default=0)
