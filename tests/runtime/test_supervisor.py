"""Workers that do not start, do not stop, or fail: real processes under the real supervisor."""

import os
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
