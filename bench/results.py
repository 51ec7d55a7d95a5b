"""Figures: series of samples, their targets, and the JSON file they go to."""

import json
import math
import platform
import statistics
import sysconfig
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.build import checkout
from bench.kernel import machine, setting

RELEASE_FLAGS = "-O3 -DNDEBUG (release build in build/bench, no assertions)"
ALL_ON = (
    "Nothing is switched off: accounts, registry, Noise IK, custody with its 50 ms linger, mailbox with fsync, "
    "receipts, budgets and counters are those of `wa serve` with its default settings."
)
SETTINGS = ("fs.file-max", "net.core.somaxconn", "net.ipv4.tcp_mem", "net.ipv4.tcp_congestion_control")
Sample = dict[str, float]


@dataclass
class Series:
    """Samples of one contestant under one load, in the order of the rounds."""

    label: str
    load: str
    samples: list[Sample] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        return [sample[name] for sample in self.samples if name in sample and not math.isnan(sample[name])]

    def median(self, name: str) -> float:
        values = self.values(name)
        return statistics.median(values) if values else math.nan

    def less(self, other: "Series", name: str) -> "Series":
        """What one metric has above that of another, round by round."""
        values = zip(self.values(name), other.values(name), strict=True)
        return Series(self.label, self.load, [{name: own - theirs} for own, theirs in values])

    def spread(self, name: str) -> tuple[float, float]:
        values = self.values(name)
        return (min(values), max(values)) if values else (math.nan, math.nan)


@dataclass
class Target:
    """A figure and its bound: at most, or at least.  With bound None it is reported, not judged."""

    name: str
    value: float
    bound: float | None
    at_most: bool
    unit: str = ""
    low: float = math.nan
    high: float = math.nan

    @property
    def met(self) -> bool | None:
        if self.bound is None or math.isnan(self.value):
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound


@dataclass
class Report:
    scenario: str
    parameters: dict[str, Any]
    series: list[Series] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    plots: dict[str, Any] = field(default_factory=dict)  # data of plots.py, by kind
    environment: dict[str, Any] = field(default_factory=dict)

    def find(self, label: str, load: str) -> Series:
        for series in self.series:
            if (series.label, series.load) == (label, load):
                return series
        made = Series(label, load)
        self.series.append(made)
        return made

    def ratio(self, name: str, above: Series, below: Series, metric: str) -> Target:
        """above / below, per round, as a target without a bound yet; rounds are compared with themselves."""
        ratios = [a / b for a, b in zip(above.values(metric), below.values(metric), strict=True) if b]
        if not ratios:
            return Target(name, math.nan, None, True)
        return Target(name, statistics.median(ratios), None, True, "×", min(ratios), max(ratios))

    @property
    def sound(self) -> bool:
        """Every message arrived once and every receipt came."""
        return not self.faults

    def to_json(self) -> str:
        data = asdict(self)
        for entry, target in zip(data["targets"], self.targets, strict=True):
            entry["met"] = target.met
        return json.dumps(data, indent=1)


def environment(revision: str, suite: int) -> dict[str, Any]:
    found: dict[str, Any] = dict(machine())
    found |= {
        "commit": revision,
        "build": RELEASE_FLAGS,
        "compiler": f"{sysconfig.get_config_var('CC')} {sysconfig.get_config_var('CFLAGS')}",
        "python": platform.python_version(),
        "cipher": {1: "ChaCha20-Poly1305", 2: "AES-256-GCM"}[suite],
        "when": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "sysctl": {name: setting(name) for name in SETTINGS},
        "semantics": ALL_ON,
    }
    return found


def results_directory() -> Path:
    path = checkout() / "bench" / "results"
    path.mkdir(parents=True, exist_ok=True)
    return path
