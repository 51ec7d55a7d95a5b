"""Runs many seeds over many processes, and explains one seed to a person."""

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context

from sim.settings import Settings, settings_of
from sim.world import World
from wa.errors import LocalError, RemoteError

CHUNK = 25
# What a bug raises, in the code under test (above all a broken invariant) or in the model.
BUGS = (AssertionError, LookupError, TypeError, ValueError, AttributeError, OSError, RemoteError, LocalError)
FAILURES_KEPT = 20


@dataclass
class Failure:
    seed: int
    rules: list[str]
    text: str


@dataclass
class Summary:
    runs: int = 0
    failures: list[Failure] = field(default_factory=list)
    failed: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Summary") -> None:
        self.runs += other.runs
        self.failed += other.failed
        self.failures = (self.failures + other.failures)[:FAILURES_KEPT]
        self.counts.update(other.counts)


def play(settings: Settings, *, history: bool = False) -> World:
    """One run.  A Python exception out of the code under test is a violation like any other."""
    world = World(settings, history=history)
    try:
        world.run()
    except BUGS:
        world.ledger.violate("exception", traceback.format_exc())
    return world


def run_seeds(seeds: Iterable[int], faults: tuple[str, ...] | None = None) -> Summary:
    out = Summary()
    for seed in seeds:
        world = play(settings_of(seed, faults=faults))
        out.runs += 1
        out.counts.update(world.ledger.counts)
        out.counts.update({"turns": world.turns, "envelopes": len(world.ledger.envelopes)})
        if world.ledger.violations:
            out.failed += 1
            rules = [v.rule for v in world.ledger.violations]
            first = world.ledger.violations[0]
            out.failures.append(Failure(seed, rules, f"{first.rule}: {first.text}"))
    return out


def run_many(
    first: int, runs: int, jobs: int, progress: Callable[[Summary], object], faults: tuple[str, ...] | None = None
) -> Summary:
    """Seeds first..first+runs-1.  progress is called with the sum so far."""
    total = Summary()
    chunks = iter([range(at, min(at + CHUNK, first + runs)) for at in range(first, first + runs, CHUNK)])
    running: dict[Future[Summary], range] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while True:
            while len(running) < jobs * 2 and (chunk := next(chunks, None)) is not None:
                running[pool.submit(run_seeds, chunk, faults)] = chunk
            if not running:
                return total
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                chunk = running.pop(future)
                try:
                    total.add(future.result())
                except BrokenProcessPool:
                    total.failed += 1
                    text = f"a process died in one of the seeds {chunk.start}..{chunk.stop - 1}, or in {running}"
                    total.failures.append(Failure(chunk.start, ["process"], text))
                    return total
            progress(total)


def explain(seed: int, *, whole: bool = False, control: str = "none", faults: tuple[str, ...] | None = None) -> str:
    """The settings of a seed, what it violated, and the history of the first envelope concerned."""
    world = play(settings_of(seed, control=control, faults=faults), history=True)
    violations = world.ledger.violations
    lines = [str(world.settings), ""]
    lines += [f"violated {v.rule}: {v.text}" for v in violations[:10]] or ["no violation"]
    concerned = next((v.envelope for v in violations if v.envelope is not None), None)
    if whole or concerned is not None:
        lines += ["", *world.history.lines(None if whole else concerned)]
    lines += ["", f"history {world.history.digest()}, {len(world.history.events)} events"]
    return "\n".join(lines)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
