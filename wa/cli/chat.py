"""The full-screen chat with one number: history, live ticks, the state of the connection.

It reads and writes only through `Client`, and the screen shows what the store has.  Three habits keep that true:
events are subscribed to before the store is read; a page of history is mounted before anything is awaited; an event
only names the row to read again, so a late or repeated event does no harm.
"""

import time
from collections.abc import AsyncIterator
from datetime import date, datetime
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Footer, Input, Static

from wa.cli.accounts import clean
from wa.client import (
    Client,
    Connected,
    Direction,
    Disconnected,
    Event,
    IdentityChanged,
    MessageReceived,
    MessageSynced,
    MessageUnreadable,
    ReceiptChanged,
    State,
    StoredMessage,
)
from wa.errors import LocalError
from wa.ids import format_number, parse_number

DIM = "#8696a0"
BLUE = "#53bdeb"
GREEN = "#25d366"
AMBER = "#f7b955"
RED = "#f15c6d"

TICKS = {
    State.PENDING: ("◷", DIM),
    State.ACCEPTED: ("✓", DIM),
    State.FAILED: ("✗", RED),
    State.DELIVERED: ("✓✓", DIM),
    State.READ: ("✓✓", BLUE),
}


def day_name(day: date, today: date) -> str:
    """ "Today", "Yesterday", a weekday within the last week, or the date."""
    age = (today - day).days
    if age == 0:
        return "Today"
    if age == 1:
        return "Yesterday"
    return day.strftime("%A") if 1 < age < 7 else day.strftime("%-d %B %Y")


class Bubble(Static):
    """One message, with its time and ticks in the last line."""

    def __init__(self, message: StoredMessage) -> None:
        super().__init__(self._text(message), classes="waiting" if _is_waiting(message) else "")

    def show(self, message: StoredMessage) -> None:
        self.update(self._text(message))

    @staticmethod
    def _text(message: StoredMessage) -> Text:
        clock = datetime.fromtimestamp(message.stored_ms / 1_000).strftime("%H:%M")
        text = Text(clean(message.text), style="italic" if _is_waiting(message) else "", overflow="fold")
        text.append(f"\u00a0\u00a0{clock}", DIM)
        if message.direction is Direction.SENT:
            ticks, style = TICKS[message.state]
            text.append(f"\u00a0{ticks}", style)
            if message.state is State.FAILED and message.reason is not None:
                text.append(f" {message.reason.name.lower().replace('_', ' ')}", RED)
        return text


def _is_waiting(message: StoredMessage) -> bool:
    return message.direction is Direction.RECEIVED and message.state is State.PENDING


class Line(Horizontal):
    """A bubble on its side of the screen."""

    def __init__(self, message: StoredMessage) -> None:
        side = "sent" if message.direction is Direction.SENT else "received"
        self.bubble = Bubble(message)
        super().__init__(self.bubble, classes=side, id=f"row-{message.row}")
        self.row = message.row
        self.is_waiting = _is_waiting(message)


class Day(Static):
    """The separator between two days."""

    def __init__(self, day: date) -> None:
        super().__init__(Text(day_name(day, datetime.now().date()), style=DIM))


