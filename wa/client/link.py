"""One connection from login to loss: reads, commits, acknowledges, and looks after keys and receipts.

Each connection gets its own link.  The tasks of a link:

    read        frames -> inbox (commit) -> acknowledgement -> outbox
    ping        every `Timing.ping_interval_ms`
    keys        tops up the prekeys at login, when the server says that they are low, and every few hours
    status      after the backlog has arrived: asks which accepted messages still wait
    tell read   read receipts, repeated until a pong shows that the server has them
"""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence

from wa import limits
from wa.client.account import Account
from wa.client.connection import Connection, ConnectionLost, Endpoint, code_of, parse_server
from wa.client.events import Connected, DevicesChanged, Event, State
from wa.client.inbox import RETRIABLE, Delivery, Inbox, Item, Receipt
from wa.client.outbox import Outbox
from wa.client.sealer import Sealer
from wa.client.timing import Backoff, Timing
from wa.errors import Code, LocalError, RemoteError
from wa.ids import device_of, is_device_address
from wa.noise.records import Intent
from wa.wire import frames, methods
from wa.wire.frames import Frame, Level
from wa.wire.methods import RETENTION_S, Kind, Method, Notice

log = logging.getLogger("wa.client")

KEYS_EVERY_S = 6 * 3_600
DRAIN_S_MAX = 5.0  # then status is asked even if the backlog has not arrived

_STATE = {
    Level.ACCEPTED: State.ACCEPTED,
    Level.DELIVERED: State.DELIVERED,
    Level.READ: State.READ,
    Level.REFUSED: State.FAILED,
}

Publish = Callable[[Sequence[Event], bool], None]
"""`publish(events, messages)`: events for the user; `messages`: new ones are in the store."""


