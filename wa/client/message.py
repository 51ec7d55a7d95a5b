"""The handle of a sent message: its state, and waits for it to rise."""

import asyncio
from collections.abc import Callable

from wa.client.events import ReceiptChanged, State
from wa.client.history import StoredMessage
from wa.errors import Code, RemoteError


class SendFailed(RemoteError):
    """The message will not be delivered; `code` says why."""


class ReceiptWaiters:
    """Futures by message row.  They end with the state, with the failure, or when the client closes."""

    def __init__(self) -> None:
        self._waiting: dict[int, list[tuple[State, asyncio.Future[None]]]] = {}
        self._ended: Exception | None = None

    def begin(self) -> None:
        """The client is open: from now on waits wait, instead of raising the end."""
        self._ended = None

    async def wait(self, row: int, state: State) -> None:
        if self._ended is not None:
            raise self._ended
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (state, future)
        self._waiting.setdefault(row, []).append(entry)
        try:
            await future
        finally:
            waiting = self._waiting[row]
            waiting.remove(entry)
            if not waiting:
                del self._waiting[row]

    def settle(self, event: ReceiptChanged) -> None:
        for state, future in self._waiting.get(event.row, ()):
            if future.done():
                continue
            if event.state is State.FAILED:
                future.set_exception(failure(event.reason))
            elif event.state >= state:
                future.set_result(None)

    def end(self, error: Exception) -> None:
        """Every wait raises `error`, present and later ones."""
        self._ended = error
        for waiting in self._waiting.values():
            for _, future in waiting:
                if not future.done():
                    future.set_exception(error)


def failure(reason: Code | None) -> SendFailed:
    return SendFailed(reason if reason is not None else Code.DROPPED)


class Message:
    """What `Client.send` returns.  The message is in the outbox: it is sent even if this object is dropped."""

    def __init__(self, load: Callable[[], StoredMessage], waiters: ReceiptWaiters) -> None:
        self._load = load
        self._waiters = waiters
        stored = load()
        self.row = stored.row
        self.id = stored.id
        self.recipient = stored.peer
        self.text = stored.text

    def __repr__(self) -> str:
        return f"<Message {self.id} {self.state.name.lower()}>"

    @property
    def stored(self) -> StoredMessage:
        """The line of history as it is now."""
        return self._load()

    @property
    def state(self) -> State:
        return self._load().state

    async def accepted(self) -> None:
        """One tick: the server has custody.  Raises SendFailed."""
        await self._reach(State.ACCEPTED)

    async def delivered(self) -> None:
        """Two ticks: a device of the recipient has it.  Raises SendFailed."""
        await self._reach(State.DELIVERED)

    async def read(self) -> None:
        """Two blue ticks; a recipient may never send this receipt.  Raises SendFailed."""
        await self._reach(State.READ)

    async def _reach(self, state: State) -> None:
        stored = self._load()
        if stored.state is State.FAILED:
            raise failure(stored.reason)
        if stored.state < state:
            await self._waiters.wait(self.row, state)
