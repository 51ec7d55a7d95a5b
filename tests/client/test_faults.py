"""What must hold when the network or the server misbehaves: nothing is lost, nothing is shown twice."""

import asyncio
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.harness import ALICE, BOB, FAST, World, run, texts
from tests.client.test_store import account_in
from wa.client import Client, Disconnected, Message, MessageUnreadable, SendFailed, State, Timing
from wa.client.inbox import Inbox, Item
from wa.client.link import Link
from wa.client.sealer import Sealer
from wa.errors import EXPLANATION, Code, RemoteError
from wa.ids import address_of, parse_number
from wa.wire import frames
from wa.wire.frames import Level, Send
from wa.wire.methods import Method

BOB_1 = address_of(parse_number(BOB), 1)
ALICE_1 = address_of(parse_number(ALICE), 1)
U64 = st.integers(0, 2**64 - 1)


async def both(world: World) -> None:
    await world.register(ALICE)
    await world.register(BOB)


async def deliver(alice: Client, *wanted: str) -> list[Message]:
    messages = [await alice.send(BOB, text) for text in wanted]
    for message in messages:
        await message.delivered()
    return messages


def received(client: Client) -> list[str]:
    return [message.text for message in client.history(ALICE)]


def test_a_lost_receipt_leads_to_a_resend_that_is_shown_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            world.server.faults.lose_receipts = 5  # accepted and delivered, twice and a half
            await deliver(alice, "hello")
            assert received(bob) == ["hello"]
        copies = world.server.sends()
        assert len(copies) > 1 and len({frame.body for frame in copies}) == 1, "every resend is the same bytes"

    run(tmp_path, scenario)


