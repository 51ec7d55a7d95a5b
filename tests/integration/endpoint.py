"""A push endpoint on loopback: an HTTP/1.1 server in threads that records every byte and answers as it is told."""

import json
import socketserver
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from tests.integration.rig import until

Reply = tuple[int, dict[str, str]]


class Endpoint:
    """answer(body): status and headers for a request.  While `open` is not set, requests wait."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []  # each request as it came, from its first line to the end of its body
        self.answer: Callable[[dict[str, Any]], Reply] = lambda body: (204, {})
        self.answer_bytes = 0  # of the body that is sent back
        self.open = threading.Event()
        self.open.set()
        self._lock = threading.Lock()
        endpoint = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                while (request := read_request(self.rfile)) is not None:
                    reply = endpoint.take(*request)
                    endpoint.open.wait(60)
                    try:
                        self.wfile.write(endpoint.encode(*reply))
                    except OSError:
                        return  # it did not wait for this

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 128

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/wake"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def take(self, head: bytes, body: bytes) -> Reply:
        with self._lock:
            self.raw.append(head + body)
            return self.answer(json.loads(body))

    def encode(self, status: int, headers: dict[str, str]) -> bytes:
        content = b"." * self.answer_bytes
        if status != 204:
            headers = {"Content-Length": str(len(content)), **headers}
        lines = [f"HTTP/1.1 {status} Whatever", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + (content if status != 204 else b"")

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(raw.partition(b"\r\n\r\n")[2]) for raw in self.raw]

    def tokens(self) -> list[str]:
        return [body["token"] for body in self.bodies]

    def wait_for(self, count: int) -> None:
        until(lambda: len(self.raw) >= count)


def read_request(stream: Any) -> tuple[bytes, bytes] | None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        try:
            line = stream.readline()
        except ConnectionResetError:
            return None
        if not line:
            return None
        head += line
    headers = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return head, stream.read(int(headers[b"content-length"]))
