"""The short set: scenarios made small, so that all of them end within five minutes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from bench import group, idle, latency, offline, queued, relay, storm, unacknowledged
from bench.results import Report
from bench.settings import Settings

IDLE_CONNECTIONS = 10_000
OFFLINE_RECIPIENTS = 512
QUEUED_RECIPIENTS = 500
UNACKNOWLEDGED_S = 6.0  # long enough for one resend of the oldest deliveries


def run(settings: Settings) -> Iterator[Report]:
    """Yields each report when its scenario has run."""
    few = replace(settings, rounds=min(settings.rounds, 3), seconds=min(settings.seconds, 1.0))
    steps: list[Callable[[], Report]] = [
        lambda: relay.run(replace(settings, seconds=min(settings.seconds, 1.0))),
        lambda: latency.run(few),
        lambda: storm.run(few),
        lambda: offline.run(few, OFFLINE_RECIPIENTS),
        lambda: unacknowledged.run(replace(few, seconds=UNACKNOWLEDGED_S)),
        lambda: queued.run(few, QUEUED_RECIPIENTS),
        lambda: group.run(few),
        lambda: idle.run(few, IDLE_CONNECTIONS),
    ]
    for step in steps:
        yield step()
