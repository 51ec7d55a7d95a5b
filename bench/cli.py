"""The command line: one command per scenario.  It runs in the release build only (build.enter)."""

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from bench import group as group_scenario
from bench import idle as idle_scenario
from bench import kernel
from bench import latency as latency_scenario
from bench import million as million_scenario
from bench import mixed as mixed_scenario
from bench import offline as offline_scenario
from bench import profile as profile_scenario
from bench import queued as queued_scenario
from bench import relay as relay_scenario
from bench import short as short_scenario
from bench import storage as storage_scenario
from bench import storm as storm_scenario
from bench import unacknowledged as unacknowledged_scenario
from bench.build import demand_modules
from bench.micro import run as micro_benchmarks
from bench.peers import run as peers_scenario
from bench.peers.brokers import BROKERS
from bench.report import in_one_line, markdown, show, show_targets
from bench.results import Report, environment, results_directory
from bench.servers import revision
from bench.settings import SUITES, Settings

WIDTH_MIN = 160  # of the tables, when stdout is not a terminal
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
Rounds = Annotated[int, typer.Option(help="Interleaved rounds; medians and spread are over them.")]
Seconds = Annotated[float, typer.Option(help="Seconds of each load.")]
Suite = Annotated[str, typer.Option(help="Cipher suite, aesgcm or chacha; the floor uses it too.")]
Where = Annotated[Path | None, typer.Option(help="Where to make data directories; the disk counts in the figures.")]
Connections = Annotated[int, typer.Option(help="Connections to hold.")]


def settings_of(rounds: int, seconds: float, suite: str, where: Path | None) -> Settings:
    if suite not in SUITES:
        raise typer.BadParameter(f"one of {', '.join(SUITES)}, not {suite}")
    if find_spec("matplotlib") is None:
        print("bench: no plots, since matplotlib is not installed; run: make setup", file=sys.stderr)
    kernel.descriptor_limit()
    made = Settings(suite=SUITES[suite], rounds=rounds, seconds=seconds)
    if where is not None:
        made.where = where
    return made


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=max(WIDTH_MIN, shutil.get_terminal_size().columns))


def finish(report: Report, settings: Settings) -> None:
    """Writes bench/results and shows the tables.  Exits with 1 when the run was not sound."""
    save(report, settings)
    show(report, console())
    if not report.sound:
        raise typer.Exit(1)


def save(report: Report, settings: Settings) -> None:
    report.environment = environment(revision(), settings.suite)
    directory = results_directory()
    (directory / f"{report.scenario}.json").write_text(report.to_json())
    (directory / f"{report.scenario}.md").write_text(markdown(report, plots_of(report, directory)))


def plots_of(report: Report, directory: Path) -> list[Path]:
    """Empty without matplotlib: `wa` itself does not need it."""
    if find_spec("matplotlib") is None:
        return []
    from bench import plots  # noqa: PLC0415

    return plots.draw(report, directory)


@app.callback()
def about() -> None:
    """Measure wa serve beside an encrypted floor: same run, same generator.

    Compare only ratios inside one run: a machine drifts by a factor of two
    between runs. Results go to bench/results.
    """


@app.command()
def relay(rounds: Rounds = 5, seconds: Seconds = 2.0, suite: Suite = "aesgcm", where: Where = None) -> None:
    """Relay between pairs, 16 and 1 messages in flight, same and other worker."""
    settings = settings_of(rounds, seconds, suite, where)
    finish(relay_scenario.run(settings), settings)


@app.command()
def latency(
    rounds: Rounds = 5,
    seconds: Seconds = 3.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    rate: Annotated[float, typer.Option(help="Messages per second.")] = latency_scenario.RATE,
) -> None:
    """Time from due to received, at a fixed rate."""
    settings = settings_of(rounds, seconds, suite, where)
    finish(latency_scenario.run(settings, rate), settings)


@app.command()
def storm(
    rounds: Rounds = 5,
    seconds: Seconds = 2.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    clients: Annotated[int, typer.Option(help="Clients that log in at once.")] = 10_000,
) -> None:
    """CPU of a login by IK and by ticket, then a login storm while pairs chat."""
    settings = settings_of(rounds, seconds, suite, where)
    finish(storm_scenario.run(settings, clients), settings)


@app.command()
def offline(
    rounds: Rounds = 5,
    suite: Suite = "aesgcm",
    where: Where = None,
    recipients: Annotated[int, typer.Option(help="Absent devices in each round.")] = 1_024,
) -> None:
    """Store for absent devices, one fsync per batch; then log in and drain."""
    settings = settings_of(rounds, 0.0, suite, where)
    finish(offline_scenario.run(settings, recipients), settings)


@app.command()
def unacknowledged(
    rounds: Rounds = 5,
    seconds: Seconds = unacknowledged_scenario.SECONDS,
    suite: Suite = "aesgcm",
    where: Where = None,
    rate: Annotated[float, typer.Option(help="Messages per second.")] = unacknowledged_scenario.RATE,
) -> None:
    """Time from send to accepted when recipients never ack: linger, then fsync."""
    if seconds > unacknowledged_scenario.SECONDS_MAX:
        limit = unacknowledged_scenario.SECONDS_MAX
        raise typer.BadParameter(f"at most {limit:g} s: then the server closes the connections that do not acknowledge")
    settings = settings_of(rounds, seconds, suite, where)
    finish(unacknowledged_scenario.run(settings, rate), settings)


