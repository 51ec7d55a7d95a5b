"""How a worker and its supervisor begin: "started", "go", and what if the supervisor is gone by then."""

import select
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from wa.runtime.supervisor import GO, STARTED
from wa.runtime.worker import _let_go


def test_a_worker_waits_for_go() -> None:
    supervisor, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with supervisor, worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_let_go, worker)
        assert supervisor.recv(64) == STARTED
        supervisor.send(GO)
        assert answer.result()


@pytest.mark.parametrize("reads", [True, False])
def test_a_supervisor_that_dies_meanwhile_is_no_crash_of_the_worker(reads: bool) -> None:
    """With "started" unread the worker sees a reset connection, else its end."""
    supervisor, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_let_go, worker)
        select.select([supervisor], [], [])
        if reads:
            supervisor.recv(64)
        supervisor.close()
        assert not answer.result()


def test_a_supervisor_that_is_dead_already_is_no_crash_of_the_worker() -> None:
    supervisor, worker = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    supervisor.close()
    with worker:
        assert not _let_go(worker)
