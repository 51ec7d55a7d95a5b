"""The server's settings: one typed, frozen value, made once at start.

Precedence, highest first: command-line flags, environment (`WA_DATA_DIR`, `WA_LISTEN`, …), the TOML file
(`--config`, else `WA_CONFIG`, else `wa.toml` in the working directory if there is one), the defaults below.

An unknown key is an error that names the nearest one.  A wrong value is an error that names its source.  The
environment is shared with other programs, so there only near misses of our names are errors.
"""

import difflib
import ipaddress
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from wa import limits
from wa.errors import LocalError

DEFAULT_FILE = "wa.toml"
ENV_PREFIX = "WA_"
ENV_FILE = "WA_CONFIG"
FLAG = "flag --{}"  # how an error names the source of a value
OVERFLOW_POLICIES = ("refuse", "prune")
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")


@dataclass(frozen=True)
class Endpoint:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class CodeTransport:
    """How a verification code reaches its number.  `path` is None for the console."""

    path: Path | None

    def __str__(self) -> str:
        return "console" if self.path is None else f"file:{self.path}"


@dataclass(frozen=True)
class Push:
    """How offline devices are woken.

    kind "none": not at all; "file": a line in the file `where`; "webhook": a request to the URL `where`.
    `where` is not shown: a URL may hold a secret.
    """

    kind: str = "none"
    where: str = field(default="", repr=False)


@dataclass(frozen=True)
class Config:
    data_dir: Path = Path("wa-data")
    listen: Endpoint = Endpoint("127.0.0.1", 7340)
    workers: int = 0  # 0: one per core that this process may use; see `resolved`
    linger_ms: int = limits.LINGER_MS
    overflow: str = "refuse"
    code_transport: CodeTransport = CodeTransport(None)
    push: Push = Push()
    trace: bool = False  # record the stages of every envelope for `wa trace`
    log_level: str = "info"
    log_format: str = "text"

    def resolved(self) -> "Config":
        """With the number of workers decided.  Do it once: a pinned process sees one core only."""
        return replace(self, workers=self.workers or min(len(usable_cores()), limits.WORKERS_MAX))


def usable_cores() -> list[int]:
    """The numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def load(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file: Path | None = None,
    default_file: Path = Path(DEFAULT_FILE),
) -> Config:
    """The settings in force.  A flag that is None was not given.

    Raises LocalError with source and key: an unknown key, a wrong value, or a named file that is missing.
    """
    values: dict[str, Any] = {}
    named = file or (Path(environ[ENV_FILE]) if environ.get(ENV_FILE) else None)
    path = named or default_file
    if named is not None or path.is_file():
        values |= _from_file(path)
    values |= _from_environment(environ)
    values |= _parsed({key: value for key, value in flags.items() if value is not None}, FLAG)
    return Config(**values)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            raw = tomllib.load(stream)
    except OSError as error:
        raise LocalError(f"cannot read settings from {path}: {error.strerror}") from None
    except tomllib.TOMLDecodeError as error:
        raise LocalError(f"{path} is not TOML: {error}") from None
    return _parsed(raw, str(path) + ", key {}")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    raw: dict[str, Any] = {}
    for name, value in environ.items():
        if not name.startswith(ENV_PREFIX) or name == ENV_FILE:
            continue
        key = name.removeprefix(ENV_PREFIX).lower()
        if key in _PARSERS:
            raw[key] = value
        elif near := difflib.get_close_matches(key, _PARSERS, 1, 0.75):
            nearest = ENV_PREFIX + near[0].upper()
            raise LocalError(f"environment {name}: no such setting; did you mean {nearest}?")
    return _parsed(raw, "environment " + ENV_PREFIX + "{}")


def _parsed(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    values = {}
    for key, value in raw.items():
        shown = key.upper() if ENV_PREFIX + "{}" in source else key.replace("_", "-") if source == FLAG else key
        where = source.format(shown)
        if key not in _PARSERS:
            near = difflib.get_close_matches(key, _PARSERS, 1, 0.0)
            raise LocalError(f"{where}: no such setting; did you mean {near[0]}?")
        try:
            values[key] = _PARSERS[key](value)
        except ValueError as error:
            raise LocalError(f"{where}: {error}") from None
    return values


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected text, not {value!r}")
    return value


def _path(value: Any) -> Path:
    return value if isinstance(value, Path) else Path(_text(value)).expanduser()


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"expected a whole number from {low} to {high}, not {value!r}")
        return value

    return parse


def _boolean(value: Any) -> bool:
    named = {"true": True, "1": True, "false": False, "0": False}
    if isinstance(value, str) and value.lower() in named:
        value = named[value.lower()]
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, not {value!r}")
    return value


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        if value not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, not {value!r}")
        return str(value)

    return parse


def _endpoint(value: Any) -> Endpoint:
    host, colon, port = _text(value).rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdecimal() or int(port) > 65_535:
        raise ValueError(f"expected host:port, not {value!r}")
    return Endpoint(host, int(port))


def _code_transport(value: Any) -> CodeTransport:
    text = _text(value)
    if text == "console":
        return CodeTransport(None)
    kind, _, path = text.partition(":")
    if kind == "file" and path:
        return CodeTransport(Path(path).expanduser())
    raise ValueError(f'expected "console" or "file:<path>", not {value!r}')


def _push(value: Any) -> Push:
    text = _text(value)
    kind, _, where = text.partition(":")
    if text == "none":
        return Push()
    if kind == "file" and where:
        return Push(kind, str(Path(where).expanduser()))
    if kind == "webhook" and _is_endpoint(where):
        return Push(kind, where)
    raise ValueError('expected "none", "file:<path>" or "webhook:https://…" (http:// to this very machine only)')


def _is_endpoint(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if not host or parts.fragment or not url.isascii() or not url.isprintable() or " " in url:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_PARSERS: dict[str, Callable[[Any], Any]] = {
    "data_dir": _path,
    "listen": _endpoint,
    "workers": _integer(0, limits.WORKERS_MAX),
    "linger_ms": _integer(0, limits.RESEND_AFTER_MS - 1),
    "overflow": _one_of(OVERFLOW_POLICIES),
    "code_transport": _code_transport,
    "push": _push,
    "trace": _boolean,
    "log_level": _one_of(LOG_LEVELS),
    "log_format": _one_of(LOG_FORMATS),
}
assert set(_PARSERS) == {field.name for field in fields(Config)}