class Link:
    def __init__(
        self,
        account: Account,
        inbox: Inbox,
        sealer: Sealer,
        timing: Timing,
        publish: Publish,
        *,
        read_receipts: bool,
    ) -> None:
        self._account = account
        self._inbox = inbox
        self._sealer = sealer
        self._timing = timing
        self._publish = publish
        self._read_receipts = read_receipts
        self._keys_wanted = asyncio.Event()
        self._read_wanted = asyncio.Event()
        self._drained = asyncio.Event()
        self._queued = 0
        self._connection: Connection | None = None
        self._outbox: Outbox | None = None

    # --- called by the client ---

    @property
    def is_live(self) -> bool:
        return self._outbox is not None

    def wake(self) -> None:
        """There is something new to send."""
        if self._outbox is not None:
            self._outbox.wake()

    def rescan(self) -> None:
        """A number is no longer held."""
        if self._outbox is not None:
            self._outbox.rescan()

    def tell_read(self) -> None:
        self._read_wanted.set()

    async def request(self, method: Method, parameters: dict[str, object]) -> dict[str, object]:
        """Raises LocalError when offline, and as `Connection.request`."""
        if self._connection is None or not self.is_live:
            raise LocalError("this needs a connection; try again when connected")
        return await self._connection.request(method, parameters)

    async def run(self) -> None:
        """Connects and serves until the connection ends.  Raises ConnectionLost or RemoteError, always."""
        try:
            await self._run()
        except ConnectionLost as lost:
            if lost.code is not Code.TICKET_VOID:
                raise
        await self._run()  # a full handshake: the ticket was deleted before its use

    async def _run(self) -> None:
        connection = await Connection.open(self._endpoint(), self._timing)
        self._connection = connection
        try:
            self._account.keep_certificate(connection.certificate)
            ready = await connection.login()
            await self._serve(connection, ready)
        except asyncio.CancelledError:
            await connection.close()
            raise
        finally:
            if self._outbox is not None:
                self._outbox.close()
                self._outbox = None
            connection.abort()

    def _endpoint(self) -> Endpoint:
        account = self._account
        host, port = parse_server(account.server)
        return Endpoint(
            host=host,
            port=port,
            root_key=account.root_key,
            static_private=account.static_private,
            intent=Intent.LOG_IN,
            address=account.address,
            certificate=account.certificate,
            take_ticket=account.take_ticket,
        )

    async def _serve(self, connection: Connection, ready: frames.Ready) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                outbox = self._outbox = Outbox(
                    self._account,
                    self._sealer,
                    connection,
                    timing=self._timing,
                    group=group,
                    emit=self._publish_news,
                )
                self._queued = ready.queued
                self._after_seqs(0)
                self._publish([Connected(ready.queued)], False)
                self._read_wanted.set()
                for part in (
                    connection.keep_alive(),
                    self._keep_keys(connection),
                    self._ask_status(connection),
                    self._keep_read_told(connection),
                ):
                    group.create_task(_closing(outbox, part))
                outbox.wake()
                await _closing(outbox, self._read(connection, outbox))
        except BaseExceptionGroup as failures:
            lost = _expected(failures)
            if lost is None:
                raise
            raise lost from None

    def _publish_news(self, events: Sequence[Event]) -> None:
        self._publish(events, False)

    # --- reading ---

    async def _read(self, connection: Connection, outbox: Outbox) -> None:
        while True:
            batch = await connection.receive()
            items: list[Item] = []
            seqs: list[int] = []
            for frame in batch:
                self._sort(frame, items, seqs)
            if items:
                self._take(connection, outbox, items, seqs)

    def _sort(self, frame: Frame, items: list[Item], seqs: list[int]) -> None:
        """Raises RemoteError(PROTOCOL_ERROR) for what no server may send."""
        match frame:
            case frames.Deliver(kind, seq, sender, envelope_id, body):
                if not is_device_address(sender) or sender == self._account.address:
                    raise RemoteError(Code.PROTOCOL_ERROR, "a delivery from something that is no other device")
                items.append(Delivery(sender, envelope_id, kind, body))
                seqs.append(seq)
            case frames.StoredReceipt(seq, level, recipient, envelope_id, code):
                items.append(_receipt(recipient, envelope_id, _STATE[Level(level)], code))
                seqs.append(seq)
            case frames.Accepted(recipient, envelope_id):
                items.append(_receipt(recipient, envelope_id, State.ACCEPTED))
            case frames.Delivered(recipient, envelope_id):
                items.append(_receipt(recipient, envelope_id, State.DELIVERED))
            case frames.Read(recipient, envelope_id):
                items.append(_receipt(recipient, envelope_id, State.READ))
            case frames.Refused(recipient, envelope_id, code):
                items.append(_receipt(recipient, envelope_id, State.FAILED, code))
            case frames.Notice(notice, body):
                self._notice(notice, body)
            case frames.Error(code, text):
                log.warning("the server reports error %d: %s", code, ascii(text[:200].decode(errors="replace")))
            case frames.Ticket(lifetime_s, secret):
                self._account.keep_ticket(lifetime_s, secret)
            case frames.Extension():
                pass
            case _:
                raise RemoteError(Code.PROTOCOL_ERROR, f"{type(frame).__name__} is not for a client")

    def _take(self, connection: Connection, outbox: Outbox, items: Sequence[Item], seqs: Sequence[int]) -> None:
        outcome = self._inbox.take(items, durable=bool(seqs))
        if seqs:
            connection.acknowledge(seqs)
            self._account.hook("receive:acknowledged")
        self._after_seqs(len(seqs))
        for recipient, envelope_id in outcome.answered:
            outbox.answered(recipient, envelope_id)
        for item in items:
            if isinstance(item, Receipt) and item.state is State.FAILED and item.code in RETRIABLE:
                outbox.refused_for_now(item.recipient, item.id)
        self._publish(outcome.events, outcome.messages)
        outbox.wake()

    def _after_seqs(self, count: int) -> None:
        self._queued -= count
        if self._queued <= 0:
            self._drained.set()

    def _notice(self, notice: int, data: bytes) -> None:
        body = methods.unpack(data)
        if notice == Notice.PREKEYS_LOW:
            self._keys_wanted.set()
        elif notice in (Notice.DEVICE_ADDED, Notice.DEVICE_REMOVED):
            with self._account.store.transaction():
                self._account.contacts.set_stale(self._account.number)
            device, name = body.get("device"), body.get("name")
            added = notice == Notice.DEVICE_ADDED
            if isinstance(device, int):
                self._publish([DevicesChanged(device, added, name if isinstance(name, str) else "")], False)

    # --- keys ---

    async def _keep_keys(self, connection: Connection) -> None:
        backoff = Backoff(self._timing.refused_backoff_ms_min, self._timing.refused_backoff_ms_max)
        while True:
            self._keys_wanted.clear()
            try:
                await stock_keys(self._account, connection)
                backoff.reset()
                wait_s: float = KEYS_EVERY_S
            except RemoteError as error:
                wait_s = backoff.next_s(error.retry_after_ms)
                log.warning("prekeys were not uploaded (next try in %.1f s): %s", wait_s, error)
            try:
                async with asyncio.timeout(wait_s):
                    await self._keys_wanted.wait()
            except TimeoutError:
                continue

    # --- receipts ---

    async def _ask_status(self, connection: Connection) -> None:
        """Asks for receipts that may have been lost with an earlier connection."""
        before = self._account.outbox.accepted_by_number()
        try:
            async with asyncio.timeout(DRAIN_S_MAX):
                await self._drained.wait()
        except TimeoutError:
            log.info("some of what was queued has not come yet")
        for number, entries in before.items():
            for begin in range(0, len(entries), limits.STATUS_ITEMS_MAX):
                page = entries[begin : begin + limits.STATUS_ITEMS_MAX]
                items = [[device_of(recipient), envelope_id] for recipient, envelope_id, _, _ in page]
                try:
                    answer = await connection.request(Method.RECEIPTS_STATUS, {"number": number, "items": items})
                except RemoteError as error:
                    log.warning("receipts.status: %s", error)
                    continue
                self._take_status(page, answer.get("waiting"))

    def _take_status(self, page: Sequence[tuple[int, int, int, int]], waiting: object) -> None:
        """An envelope that was accepted, does not wait and has not expired is delivered."""
        if not isinstance(waiting, list) or len(waiting) != len(page):
            raise RemoteError(Code.PROTOCOL_ERROR, "receipts.status answered with a list of another length")
        now = self._account.store.clock_ms()
        items = [
            Receipt(recipient, envelope_id, State.DELIVERED)
            for (recipient, envelope_id, kind, accepted_ms), waits in zip(page, waiting, strict=True)
            if not waits and now - accepted_ms < RETENTION_S[Kind(kind)] * 1_000
        ]
        if items:
            outcome = self._inbox.take(items, durable=False)
            self._publish(outcome.events, outcome.messages)

    async def _keep_read_told(self, connection: Connection) -> None:
        history = self._account.history
        while True:
            await self._read_wanted.wait()
            self._read_wanted.clear()
            while page := history.read_untold():
                if self._read_receipts:
                    connection.send([frames.MarkRead(message.sender, message.id) for message in page])
                    await connection.ping()
                with self._account.store.transaction(durable=False):
                    history.set_read_told([message.row for message in page])


