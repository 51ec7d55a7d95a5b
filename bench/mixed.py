"""Mixed: pairs chat at a fixed rate while others log in and out, write to absent devices, drain, and fan out."""

import time
from collections.abc import Iterator

from bench.children import Child
from bench.crowd import Crowd
from bench.fleets import Fleet, make_group, make_pairs
from bench.generator import Load
from bench.generator import start as start_generator
from bench.histogram import Histogram
from bench.judging import Judge, sample_of
from bench.kernel import cpu_of
from bench.relay import WORKERS
from bench.results import Report, Target
from bench.servers import Running, Sizing, WaServe
from bench.settings import Settings
from bench.storm import CHAT_PAIRS, CHAT_RATE, CHAT_SLICE_S, chat_slice, fleet_of

CHURN = 200
ABSENT = 64
PER_ABSENT = 20
GROUP = 256
PAIRS = 32
SERVER = "wa serve"
FILL_S = 60.0


class Others:
    """Everything that is not the chat, in one generator process."""

    def __init__(self, settings: Settings, crowd: Crowd, server: WaServe, generator: Child) -> None:
        self._seconds = min(settings.seconds, 0.5)
        self._churn = fleet_of(generator, server, crowd, settings, CHURN)
        self._pairs = Fleet.make(generator, server, "pairs", settings)
        make_pairs(self._pairs, crowd, crowd.devices.take(PAIRS), crowd.devices.take(PAIRS))
        self._group = Fleet.make(generator, server, "group", settings)
        make_group(self._group, crowd, crowd.devices.take(1), crowd.devices.take(GROUP))
        # One sender; its recipients are logged in only to drain what has been stored for them.
        self._absent = Fleet.make(generator, server, "absent", settings)
        self._writer = Fleet.make(generator, server, "writer", settings)
        away = crowd.devices.take(ABSENT)
        self._writer.add(crowd.devices.take(1))
        self._writer.login()
        self._writer.send_to(0, away, crowd.streams.take(ABSENT))
        self._absent.add(away)
        self._stored = 0

    def turn(self) -> Iterator[tuple[str, str, Load]]:
        """Each kind of load once: (name, what is counted, load)."""
        yield "logins", "logins", self._churn.login()
        self._churn.down(0, CHURN)
        yield "pairs, 16 outstanding", "delivered", self._pairs.load("run", seconds=self._seconds, window=16)
        quota = ABSENT * PER_ABSENT
        yield (
            "store",
            "accepted",
            self._writer.load("run", seconds=FILL_S, window=64, per_sender=quota, one_tick=True),
        )
        self._stored += quota
        yield "drain", "received", self._absent.load("wait_for", received=self._stored, delivered=0)
        self._absent.down(0, ABSENT)
        yield "group", "delivered", self._group.load("run", seconds=self._seconds, window=64)


def run(settings: Settings) -> Report:
    report = Report("mixed", {"rounds": settings.rounds, "chat_rate": CHAT_RATE})
    devices = CHURN + 2 * PAIRS + GROUP + ABSENT + 2 + 2 * CHAT_PAIRS
    crowd = Crowd(devices=devices, workers=WORKERS, streams=CHAT_PAIRS + PAIRS + GROUP + ABSENT)
    judge = Judge(report, crowd)
    with Running() as running:
        server = running.add(WaServe(Sizing(WORKERS, settings.server_cores, settings.where), crowd))
        loading = running.add(start_generator("others", crowd, settings.generator_cores))
        chatting = running.add(start_generator("chat", crowd, settings.generator_cores, realtime=True))
        others = Others(settings, crowd, server, loading)
        chat = Fleet.make(chatting, server, "chat", settings)
        make_pairs(chat, crowd, crowd.devices.take(CHAT_PAIRS), crowd.devices.take(CHAT_PAIRS))
        quiet = Histogram.empty()
        for _ in range(max(4, int(2 * settings.seconds / CHAT_SLICE_S))):
            quiet += chat_slice(judge, chat).to_recipient
        busy = everything(report, settings, judge, chat, others)
        report.parameters["server_stats"] = server.stats()
    judge.judge()
    for label, histogram in (("quiet", quiet), ("among everything", busy)):
        sample = {f"recipient_{k}": v for k, v in histogram.summary().items()}
        report.find("chat", label).samples.append(sample)
    rise = busy.quantile_ms(0.99) / quiet.quantile_ms(0.99)
    report.targets.append(Target("p99 of chatting pairs: mixed / quiet", rise, None, True, "×"))
    report.plots["latency"] = {"quiet": quiet.counts.tolist(), "among everything": busy.counts.tolist()}
    return report


def everything(report: Report, settings: Settings, judge: Judge, chat: Fleet, others: Others) -> Histogram:
    """The chat is one long load; the others take turns beside it."""
    heard = Histogram.empty()
    pids = chat.server.pids()
    before, began = cpu_of(pids), time.perf_counter()
    with settings.progress("mixed", settings.rounds) as step:
        for _ in range(settings.rounds):
            step("")
            turns = others.turn()
            done = False
            while not done:
                chat.tell("run_rate", seconds=CHAT_SLICE_S, rate=CHAT_RATE, window=64, spin=False)
                done = (found := next(turns, None)) is None
                if found is not None:
                    name, per, load = found
                    report.find(SERVER, name).samples.append(
                        sample_of(judge.take(name, load), per, times=per == "delivered")
                    )
                heard += judge.take("chat", chat.answer()).to_recipient
    busy = (cpu_of(pids) - before).total / (time.perf_counter() - began)
    report.find(SERVER, "all together").samples.append({"server_busy": busy})
    return heard
