"""The sending half of a connection: which devices to fetch, what is in flight, what is resent.

    draft --(device list, bundles, seal)--> pending --(write)--> in flight --(receipt)--> accepted ...
                                               ^                    |
                                               +---- 10 s, reconnect, try_later, mailbox_full

All durable state is in the store.  This object knows what is in flight and who is paused; it ends with its connection.

A *lane* is one priority to one recipient.  It keeps the order of sending: the next envelope is written once the one
before is answered.  With two in flight, the first could be refused for now, or lost with a dying worker, and the second
taken.  At most `limits.SENDER_WINDOW_MAX` lanes are busy.  A recipient that was refused for now is paused in all lanes.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wa import limits
from wa.client.account import Account
from wa.client.events import Event
from wa.client.outbox_table import Entry
from wa.client.sealer import Sealer
from wa.client.timing import Backoff, Timing
from wa.e2e.errors import InvalidBundle
from wa.e2e.keys import PreKeyBundle
from wa.errors import Code, RemoteError
from wa.ids import DEVICE_MAX, address_of, device_of, number_of, redact
from wa.wire.methods import PRIORITY, Kind, Method

log = logging.getLogger("wa.client")

PREPARATIONS_MAX = 8  # numbers whose devices and bundles are fetched at the same time
FINAL = frozenset({Code.ACCOUNT_UNKNOWN, Code.NUMBER_INVALID, Code.BAD_PARAMS})
KEYLESS_TRIES_MAX = 3  # then a device without keys is left out, if another device has some


Lane = tuple[int, int]
"""(recipient, priority)"""


def _lane(recipient: int, kind: int) -> Lane:
    return recipient, PRIORITY[Kind(kind)]


class Wire(Protocol):
    """What the outbox needs from a live connection."""

    def send_entries(self, entries: Sequence[Entry]) -> None: ...

    async def request(self, method: Method, parameters: dict[str, Any]) -> dict[str, Any]:
        """Raises RemoteError for a failed response, ConnectionError when the connection ends first."""


class Outbox:
    """One per connection.  `emit` takes events for the user."""

    def __init__(
        self,
        account: Account,
        sealer: Sealer,
        wire: Wire,
        *,
        timing: Timing,
        group: asyncio.TaskGroup,
        emit: Callable[[Sequence[Event]], None],
    ) -> None:
        self._account = account
        self._sealer = sealer
        self._wire = wire
        self._timing = timing
        self._emit = emit
        self._group = group
        self._loop = asyncio.get_running_loop()
        self._in_flight: dict[tuple[int, int], tuple[Entry, float]] = {}
        self._busy: set[Lane] = set()  # with an envelope in flight
        self._ready: dict[Lane, None] = {}  # free, perhaps with a backlog; in order
        self._cursor = 0  # up to this seq, the lanes of pending envelopes are known
        self._paused: dict[int, float] = {}  # recipient -> loop time at which its pause ends
        self._refused: dict[int, Backoff] = {}
        self._waiting: dict[int, float] = {}  # number -> loop time of its next preparation
        self._failed: dict[int, Backoff] = {}
        self._preparing: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """Writes nothing any more; nothing in the store changes."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    # --- in flight ---

    def wake(self) -> None:
        """Call after anything changed: drafts, receipts, an accepted identity."""
        if self._closed:
            return
        self._prepare_all()
        self._pump()
        self._arm()

    def rescan(self) -> None:
        """Re-scans: looks at every pending envelope again, also at skipped ones."""
        self._cursor = 0
        self.wake()

    def answered(self, recipient: int, envelope_id: int) -> None:
        lane = self._landed(recipient, envelope_id)
        if lane is not None:
            self._ready[lane] = None
        if recipient in self._refused:
            self._refused[recipient].reset()

    def refused_for_now(self, recipient: int, envelope_id: int) -> None:
        """try_later or mailbox_full: pauses the recipient, then resends."""
        self._landed(recipient, envelope_id)
        if recipient not in self._refused:
            timing = self._timing
            self._refused[recipient] = Backoff(timing.refused_backoff_ms_min, timing.refused_backoff_ms_max)
        if self._paused.get(recipient, 0.0) <= self._loop.time():
            self._paused[recipient] = self._loop.time() + self._refused[recipient].next_s()

    def _landed(self, recipient: int, envelope_id: int) -> Lane | None:
        """The lane that it frees; None when it was not in flight."""
        found = self._in_flight.pop((recipient, envelope_id), None)
        if found is None:
            return None
        lane = _lane(recipient, found[0].kind)
        self._busy.discard(lane)
        return lane

    def _find_lanes(self) -> None:
        outbox = self._account.outbox
        while page := outbox.waiting(self._cursor, limits.CLIENT_PAGE_MESSAGES):
            for seq, recipient, kind in page:
                self._cursor = seq
                self._ready[_lane(recipient, kind)] = None

    def _pump(self) -> None:
        self._find_lanes()
        entries: list[Entry] = []
        now = self._loop.time()
        while self._ready and len(self._in_flight) < limits.SENDER_WINDOW_MAX:
            lane = next(iter(self._ready))
            del self._ready[lane]
            if lane in self._busy or not self._may_send(lane[0], now):
                continue  # an answer makes it ready again, or a re-scan finds it
            entry = self._account.outbox.next_to(*lane)
            if entry is not None:
                self._busy.add(lane)
                self._in_flight[entry.recipient, entry.id] = (entry, now)
                entries.append(entry)
        self._write(entries)

    def _may_send(self, recipient: int, now: float) -> bool:
        if self._paused.get(recipient, 0.0) > now:
            return False
        return not self._account.contacts.is_held(number_of(recipient))

    def _write(self, entries: Sequence[Entry]) -> None:
        if entries:
            self._wire.send_entries(entries)
            self._account.hook("send:written")

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        ended = [recipient for recipient, until in self._paused.items() if until <= now]
        for recipient in ended:
            del self._paused[recipient]
        for number in [number for number, until in self._waiting.items() if until <= now]:
            del self._waiting[number]
        overdue = now - self._timing.resend_after_ms / 1_000
        again = [entry for entry, written in self._in_flight.values() if written <= overdue]
        for entry in again:
            self._in_flight[entry.recipient, entry.id] = (entry, now)
        self._write(sorted(again, key=lambda entry: entry.seq))
        if ended:
            self._cursor = 0
        self.wake()

    def _arm(self) -> None:
        """One timer for whatever is due next."""
        due = [*self._paused.values(), *self._waiting.values()]
        if self._in_flight:
            oldest = min(written for _, written in self._in_flight.values())
            due.append(oldest + self._timing.resend_after_ms / 1_000)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(min(due), self._on_timer) if due and not self._closed else None

    # --- preparation: device lists and bundles ---

    def _prepare_all(self) -> None:
        account = self._account
        for number in account.outbox.draft_numbers():
            if len(self._preparing) >= PREPARATIONS_MAX:
                return
            if number in self._preparing or number in self._waiting or account.contacts.is_held(number):
                continue
            self._preparing.add(number)
            self._group.create_task(self._settle(number))

    async def _settle(self, number: int) -> None:
        """Prepares a number, and decides what follows: seal, try again later, or fail."""
        try:
            await self._prepare(number)
        except ConnectionError:
            return  # the connection is gone, and so is this object
        except RemoteError as error:
            if error.code in FINAL:
                self._emit(self._sealer.fail(number, error.code))
            else:
                self._wait(number, error)
        except InvalidBundle as error:
            self._wait(number, error)
        else:
            self._failed.pop(number, None)
        finally:
            self._preparing.discard(number)
        self.wake()

    def _wait(self, number: int, error: RemoteError | InvalidBundle) -> None:
        timing = self._timing
        backoff = self._failed.setdefault(number, Backoff(timing.refused_backoff_ms_min, timing.refused_backoff_ms_max))
        asked_ms = error.retry_after_ms if isinstance(error, RemoteError) else 0
        wait_s = backoff.next_s(asked_ms)
        self._waiting[number] = self._loop.time() + wait_s
        log.warning("messages to %s wait %.1f s: %s", redact(number << 8), wait_s, error)

    async def _prepare(self, number: int) -> None:
        own = number_of(self._account.address)
        await self._refresh(own)
        await self._refresh(number)
        if self._account.contacts.is_held(number):
            return
        targets = self._sealer.targets(number)
        if not targets and number != own:
            raise RemoteError(Code.ACCOUNT_UNKNOWN, "the number has no devices")
        bundles = await self._bundles(number, self._sealer.missing(targets))
        if number != own:
            bundles += await self._own_bundles()
        ready = {bundle.address for bundle in bundles}
        keyless = [address for address in self._sealer.missing(targets) if address not in ready]
        tries = self._failed[number].failures if number in self._failed else 0
        if keyless and (len(keyless) == len(targets) or tries < KEYLESS_TRIES_MAX):
            raise RemoteError(Code.PREKEYS_MISSING)
        self._emit(self._sealer.seal(number, bundles).events)

    async def _refresh(self, number: int) -> None:
        """Fetches the device list of a number unless it is fresh."""
        account = self._account
        if account.contacts.is_fresh(number):
            return
        answer = await self._wire.request(Method.DEVICES_LIST, {"number": number})
        addresses = []
        for item in _list_of_maps(answer, "devices"):
            device = item.get("device")
            if not isinstance(device, int) or not 1 <= device <= DEVICE_MAX:
                raise RemoteError(Code.PROTOCOL_ERROR, "the device list is malformed")
            addresses.append(address_of(number, device))
        self._emit(self._sealer.set_devices(number, addresses))

    async def _bundles(self, number: int, missing: list[int]) -> list[PreKeyBundle]:
        """Bundles of these devices of one number; those without keys are left out."""
        bundles: list[PreKeyBundle] = []
        for address in missing:
            try:
                answer = await self._wire.request(Method.KEYS_FETCH, {"number": number, "device": device_of(address)})
            except RemoteError as error:
                if error.code not in (Code.PREKEYS_MISSING, Code.ADDRESS_UNKNOWN):
                    raise
                if error.code is Code.ADDRESS_UNKNOWN:
                    self._sealer.set_stale(number)
                continue
            for body in _list_of_maps(answer, "devices"):
                bundle = _bundle(number, body)
                if bundle.address == address:
                    bundle.verify()
                    bundles.append(bundle)
        return bundles

    async def _own_bundles(self) -> list[PreKeyBundle]:
        """Bundles for copies to our own devices; a failure does not delay the message."""
        own = number_of(self._account.address)
        try:
            return await self._bundles(own, self._sealer.missing(self._sealer.own_devices()))
        except (RemoteError, InvalidBundle) as error:
            log.warning("no copy to our other devices: %s", error)
            return []


