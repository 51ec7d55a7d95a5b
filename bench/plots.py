"""Plots of a report as SVG and PNG: throughput and CPU, distribution of latency, memory per connection, idle cost."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.histogram import BOUNDS
from bench.results import Report, Series

FORMATS = ("svg", "png")
mpl.use("Agg")
mpl.rcParams["svg.hashsalt"] = "bench"  # the same figures make the same file


def draw(report: Report, directory: Path) -> list[Path]:
    """Every plot that the report has figures for; returns the SVG files."""
    made = []
    for name, metric, axis in (
        ("throughput", "per_s", "messages with receipt per second"),
        ("cpu", "cpu_us", "server CPU per message, µs"),
        ("bytes", "server_bytes", "server bytes per connection"),
    ):
        series = [one for one in report.series if one.values(metric)]
        if series:
            made.append(save(directory / f"{report.scenario}-{name}", partial(bars, series, metric, axis)))
    if "latency" in report.plots:
        counts = report.plots["latency"]
        made.append(save(directory / f"{report.scenario}-latency", partial(latency, counts)))
    if "idle_cost" in report.plots:
        found = report.plots["idle_cost"]
        made.append(save(directory / f"{report.scenario}-cost", partial(idle_cost, found)))
    if any(series.values("kernel_bytes") for series in report.series):
        made.append(save(directory / f"{report.scenario}-memory", partial(memory, report)))
    return made


def save(stem: Path, plot: Callable[[Axes], None]) -> Path:
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    plot(figure.add_subplot())
    for form in FORMATS:
        figure.savefig(f"{stem}.{form}", metadata={"Date": None} if form == "svg" else None)
    return Path(f"{stem}.svg")


def bars(series: list[Series], metric: str, title: str, axes: Axes) -> None:
    """Medians, with whiskers from the lowest to the highest run."""
    medians = np.array([one.median(metric) for one in series])
    spreads = np.array([one.spread(metric) for one in series]).T
    places = np.arange(len(series))[::-1]
    axes.barh(places, medians, color="#4878a8")
    axes.errorbar(medians, places, xerr=np.abs(spreads - medians), fmt="none", ecolor="black", capsize=3)
    axes.set_yticks(places, [f"{one.load}: {one.label}" for one in series])
    axes.set_xlabel(title)
    axes.set_xlim(left=0)


def latency(counts: Mapping[str, list[int]], axes: Axes) -> None:
    """Latency by quantile, in the scale that shows the tail: one nine per step."""
    for label, histogram in counts.items():
        values = np.array(histogram, dtype=np.float64)
        total = values.sum()
        if total == 0:
            continue
        above = 1 - np.cumsum(values) / total
        kept = (values > 0) & (above > 0)
        axes.plot(-np.log10(above[kept]), BOUNDS[1:][kept] / 1e6, label=label)
    axes.set_yscale("log")
    nines = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"]
    shown = min(len(nines) - 1, int(np.ceil(axes.get_xlim()[1])))
    axes.set_xticks(range(shown + 1), nines[: shown + 1])
    axes.set_xlabel("quantile")
    axes.set_ylabel("ms")
    axes.grid(alpha=0.3)
    axes.legend()


def idle_cost(found: Mapping[str, list[float]], axes: Axes) -> None:
    """CPU per relayed message as a multiple of the floor's, against how many connections are idle meanwhile."""
    ratio = np.array(found["ratio"])
    whiskers = np.abs(np.array([found["low"], found["high"]]) - ratio)
    axes.errorbar(found["idle"], ratio, yerr=whiskers, marker="o", capsize=3)
    axes.set_xlabel("idle connections held")
    axes.set_ylabel("server CPU per message / floor's")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)


def memory(report: Report, axes: Axes) -> None:
    """Bytes per connection, stacked: kernel, server, clients."""
    series = [one for one in report.series if one.values("kernel_bytes")]
    places = np.arange(len(series))[::-1]
    left = np.zeros(len(series))
    for metric, label, color in (
        ("kernel_bytes", "kernel", "#999999"),
        ("server_bytes", "server processes", "#4878a8"),
        ("client_bytes", "client processes", "#e1a04b"),
    ):
        widths = np.array([max(one.median(metric), 0) for one in series])
        axes.barh(places, widths, left=left, label=label, color=color)
        left += widths
    axes.set_yticks(places, [f"{one.label}, {one.load}" for one in series])
    axes.set_xlabel("bytes per connection, both ends")
    axes.legend()
