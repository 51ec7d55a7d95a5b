"""The operator socket on a selector: answers, nonsense, slow and many operators."""

import io
import json
import selectors
import socket
import stat
import threading

import pytest

from wa import limits
from wa.errors import LocalError
from wa.log import Log
from wa.runtime.operator_socket import OperatorSocket, ask


class Bench:
    def __init__(self, path):
        self.path = path
        self.selector = selectors.DefaultSelector()
        self.log = io.StringIO()
        self.commands = {"status": lambda: {"pid": 7}, "metrics": lambda: "x" * 3_000_000}
        self.server = OperatorSocket(path, self.selector, self.commands, Log("s", stream=self.log))

    def turn(self):
        """Handles all that is ready."""
        while ready := self.selector.select(0):
            for key, mask in ready:
                key.data(mask)

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(self.path))
        client.settimeout(30)
        self.turn()
        return client


@pytest.fixture
def bench(tmp_path):
    bench = Bench(tmp_path / "operator.sock")
    yield bench
    bench.turn()
    bench.server.close()
    bench.selector.close()
    assert not bench.path.exists()


def test_status(bench):
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600
    with bench.connect() as client:
        client.sendall(b'{"command": "status"}\n{"command": "status"}\n')
        bench.turn()
        assert [json.loads(line) for line in client.recv(4096).splitlines()] == [{"status": {"pid": 7}}] * 2


@pytest.mark.parametrize(
    "line", [b"", b"nonsense", b"[]", b'{"command": 3}', b'{"command": "stop"}', b"\xff\xfe"]
)
def test_nonsense_is_answered(bench, line):
    with bench.connect() as client:
        client.sendall(line + b"\n")
        bench.turn()
        assert "with one of: metrics, status" in json.loads(client.recv(4096))["error"]


def test_a_line_without_end_is_cut_off(bench):
    with bench.connect() as client:
        client.sendall(b"x" * (limits.OPERATOR_LINE_BYTES_MAX + 1))
        bench.turn()
        assert client.recv(1) == b""


def test_a_slow_reader_gets_everything_and_stops_nobody(bench):
    with bench.connect() as slow, bench.connect() as other:
        slow.sendall(b'{"command": "metrics"}\n')
        bench.turn()
        other.sendall(b'{"command": "status"}\n')
        bench.turn()
        assert json.loads(other.recv(4096)) == {"status": {"pid": 7}}
        received = bytearray()
        while not received.endswith(b"\n"):
            received += slow.recv(1 << 20)
            bench.turn()
        assert len(json.loads(received)["metrics"]) == 3_000_000


def test_so_many_operators(bench):
    clients = [bench.connect() for _ in range(limits.OPERATORS_MAX)]
    with bench.connect() as refused:
        assert refused.recv(1) == b""
    assert "operator_refused" in bench.log.getvalue()
    clients.pop().close()
    bench.turn()
    with bench.connect() as taken:
        taken.sendall(b'{"command": "status"}\n')
        bench.turn()
        assert taken.recv(4096)
    for client in clients:
        client.close()


def test_ask(bench):
    answers = []
    asker = threading.Thread(target=lambda: answers.append(ask(bench.path, "status")))
    asker.start()
    while asker.is_alive():
        for key, mask in bench.selector.select(0.01):
            key.data(mask)
    assert answers == [{"pid": 7}]


def test_ask_nobody(tmp_path):
    with pytest.raises(LocalError, match="no server answers"):
        ask(tmp_path / "operator.sock", "status")
    with pytest.raises(LocalError, match="too long for a Unix socket"):
        ask(tmp_path / ("d" * 100) / "operator.sock", "status")
