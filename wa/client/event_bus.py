"""Events to any number of consumers.

Messages come out of the store: a consumer that lags, or is not there yet, misses none and costs no memory.  All other
events are bounded per consumer; beyond the cap the oldest is dropped.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterable
from weakref import WeakSet

from wa import limits
from wa.client.account import Account
from wa.client.events import Direction, Event, MessageReceived, MessageSynced
from wa.client.history import StoredMessage
from wa.ids import device_of, format_number, number_of

ROW_MAX = (1 << 63) - 1


class _Consumer:
    def __init__(self) -> None:
        self.news: deque[Event] = deque(maxlen=limits.CLIENT_EVENTS_PENDING_MAX)
        self.wake = asyncio.Event()


class EventBus:
    def __init__(self, account: Account) -> None:
        self._account = account
        self._consumers: WeakSet[_Consumer] = WeakSet()  # each is kept by its own stream, and goes with it
        self._closed = False

    def publish(self, events: Iterable[Event], *, messages: bool = False) -> None:
        """`messages`: there are new ones in the store."""
        news = list(events)
        for consumer in self._consumers:
            consumer.news.extend(news)
            if news or messages:
                consumer.wake.set()

    def close(self) -> None:
        """Consumers take what is left and end."""
        self._closed = True
        for consumer in self._consumers:
            consumer.wake.set()

    def consume(self) -> AsyncIterator[Event]:
        """First the messages that nobody has taken, then everything that comes after this call."""
        consumer = _Consumer()
        self._consumers.add(consumer)
        return self._stream(consumer, self._account.history.last_row())

    async def _stream(self, consumer: _Consumer, begin: int) -> AsyncIterator[Event]:
        """`begin`: the last row of history when the consumer came."""
        history = self._account.history
        own = self._account.address
        backlog, cursor = 0, begin
        taken: list[int] = []
        try:
            while True:
                consumer.wake.clear()
                while consumer.news:
                    yield consumer.news.popleft()
                if self._closed:
                    return
                page = history.arrived(backlog, begin, own, unseen=True)
                if page:
                    backlog = page[-1].row
                else:
                    backlog = begin
                    page = history.arrived(cursor, ROW_MAX, own, unseen=False)
                    cursor = page[-1].row if page else cursor
                for message in page:
                    taken.append(message.row)
                    yield event_of(message)
                self._mark(taken)
                if not page:
                    await consumer.wake.wait()
        finally:
            self._consumers.discard(consumer)
            self._mark(taken)

    def _mark(self, taken: list[int]) -> None:
        if not taken or self._closed:
            return
        self._account.hook("event:handed-out")
        with self._account.store.transaction(durable=False):
            self._account.history.set_seen(taken)
        taken.clear()


def event_of(message: StoredMessage) -> MessageReceived | MessageSynced:
    if message.direction is Direction.SENT:
        return MessageSynced(message.text, message.peer, message.sent_ms, message.id, message.row)
    return MessageReceived(
        text=message.text,
        sender=format_number(number_of(message.sender)),
        device=device_of(message.sender),
        time_ms=message.sent_ms,
        id=message.id,
        row=message.row,
    )
