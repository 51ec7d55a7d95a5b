"""The client's commands, as a user types them, against a server in a thread."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.client.peer import CODE, Server
from wa.cli.accounts import clean
from wa.cli.client import add_client_commands
from wa.client import Client, IdentityChanged
from wa.client.account import Account
from wa.errors import Code

ALICE = "+15551230001"
BOB = "+15551230002"

app = typer.Typer()
add_client_commands(app)


class Shell:
    """Runs commands with WA_HOME in a directory of the test."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server = server
        self.home = home

    def __call__(self, *words: str, code: int = 0, stdin: str | None = None, **environment: str) -> str:
        """The output; `code` is the exit code that the command must have."""
        result = CliRunner().invoke(app, words, input=stdin, env={"WA_HOME": str(self.home), **environment})
        assert result.exit_code == code, (words, result.output, result.exception)
        if code:
            message = result.stderr.strip()
            assert message.startswith("wa: ") and "\n" not in message, message
            return message
        return result.stdout

    def register(self, number: str, *more: str) -> str:
        key = self.server.root_key.hex()
        return self("register", number, "--server", self.server.address, "--root-key", key, "--code", CODE, *more)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    server = Server()
    ready, end = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with server:
            ready.set()
            await end.wait()

    def main() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(serve())

    thread = threading.Thread(target=main)
    thread.start()
    assert ready.wait(10)
    yield Shell(server, tmp_path / "home")
    loop.call_soon_threadsafe(end.set)
    thread.join(10)
    assert not thread.is_alive()
    assert server.violations == []


def test_register_send_listen(shell: Shell) -> None:
    assert "is registered" in shell.register(ALICE)
    shell.register(BOB)
    assert shell("accounts").split()[::2] == [ALICE, BOB]
    out = shell("send", BOB, "hello from a shell", "--no-wait", "--account", ALICE)
    assert "✓" in out and "accepted" in out
    out = shell("listen", "--account", BOB, "--count", "1")
    assert out.splitlines()[-1].endswith(f"{ALICE}: hello from a shell")
    shell("send", ALICE, "-", "--no-wait", "--account", BOB, stdin="two\nlines\n")
    lines = [json.loads(line) for line in shell("listen", "-a", ALICE, "--json", "--count", "1").splitlines()]
    received = [line for line in lines if line["event"] == "MessageReceived"]
    assert [(line["text"], line["sender"]) for line in received] == [("two\nlines", BOB)]


def test_safety_numbers_agree(shell: Shell) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    message = shell("safety-number", BOB, "--account", ALICE, code=1)
    assert "first message" in message
    shell("send", BOB, "hello", "--no-wait", "--account", ALICE)
    shell("listen", "--account", BOB, "--count", "1")
    ours, theirs = shell("safety-number", BOB, "-a", ALICE), shell("safety-number", ALICE, "-a", BOB)
    assert ours == theirs
    assert [len(group) for group in ours.split()] == [5] * 12


def test_the_code_is_asked_for_again(shell: Shell) -> None:
    key = shell.server.root_key.hex()
    words = ("register", ALICE, "--server", shell.server.address, "--root-key", key)
    assert "is registered" in shell(*words, stdin=f"000000\n{CODE}\n")
    assert "code_wrong" in shell(*words, "--code", "000000", code=1)


def test_devices_are_listed_and_removed(shell: Shell) -> None:
    shell.register(ALICE, "--name", "laptop")
    shell.register(ALICE, "--add", "--name", "desk\x1b[2J", "--dir", str(shell.home / "second"))
    out = shell("devices", "--account", ALICE)
    assert out.splitlines() == ["1  laptop  (this one)", "2  desk\ufffd[2J"]
    assert shell("devices", "--account", ALICE, "--remove", "2").splitlines() == ["1  laptop  (this one)"]


