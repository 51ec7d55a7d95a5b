"""What changes between two steps of a screen or of a wait is not missed."""

import asyncio
from pathlib import Path

import pytest

from tests.client.harness import ALICE, BOB, World, run
from wa.errors import Code, LocalError, RemoteError


def test_a_wait_that_begins_after_the_end_ends_too(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice:
            early = await alice.send(BOB, "before")
            await early.accepted()
            await world.register(ALICE, "elsewhere")
            with pytest.raises(RemoteError):
                await early.delivered()
            late = await alice.send(BOB, "after")
            for wait in (early.delivered, late.accepted, late.read):
                async with asyncio.timeout(5):
                    with pytest.raises(RemoteError) as caught:
                        await wait()
                assert caught.value.code is Code.REPLACED
        with pytest.raises(LocalError):
            await late.accepted()

    run(tmp_path, scenario)


def test_a_handle_serves_again_when_its_client_is_opened_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        world.server.faults.refuse_in_clear = (Code.BUSY, 1)
        alice = world.client(ALICE)
        async with alice:
            message = await alice.send(BOB, "in a tunnel")
        world.server.faults.refuse_in_clear = None
        async with alice:
            await message.accepted()

    run(tmp_path, scenario)
