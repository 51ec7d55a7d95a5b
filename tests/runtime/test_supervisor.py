"""Workers and helpers that do not start, do not stop, or fail: real processes under the real supervisor."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("supervised.py")


@pytest.fixture
def start(tmp_path):
    started = []

    def run(behaviour):
        command = [sys.executable, str(SCRIPT), behaviour, str(tmp_path / "log")]
        environment = os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])}
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment))
        return started[-1]

    run.log = tmp_path / "log"
    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_ready_when_all_are_and_stopped_by_a_signal(start):
    process = start("serve")
    assert process.stdout.readline().startswith("ready ")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = start.log.read_text()
    assert log.count("worker_ready") == log.count("worker_stopped") == 2
    assert "worker_killed" not in log


def test_what_a_worker_is_forked_with_is_not_written_to_by_its_collector(start):
    process = start("frozen")
    assert process.stdout.readline().startswith("ready ")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_a_worker_that_does_not_stop_is_killed(start):
    process = start("deaf")
    pids = process.stdout.readline().split()[1:]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = start.log.read_text()
    assert log.count("worker_killed") == 2
    assert log.count("signal SIGKILL") == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_a_worker_that_does_not_start_in_time_ends_the_start(start):
    process = start("late")
    assert process.wait(30) == 1
    assert "workers [0, 1] did not serve within" in process.stdout.read()


def test_a_worker_that_fails_at_the_start_ends_it_and_says_why(start):
    process = start("broken")
    assert process.wait(30) == 1
    assert "worker 1 ended with exit status 1 before it served" in process.stdout.read()
    log = start.log.read_text()
    assert "worker-1 crashed" in log
    assert "ValueError" in log
    assert "15551230001" not in log


def test_a_killed_worker_is_restarted(start):
    process = start("serve")
    pid = int(process.stdout.readline().split()[1])
    os.kill(pid, signal.SIGKILL)
    while start.log.read_text().count("worker_ready") < 3:
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "worker_died worker=0" in start.log.read_text()


# --- helpers ---


def wait_for_line(start, process, text, count=1):
    """The lines of the log that have `text` in them, once there are so many."""
    while True:
        assert process.poll() is None
        log = start.log.read_text() if start.log.exists() else ""
        found = [line for line in log.splitlines() if text in line]
        if len(found) >= count:
            return found


def pid_of(line):
    return int(re.search(r"pid=(\d+)", line)[1])


def test_a_killed_helper_is_started_again_and_the_workers_stay(start):
    process = start("helped")
    process.stdout.readline()
    for count in (1, 2, 3):
        os.kill(pid_of(wait_for_line(start, process, "helper_ready name=push", count)[-1]), signal.SIGKILL)
        wait_for_line(start, process, "helper_died name=push", count)
    wait_for_line(start, process, "helper_ready name=push", 4)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    log = start.log.read_text()
    assert re.findall(r"reason=\"signal SIGKILL\" again_ms=(\d)", log) == ["1", "2", "4"]
    assert log.count("helper_stopped") == 1
    assert log.count("helper_ready") == 4
    assert "worker_died" not in log


def test_a_helper_that_never_starts_stops_nobody(start):
    process = start("unhelped")
    assert process.stdout.readline().startswith("ready ")
    assert "reason=\"exit status 1\" again_ms=4" in wait_for_line(start, process, "helper_died", 15)[-1]
    assert "ValueError" in wait_for_line(start, process, "push crashed")[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "worker_died" not in start.log.read_text()


def test_a_helper_that_does_not_stop_is_killed(start):
    process = start("deaf_help")
    pid = pid_of(wait_for_line(start, process, "helper_ready")[0])
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert "helper_killed name=push" in start.log.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_helpers_do_not_outlive_a_killed_supervisor(start):
    process = start("helped")
    process.stdout.readline()
    pid = pid_of(wait_for_line(start, process, "helper_ready")[0])
    process.kill()
    process.wait(30)
    while True:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                break
        except FileNotFoundError:
            break
