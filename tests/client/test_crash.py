"""`kill -9` of the client at every persistence step: nothing is lost, nothing is doubled, ids stay unique."""

import asyncio
import signal
import sys
from pathlib import Path

import pytest

from tests.client.crash_child import TEXTS
from tests.client.harness import ALICE, BOB, World, run
from wa.client import Direction, State
from wa.client.account import STEPS

ROOT = Path(__file__).parents[2]


async def child(world: World, role: str, name: str, number: str, *kill: object) -> bool:
    """Runs a client process to its end; `kill` is (step, nth).  True when it killed itself there."""
    step, nth = kill or ("", 1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-W", "error", "-m", "tests.client.crash_child", role, str(world.root / name), number),
        *(world.server.address, world.server.root_key.hex(), str(step), str(nth)),
        cwd=ROOT,
    )
    code = await process.wait()
    assert code in (0, -signal.SIGKILL), code
    return code != 0


@pytest.mark.parametrize("step", [step for step in STEPS if step.startswith(("register:", "keys:"))])
def test_registration_can_be_cut_anywhere(tmp_path: Path, step: str) -> None:
    async def scenario(world: World) -> None:
        assert await child(world, "register", ALICE, ALICE, step, 1)
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await (await alice.send(BOB, "hello")).delivered()
            await (await bob.send(ALICE, "hello")).delivered()

    run(tmp_path, scenario)


@pytest.mark.parametrize("nth", [1, 3])
@pytest.mark.parametrize(
    "step", ["send:encrypted", "send:committed", "send:written", "receipt:read", "receipt:committed"]
)
def test_a_sender_can_be_killed_anywhere(tmp_path: Path, step: str, nth: int) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(BOB) as bob:
            assert await child(world, "send", ALICE, BOB, step, nth)
            assert not await child(world, "send", ALICE, BOB)
            assert [message.text for message in bob.history(ALICE)] == list(TEXTS)
        async with world.client(ALICE) as alice:
            sent = alice.history(BOB)
            assert [message.state for message in sent] == [State.DELIVERED] * len(TEXTS)
        ids = [message.id for message in sent]
        assert ids == sorted(set(ids))
        assert {frame.id for frame in world.server.sends()} == set(ids)
        # The server itself checks that one id never carries two bodies: `Server.violations`.

    run(tmp_path, scenario)


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("step", ["receive:decrypted", "receive:committed", "receive:acknowledged", "event:handed-out"])
def test_a_recipient_can_be_killed_anywhere(tmp_path: Path, step: str, nth: int) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice:
            listener = asyncio.create_task(child(world, "listen", BOB, ALICE, step, nth))
            messages = []
            for text in TEXTS:
                messages.append(await alice.send(BOB, text))
                if not listener.done():
                    await asyncio.wait(
                        {listener, asyncio.create_task(messages[-1].delivered())},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
            assert await listener
            assert not await child(world, "listen", BOB, ALICE)
            for message in messages:
                await message.delivered()
        async with world.client(BOB) as bob:
            history = bob.history(ALICE)
            assert [message.text for message in history] == list(TEXTS)
            assert all(message.direction is Direction.RECEIVED for message in history)
        shown = (tmp_path / BOB / "shown").read_text().splitlines()
        assert [line.split()[1] for line in dict.fromkeys(shown)] == list(TEXTS), "in order, none missing"
        if step != "event:handed-out":
            assert len(shown) == len(TEXTS), "only a crash while handing out may hand out twice"

    run(tmp_path, scenario)