def test_a_delivery_that_comes_twice_is_acknowledged_twice_and_shown_once(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        world.server.faults.deliver_twice = True
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await deliver(alice, "one", "two")
            assert received(bob) == ["one", "two"]

    run(tmp_path, scenario)


@pytest.mark.parametrize("sender_first", [True, False])
def test_a_cut_after_any_number_of_frames(tmp_path: Path, sender_first: bool) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        wanted = [f"number {n}" for n in range(12)]
        names = (ALICE, BOB) if sender_first else (BOB, ALICE)
        async with world.client(names[0]) as first, world.client(names[1]) as second:
            alice, bob = (first, second) if sender_first else (second, first)
            for n, text in enumerate(wanted):
                world.server.faults.cut_after_frames = n % 7
                await deliver(alice, text)
            assert received(bob) == wanted

    run(tmp_path, scenario)


def test_a_cut_in_the_middle_of_a_record(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await deliver(alice, "whole")
            world.server.faults.cut_in_record = True
            await deliver(alice, "cut")
            assert received(bob) == ["whole", "cut"]

    run(tmp_path, scenario)


def test_writing_goes_on_while_the_connection_ends(tmp_path: Path) -> None:
    """At every turn of the event loop, so also between the end of the reading and the end of its task group."""

    async def scenario(world: World) -> None:
        await world.register(ALICE)
        async with world.client(ALICE) as alice:
            await alice.connected()
            world.server.faults.cut_after_frames = 0
            count = 0
            while not isinstance(alice.status, Disconnected):
                count += 1
                assert (await alice.send(f"+1555124{count:04}", "hello")).state is State.PENDING
                await asyncio.sleep(0)

    run(tmp_path, scenario)


@pytest.mark.parametrize("code", [Code.TRY_LATER, Code.MAILBOX_FULL])
def test_refused_for_now_is_sent_again_in_order(tmp_path: Path, code: Code) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await deliver(alice, "zero")
            world.server.faults.refuse_sends = [code] * 4
            await deliver(alice, "one", "two")
            assert received(bob) == ["zero", "one", "two"]
            assert world.server.faults.refuse_sends == []

    run(tmp_path, scenario)


@pytest.mark.parametrize("code", [Code.BODY_TOO_LARGE, Code.KIND_INVALID, Code.TTL_INVALID, Code.DROPPED])
def test_a_final_refusal_fails_the_message(tmp_path: Path, code: Code) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB):
            world.server.faults.refuse_sends = [code]
            message = await alice.send(BOB, "no")
            with pytest.raises(SendFailed) as caught:
                await message.delivered()
            assert caught.value.code is code
            assert alice.history(BOB)[0].reason is code
            await deliver(alice, "the next one goes")

    run(tmp_path, scenario)


def test_expiry_that_was_stored_reaches_the_sender(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice:
            message = await alice.send(BOB, "too late")
            await message.accepted()
        world.server.devices[BOB_1].mailbox.clear()
        world.server.store_receipt(ALICE_1, Level.REFUSED, BOB_1, message.id, Code.EXPIRED)
        async with world.client(ALICE) as alice:
            with pytest.raises(SendFailed):
                await alice.message(message.row).delivered()
            await world.until(lambda: not world.server.devices[ALICE_1].mailbox)

    run(tmp_path, scenario)


def test_a_receipt_lost_with_its_connection_is_asked_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        world.server.faults.hold_deliveries = True
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            message = await alice.send(BOB, "hello")
            await message.accepted()
            await bob.connected()
            world.server.faults.hold_deliveries = False
            world.server.faults.lose_receipts = 1
            world.server.drain(world.server.devices[BOB_1])
            await world.until(lambda: not world.server.devices[BOB_1].mailbox)
            assert message.state is State.ACCEPTED
            world.server.disconnect_all()
            await message.delivered()

    run(tmp_path, scenario)


def test_read_receipts_are_told_again_until_the_server_has_them(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice:
            message = await alice.send(BOB, "hello")
            async with world.client(BOB) as bob:
                await texts(bob, 1)
                world.server.faults.cut_after_frames = 0
                await bob.mark_read(ALICE)
            async with world.client(BOB):
                await message.read()

    run(tmp_path, scenario)


def test_read_receipts_may_be_off(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB, read_receipts=False) as bob:
            message = (await deliver(alice, "hello"))[0]
            await bob.mark_read(ALICE)
            await (await bob.send(ALICE, "an answer")).delivered()
            assert message.state is State.DELIVERED

    run(tmp_path, scenario)


def test_replaced_is_final_and_ends_every_wait(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        world.server.faults.never_answer = True
        async with world.client(ALICE) as alice:
            message = await alice.send(BOB, "never answered")
            await alice.connected()
            waiting = asyncio.create_task(message.accepted())
            await world.register(ALICE, "other phone")
            with pytest.raises(RemoteError) as caught:
                await waiting
            assert caught.value.code is Code.REPLACED
            assert isinstance(alice.status, Disconnected) and alice.status.retry_in is None
            with pytest.raises(RemoteError):
                await alice.connected()

    run(tmp_path, scenario)


def test_only_an_authentic_refusal_is_final(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        world.server.faults.refuse_in_clear = (Code.DEVICE_UNKNOWN, 0)
        async with world.client(ALICE) as alice:
            await world.until(lambda: isinstance(alice.status, Disconnected))
            assert isinstance(alice.status, Disconnected) and alice.status.retry_in is not None
            world.server.faults.refuse_in_clear = None
            await alice.connected()
            world.server.faults.close_at_login = (Code.DEVICE_UNKNOWN, 0)
            world.server.disconnect_all()
            reason = EXPLANATION[Code.DEVICE_UNKNOWN]
            await world.until(lambda: alice.status == Disconnected(reason, Code.DEVICE_UNKNOWN, None))

    run(tmp_path, scenario)


@pytest.mark.parametrize("in_clear", [True, False])
def test_the_wait_that_the_server_asks_for_is_honoured(tmp_path: Path, in_clear: bool) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        if in_clear:
            world.server.faults.refuse_in_clear = (Code.BUSY, 60_000)
        else:
            world.server.faults.close_at_login = (Code.BUSY, 60_000)
        async with world.client(ALICE) as alice:
            await world.until(lambda: isinstance(alice.status, Disconnected))
            assert isinstance(alice.status, Disconnected) and alice.status.retry_in is not None
            assert 60.0 <= alice.status.retry_in <= 72.0
            world.server.faults.refuse_in_clear = world.server.faults.close_at_login = None
            alice.retry_now()
            await alice.connected()

    run(tmp_path, scenario)


def test_failed_requests_only_delay(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        world.server.faults.fail_requests = {
            Method.DEVICES_LIST: [Code.TRY_LATER, Code.BUDGET_EXHAUSTED],
            Method.KEYS_FETCH: [Code.REQUEST_TIMEOUT, Code.PREKEYS_MISSING],
            Method.KEYS_STOCK: [Code.STORAGE_FAILED],
        }
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await deliver(alice, "after all")
            assert received(bob) == ["after all"]

    run(tmp_path, scenario)


def test_an_envelope_that_cannot_be_decrypted_is_asked_for_again(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice:
            async with world.client(BOB) as bob:
                await deliver(alice, "one")
                await texts(bob, 1)
            message = await alice.send(BOB, "two")
            await message.accepted()
            damage(world)
            async with world.client(BOB) as bob:
                unreadable = 0
                async for event in bob.events():
                    if isinstance(event, MessageUnreadable):
                        unreadable += 1
                        assert event.id == message.id
                    elif getattr(event, "text", "") == "two":
                        break
                assert unreadable == 1
                assert received(bob) == ["one", "two"], "the placeholder is gone"
                assert bob.history(ALICE)[-1].id == message.id

    run(tmp_path, scenario)


def test_a_restored_backup_starts_new_sessions_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        backup = tmp_path / "backup"
        async with world.client(BOB) as bob:
            async with world.client(ALICE) as alice:
                await deliver(alice, "one")
            shutil.copytree(tmp_path / ALICE, backup)
            async with world.client(ALICE) as alice:
                await deliver(alice, "two", "three")
            shutil.rmtree(tmp_path / ALICE)
            backup.rename(tmp_path / ALICE)
            async with world.client(ALICE) as alice:
                await deliver(alice, "four")
                answer = await bob.send(ALICE, "an answer")
                await answer.delivered()
                assert [message.text for message in alice.history(BOB)] == ["one", "four", "an answer"]
            assert received(bob) == ["one", "two", "three", "four", "an answer"]

    run(tmp_path, scenario)


def test_silence_ends_a_connection(tmp_path: Path) -> None:
    """A half-open connection is noticed by the ping that nobody answers."""

    async def scenario(world: World) -> None:
        await both(world)
        timing = Timing(ping_interval_ms=10, request_ms=30, backoff_ms_min=5, backoff_ms_max=10)
        async with world.client(ALICE, timing=timing) as alice:
            await alice.connected()
            logins = world.server.logins
            world.server.faults.mute = True
            await world.until(lambda: isinstance(alice.status, Disconnected))
            world.server.faults.mute = False
            await alice.connected()
            assert world.server.logins > logins

    run(tmp_path, scenario)


def test_reading_a_placeholder_does_not_lose_the_message_it_stands_for(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice:
            async with world.client(BOB) as bob:
                await deliver(alice, "one")
                await texts(bob, 1)
            await (await alice.send(BOB, "two")).accepted()
            damage(world)
            async with world.client(BOB) as bob:
                await bob.mark_read(ALICE)
                async for event in bob.events():
                    if isinstance(event, MessageUnreadable):
                        await bob.mark_read(ALICE)
                        break
                assert await texts(bob, 1) == ["two"]
                assert received(bob) == ["one", "two"]

    run(tmp_path, scenario)


def damage(world: World) -> None:
    """Flips a bit of the oldest envelope in Bob's mailbox."""
    mailbox = world.server.devices[BOB_1].mailbox
    key, frame = next(iter(mailbox.items()))
    assert isinstance(frame, Send)
    mailbox[key] = replace(frame, body=frame.body[:-1] + bytes([frame.body[-1] ^ 1]))


def test_a_full_disk_acknowledges_nothing_and_recovers_by_itself(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await both(world)
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await deliver(alice, "small")
            store = bob._account.store
            (pages,) = store.db.execute("PRAGMA page_count").fetchone()
            store.db.execute(f"PRAGMA max_page_count = {pages + 2}")
            message = await alice.send(BOB, "x" * 50_000)
            await world.until(lambda: isinstance(bob.status, Disconnected) and "cannot be written" in bob.status.reason)
            assert message.state < State.DELIVERED
            with pytest.raises(sqlite3.OperationalError):
                await bob.send(ALICE, "y" * 50_000)
            store.db.execute("PRAGMA max_page_count = 1000000")
            await message.delivered()
            assert received(bob) == ["small", "x" * 50_000]
            await (await bob.send(ALICE, "there is room again")).delivered()

    run(tmp_path, scenario)


FRAMES = st.one_of(
    st.builds(frames.Deliver, st.integers(0, 15), U64, U64 | st.just(ALICE_1), U64, st.binary(max_size=50)),
    st.builds(frames.StoredReceipt, U64, st.sampled_from(Level), U64 | st.just(BOB_1), U64, st.just(0)),
    st.builds(frames.StoredReceipt, U64, st.just(Level.REFUSED), st.just(BOB_1), U64, st.integers(0, 65_535)),
    st.builds(frames.Accepted, U64 | st.just(BOB_1), U64),
    st.builds(frames.Refused, st.just(BOB_1), U64, U64),
    st.builds(frames.Notice, st.integers(0, 9), st.binary(max_size=20)),
    st.builds(frames.Error, U64, st.binary(max_size=20)),
    st.builds(frames.Ticket, U64, st.binary(min_size=33, max_size=287)),
    st.builds(frames.Send, st.integers(0, 15), U64, U64, st.binary(max_size=20)),
    st.builds(frames.Response, U64, U64, st.binary(max_size=20)),
    st.builds(frames.Extension, st.integers(0x80, 0xFF), st.binary(max_size=20)),
)


@settings(max_examples=50)
@given(st.lists(FRAMES, max_size=6))
def test_a_hostile_server_ends_its_connection_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, sent: list[frames.Frame]
) -> None:
    async def main() -> None:
        account = account_in(tmp_path_factory.mktemp("hostile"))
        inbox = Inbox(account)
        link = Link(account, inbox, Sealer(account, inbox), FAST, lambda *news: None, read_receipts=True)
        items: list[Item] = []
        try:
            for frame in sent:
                link._sort(frame, items, [])
        except RemoteError as error:
            assert error.code in (Code.PROTOCOL_ERROR, Code.BAD_PARAMS)
        inbox.take(items, durable=False)
        for number in account.contacts.held():
            account.history.page(number)
        account.close()

    asyncio.run(main())
