"""The client's commands, as a user types them, against a server in a thread."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from tests.client.peer import CODE, Server
from wa.cli import client as commands
from wa.cli.accounts import clean
from wa.cli.client import add_client_commands
from wa.client import Client, IdentityChanged, MessageReceived, State
from wa.client.account import Account
from wa.errors import Code

ALICE = "+15551230001"
BOB = "+15551230002"

app = typer.Typer()
add_client_commands(app)


class Shell:
    """Runs commands with WA_HOME in a directory of the test."""

    def __init__(self, server: Server, home: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self.home = home
        self.loop = loop  # the server's

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

    @contextmanager
    def online(self, number: str, *, reads: bool = False) -> Iterator[None]:
        """The account is connected meanwhile, and reads what comes, or does not."""
        ready, gone = threading.Event(), threading.Event()

        async def follow() -> None:
            try:
                async with Client(self.home / number[1:]) as client:
                    await client.connected()
                    ready.set()
                    async for event in client.events():
                        if reads and isinstance(event, MessageReceived):
                            await client.mark_read(event.id)
            finally:
                gone.set()

        following = asyncio.run_coroutine_threadsafe(follow(), self.loop)
        assert ready.wait(10)
        yield
        assert not following.done()
        following.cancel()
        assert gone.wait(10)


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
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
    monkeypatch.setattr(commands, "SILENCE_S", 60.0)  # errors are alone on stderr, however slow this machine is
    monkeypatch.setattr(commands, "DELIVERY_WAIT_S", 0.0)
    yield Shell(server, tmp_path / "home", loop)
    loop.call_soon_threadsafe(end.set)
    thread.join(10)
    assert not thread.is_alive()
    assert server.violations == []


def test_register_send_listen(shell: Shell) -> None:
    assert "is registered" in shell.register(ALICE)
    shell.register(BOB)
    assert shell("accounts").split()[::2] == [ALICE, BOB]
    out = shell("send", BOB, "hello from a shell", "--wait", "accepted", "--account", ALICE)
    assert "✓" in out and "accepted" in out
    out = shell("listen", "--account", BOB, "--count", "1")
    assert out.splitlines()[-1].endswith(f"{ALICE}: hello from a shell")
    shell("send", ALICE, "-", "--wait", "accepted", "--account", BOB, stdin="two\nlines\n")
    lines = [json.loads(line) for line in shell("listen", "-a", ALICE, "--json", "--count", "1").splitlines()]
    received = [line for line in lines if line["event"] == "MessageReceived"]
    assert [(line["text"], line["sender"]) for line in received] == [("two\nlines", BOB)]


def test_send_says_how_far_the_message_is_once(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    words = ("send", BOB, "hello", "-a", ALICE)
    accepted = f"✓  {BOB}  accepted by the server; delivered when their phone is next online\n"
    assert shell(*words) == shell(*words, "--wait", "accepted") == accepted
    monkeypatch.setattr(commands, "DELIVERY_WAIT_S", 60.0)
    with shell.online(BOB):
        assert shell(*words) == shell(*words, "--wait", "delivered") == f"✓✓ {BOB}  delivered\n"
    with shell.online(BOB, reads=True):
        assert shell(*words, "--wait", "read") == f"✓✓ {BOB}  read\n"


def test_send_says_what_it_waits_for(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    monkeypatch.setattr(commands, "SILENCE_S", 0.0)
    words = ("send", BOB, "hello", "-a", ALICE)
    waits = "Waiting for the server to accept it …\nAccepted by the server; waiting for their phone …\n"
    result = CliRunner().invoke(app, words, env={"WA_HOME": str(shell.home)})
    assert (result.exit_code, result.stderr, result.stdout.count("\n")) == (0, waits, 1)
    with shell.online(BOB, reads=True):
        result = CliRunner().invoke(app, [*words, "--wait", "read"], env={"WA_HOME": str(shell.home)})
    assert result.stderr.startswith("Waiting for the server") and "✓✓" in result.stdout
    result = CliRunner().invoke(app, words, env={"WA_HOME": str(shell.home), "FORCE_COLOR": "1", "TERM": "xterm"})
    assert result.stderr.count("waiting for their phone") >= 1 and "\x1b[?25l" in result.stderr, "a spinner"


def test_send_fails_when_the_wanted_state_does_not_come(shell: Shell) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    shell.server.faults.never_answer = True
    message = shell("send", BOB, "hello", "-a", ALICE, "--timeout", "0.5", "--wait", "read", code=1)
    assert "not accepted within 0.5 s" in message and "outbox" in message
    shell.server.faults.never_answer = False
    asyncio.run(until_accepted(shell.home / ALICE[1:]))


async def until_accepted(directory: Path) -> None:
    """Comes online until the last message is accepted, and asks for more than that in vain."""
    async with Client(directory) as client:
        message = client.message(client.history(BOB)[-1].row)
        await message.accepted()
        why = commands._why_not(client, message, State.READ, 3.0)
        assert why == "not read within 3 s"


def test_safety_numbers_agree(shell: Shell) -> None:
    shell.register(ALICE)
    shell.register(BOB)
    message = shell("safety-number", BOB, "--account", ALICE, code=1)
    assert "first message" in message
    shell("send", BOB, "hello", "--wait", "accepted", "--account", ALICE)
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
    shell("send", BOB, "one", "--wait", "accepted", "-a", ALICE)
    shell.register(BOB, "--dir", str(shell.home / "new-phone"))
    shell("send", ALICE, "it is me", "--wait", "accepted", "-a", str(shell.home / "new-phone"))
    asyncio.run(meet(shell.home / ALICE[1:]))
    message = shell("send", BOB, "two", "--timeout", "3600", "-a", ALICE, code=1)  # known at once
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