class ChatApp(App[None]):
    """`client` is open; `number` is the other side."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "wa"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", priority=True),
        Binding("pageup", "page_up", "Older", priority=True),
        Binding("pagedown", "page_down", "Newer", priority=True),
        Binding("ctrl+r", "retry", "Connect now", priority=True),
        Binding("f2", "safety", "Safety number", priority=True),
        Binding("f9", "accept", "Accept identity", priority=True),
    ]
    CSS = """
    Screen { background: #0b141a; color: #e9edef; }
    #head { height: 3; background: #202c33; padding: 1 2 0 2; }
    #peer { width: 1fr; text-style: bold; }
    #state { width: auto; max-width: 70%; text-wrap: nowrap; text-overflow: ellipsis; }
    #banner { display: none; background: #4a3a12; color: #ffe2a8; padding: 0 2; height: auto; }
    #banner.shown { display: block; }
    #lines { padding: 0 0 1 0; scrollbar-size-vertical: 1; scrollbar-color: #374248;
             scrollbar-background: #0b141a; }
    #empty { width: 100%; content-align: center middle; color: #8696a0; margin-top: 2; text-align: center; }
    Day { width: 100%; text-align: center; margin-top: 1; }
    Line { height: auto; width: 100%; margin-top: 1; padding: 0 2; }
    Line.same { margin-top: 0; }
    Line.sent { align-horizontal: right; }
    Bubble { width: auto; max-width: 78%; height: auto; padding: 0 1; background: #202c33; }
    Line.sent Bubble { background: #005c4b; }
    Bubble.waiting { color: #8696a0; }
    Input { height: 3; border: round #374248; background: #111b21; margin: 0 1; padding: 0 1; }
    Input:focus { border: round #25d366; }
    Footer { background: #111b21; color: #8696a0; }
    """

    def __init__(self, client: Client, number: str) -> None:
        super().__init__()
        self._client = client
        self._peer = format_number(parse_number(number))
        self._oldest: StoredMessage | None = None
        self._newest: StoredMessage | None = None
        self._retry_at = 0.0  # time.monotonic() of the next attempt
        self._status: Connected | Disconnected | None = None

    def compose(self) -> ComposeResult:
        with Horizontal(id="head"):
            yield Static(Text(self._peer), id="peer")
            yield Static(id="state")
        yield Static(id="banner")
        with VerticalScroll(id="lines", can_focus=False):
            yield Static(
                Text(f"Messages with {self._peer} are end-to-end encrypted.\nNobody else can read them."),
                id="empty",
            )
        yield Input(placeholder="Message", id="input")
        yield Footer(show_command_palette=False)

    async def on_mount(self) -> None:
        events = self._client.events()
        self._show_status(self._client.status)
        self._show_banner()
        await self._load_older()
        self._lines.scroll_end(animate=False)
        await self._mark_read()
        self.query_one(Input).focus()
        self.set_interval(1.0, self._tick)
        self._follow(events)

    @property
    def _lines(self) -> VerticalScroll:
        return self.query_one("#lines", VerticalScroll)

    # --- events of the client ---

    @work
    async def _follow(self, events: AsyncIterator[Event]) -> None:
        async for event in events:
            await self._on_event(event)

    async def _on_event(self, event: Event) -> None:
        match event:
            case MessageReceived(sender=sender) if sender == self._peer:
                await self._load_newer()
                await self._mark_read()
            case MessageReceived(text=text, sender=sender):
                self.notify(clean(text)[:200], title=sender, markup=False)
            case MessageSynced(recipient=recipient) if recipient == self._peer:
                await self._load_newer()
            case MessageUnreadable(sender=sender) if sender == self._peer:
                await self._load_newer()
            case ReceiptChanged(recipient=recipient, row=row) if recipient == self._peer:
                self._update(row)
            case IdentityChanged():
                self._show_banner()
            case Connected() | Disconnected():
                self._show_status(event)
            case _:
                pass

    def _update(self, row: int) -> None:
        for line in self.query(f"#row-{row}").results(Line):
            line.bubble.show(self._client.message(row).stored)

    async def _mark_read(self) -> None:
        if self._newest is not None:
            await self._client.mark_read(self._peer, up_to_row=self._newest.row)

    # --- head and banner ---

    def _show_status(self, status: Connected | Disconnected | None) -> None:
        self._status = status
        if isinstance(status, Disconnected) and status.retry_in is not None:
            self._retry_at = time.monotonic() + status.retry_in
        self.refresh_bindings()
        self._tick()

    def _tick(self) -> None:
        match self._status:
            case None:
                text = Text("◌ connecting …", AMBER)
            case Connected():
                text = Text("● connected", GREEN)
            case Disconnected(reason, _, None):
                text = Text(f"✕ {reason}", RED)
            case Disconnected(reason):
                left = max(0, round(self._retry_at - time.monotonic()))
                text = Text(f"○ again in {left} s · {reason}" if left else "◌ connecting …", AMBER)
        for state in self.query("#state").results(Static):  # none while the app closes
            state.update(text)

    def _show_banner(self) -> None:
        banner = self.query_one("#banner", Static)
        self.refresh_bindings()
        is_held = self._client.is_held(self._peer)
        banner.set_class(is_held, "shown")
        if is_held:
            banner.update(
                Text.assemble(
                    ("⚠ The security keys of this number changed. ", "bold"),
                    "It is a new phone, or somebody is in between. Nothing is sent until you accept: compare the"
                    " safety number (F2) with the other side, then press F9.",
                )
            )

    # --- the conversation ---

    async def _load_older(self) -> bool:
        """Shows one more page above.  False at the beginning of the conversation."""
        first = self._oldest
        page = self._client.history(self._peer, before_row=first.row if first else None)
        if not page:
            return False
        self._oldest = page[0]
        self._newest = self._newest or page[-1]
        days = self.query(Day)
        upper_day = days.first() if days else None
        mounted = self._lines.mount_all(self._widgets(None, page), after=0)
        if upper_day is not None and first is not None and _day(first) == _day(page[-1]):
            for line in self.query(f"#row-{first.row}"):  # none if it was a placeholder
                line.set_class(_belong_together(page[-1], first), "same")
            await upper_day.remove()
        await mounted
        return True

    async def _load_newer(self) -> None:
        """Shows what was added below."""
        lines = self._lines
        is_at_end = lines.scroll_offset.y >= lines.max_scroll_y - 1
        while page := self._client.history(self._peer, after_row=self._newest.row if self._newest else 0):
            before, self._newest = self._newest, page[-1]
            self._oldest = self._oldest or page[0]
            is_at_end = is_at_end or page[-1].direction is Direction.SENT
            await lines.mount_all(self._widgets(before, page))
            await self._remove_replaced()
        if is_at_end:
            lines.scroll_end(animate=False)

    async def _remove_replaced(self) -> None:
        """Removes placeholders that the store replaced by a readable copy."""
        for line in self.query(Line):
            if line.is_waiting and not self._client.has_row(line.row):
                await line.remove()

    def _widgets(self, before: StoredMessage | None, page: list[StoredMessage]) -> list[Static | Line]:
        widgets: list[Static | Line] = []
        for message in page:
            if before is None or _day(before) != _day(message):
                widgets.append(Day(_day(message)))
                before = None
            line = Line(message)
            line.set_class(before is not None and _belong_together(before, message), "same")
            widgets.append(line)
            before = message
        return widgets

    # --- keys ---

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hides keys that would do nothing now."""
        if action == "accept":
            return self._client.is_held(self._peer)
        if action == "retry":
            return isinstance(self._status, Disconnected)
        return True

    async def on_input_submitted(self, submitted: Input.Submitted) -> None:
        text = submitted.value.strip()
        if not text:
            return
        try:
            await self._client.send(self._peer, text)
        except LocalError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        submitted.input.value = ""
        await self._load_newer()

    async def action_page_up(self) -> None:
        lines = self._lines
        if lines.scroll_offset.y <= 0:
            height = lines.virtual_size.height
            if await self._load_older():
                self.call_after_refresh(
                    lambda: lines.scroll_to(y=lines.virtual_size.height - height - 1, animate=False)
                )
            return
        lines.scroll_page_up(animate=False)

    def action_page_down(self) -> None:
        self._lines.scroll_page_down(animate=False)

    def action_retry(self) -> None:
        self._client.retry_now()

    def action_safety(self) -> None:
        try:
            groups = self._client.safety_number(self._peer).split()
        except LocalError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        rows = [" ".join(groups[at : at + 4]) for at in range(0, len(groups), 4)]
        self.notify("\n".join(rows), title="Safety number: must be the same on both phones", timeout=30, markup=False)

    async def action_accept(self) -> None:
        if self._client.is_held(self._peer):
            await self._client.acknowledge_identity(self._peer)
            self._show_banner()
            await self._load_newer()


def _day(message: StoredMessage) -> date:
    return datetime.fromtimestamp(message.stored_ms / 1_000).date()


def _belong_together(earlier: StoredMessage, later: StoredMessage) -> bool:
    """Two messages of one side within a minute are shown without a gap."""
    return earlier.direction is later.direction and later.stored_ms - earlier.stored_ms < 60_000
