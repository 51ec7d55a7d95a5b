"""The SDK against a server that speaks the real protocol: delivery, receipts, history, events."""

import asyncio
from pathlib import Path

import pytest

from tests.client.harness import ALICE, BOB, World, run, texts
from wa.client import (
    Client,
    Connected,
    Direction,
    IdentityChanged,
    MessageReceived,
    MessageSynced,
    SendFailed,
    State,
)
from wa.errors import Code, LocalError, RemoteError
from wa.ids import address_of, parse_number


def test_ticks_rise_to_read(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            message = await alice.send(BOB, "hello")
            await message.accepted()
            await message.delivered()
            assert await texts(bob, 1) == ["hello"]
            assert await bob.mark_read(ALICE) == 1
            await message.read()
            assert alice.history(BOB)[0].state is State.READ
            assert bob.history(ALICE)[0].direction is Direction.RECEIVED

    run(tmp_path, scenario)


def test_a_message_to_someone_offline_waits_and_comes_in_order(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        wanted = [f"number {n}" for n in range(150)]  # more than a window
        async with world.client(ALICE) as alice:
            sent = [await alice.send(BOB, text) for text in wanted]
            await asyncio.gather(*(message.accepted() for message in sent))
        async with world.client(BOB) as bob:
            assert await texts(bob, len(wanted)) == wanted
        async with world.client(ALICE) as alice:
            await asyncio.gather(*(alice.message(message.row).delivered() for message in sent))

    run(tmp_path, scenario)


def test_sending_works_offline(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        world.server.faults.refuse_in_clear = (Code.BUSY, 1)
        async with world.client(ALICE) as alice:
            message = await alice.send(BOB, "written in a tunnel")
            assert message.state is State.PENDING
        world.server.faults.refuse_in_clear = None
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            assert await texts(bob, 1) == ["written in a tunnel"]
            await alice.message(message.row).delivered()

    run(tmp_path, scenario)


def test_messages_that_no_consumer_took_are_handed_out_later_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice, world.client(BOB):
            await (await alice.send(BOB, "while nobody listened")).delivered()
        async with world.client(BOB) as bob:
            assert await texts(bob, 1) == ["while nobody listened"]
        async with world.client(BOB) as bob, world.client(ALICE) as alice:
            await alice.send(BOB, "next")
            assert await texts(bob, 1) == ["next"]

    run(tmp_path, scenario)


def test_two_consumers_both_get_live_messages(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await bob.connected()
            consumers = [asyncio.create_task(texts(bob, 2)) for _ in range(2)]
            await asyncio.sleep(0)
            for text in ("one", "two"):
                await (await alice.send(BOB, text)).delivered()
            assert await asyncio.gather(*consumers) == [["one", "two"], ["one", "two"]]

    run(tmp_path, scenario)


def test_every_device_gets_the_message_and_own_devices_get_a_copy(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(ALICE, "alice2", mode="add")
        await world.register(BOB)
        await world.register(BOB, "bob2", mode="add")
        async with (
            world.client(ALICE) as alice,
            world.client("alice2") as alice2,
            world.client(BOB) as bob,
            world.client("bob2") as bob2,
        ):
            message = await alice.send(BOB, "to all")
            assert await texts(bob, 1) == await texts(bob2, 1) == ["to all"]
            async for event in alice2.events():
                if isinstance(event, MessageSynced):
                    assert (event.text, event.recipient, event.id) == ("to all", BOB, message.id)
                    break
            copy = alice2.history(BOB)[0]
            assert copy.direction is Direction.SENT

    run(tmp_path, scenario)


def test_a_number_nobody_registered_fails(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        async with world.client(ALICE) as alice:
            message = await alice.send(BOB, "anyone?")
            with pytest.raises(SendFailed) as caught:
                await message.accepted()
            assert caught.value.code is Code.ACCOUNT_UNKNOWN
            assert message.state is State.FAILED
            with pytest.raises(SendFailed):
                await message.read()

    run(tmp_path, scenario)


def test_a_gone_device_is_looked_up_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        await world.register(BOB, "bob2", mode="add")
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await (await alice.send(BOB, "first")).delivered()
            del world.server.devices[address_of(parse_number(BOB), 2)]
            message = await alice.send(BOB, "second")
            await message.delivered()
            assert await texts(bob, 2) == ["first", "second"]
            await (await alice.send(BOB, "third")).delivered()
        sent = [frame.recipient & 0xFF for frame in world.server.sends() if frame.id != message.id]
        assert sorted(sent) == [1, 1, 2], "the third goes to the one device that is left"

    run(tmp_path, scenario)


def test_a_new_identity_holds_everything_until_it_is_accepted(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice, world.client(BOB):
            await (await alice.send(BOB, "first")).delivered()
            before = alice.safety_number(BOB)
        await world.register(BOB, "new phone")
        async with world.client(ALICE) as alice, world.client("new phone") as bob:
            await bob.send(ALICE, "it is me")
            async for event in alice.events():
                if isinstance(event, IdentityChanged):
                    assert (event.number, event.new_device) == (BOB, False)
                    break
            assert alice.is_held(BOB) and alice.held_numbers() == [BOB]
            held = await alice.send(BOB, "held back")
            assert held.state is State.PENDING and alice.history(BOB)[-1].text == "held back"
            assert "it is me" not in [message.text for message in alice.history(BOB)]
            assert not any(frame.id == held.id for frame in world.server.sends())
            await alice.acknowledge_identity(BOB)
            await held.delivered()
            assert await texts(bob, 1) == ["held back"]
            assert await texts(alice, 1) == ["it is me"]
            assert alice.safety_number(BOB) == bob.safety_number(ALICE) != before

    run(tmp_path, scenario)


def test_a_device_added_to_a_known_number_is_not_trusted_by_itself(tmp_path: Path) -> None:
    """Otherwise the server could add a device to any account and read along."""

    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE, clock_ms=world.clock) as alice, world.client(BOB):
            await (await alice.send(BOB, "first")).delivered()
            await world.register(BOB, "ghost", mode="add")
            world.clock_step_ms += 2 * 3_600_000  # the device list is old now
            second = await alice.send(BOB, "second")
            async for event in alice.events():
                if isinstance(event, IdentityChanged):
                    assert (event.device, event.new_device) == (2, True)
                    break
            assert second.state is State.PENDING
            await alice.acknowledge_identity(BOB)
            await second.delivered()
        async with world.client("ghost") as ghost:
            assert await texts(ghost, 1) == ["second"]

    run(tmp_path, scenario)


def test_prekeys_are_uploaded_and_topped_up(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        device = world.server.devices[address_of(parse_number(ALICE), 1)]
        assert len(device.one_time) == 100
        del device.one_time[:85]
        async with world.client(ALICE) as alice:
            await alice.connected()
            await world.until(lambda: len(device.one_time) == 100)
            del device.one_time[:95]
            world.server.prekeys_low(device)
            await world.until(lambda: len(device.one_time) == 100)
        ids = [prekey_id for prekey_id, _ in device.one_time]
        assert len(set(ids)) == len(ids)

    run(tmp_path, scenario)


def test_registration_asks_again_after_a_wrong_code(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        codes = iter(["000000", "111111", world.server.code])
        await world.register(ALICE, ask_code=lambda: next(codes))
        with pytest.raises(RemoteError) as caught:
            await world.register(BOB, ask_code=lambda: "000000")
        assert caught.value.code is Code.CODE_WRONG

    run(tmp_path, scenario)


def test_the_server_must_have_the_pinned_root_key(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        with pytest.raises(RemoteError) as caught:
            await world.register(ALICE, root_key=bytes(31) + b"\1")
        assert caught.value.code is Code.HANDSHAKE_FAILED
        assert not world.server.devices
        with pytest.raises(LocalError, match="64 hexadecimal"):
            await world.register(BOB, root_key="not a key")

    run(tmp_path, scenario)


def test_a_server_with_a_new_key_is_met_by_fallback(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE)
        world.server.new_static_key()
        world.server.tickets.clear()
        for _ in range(2):
            await world.visit(ALICE)
        assert world.server.handshakes == ["done", "done", "fallback", "resumed"]

    run(tmp_path, scenario)


def test_events_tell_of_the_connection(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE) as alice:
            await (await alice.send(BOB, "queued")).accepted()
        async with world.client(BOB) as bob:
            async for event in bob.events():
                if isinstance(event, MessageReceived):
                    break
            assert bob.status == Connected(queued=1)

    run(tmp_path, scenario)


def test_misuse_is_said_plainly(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        with pytest.raises(LocalError, match="async with"):
            await world.client(ALICE).send(BOB, "too early")
        with pytest.raises(LocalError, match="register first"):
            async with world.client(BOB):
                pass
        async with world.client(ALICE) as alice:
            for text in ("", "x" * 60_001, "\ud800"):
                with pytest.raises(LocalError):
                    await alice.send(BOB, text)
            with pytest.raises(RemoteError):
                await alice.send("0123", "hello")
            with pytest.raises(LocalError, match="process"):
                async with world.client(ALICE):
                    pass
            assert isinstance(alice, Client)

    run(tmp_path, scenario)


def test_a_passphrase_wraps_every_key(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE, passphrase="correct horse")
        await world.register(BOB)
        for wrong in (None, "wrong"):
            with pytest.raises(LocalError, match="passphrase"):
                async with world.client(ALICE, passphrase=wrong):
                    pass
        async with world.client(ALICE, passphrase="correct horse") as alice, world.client(BOB) as bob:
            await (await alice.send(BOB, "hello")).delivered()
            assert await texts(bob, 1) == ["hello"]

    run(tmp_path, scenario)