def test_a_changed_identity_is_accepted_by_hand(shell: Shell) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    shell("send", BOB, "one", "--no-wait", "-a", ALICE)
    shell.register(BOB, "--dir", str(shell.home / "new-phone"))
    shell("send", ALICE, "it is me", "--no-wait", "-a", str(shell.home / "new-phone"))
    asyncio.run(meet(shell.home / ALICE[1:]))
    message = shell("send", BOB, "two", "--no-wait", "--timeout", "0.5", "-a", ALICE, code=1)
    assert f"wa trust {BOB}" in message
    assert "accepted" in shell("trust", BOB, "-a", ALICE)
    assert "has not changed" in shell("trust", BOB, "-a", ALICE)
    out = shell("listen", "-a", ALICE, "--count", "1")
    assert out.splitlines()[-1].endswith(f"{BOB}: it is me")


async def meet(directory: Path) -> None:
    """Comes online until the changed identity has been seen."""
    async with Client(directory) as client:
        async for event in client.events():
            if isinstance(event, IdentityChanged):
                return


def test_a_passphrase_comes_from_the_environment(shell: Shell) -> None:
    key = shell.server.root_key.hex()
    words = ("register", ALICE, "--server", shell.server.address, "--root-key", key, "--code", CODE, "--passphrase")
    shell(*words, WA_PASSPHRASE="correct horse")
    assert "WA_PASSPHRASE" in shell("devices", code=1)
    assert "wrong" in shell("devices", code=1, WA_PASSPHRASE="battery staple")
    assert "(this one)" in shell("devices", WA_PASSPHRASE="correct horse")


def test_errors_are_one_line_that_says_what_to_do(shell: Shell) -> None:
    assert "begin with: wa register" in shell("send", BOB, "hi", code=1)
    assert "there is no account" in shell("accounts").lower()
    assert "country code" in shell("register", "0555", "--root-key", "00" * 32, code=1)
    assert "64 hexadecimal digits" in shell("register", ALICE, "--root-key", "nonsense", code=1)
    assert "is the server running" in shell(
        "register", ALICE, "--server", "127.0.0.1:1", "--root-key", "00" * 32, code=1
    )
    assert "host:port" in shell("register", ALICE, "--server", "host:x", "--root-key", "00" * 32, code=1)
    key = ("--server", shell.server.address, "--root-key", "11" * 32, "--code", CODE)
    assert "pinned root key" in shell("register", ALICE, *key, code=1)
    shell.register(ALICE)
    shell.register(BOB)
    assert f"{ALICE}, {BOB}" in shell("devices", code=1)
    assert "check the number" in shell("send", "+15551239999", "hi", "-a", ALICE, code=1)
    shell.server.faults.refuse_in_clear = (Code.BUSY, 60_000)
    message = shell("send", BOB, "hi", "-a", ALICE, "--timeout", "0.5", code=1)
    assert "stays in the outbox" in message and "shedding load" in message
    shell.server.faults.refuse_in_clear = None
    account = Account(shell.home / ALICE[1:])
    assert "is open in process" in shell("devices", "-a", ALICE, code=1)
    account.close()


def test_the_root_key_is_found_but_never_guessed(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = ("register", ALICE, "--server", shell.server.address, "--code", CODE)
    assert "--root-key" in shell(*words, code=1)
    keys = tmp_path / "data" / "keys"
    keys.mkdir(parents=True)
    (keys / "root.pub").write_text(shell.server.root_key.hex() + "\n")
    shell(*words)
    assert "has none" in shell(*words, "--data-dir", str(tmp_path / "elsewhere"), code=1)
    shell(*words, "--data-dir", str(tmp_path / "data"))
    shell(*words, "--root-key-file", str(keys / "root.pub"))
    shell(*words, WA_ROOT_KEY=shell.server.root_key.hex())


def test_text_of_others_cannot_control_the_terminal() -> None:
    assert clean("a\x1b[31m\r\x07b\x9b\u202ec\n👩\u200d🚀") == "a\ufffd[31m\ufffd\ufffdb\ufffd\ufffdc\n👩\u200d🚀"
