"""Turns loads into figures, and judges whether they were sound: every message once, in order, with its receipt."""

from bench.crowd import Crowd
from bench.generator import Load
from bench.results import Report, Sample


def sample_of(load: Load, per: str = "delivered", *, times: bool = True) -> Sample:
    """A load's figures per message with receipt, or per whatever count is named; CPU in µs.

    times: with latencies; without where they only tell how long something had been waiting.
    """
    n = load.counts[per]
    if n == 0:
        return {"messages": 0.0}
    sample: Sample = {
        "messages": float(n),
        "per_s": n / load.wall_s,
        "cpu_us": load.server_cpu.total / n * 1e6,
        "generator_cpu_us": load.generator_cpu.total / n * 1e6,
        "server_busy": load.server_cpu.total / load.wall_s,
        "generator_busy": load.generator_cpu.total / load.wall_s,
        "bytes": (load.counts["bytes_in"] + load.counts["bytes_out"]) / n,
    }
    records = load.counts["records_in"] + load.counts["records_out"]
    if records:
        sample["records"] = records / n
    ticks = load.server_cpu.user + load.server_cpu.system
    if ticks:
        sample["system_share"] = load.server_cpu.system / ticks
    if not times:
        return sample
    for name, histogram in (("recipient", load.to_recipient), ("receipt", load.to_receipt), ("login", load.login)):
        if histogram.n:
            sample |= {f"{name}_{key}": value for key, value in histogram.summary().items()}
    return sample


class Judge:
    """Collects loads; `judge` at the end makes what was wrong with any of them a fault of the report."""

    def __init__(self, report: Report, crowd: Crowd) -> None:
        self._report, self._crowd = report, crowd

    def take(self, label: str, load: Load) -> Load:
        faults = load.faults()
        if faults:
            self._report.faults.append(f"{label}: {faults}")
        return load

    def judge(self) -> None:
        """Once nothing is under way any more."""
        verdict = self._crowd.streams.verdict()
        if verdict.wrong:
            self._report.faults.append(
                f"{verdict.wrong} streams: {verdict.sent} messages sent, {verdict.heard} heard"
            )
        self._report.parameters["messages_checked"] = verdict.sent
