"""The operator socket: the supervisor's Unix socket in `run/`, for the user that runs the server.

One JSON object per line in, one per line out:  {"command": "status"} -> {"status": {…}}
                                                {"command": "metrics"} -> {"metrics": "text"}
Anything else is answered with {"error": text}.
"""

import contextlib
import json
import selectors
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from wa import limits
from wa._fastpath.os.sockets import listen_unix
from wa.errors import LocalError
from wa.log import Log

NAME = "operator.sock"
SOCKET_PATH_BYTES_MAX = 103  # sun_path on FreeBSD, less the terminating zero
Commands = Mapping[str, Callable[[], Any]]


class OperatorSocket:
    """Serves `commands` (name to a function that makes the answer) on the supervisor's selector."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, commands: Commands, log: Log) -> None:
        self._path, self._selector, self._commands, self._log = path, selector, commands, log
        self._clients = 0
        self._listener = listen_unix(str(path))
        selector.register(self._listener, selectors.EVENT_READ, self._on_accept)

    def close(self) -> None:
        """Only the supervisor calls it; a worker closes its copy of the descriptor."""
        self._selector.unregister(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)

    def _on_accept(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            sock, _ = self._listener.accept()
            if self._clients >= limits.OPERATORS_MAX:
                sock.close()
                self._log.warning("operator_refused", clients=self._clients)
                return
            sock.setblocking(False)
            self._clients += 1
            _Client(self, sock)

    def answer(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
        except ValueError:
            request = None
        command = request.get("command") if isinstance(request, dict) else None
        if not isinstance(command, str) or command not in self._commands:
            known = ", ".join(sorted(self._commands))
            return json.dumps({"error": f'send {{"command": name}} with one of: {known}'}).encode() + b"\n"
        return json.dumps({command: self._commands[command]()}).encode() + b"\n"


class _Client:
    """One operator.  It is not read while an answer goes out (back-pressure)."""

    def __init__(self, server: OperatorSocket, sock: socket.socket) -> None:
        self._server, self._sock = server, sock
        self._received, self._to_send = b"", b""
        server._selector.register(sock, selectors.EVENT_READ, self._on_ready)

    def _on_ready(self, mask: int) -> None:
        try:
            alive = self._write() if self._to_send else self._read()
        except BlockingIOError:
            return
        except ConnectionError:
            alive = False
        if not alive:
            self._server._selector.unregister(self._sock)
            self._sock.close()
            self._server._clients -= 1
            return
        wanted = selectors.EVENT_WRITE if self._to_send else selectors.EVENT_READ
        self._server._selector.modify(self._sock, wanted, self._on_ready)

    def _read(self) -> bool:
        data = self._sock.recv(limits.OPERATOR_LINE_BYTES_MAX)
        self._received += data
        self._answer_lines()
        return bool(data) and len(self._received) <= limits.OPERATOR_LINE_BYTES_MAX

    def _write(self) -> bool:
        self._to_send = self._to_send[self._sock.send(self._to_send) :]
        if not self._to_send:
            self._answer_lines()
        return True

    def _answer_lines(self) -> None:
        line, end, rest = self._received.partition(b"\n")
        if end:
            self._received = rest
            self._to_send = self._server.answer(line)


def ask(path: Path, command: str) -> Any:
    """The answer of a running server (its operator socket is at `path`).  Raises LocalError."""
    if len(str(path).encode()) > SOCKET_PATH_BYTES_MAX:
        raise LocalError(f"{path} is too long for a Unix socket: use a data directory with a shorter path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(path))
            with sock.makefile("rwb") as stream:
                stream.write(json.dumps({"command": command}).encode() + b"\n")
                stream.flush()
                line = stream.readline()
        except OSError as error:
            raise LocalError(
                f"no server answers at {path}: {error.strerror}; start one with wa serve, or give its --data-dir"
            ) from None
    answer = json.loads(line) if line else {"error": "the server closed the connection"}
    if "error" in answer:
        raise LocalError(f"the server says: {answer['error']}")
    return answer[command]
