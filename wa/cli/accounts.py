"""What the client's commands share: which account, which root key, and each error as one line."""

import asyncio
import functools
import getpass
import os
import sqlite3
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import typer

from wa.client.account import is_wrapped
from wa.client.connection import ConnectionLost
from wa.errors import Code, LocalError, RemoteError
from wa.ids import parse_number

P = ParamSpec("P")
T = TypeVar("T")

HOME_ENV = "WA_HOME"
ROOT_KEY_ENV = "WA_ROOT_KEY"
PASSPHRASE_ENV = "WA_PASSPHRASE"
DATA_DIR_ENV = "WA_DATA_DIR"
SERVER_DATA_DIRS = ("wa-data", "data", "~/.local/share/wa/server")
ROOT_KEY_FILE = Path("keys") / "root.pub"

HINTS: dict[Code, str] = {
    Code.DEVICE_UNKNOWN: "register this device again: wa register NUMBER",
    Code.REPLACED: "if that was not you, register again: wa register NUMBER",
    Code.HANDSHAKE_FAILED: "check the address and the root key with the server's operator",
    Code.CODE_WRONG: "run wa register again and check the code",
    Code.CODE_EXPIRED: "run wa register again",
    Code.TOO_MANY_ATTEMPTS: "run wa register again",
    Code.BUDGET_EXHAUSTED: "the server limits how often this may be asked",
    Code.ACCOUNT_UNKNOWN: "check the number",
    Code.DEVICES_FULL: "remove one first: wa devices --remove N",
    Code.NUMBER_INVALID: "for example +15551230001",
    Code.VERSION_UNSUPPORTED: "upgrade wa",
}


def home() -> Path:
    """Where the accounts of this user are: WA_HOME, or ~/.wa."""
    return Path(os.environ.get(HOME_ENV) or "~/.wa").expanduser()


def directory_of(number: str) -> Path:
    return home() / str(parse_number(number))


def registered() -> list[Path]:
    """The directories of accounts, by number."""
    found = home().glob("*/account.db")
    return sorted(path.parent for path in found)


def choose(account: str | None) -> Path:
    """The directory of --account, which is a number or a path; without it, the only account.

    Raises LocalError that says what to do.
    """
    if account is not None:
        return directory_of(account) if account.startswith("+") else Path(account).expanduser()
    found = registered()
    if not found:
        raise LocalError(f"no account in {home()} yet; begin with: wa register +15551230001")
    if len(found) > 1:
        names = ", ".join("+" + path.name for path in found)
        raise LocalError(f"there are several accounts; choose one with --account: {names}")
    return found[0]


def find_root_key(given: str | None, data_dir: Path | None) -> bytes:
    """--root-key (hexadecimal or a file), WA_ROOT_KEY, or keys/root.pub of a server on this machine.

    Raises LocalError when there is none: a server is never trusted for being the first to answer.
    """
    given = given or os.environ.get(ROOT_KEY_ENV)
    if given:
        path = Path(given).expanduser()
        return _parse_key(path.read_text() if path.is_file() else given, given)
    named = data_dir or (Path(os.environ[DATA_DIR_ENV]) if os.environ.get(DATA_DIR_ENV) else None)
    candidates = [named] if named is not None else [Path(name) for name in SERVER_DATA_DIRS]
    for candidate in candidates:
        path = candidate.expanduser() / ROOT_KEY_FILE
        if path.is_file():
            return _parse_key(path.read_text(), str(path))
    where = f"{named} has none" if named is not None else f"there is no server in {', '.join(SERVER_DATA_DIRS)}"
    raise LocalError(
        f"no root key: {where}; give the --data-dir of a server on this machine, or the --root-key that the server's"
        " operator tells you"
    )


def _parse_key(text: str, source: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise LocalError(f"no root key in {source}: it is 64 hexadecimal digits, or a file that holds them")
    return key


def passphrase_of(directory: Path) -> str | None:
    """None when the keys are not wrapped; else WA_PASSPHRASE, or what the user types."""
    if not is_wrapped(directory):
        return None
    given = os.environ.get(PASSPHRASE_ENV)
    if given is not None:
        return given
    if not sys.stdin.isatty():
        raise LocalError(f"the keys in {directory} are wrapped; set {PASSPHRASE_ENV} to their passphrase")
    return getpass.getpass("Passphrase: ")


def clean(text: str) -> str:
    """Other people's text, safe for a terminal: control characters go, so no escape sequence works; line ends stay."""
    return "".join(c if c in "\n\t" or c.isprintable() or c in "\u200d\ufe0f" else "\ufffd" for c in text)


def fail(message: str) -> typer.Exit:
    typer.secho(f"wa: {clean(message)}", fg=typer.colors.RED, err=True)
    return typer.Exit(1)


def explain(error: RemoteError | ConnectionLost) -> str:
    """One line with what to do next."""
    if isinstance(error, ConnectionLost) and error.code is None:
        return f"{error.reason}; is the server running and the address right?"
    wait = f"; try again in {error.retry_after_ms / 1_000:.0f} s" if error.retry_after_ms else ""
    hint = HINTS.get(error.code) if error.code is not None else None
    return f"{error}; {hint}{wait}" if hint else f"{error}{wait}"


def command(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Runs an async command.  An expected error becomes one line on stderr and exit code 1."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return asyncio.run(function(*args, **kwargs))
        except (RemoteError, ConnectionLost) as error:
            raise fail(explain(error)) from None
        except LocalError as error:
            raise fail(str(error)) from None
        except sqlite3.OperationalError as error:
            raise fail(f"cannot write the account's database ({error}); is the disk full?") from None
        except OSError as error:
            raise fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": ")) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run
