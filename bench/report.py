"""A report for people: a table in the terminal, and the same as Markdown."""

import math

from rich.console import Console
from rich.table import Table

from bench.results import Report, Series, Target

METRICS = {
    "per_s": ("per s", "{:,.0f}"),
    "cpu_us": ("server CPU µs", "{:.2f}"),
    "server_busy": ("server busy", "{:.0%}"),
    "generator_busy": ("generator busy", "{:.0%}"),
    "generator_cpu_us": ("generator CPU µs", "{:.2f}"),
    "bytes": ("bytes", "{:.0f}"),
    "records": ("records", "{:.2f}"),
    "recipient_p50_ms": ("p50 ms", "{:.3f}"),
    "recipient_p99_ms": ("p99 ms", "{:.3f}"),
    "receipt_p99_ms": ("receipt p99 ms", "{:.3f}"),
    "login_ms": ("login CPU ms", "{:.3f}"),
}


def columns_of(report: Report) -> list[str]:
    return [name for name in METRICS if any(series.values(name) for series in report.series)]


def cell(series: Series, metric: str) -> str:
    value = series.median(metric)
    return "" if math.isnan(value) else METRICS[metric][1].format(value)


def spread_text(series: Series, metric: str) -> str:
    low, high = series.spread(metric)
    return "" if math.isnan(low) else f"{METRICS[metric][1].format(low)} … {METRICS[metric][1].format(high)}"


def verdict(target: Target) -> str:
    return {True: "met", False: "MISSED", None: ""}[target.met]


def bound_text(target: Target) -> str:
    if target.bound is None:
        return ""
    return f"{'≤' if target.at_most else '≥'} {target.bound:g}"


def target_row(target: Target) -> tuple[str, ...]:
    spread = "" if math.isnan(target.low) else f"{target.low:.3g} … {target.high:.3g}"
    return target.name, f"{target.value:.3g} {target.unit}".strip(), spread, bound_text(target), verdict(target)


def show(report: Report, console: Console) -> None:
    table = Table(title=f"{report.scenario}: medians of {max(map(len_samples, report.series), default=0)} runs")
    for name in ("load", "who", *(METRICS[metric][0] for metric in columns_of(report)), "spread of CPU"):
        table.add_column(name, justify="left" if name in ("load", "who") else "right")
    for series in report.series:
        cells = [cell(series, metric) for metric in columns_of(report)]
        table.add_row(series.load, series.label, *cells, spread_text(series, "cpu_us"))
    console.print(table)
    targets = Table(title="against the targets")
    for name in ("figure", "median", "spread", "target", ""):
        targets.add_column(name)
    for target in report.targets:
        targets.add_row(*target_row(target), style="red" if target.met is False else None)
    console.print(targets)
    for note in report.notes:
        console.print(note)
    for fault in report.faults:
        console.print(f"[bold red]not sound:[/] {fault}")


def len_samples(series: Series) -> int:
    return len(series.samples)