@app.command()
def queued(
    rounds: Annotated[int, typer.Option(help="How many times the server is killed and started again.")] = 5,
    suite: Suite = "aesgcm",
    where: Where = None,
    recipients: Annotated[int, typer.Option(help="Absent devices, 1,000 messages for each.")] = 1_000,
) -> None:
    """Full mailboxes: memory, the first login after kill -9, a checked drain."""
    settings = settings_of(rounds, 0.0, suite, where)
    finish(queued_scenario.run(settings, recipients), settings)


@app.command()
def storage(
    *,
    where: Where = None,
    queued: Annotated[bool, typer.Option("--queued", help="Memory and start with a million queued.")] = False,
) -> None:
    """One durable commit in every layout that a mailbox store could have."""
    settings = settings_of(1, 0.0, "aesgcm", where)
    if queued:
        finish(storage_scenario.queued(settings), settings)
        return
    report = storage_scenario.run(settings)
    save(report, settings)
    console().print(storage_scenario.table_of(report))


@app.command()
def group(rounds: Rounds = 5, seconds: Seconds = 2.0, suite: Suite = "aesgcm", where: Where = None) -> None:
    """One sender fans out to 256 and to 1,000 recipients."""
    settings = settings_of(rounds, seconds, suite, where)
    finish(group_scenario.run(settings), settings)


@app.command()
def mixed(rounds: Rounds = 5, seconds: Seconds = 1.0, suite: Suite = "aesgcm", where: Where = None) -> None:
    """Pairs chat among logins, stores, drains and fan-out."""
    settings = settings_of(rounds, seconds, suite, where)
    finish(mixed_scenario.run(settings), settings)


@app.command()
def idle(
    rounds: Rounds = 5,
    seconds: Seconds = 1.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    connections: Connections = 20_000,
) -> None:
    """Memory per idle connection, and the relay's CPU beside them."""
    settings = settings_of(rounds, seconds, suite, where)
    demand(kernel_needs(connections))
    finish(idle_scenario.run(settings, connections), settings)


@app.command()
def million(
    suite: Suite = "aesgcm",
    where: Where = None,
    connections: Connections = 1_000_000,
    talk: Annotated[float, typer.Option(help="Seconds of messages between random pairs.")] = 30.0,
) -> None:
    """Hold up to 2,000,000 connections, both ends here, and send among them."""
    settings = settings_of(1, talk, suite, where)
    demand(kernel_needs(connections))
    finish(million_scenario.run(settings, connections, talk), settings)


def kernel_needs(connections: int) -> list[kernel.Need]:
    try:
        return million_scenario.short_of(connections)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def demand(needs: list[kernel.Need]) -> None:
    """Prints the commands that raise what is too low, and exits with 2."""
    if not needs:
        return
    print("bench: kernel settings are too low for so many connections. Run as root:\n", file=sys.stderr)
    for need in needs:
        print(f"    {need.command:<60} # now {need.have}", file=sys.stderr)
    raise typer.Exit(2)


@app.command()
def short(
    *,
    rounds: Rounds = 5,
    seconds: Seconds = 1.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail when a target is missed.")] = False,
) -> None:
    """The short set: eight scenarios in under five minutes, and all targets.

    The last line says how many targets are missed, and which.
    """
    settings = settings_of(rounds, seconds, suite, where)
    reports = []
    for report in short_scenario.run(settings):
        save(report, settings)
        show(report, console())
        reports.append(report)
    show_targets(reports, console())
    all_met, line = in_one_line(reports)
    print(line)
    if not all(report.sound for report in reports) or (strict and not all_met):
        raise typer.Exit(1)


@app.command()
def peers(
    rounds: Rounds = 3,
    seconds: Seconds = 2.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    which: Annotated[list[str] | None, typer.Option(help="ejabberd or mosquitto. Default: both.")] = None,
) -> None:
    """The same loads on wa, ejabberd and mosquitto, as far as installed."""
    names = which or list(BROKERS)
    if unknown := set(names) - set(BROKERS):
        raise typer.BadParameter(f"{', '.join(sorted(unknown))}: only {', '.join(BROKERS)}")
    settings = settings_of(rounds, seconds, suite, where)
    finish(peers_scenario.run(settings, names), settings)


@app.command()
def profile(
    *,
    seconds: Seconds = 5.0,
    suite: Suite = "aesgcm",
    where: Where = None,
    window: Annotated[int, typer.Option(help="Messages in flight per pair.")] = 16,
    other: Annotated[bool, typer.Option("--other-worker", help="Put recipients on the other worker.")] = False,
    logins: Annotated[bool, typer.Option("--logins", help="Profile logins instead of messages.")] = False,
) -> None:
    """Where the server's CPU goes, by area and symbol (needs perf)."""
    settings = settings_of(1, seconds, suite, where)
    finish(profile_scenario.run(settings, window, other_worker=other, logins=logins), settings)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def micro(context: typer.Context) -> None:
    """Units of the fast path beside their Python twins. Other arguments: pytest's."""
    demand_modules("pytest", "pytest_benchmark")
    raise typer.Exit(micro_benchmarks.run(context.args))


def main() -> None:
    app()
