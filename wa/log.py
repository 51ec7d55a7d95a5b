"""Structured log: one line per event, with time, level, process name, event name and fields.

Numbers, keys and bodies cannot reach a log by accident.  Fields that hold an address or a number are redacted by name;
long runs of digits in any text are cut; bytes are refused.
"""

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TextIO

from wa import ids
from wa.errors import LocalError

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
ADDRESS_FIELDS = frozenset({"address", "caller", "target"})  # u64 addresses
NUMBER_FIELDS = frozenset({"number"})  # E.164 as an integer
LONG_DIGITS = re.compile(r"\+?\d{7,}")  # the shortest international number has 7 digits

Value = str | int | float | bool | None


class Log:
    """Events of one process.  Thread-safe: each event is one write of one line."""

    def __init__(
        self,
        process: str,
        level: str = "info",
        form: str = "text",
        stream: TextIO | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.process = process
        self.dropped_total = 0  # lines that could not be written: the reader is gone, or the disk is full
        self._threshold = LEVELS[level]
        self._level, self._form, self._now = level, form, now
        self._stream = stream or sys.stderr

    def named(self, process: str) -> "Log":
        """The same log for another process name, e.g. after a fork."""
        return Log(process, self._level, self._form, self._stream, self._now)

    def debug(self, event: str, **fields: Value) -> None:
        self._write("debug", event, fields)

    def info(self, event: str, **fields: Value) -> None:
        self._write("info", event, fields)

    def warning(self, event: str, **fields: Value) -> None:
        self._write("warning", event, fields)

    def error(self, event: str, **fields: Value) -> None:
        self._write("error", event, fields)

    def _write(self, level: str, event: str, fields: dict[str, Value]) -> None:
        if LEVELS[level] < self._threshold:
            return
        head = {
            "time": self._now().isoformat(timespec="milliseconds"),
            "level": level,
            "process": self.process,
            "event": event,
        }
        safe = {name: _safe(name, value) for name, value in fields.items()}
        if self._form == "json":
            line = json.dumps(head | safe, ensure_ascii=False)
        else:
            line = " ".join([*head.values(), *(f"{name}={_quoted(value)}" for name, value in safe.items())])
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except OSError:
            self.dropped_total += 1  # a log that cannot be written must not stop the messages


def _safe(name: str, value: Value) -> Value:
    if name in ADDRESS_FIELDS and isinstance(value, int):
        return ids.redact(value)
    if name in NUMBER_FIELDS and isinstance(value, int):
        return ids.redact(ids.address_of(value, 0)).removesuffix("/0")
    if isinstance(value, str):
        return LONG_DIGITS.sub(lambda found: f"{found[0][:2]}…{found[0][-2:]}", value)
    if value is not None and not isinstance(value, int | float):
        raise LocalError(f"log field {name}: {type(value).__name__} does not belong in a log")
    return value


def _quoted(value: Value) -> str:
    text = str(value)
    return text if text and all(c.isprintable() and c not in ' "=' for c in text) else json.dumps(text)