async def stock_keys(account: Account, connection: Connection) -> None:
    """Uploads the prekeys that the server lacks, forgets expired ones.  Raises RemoteError, ConnectionLost."""
    with account.store.transaction():
        account.sessions.forget_expired()
    try:
        stock = await connection.request(Method.KEYS_STOCK, {})
    except RemoteError as error:
        if error.code is not Code.PREKEYS_MISSING:
            raise
        stock = {"count": 0, "signed_id": None}
    count, signed_id = stock.get("count"), stock.get("signed_id")
    if not isinstance(count, int) or not 0 <= count <= 1 << 20:
        raise RemoteError(Code.PROTOCOL_ERROR, "keys.stock without a count")
    if account.is_behind(signed_id):
        log.warning("this account's files are older than what the server has of it: sessions start anew")
        with account.store.transaction():
            account.forget_sessions()
    is_stocked = account.uploaded_signed_id is not None and count > limits.PREKEYS_LOW
    if is_stocked and not account.sessions.rotation_due():
        return
    upload = account.make_upload(count)
    await connection.request(
        Method.KEYS_UPLOAD,
        {
            "identity": upload.identity_key,
            "signed_id": upload.signed_prekey_id,
            "signed_key": upload.signed_prekey,
            "signed_signature": upload.signed_prekey_signature,
            "one_time": [[prekey_id, key] for prekey_id, key in upload.one_time],
        },
    )
    account.keep_uploaded(upload.signed_prekey_id)


def _receipt(recipient: int, envelope_id: int, state: State, code: int = 0) -> Receipt:
    """A code of a newer server counts as a final refusal without a reason."""
    if not is_device_address(recipient):
        raise RemoteError(Code.PROTOCOL_ERROR, "a receipt of something that is no device")
    return Receipt(recipient, envelope_id, state, code if code_of(code) is not None else Code.OK)


async def _closing(outbox: Outbox, part: Coroutine[None, None, None]) -> None:
    """Runs a part of the link.  When it fails the group ends, so the outbox is closed: it must not start tasks there,
    though the application may still call `Client.send`."""
    try:
        await part
    except BaseException:
        outbox.close()
        raise


def _expected(failures: BaseExceptionGroup[BaseException]) -> ConnectionLost | RemoteError | None:
    """Why the connection ended; None when one of the failures is a fault of ours."""
    found: ConnectionLost | RemoteError | None = None
    for error in failures.exceptions:
        if isinstance(error, BaseExceptionGroup):
            inner = _expected(error)
            if inner is None:
                return None
            found = found or inner
        elif isinstance(error, ConnectionLost | RemoteError):
            found = found or error
        elif isinstance(error, sqlite3.OperationalError):  # a full disk: nothing was changed or acknowledged
            found = found or ConnectionLost(f"the account's database cannot be written: {error}")
        else:
            return None
    return found
