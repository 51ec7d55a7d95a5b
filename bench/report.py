"""A report for people: tables in the terminal; the same tables as Markdown, with the plots."""

import math
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.results import Report, Series, Target

METRICS = {
    "per_s": ("per s", "{:,.0f}"),
    "share": ("share", "{:.1%}"),
    "cpu_us": ("CPU µs", "{:.3f}"),
    "login_ms": ("CPU ms", "{:.3f}"),
    "server_busy": ("busy", "{:.0%}"),
    "system_share": ("in kernel", "{:.0%}"),
    "generator_busy": ("gen. busy", "{:.0%}"),
    "generator_cpu_us": ("gen. µs", "{:.2f}"),
    "bytes": ("bytes", "{:.0f}"),
    "records": ("records", "{:.2f}"),
    "recipient_p50_ms": ("p50 ms", "{:.3f}"),
    "recipient_p99_ms": ("p99 ms", "{:.3f}"),
    "recipient_p99.9_ms": ("p99.9 ms", "{:.2f}"),
    "accepted_p50_ms": ("✓ p50 ms", "{:.2f}"),
    "accepted_p99_ms": ("✓ p99 ms", "{:.2f}"),
    "accepted_max_ms": ("✓ max ms", "{:.2f}"),
    "resends": ("resends", "{:.2f}"),
    "login_p99_ms": ("login p99 ms", "{:.0f}"),
    "memory_mib": ("own MiB", "{:.1f}"),
    "pss_mib": ("PSS MiB", "{:.1f}"),
    "mapped_mib": ("mapped MiB", "{:.1f}"),
    "each_bytes": ("B per message", "{:.0f}"),
    "ready_s": ("ready s", "{:.3f}"),
    "served_s": ("first login s", "{:.3f}"),
    "start_cpu_s": ("CPU s", "{:.3f}"),
    "server_bytes": ("server B", "{:.0f}"),
    "client_bytes": ("client B", "{:.0f}"),
    "kernel_bytes": ("kernel B", "{:.0f}"),
    "all_bytes": ("all B", "{:.0f}"),
    "commit_ms": ("ms per commit", "{:.2f}"),
    "grown_mib": ("grown MiB", "{:.1f}"),
    "file_mib": ("file MiB", "{:.0f}"),
    "open_ms": ("start ms", "{:.0f}"),
}
LEGEND = (
    "CPU, busy: of all server processes, from the scheduler's accounting, per message with receipt (or login). "
    "gen.: the load generator. records, bytes: on the wire, both directions, as the clients count them. "
    "✓: from send to accepted. resends: per message."
)
SPREAD = ("cpu_us", "login_ms")


def columns_of(group: list[Series]) -> list[str]:
    return [name for name in METRICS if any(series.values(name) for series in group)]


def groups_of(report: Report) -> list[list[Series]]:
    """Series that have the same figures share a table."""
    groups: dict[tuple[str, ...], list[Series]] = {}
    for series in report.series:
        groups.setdefault(tuple(columns_of([series])), []).append(series)
    return list(groups.values())


def cell(series: Series, metric: str) -> str:
    value = series.median(metric)
    return "" if math.isnan(value) else METRICS[metric][1].format(value)


def spread_text(series: Series) -> str:
    """Lowest and highest run of the series' CPU."""
    for metric in SPREAD:
        low, high = series.spread(metric)
        if not math.isnan(low) and len(series.samples) > 1:
            return f"{METRICS[metric][1].format(low)}–{METRICS[metric][1].format(high)}"
    return ""


def verdict(target: Target) -> str:
    if target.bound is None:
        return ""
    return {True: "met", False: "MISSED", None: "NOT MEASURED"}[target.met]


def target_row(target: Target) -> tuple[str, ...]:
    spread = "" if math.isnan(target.low) else f"{target.low:.3g}–{target.high:.3g}"
    bound = "" if target.bound is None else f"{'≤' if target.at_most else '≥'} {target.bound:g}"
    value = f"{target.value:,.0f}" if abs(target.value) >= 1_000 else f"{target.value:.3g}"
    return target.name, f"{value} {target.unit}".strip(), spread, bound, verdict(target)


def table_of(group: list[Series]) -> tuple[list[str], list[list[str]]]:
    columns = columns_of(group)
    head = ["load", "who", *(METRICS[metric][0] for metric in columns)]
    rows = [[one.load, one.label, *(cell(one, metric) for metric in columns)] for one in group]
    spreads = [spread_text(one) for one in group]
    if any(spreads):
        head.append("CPU spread")
        rows = [[*row, spread] for row, spread in zip(rows, spreads, strict=True)]
    return head, rows


def show(report: Report, console: Console) -> None:
    for group in groups_of(report):
        head, rows = table_of(group)
        runs = max(len(series.samples) for series in group)
        title = f"{report.scenario}: medians of {runs} runs" if runs > 1 else report.scenario
        table = Table(title=title, title_justify="left")
        for name in head:
            table.add_column(name, justify="left" if name in ("load", "who") else "right")
        for row in rows:
            table.add_row(*row)
        console.print(table)
    if report.targets:
        show_targets([report], console)
    for note in report.notes:
        console.print(f"note: {note}")
    for fault in report.faults:
        console.print(f"[bold red]not sound:[/] {fault}")
    if report.sound and "messages_checked" in report.parameters:
        checked = report.parameters["messages_checked"]
        console.print(f"sound: each of {checked:,} messages arrived once, in order, with its receipt\n")


def show_targets(reports: list[Report], console: Console) -> None:
    table = Table(title="against the targets", title_justify="left")
    for name in ("scenario", "figure", "median", "spread", "target", ""):
        table.add_column(name)
    for report in reports:
        for target in report.targets:
            style = {True: "green", False: "red", None: None}[target.met]
            table.add_row(report.scenario, *target_row(target), style=style)
    console.print(table)


def in_one_line(reports: list[Report]) -> tuple[bool, str]:
    """Whether every target is met, and the last line of a run: how many are missed, and which."""
    bound = [(report.scenario, target) for report in reports for target in report.targets if target.bound is not None]
    missed = [
        f"{scenario}: {target.name}{'' if target.met is False else ' (not measured)'}"
        for scenario, target in bound
        if not target.met
    ]
    line = f"{len(missed)} of {len(bound)} targets missed: {'; '.join(missed)}"
    if not missed:
        line = f"all {len(bound)} targets met"
    unsound = [report.scenario for report in reports if not report.sound]
    if unsound:
        line = f"not sound: {', '.join(unsound)}; {line}"
    return not missed, line


def markdown(report: Report, plots: list[Path]) -> str:
    lines = [f"# {report.scenario}", ""]
    for group in groups_of(report):
        lines += [*markdown_table(*table_of(group)), ""]
    targets = [list(target_row(target)) for target in report.targets]
    lines += [*markdown_table(["figure", "median", "spread", "target", ""], targets), "", LEGEND, ""]
    lines += [f"- {note}" for note in report.notes]
    lines += [f"- **not sound**: {fault}" for fault in report.faults]
    lines += [f"- {name}: {value}" for name, value in report.environment.items()]
    lines += [f"- {name}: {value}" for name, value in report.parameters.items() if name != "server_stats"]
    lines += ["", *(f"![{path.stem}]({path.name})" for path in plots), ""]
    return "\n".join(lines)


def markdown_table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]
