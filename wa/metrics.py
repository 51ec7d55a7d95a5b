"""Counters of the cold path, and the Prometheus text of all counters of a server.

A name in GAUGES is a present value.  Every other name counts since its worker started.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

PREFIX = "wa_"
GAUGES = frozenset(
    {
        # of the loop
        "connections",
        "half_open",
        "handshakes_waiting",
        "devices",
        "custody_entries",
        "custody_deleting",
        "slab_used_bytes",
        "slab_cached_bytes",
        # of the cold path
        "registry_waiting",
        "peer_calls_open",
        # of push
        "push_pending",
        "push_queued",
        # of the mailbox store
        "mailbox_map_bytes",
        "mailbox_used_bytes",
        "mailbox_index_bytes",
        "mailbox_last_error",
    }
)


class Counters:
    """Named counts of one worker, touched by its own threads only."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def add(self, name: str, count: int = 1) -> None:
        assert name not in GAUGES, name
        self._counts[name] = self._counts.get(name, 0) + count

    def read(self) -> dict[str, int]:
        return dict(self._counts)


class _Workers(Collector):
    def __init__(self, stats: Mapping[str, Mapping[str, int]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        for name in sorted({name for counts in self._stats.values() for name in counts}):
            family = GaugeMetricFamily if name in GAUGES else CounterMetricFamily
            metric = family(PREFIX + name, name.replace("_", " "), labels=["worker"])
            for worker, counts in self._stats.items():
                if name in counts:
                    metric.add_metric([worker], counts[name])
            yield metric


def exposition(stats: Mapping[str, Mapping[str, int]]) -> str:
    """Prometheus text format 0.0.4 of the counters of every worker and helper, labelled by its number or name."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Workers(stats))
    return generate_latest(registry).decode()