def _list_of_maps(answer: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Raises RemoteError(PROTOCOL_ERROR)."""
    items = answer.get(name)
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise RemoteError(Code.PROTOCOL_ERROR, f"the response has no list {name}")
    return items


def _bundle(number: int, body: dict[str, Any]) -> PreKeyBundle:
    """Raises RemoteError(PROTOCOL_ERROR)."""
    wanted: dict[str, type] = {"device": int, "signed_id": int}
    wanted |= dict.fromkeys(("identity", "signed_key", "signed_signature"), bytes)
    has_one_time = body.get("one_time_id") is not None
    if has_one_time:
        wanted |= {"one_time_id": int, "one_time_key": bytes}
    for name, kind in wanted.items():
        if not isinstance(body.get(name), kind):
            raise RemoteError(Code.PROTOCOL_ERROR, f"{name} of a bundle is not {kind.__name__}")
    if not 1 <= body["device"] <= DEVICE_MAX:
        raise RemoteError(Code.PROTOCOL_ERROR, "the bundle of a device that cannot be")
    return PreKeyBundle(
        address=address_of(number, body["device"]),
        identity_key=body["identity"],
        signed_prekey_id=body["signed_id"],
        signed_prekey=body["signed_key"],
        signed_prekey_signature=body["signed_signature"],
        one_time_prekey_id=body["one_time_id"] if has_one_time else None,
        one_time_prekey=body["one_time_key"] if has_one_time else None,
    )
