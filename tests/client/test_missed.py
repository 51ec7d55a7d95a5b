"""What changes between two steps of a screen or of a wait is not missed.

Receipts and messages come here at a chosen moment, not over the network: right after a page of history was read, or
before somebody waits.
"""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.client.harness import ALICE, BOB, World, run
from tests.client.test_chat import bubbles, shown, with_both, write
from wa import limits
from wa.cli.chat import Bubble, ChatApp, Day, Line
from wa.client import Client, Disconnected, IdentityChanged, Message, MessageReceived, ReceiptChanged, State
from wa.client.history import StoredMessage
from wa.client.inbox import Delivery, Receipt
from wa.errors import Code, LocalError, RemoteError
from wa.ids import Address, address_of, parse_number
from wa.wire.methods import Kind

BOBS_DEVICE = address_of(parse_number(BOB), 1)
Scenario = Callable[[World, Client, Client], Awaitable[None]]


def take(client: Client, *items: Delivery | Receipt) -> None:
    """What the link does with what it has read."""
    outcome = client._inbox.take(items, durable=True)
    client._publish(outcome.events, outcome.messages)


def is_read(client: Client, message_id: int) -> None:
    """The receipt for a message of ours arrives now: Bob has read it."""
    take(client, Receipt(BOBS_DEVICE, message_id, State.READ))


def is_garbled(client: Client, message_id: int = 1) -> None:
    """An envelope of Bob arrives now, and nobody can decrypt it."""
    take(client, Delivery(BOBS_DEVICE, message_id, Kind.TEXT, b"garbled"))


def has_new_identity(client: Client) -> None:
    """A device of Bob that nobody knew appears now."""
    client._publish(client._sealer.set_devices(parse_number(BOB), [BOBS_DEVICE, Address(BOBS_DEVICE + 1)]), False)


def is_cut(client: Client) -> None:
    client._publish([Disconnected("pulled the plug", None, 60.0)], False)


def once_after_history(client: Client, happens: Callable[[], None]) -> None:
    """`happens` right after the next page of history that is not empty was read."""
    read = client.history

    def history(number: str, **which: Any) -> list[StoredMessage]:
        page = read(number, **which)
        if page:
            client.history = read  # type: ignore[method-assign]
            happens()
        return page

    client.history = history  # type: ignore[method-assign]


async def accepted(world: World, alice: Client, *texts: str) -> list[Message]:
    """Messages that are on the server, where they stay."""
    world.server.faults.hold_deliveries = True
    sent = [await alice.send(BOB, text) for text in texts]
    for message in sent:
        await message.accepted()
    return sent


def ticks(app: ChatApp) -> list[str]:
    return [text.split()[-1] for text in bubbles(app)]


@pytest.mark.parametrize(
    ("happens", "is_shown"),
    [
        (lambda alice, sent: is_read(alice, sent.id), lambda app: ticks(app) == ["✓✓"]),
        (lambda alice, sent: is_garbled(alice), lambda app: any("not be decrypted" in text for text in bubbles(app))),
        (lambda alice, sent: has_new_identity(alice), lambda app: app.query_one("#banner").has_class("shown")),
        (lambda alice, sent: is_cut(alice), lambda app: "pulled the plug" in shown(app, "#state")),
    ],
    ids=["receipt", "unreadable", "identity", "connection"],
)
def test_a_chat_that_opens_shows_what_comes_meanwhile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Client, Message], None],
    is_shown: Callable[[ChatApp], bool],
) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        (sent,) = await accepted(world, alice, "hello")
        once_after_history(alice, lambda: happens(alice, sent))
        app = ChatApp(alice, BOB)
        monkeypatch.setattr(app, "set_interval", lambda *_: None)  # nothing is mended by looking again
        async with app.run_test():
            await world.until(lambda: is_shown(app))

    with_both(tmp_path, scenario)


def test_a_receipt_that_comes_while_a_new_bubble_is_made(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        await accepted(world, alice, "hello")
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await world.until(lambda: len(bubbles(app)) == 1)
            once_after_history(alice, lambda: is_read(alice, alice.history(BOB)[-1].id))
            await write(pilot, "quick")
            await world.until(lambda: ticks(app) == ["✓", "✓✓"])

    with_both(tmp_path, scenario)


def test_a_receipt_that_comes_while_an_older_page_is_made(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        count = limits.CLIENT_PAGE_MESSAGES + 1
        sent = await accepted(world, alice, *(f"number {n}" for n in range(count)))
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await world.until(lambda: len(bubbles(app)) == count - 1)
            once_after_history(alice, lambda: is_read(alice, sent[0].id))
            await pilot.press(*["pageup"] * 20)
            await world.until(lambda: ticks(app) == ["✓✓", *["✓"] * (count - 1)])
            assert len(app.query(Day)) == 1

    with_both(tmp_path, scenario)


def test_nobody_is_told_that_a_message_was_read_before_it_is_shown(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        await (await bob.send(ALICE, "first")).delivered()
        app = ChatApp(alice, BOB)
        told: list[list[str]] = []
        mark_read = alice.mark_read

        async def mark_read_after_another_came(*what: Any, **more: Any) -> int:
            if not told:
                told.append([])
                await (await bob.send(ALICE, "second")).delivered()
            changed = await mark_read(*what, **more)
            told.append([message.text for message in alice.history(BOB) if message.state is State.READ])
            return changed

        alice.mark_read = mark_read_after_another_came  # type: ignore[method-assign]
        async with app.run_test():
            await world.until(lambda: len(told) >= 3)
            assert told[:3] == [[], ["first"], ["first", "second"]]

    with_both(tmp_path, scenario)


def test_a_placeholder_at_the_top_may_go(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        await (await bob.send(ALICE, "hello")).delivered()
        for n in range(limits.CLIENT_PAGE_MESSAGES):
            is_garbled(alice, n + 1)
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await world.until(lambda: len(bubbles(app)) == limits.CLIENT_PAGE_MESSAGES)
            first = app.query(Line).first()
            alice._account.history.remove(first.row)  # as the readable copy does that comes now
            await (await bob.send(ALICE, "again")).delivered()
            await world.until(lambda: first not in app.query(Line))
            await pilot.press(*["pageup"] * 40)
            assert bubbles(app)[0].startswith("hello")
            assert len(app.query(Bubble)) == len(app.query(".waiting")) + 2

    with_both(tmp_path, scenario)


def test_events_begin_with_the_call(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        (sent,) = await accepted(world, alice, "hello")
        events = alice.events()
        assert alice.history(BOB)[0].state is State.ACCEPTED
        is_read(alice, sent.id)
        has_new_identity(alice)
        assert [type(await anext(events)) for _ in range(2)] == [ReceiptChanged, IdentityChanged]
        world.server.faults.hold_deliveries = False
        await (await bob.send(ALICE, "hi")).delivered()
        assert isinstance(await anext(events), MessageReceived)

    with_both(tmp_path, scenario)


def test_events_that_nobody_follows_are_forgotten(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        for _ in range(3):
            alice.events()
        gc.collect()
        assert len(alice._bus._consumers) == 0

    with_both(tmp_path, scenario)


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
