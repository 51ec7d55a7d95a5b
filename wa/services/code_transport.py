"""How a verification code reaches its number.

console: a line on standard output, for development.  file: a line "+number code" appended to a file (0600),
for tests and demonstrations.  These two are the only places where a code leaves the registry's transaction.
"""

import os
from pathlib import Path
from typing import Protocol, TextIO

from wa import ids


class CodeTransport(Protocol):
    def send(self, number: int, code: str) -> None:
        """Raises OSError when it cannot be sent."""


class ConsoleTransport:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, number: int, code: str) -> None:
        self._stream.write(f"verification code for {ids.format_number(number)}: {code}\n")
        self._stream.flush()


class FileTransport:
    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, number: int, code: str) -> None:
        line = f"{ids.format_number(number)} {code}\n".encode()
        # One write in append mode: lines of several workers do not mix.
        file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, line)
        finally:
            os.close(file)
