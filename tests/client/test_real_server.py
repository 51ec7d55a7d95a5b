"""The SDK and the example against `wa serve` itself, which is killed with -9 in the middle."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

from wa.client import Client, Direction, StoredMessage, Timing

ROOT = Path(__file__).parents[2]
ALICE, BOB = "+15551230001", "+15551230002"
SOON = Timing(backoff_ms_min=20, backoff_ms_max=200)


class RealServer:
    """`wa serve` with two workers, all in one process group."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.codes = base / "codes"
        self.address = "127.0.0.1:0"
        self.root_key = ""

    async def __aenter__(self) -> "RealServer":
        await self.start()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        await self.end(signal.SIGKILL if kind else signal.SIGTERM)

    async def start(self) -> None:
        with (self.base / "server.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "wa.cli.main", "serve", "--data-dir", str(self.base / "server"), "--workers", "2"),
                *("--listen", self.address, "--code-transport", f"file:{self.codes}"),
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        assert self.process.stdout is not None
        ready = (await self.process.stdout.readline()).decode()
        assert ready.startswith("ready: "), (self.base / "server.log").read_text()
        self.address = ready.split()[1].rstrip(",")
        self.root_key = (await self.process.stdout.readline()).decode().split()[-1]

    async def end(self, number: signal.Signals) -> None:
        os.killpg(self.process.pid, number)
        await self.process.wait()

    async def code(self, number: str) -> str:
        while True:
            lines = self.codes.read_text().splitlines() if self.codes.exists() else []
            for line in reversed(lines):
                if line.startswith(number):
                    return line.split()[1]
            await asyncio.sleep(0.01)

    async def register(self, directory: Path, number: str) -> None:
        await Client.register(
            directory,
            number,
            server=self.address,
            root_key=self.root_key,
            ask_code=lambda: self.code(number),
            name="test",
        )


def conversation(client: Client, peer: str) -> list[StoredMessage]:
    found = client.history(peer, after_row=0)
    while page := client.history(peer, after_row=found[-1].row):
        found += page
    return found


async def talk(sender: Client, to: str, count: int) -> list[str]:
    wanted = [f"number {n}" for n in range(count)]
    messages = []
    for text in wanted:
        messages.append(await sender.send(to, text))
        await asyncio.sleep(0)
    await asyncio.gather(*(message.delivered() for message in messages))
    return wanted


def test_nothing_is_lost_when_the_server_is_killed_while_both_talk(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealServer(tmp_path) as server:
            for number in (ALICE, BOB):
                await server.register(tmp_path / number, number)
            async with (
                Client(tmp_path / ALICE, timing=SOON) as alice,
                Client(tmp_path / BOB, timing=SOON) as bob,
            ):
                await (await alice.send(BOB, "before")).delivered()
                talks = [asyncio.create_task(talk(alice, BOB, 150)), asyncio.create_task(talk(bob, ALICE, 150))]
                while len(conversation(bob, ALICE)) < 100:
                    await asyncio.sleep(0.001)
                await server.end(signal.SIGKILL)
                await server.start()
                wanted = await talks[0]
                assert await talks[1] == wanted
                at_bob = [m.text for m in conversation(bob, ALICE) if m.direction is Direction.RECEIVED]
                at_alice = [m.text for m in conversation(alice, BOB) if m.direction is Direction.RECEIVED]
                assert at_bob == ["before", *wanted]
                assert at_alice == wanted

    asyncio.run(main())


def test_the_example_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async with RealServer(tmp_path) as server:
            for number in (ALICE, BOB):
                await server.register(tmp_path / ".wa" / number[1:], number)
            example = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-W", "error", str(ROOT / "examples" / "hello.py")),
                env={**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
            )
            out, _ = await example.communicate()
            assert (example.returncode, out.decode()) == (0, f"{ALICE}: hello\n")

    asyncio.run(main())


def test_the_example_is_the_one_in_the_readme() -> None:
    code = (ROOT / "examples" / "hello.py").read_text()
    body = code.split('"""', 2)[2].strip()
    assert body in (ROOT / "README.md").read_text()
