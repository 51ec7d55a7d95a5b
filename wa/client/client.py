"""The SDK's face: an account that stays connected, or keeps reconnecting.

    async with Client("~/.wa/15551230001") as client:
        message = await client.send("+15551230002", "hello")
        await message.delivered()

Everything goes into the account's store first, then over the network.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from wa.client import content
from wa.client.account import Account, Hook, no_hook
from wa.client.connection import ConnectionLost
from wa.client.event_bus import EventBus
from wa.client.events import Connected, Direction, Disconnected, Event, ReceiptChanged, State
from wa.client.history import Conversation, StoredMessage
from wa.client.inbox import Inbox
from wa.client.link import Link
from wa.client.message import Message, ReceiptWaiters
from wa.client.outbox_table import Draft
from wa.client.registration import AskCode, register
from wa.client.sealer import Sealed, Sealer
from wa.client.store import now_ms
from wa.client.timing import Backoff, Timing
from wa.e2e.errors import NoSession
from wa.errors import Code, LocalError, RemoteError
from wa.ids import Address, format_number, parse_number
from wa.wire.methods import Kind, Method

FINAL = frozenset({Code.DEVICE_UNKNOWN, Code.REPLACED, Code.VERSION_UNSUPPORTED})
"""Said by the server inside the encrypted connection, these make a reconnect pointless."""
STEADY_S = 10.0  # a connection that lived this long resets the backoff


class Client:
    """One account on this machine.

    directory: as given to `register`.  passphrase: unwraps the keys.  read_receipts: false sends none.
    Raises LocalError when there is no account, or another process has it open.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        passphrase: str | None = None,
        read_receipts: bool = True,
        timing: Timing | None = None,
        hook: Hook = no_hook,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._directory = Path(directory).expanduser()
        self._passphrase = passphrase
        self._read_receipts = read_receipts
        self._timing = timing or Timing()
        self._hook = hook
        self._clock_ms = clock_ms
        self._waiters = ReceiptWaiters()
        self._opened: Account | None = None
        self._runner: asyncio.Task[None] | None = None

    @classmethod
    async def register(
        cls,
        directory: str | Path,
        number: str,
        *,
        server: str,
        root_key: bytes | str,
        ask_code: AskCode,
        mode: str = "replace",
        name: str = "",
        passphrase: str | None = None,
        timing: Timing | None = None,
        hook: Hook = no_hook,
        clock_ms: Callable[[], int] = now_ms,
    ) -> Self:
        """Registers this directory as a device of `number` and returns its client, not yet open.

        root_key: the server's pinned Ed25519 key, 32 bytes or 64 hexadecimal digits; there is no trust on first use.
        ask_code: returns the code that was sent, plain or awaitable.  mode "replace": this becomes the number's only
        device; "add": one more device.  Raises RemoteError, ConnectionLost, LocalError.
        """
        account = Account(
            Path(directory).expanduser(), passphrase=passphrase, create=True, hook=hook, clock_ms=clock_ms
        )
        try:
            await register(
                account,
                parse_number(number),
                server=server,
                root_key=_key_bytes(root_key),
                ask_code=ask_code,
                mode=mode,
                name=name,
                timing=timing or Timing(),
            )
        finally:
            account.close()
        return cls(directory, passphrase=passphrase, timing=timing, hook=hook, clock_ms=clock_ms)

    # --- life ---

    async def __aenter__(self) -> Self:
        """Opens the account and starts to connect in the background, again and again until it works."""
        if self._runner is not None:
            raise LocalError("this client is already open")
        account = Account(self._directory, passphrase=self._passphrase, hook=self._hook, clock_ms=self._clock_ms)
        self._opened = account
        self._bus = EventBus(account)
        self._inbox = Inbox(account)
        self._sealer = Sealer(account, self._inbox)
        self._link = self._new_link()
        self._final: RemoteError | None = None
        self._status: Connected | Disconnected | None = None
        self._status_changed = asyncio.Event()
        self._retry = asyncio.Event()
        self._waiters.begin()
        self._runner = asyncio.create_task(self._run(), name=f"client {self._directory.name}")
        self._runner.add_done_callback(self._on_end)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Says goodbye to the server.  The outbox stays for the next time."""
        assert self._runner is not None
        runner = self._runner
        runner.cancel()
        try:
            await asyncio.gather(runner, return_exceptions=True)
        finally:
            self._bus.close()
            self._waiters.end(LocalError("the client was closed"))
            self._account.close()
            self._opened = None
            self._runner = None
        if not runner.cancelled() and (fault := runner.exception()) is not None and error is None:
            raise fault

    async def _run(self) -> None:
        """Reconnects until the server says that it is no use."""
        timing = self._timing
        backoff = Backoff(timing.backoff_ms_min, timing.backoff_ms_max)
        loop = asyncio.get_running_loop()
        while True:
            self._retry.clear()
            self._link = self._new_link()
            begun = loop.time()
            try:
                await self._link.run()
            except ConnectionLost as error:
                lost = error
            except RemoteError as error:
                lost = ConnectionLost(str(error), code=error.code)
            if lost.authentic and lost.code in FINAL:
                assert lost.code is not None
                self._final = RemoteError(lost.code)
                self._publish([Disconnected(lost.reason, lost.code, None)], False)
                self._waiters.end(self._final)
                return
            if loop.time() - begun > STEADY_S:
                backoff.reset()
            wait_s = backoff.next_s(lost.retry_after_ms)
            self._publish([Disconnected(lost.reason, lost.code, wait_s)], False)
            await self._wait_for_retry(wait_s)

    def _on_end(self, runner: asyncio.Task[None]) -> None:
        """A fault of ours wakes all waiters; `__aexit__` raises it."""
        if not runner.cancelled() and (fault := runner.exception()) is not None:
            self._waiters.end(LocalError(f"the client failed: {fault!r}"))
            self._bus.close()
        self._status_changed.set()

    async def _wait_for_retry(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._retry.wait()
        except TimeoutError:
            return

    def _new_link(self) -> Link:
        return Link(
            self._account,
            self._inbox,
            self._sealer,
            self._timing,
            self._publish,
            read_receipts=self._read_receipts,
        )

    def _publish(self, events: Sequence[Event], messages: bool) -> None:
        for event in events:
            if isinstance(event, ReceiptChanged):
                self._waiters.settle(event)
            elif isinstance(event, Connected | Disconnected):
                self._status = event
                self._status_changed.set()
        self._bus.publish(events, messages=messages)

    @property
    def _account(self) -> Account:
        if self._opened is None:
            raise LocalError("the client is not open; use it inside `async with Client(...) as client:`")
        return self._opened

    # --- connection ---

    @property
    def address(self) -> Address:
        """Our own number and device."""
        return self._account.address

    @property
    def number(self) -> str:
        """Our own number, "+1555…"."""
        return format_number(self._account.number)

    @property
    def server(self) -> str:
        return self._account.server

    @property
    def status(self) -> Connected | Disconnected | None:
        """The latest change of the connection; None before the first."""
        return self._status

    async def connected(self) -> None:
        """Returns once connected.  Raises RemoteError when the server says that it never will be."""
        while not (isinstance(self._status, Connected) and self._link.is_live):
            self._raise_if_ended()
            self._status_changed.clear()
            await self._status_changed.wait()

    def retry_now(self) -> None:
        """Connects without waiting for the rest of the backoff."""
        self._retry.set()

    def _raise_if_ended(self) -> None:
        if self._final is not None:
            raise self._final
        assert self._runner is not None
        if self._runner.done():
            self._runner.result()

    # --- messages ---

    async def send(self, number: str, text: str, *, kind: Kind = Kind.TEXT) -> Message:
        """Puts a message into the outbox.  Once this returns, only the loss of the disk can lose it.

        Works offline.  Raises LocalError (too long, not Unicode), RemoteError(NUMBER_INVALID).
        """
        account = self._account
        peer = parse_number(number)
        content.check_text(text)
        if not text:
            raise LocalError("a message needs some text")
        now = account.store.clock_ms()
        is_ready = not account.outbox.has_drafts(peer) and self._sealer.is_ready(peer)
        sealed = Sealed()
        with account.store.transaction():
            message_id = account.store.new_id()
            row = account.history.add(
                peer=peer,
                sender=account.address,
                message_id=message_id,
                direction=Direction.SENT,
                kind=kind,
                text=text,
                state=State.DELIVERED if peer == account.number else State.PENDING,
                sent_ms=now,
                seen=True,
            )
            assert row is not None, "message ids are unique"
            body = content.encode(content.Text(text, now))
            if is_ready:
                self._sealer.seal_draft(Draft(0, row, peer, 0, message_id, kind, body), sealed)
                account.hook("send:encrypted")
            else:
                account.outbox.add_draft(
                    message=row, number=peer, device=0, message_id=message_id, kind=kind, content=body
                )
        account.hook("send:committed")
        self._publish(sealed.events, False)
        self._link.wake()
        return self._handle(row)

    def _handle(self, row: int) -> Message:
        return Message(lambda: self._account.history.get(row), self._waiters)

    def message(self, row: int) -> Message:
        """The handle of an earlier message, by its row in the history.  Raises LookupError."""
        return self._handle(row)

    def has_row(self, row: int) -> bool:
        """False for a placeholder that its readable message has replaced."""
        return self._account.history.has(row)

    async def mark_read(self, what: str | int, *, up_to_row: int | None = None) -> int:
        """Marks a conversation ("+1555…") or one up to a message id as read, and tells the senders.

        up_to_row: only the conversation's history up to this row; a screen gives the last row it shows.
        -> how many messages changed.  Raises LookupError for an id that was not received.
        """
        account = self._account
        if isinstance(what, str):
            targets = [(parse_number(what), account.history.last_row() if up_to_row is None else up_to_row)]
        else:
            found = [m for m in account.history.find_id(what) if m.direction is Direction.RECEIVED]
            if not found:
                raise LookupError(f"no received message has the id {what}")
            targets = [(parse_number(message.peer), message.row) for message in found]
        with account.store.transaction():
            changed = sum(account.history.set_read(peer, row) for peer, row in targets)
        if changed:
            self._link.tell_read()
        return changed

    def events(self) -> AsyncIterator[Event]:
        """First the messages that no consumer has taken, then everything that comes after this call.

        A screen calls this before `history` and `status`: then it misses no change.  A message is taken when the next
        event is asked for, so a crash before that brings it again.
        """
        return self._bus.consume()

    def history(
        self, number: str, *, before_row: int | None = None, after_row: int | None = None
    ) -> list[StoredMessage]:
        """A page of a conversation, oldest first: the newest page, or the one before or after a row."""
        history, peer = self._account.history, parse_number(number)
        if after_row is not None:
            return history.page_after(peer, after_row)
        return history.page(peer, before_row=before_row)

    def conversations(self) -> list[Conversation]:
        """Newest first."""
        return self._account.history.conversations()

    # --- identities and devices ---

    def is_held(self, number: str) -> bool:
        """True while nothing is sent to the number because its identity changed."""
        return self._account.contacts.is_held(parse_number(number))

    def held_numbers(self) -> list[str]:
        return [format_number(number) for number in self._account.contacts.held()]

    async def acknowledge_identity(self, number: str) -> None:
        """The user accepts the number's present identity keys: what waited is decrypted and sent."""
        account = self._account
        peer = parse_number(number)
        with account.store.transaction():
            account.contacts.accept(peer)
            for address in account.contacts.devices(peer):
                if account.sessions.pending_identity(address) is not None:
                    account.sessions.acknowledge_identity(address)
        outcome = self._inbox.unpark(peer)
        self._publish(outcome.events, outcome.messages)
        self._link.rescan()

    def safety_number(self, number: str) -> str:
        """Sixty digits to compare with the other side.  Raises LocalError before the first contact."""
        account = self._account
        own = [account.sessions.identity_key()]
        others = (account.sessions.peer_identity(address) for address in self._sealer.own_devices())
        own += [key for key in others if key is not None]
        try:
            return account.sessions.safety_number(parse_number(number), own_identities=own)
        except NoSession:
            raise LocalError(f"no key of {number} is known yet; it comes with the first message either way") from None

    async def devices(self) -> list[dict[str, object]]:
        """Our account's devices: device, name, created (Unix seconds).  Raises LocalError when offline."""
        answer = await self._link.request(Method.DEVICES_LIST, {"number": self._account.number})
        devices = answer.get("devices")
        return devices if isinstance(devices, list) else []

    async def remove_device(self, device: int) -> None:
        """Removes a device of our account, with its keys and mailbox."""
        await self._link.request(Method.DEVICES_REMOVE, {"device": device})

    # --- push ---

    async def register_push(self, platform: str, token: str) -> None:
        """Tells the server where to wake this device while it is offline; replaces an earlier token.

        A push carries nothing: connect, and everything comes as usual.  Call it at each start, and when the push
        service gives another token.  Raises LocalError when offline, RemoteError(BAD_PARAMS).
        """
        await self._link.request(Method.PUSH_REGISTER, {"platform": platform, "token": token})

    async def unregister_push(self) -> None:
        """Stops the wake-ups of this device.  Raises LocalError when offline."""
        await self._link.request(Method.PUSH_UNREGISTER, {})


def _key_bytes(key: bytes | str) -> bytes:
    """Raises LocalError."""
    if isinstance(key, bytes):
        return key
    try:
        return bytes.fromhex(key)
    except ValueError:
        raise LocalError("a root key is written as 64 hexadecimal digits") from None
