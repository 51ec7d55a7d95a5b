"""The full-screen chat, driven by keys: history, live ticks, banner, connection state."""

from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path

from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.client.harness import ALICE, BOB, World, run, texts
from wa import limits
from wa.cli.chat import Bubble, ChatApp, Day, Line, day_name
from wa.client import Client, Connected, Disconnected, State
from wa.errors import Code

Scenario = Callable[[World, Client, Client], Awaitable[None]]


def with_both(tmp_path: Path, scenario: Scenario) -> None:
    async def main(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        async with world.client(ALICE, clock_ms=world.clock) as alice, world.client(BOB) as bob:
            await scenario(world, alice, bob)

    run(tmp_path, main)


def bubbles(app: ChatApp) -> list[str]:
    return [str(bubble.content).replace("\u00a0", " ") for bubble in app.query(Bubble)]


def shown(app: ChatApp, selector: str) -> str:
    return str(app.query_one(selector, Static).content)


async def write(pilot: Pilot[None], text: str) -> None:
    await pilot.press(*("space" if c == " " else c for c in text), "enter")


def test_a_conversation_with_live_ticks(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await write(pilot, "hi bob")
            assert app.query_one(Input).value == ""
            await world.until(lambda: bubbles(app)[-1].endswith("✓✓"))
            assert await texts(bob, 1) == ["hi bob"]
            await bob.mark_read(ALICE)
            await world.until(lambda: alice.history(BOB)[0].state is State.READ)
            answer = await bob.send(ALICE, "hi [bold]alice[/bold] \x1b[31m")
            await answer.read()
            await world.until(lambda: len(bubbles(app)) == 2)
            assert bubbles(app)[1].startswith("hi [bold]alice[/bold] \ufffd[31m")
            assert [line.has_class("sent") for line in app.query(Line)] == [True, False]

    with_both(tmp_path, scenario)


def test_a_message_that_fails_says_why(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        world.server.faults.refuse_sends = [Code.KIND_INVALID]
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await write(pilot, "no")
            await world.until(lambda: "✗ kind invalid" in bubbles(app)[0])

    with_both(tmp_path, scenario)


def test_history_comes_in_pages_with_days(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        count = limits.CLIENT_PAGE_MESSAGES + 20
        for n in range(count):
            world.clock_step_ms = -86_400_000 * (count - n > 30)
            last = await alice.send(BOB, f"number {n}")
        await last.delivered()
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await pilot.pause()
            assert len(bubbles(app)) == limits.CLIENT_PAGE_MESSAGES
            assert [str(day.content).strip() for day in app.query(Day)] == ["Yesterday", "Today"]
            while len(bubbles(app)) < count:
                await pilot.press("pageup")
            assert [text.split("  ")[0] for text in bubbles(app)] == [f"number {n}" for n in range(count)]
            assert [str(day.content).strip() for day in app.query(Day)] == ["Yesterday", "Today"]
            await pilot.press(*["pageup"] * 20)
            assert len(bubbles(app)) == count, "the beginning is the beginning"

    with_both(tmp_path, scenario)


def test_the_head_counts_down_to_the_next_attempt(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        app = ChatApp(alice, BOB)
        async with app.run_test() as pilot:
            await world.until(lambda: "● connected" in shown(app, "#state"))
            world.server.faults.refuse_in_clear = (Code.BUSY, 60_000)
            world.server.disconnect_all()
            await world.until(lambda: "shedding load" in shown(app, "#state"))
            assert "again in" in shown(app, "#state")
            world.server.faults.refuse_in_clear = None
            await pilot.press("ctrl+r")
            await world.until(lambda: "● connected" in shown(app, "#state"))
            await world.register(ALICE, "elsewhere")
            await world.until(lambda: "took over" in shown(app, "#state"))
            assert isinstance(alice.status, Disconnected) and not isinstance(alice.status, Connected)

    with_both(tmp_path, scenario)


def test_a_changed_identity_needs_a_key_press(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        await (await alice.send(BOB, "hello")).delivered()
        app = ChatApp(alice, BOB)
        async with app.run_test(notifications=True) as pilot:
            await world.until(lambda: "● connected" in shown(app, "#state"))
            assert not app.query_one("#banner").has_class("shown")
            await pilot.press("f9")
            await world.register(BOB, "new phone")
            async with world.client("new phone") as new:
                await new.send(ALICE, "it is me")
                await world.until(lambda: app.query_one("#banner").has_class("shown"))
                await write(pilot, "are you")
                assert bubbles(app)[-1].endswith("◷")
                await pilot.press("f2")
                await world.until(lambda: bool(app._notifications))
                toast = next(iter(app._notifications)).message
                assert toast.split() == alice.safety_number(BOB).split()
                await pilot.press("f9")
                await world.until(lambda: not app.query_one("#banner").has_class("shown"))
                await world.until(lambda: sum(text.endswith("✓✓") for text in bubbles(app)) == 2)
                await world.until(lambda: any(text.startswith("it is me") for text in bubbles(app)))
                assert await texts(new, 1) == ["are you"]

    with_both(tmp_path, scenario)


def test_a_text_that_cannot_be_sent_stays_in_the_input(tmp_path: Path) -> None:
    async def scenario(world: World, alice: Client, bob: Client) -> None:
        app = ChatApp(alice, BOB)
        async with app.run_test(notifications=True) as pilot:
            field = app.query_one(Input)
            field.value = "x" * (limits.TEXT_BYTES_MAX + 1)
            await pilot.press("enter")
            await world.until(lambda: bool(app._notifications))
            assert field.value and not bubbles(app)
            field.value = "   "
            await pilot.press("enter")
            assert not bubbles(app)

    with_both(tmp_path, scenario)


def test_day_names() -> None:
    today = date(2026, 11, 24)
    names = [day_name(date(2026, 11, day), today) for day in (24, 23, 20, 17)]
    assert names == ["Today", "Yesterday", "Friday", "17 November 2026"]
    assert day_name(date(2026, 11, 25), today) == "25 November 2026"
