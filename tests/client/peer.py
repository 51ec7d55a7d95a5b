"""A small server that speaks the real protocol, for tests of the client: real Noise, real frames, real
custody.

It keeps everything in memory (a "mailbox on disk" is what survives `disconnect_all`) and has switches for
what can go wrong.  It checks what clients do: acknowledging what was never delivered, or sending two
different bodies under one id, is recorded in `violations`.
"""

import asyncio
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from wa import limits
from wa.errors import Code, RemoteError
from wa.ids import address_of, device_of, number_of
from wa.noise import certificate
from wa.noise.primitives import public_key
from wa.noise.records import Intent
from wa.noise.session import LoginReceived, RecordPlain, ServerSession
from wa.wire import frames, methods
from wa.wire.frames import Frame, Level
from wa.wire.methods import Method, Notice

CODE = "123456"


@dataclass
class Faults:
    """Switches; a number counts down, a flag stays."""

    mute: bool = False  # pings are not answered
    never_answer: bool = False  # takes envelopes and says nothing
    lose_receipts: int = 0  # so many receipts are not sent
    deliver_twice: bool = False
    cut_after_frames: int | None = None  # the connection is aborted before the n-th frame from now is read
    cut_in_record: bool = False  # the next record is written half, then the connection is aborted
    refuse_sends: list[Code] = field(default_factory=list)  # answers to the next envelopes
    refuse_in_clear: tuple[Code, int] | None = None  # (code, retry_after_ms) instead of a handshake
    close_at_login: tuple[Code, int] | None = None
    fail_requests: dict[Method, list[Code]] = field(default_factory=dict)
    spoil_tickets: int = 0  # so many resumed connections find their ticket used up by somebody else
    hold_deliveries: bool = False  # nothing is delivered until `deliver_held`


@dataclass
class Device:
    address: int
    static_key: bytes
    name: str
    keys: dict[str, Any] | None = None
    one_time: list[tuple[int, bytes]] = field(default_factory=list)
    mailbox: dict[tuple[int, int], frames.Send | frames.StoredReceipt] = field(default_factory=dict)
    receipt_count: int = 0


class Connection:
    """One client.  `device` is set after the login."""

    def __init__(self, server: "Server", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer
        self.session = ServerSession(
            static_private=server.static_private, certificate=server.certificate, open_ticket=server.open_ticket
        )
        self.device: Device | None = None
        self.registering: int | None = None
        self.static_key = b""
        self.intent: Intent | None = None
        self.address = 0
        self.is_open = False
        self.is_resumed = False
        self.seq = 0
        self.in_flight: dict[int, tuple[int, int]] = {}  # seq -> key in the mailbox

    async def serve(self) -> None:
        if self.server.faults.refuse_in_clear is not None:
            code, retry_after_ms = self.server.faults.refuse_in_clear
            self.session.refuse(code, retry_after_ms=retry_after_ms)
            self.flush()
            return
        while data := await self.reader.read(65_536):
            for event in self.session.receive(data):
                if isinstance(event, LoginReceived):
                    self.intent, self.address = event.login.intent, event.login.address
                    self.is_resumed = event.client_static is None
                    self.static_key = event.client_static or self.server.devices[self.address].static_key
                    self.server.handshakes.append(
                        "resumed" if self.is_resumed else "fallback" if event.used_fallback else "done"
                    )
                elif isinstance(event, RecordPlain):
                    for frame in frames.decode_all(event.data):
                        if self._is_cut():
                            return
                        self._handle(frame)
            self.flush()
            if self.writer.is_closing():
                return

    def _is_cut(self) -> bool:
        faults = self.server.faults
        if faults.cut_after_frames is None:
            return False
        faults.cut_after_frames -= 1
        if faults.cut_after_frames >= 0:
            return False
        faults.cut_after_frames = None
        self.flush()
        self.writer.transport.abort()
        return True

    def send(self, *batch: Frame) -> None:
        for record in frames.pack(batch):
            self.session.send_record(record)

    def flush(self) -> None:
        data = self.session.bytes_to_send()
        if not data:
            return
        if self.server.faults.cut_in_record and self.is_open:
            self.server.faults.cut_in_record = False
            self.writer.write(data[: len(data) // 2])
            self.writer.close()
            return
        self.writer.write(data)

    def close(self, code: Code, retry_after_ms: int = 0) -> None:
        self.send(frames.Close(code, retry_after_ms))
        self.flush()
        self.writer.close()

    def _handle(self, frame: Frame) -> None:
        self.server.received.append(frame)
        match frame:
            case frames.Open():
                self._open()
            case frames.Ping() if self.server.faults.mute:
                pass
            case frames.Ping(token):
                self.send(frames.Pong(token))
            case frames.Close():
                self.writer.close()
            case frames.Request(request_id, method, body):
                self._request(request_id, method, body)
            case frames.Send():
                self.server.take(self, frame)
            case frames.Ack(seq):
                self.server.acknowledge(self, seq)
            case frames.AckRange(first, count):
                for seq in range(first, first + count):
                    self.server.acknowledge(self, seq)
            case frames.MarkRead(sender, envelope_id):
                assert self.device is not None
                self.server.receipt(sender, Level.READ, self.device.address, envelope_id)
            case _:
                self.server.violations.append(f"unexpected {frame!r:.80}")

    def _open(self) -> None:
        server = self.server
        server.logins += 1
        if self.is_resumed and server.faults.spoil_tickets:
            server.faults.spoil_tickets -= 1
            self.close(Code.TICKET_VOID)
            return
        if server.faults.close_at_login is not None:
            self.close(*server.faults.close_at_login)
            return
        device = server.devices.get(self.address)
        if device is None or device.static_key != self.static_key:
            self.close(Code.DEVICE_UNKNOWN)
            return
        old = server.live.get(device.address)
        if old is not None:
            old.close(Code.REPLACED)
        self.device = device
        self.is_open = True
        server.live[device.address] = self
        self.send(frames.Ready(1, len(device.mailbox), int(time.time() * 1_000)))
        self.send(frames.Ticket(limits.TICKET_LIFETIME_S, server.new_ticket(device.address)))
        server.drain(device)

    def _request(self, request_id: int, method: int, body: bytes) -> None:
        planned = self.server.faults.fail_requests.get(Method(method))
        try:
            if planned:
                raise RemoteError(planned.pop(0), "as the test wants it")
            answer = self.server.requests[Method(method)](self, methods.check(methods.spec_of(method), body))
            self.send(frames.Response(request_id, 0, methods.pack(answer)))
        except RemoteError as error:
            self.send(frames.Response(request_id, error.code, methods.pack({"detail": error.detail})))


class Server:
    """`async with Server() as server:`; `server.address` is "127.0.0.1:port"."""

    def __init__(self) -> None:
        self.root_secret, self.root_key = certificate.make_root()
        self.new_static_key()
        self.faults = Faults()
        self.devices: dict[int, Device] = {}
        self.live: dict[int, Connection] = {}
        self.received: list[Frame] = []
        self.violations: list[str] = []
        self.handshakes: list[str] = []
        self.logins = 0
        self.code = CODE
        self.bodies: dict[tuple[int, int, int], bytes] = {}  # (sender, id, recipient) -> body, for ever
        self.tickets: dict[int, tuple[bytes, bytes]] = {}  # address -> (psk, ticket) of the outstanding one
        self.done: set[tuple[int, int, int]] = set()
        self.connections: set[Connection] = set()
        self.requests: dict[Method, Callable[[Connection, dict[str, Any]], dict[str, Any]]] = {
            Method.REGISTER_REQUEST_CODE: lambda c, p: {"expires_in_s": 600},
            Method.REGISTER_VERIFY: self._verify,
            Method.KEYS_UPLOAD: self._upload,
            Method.KEYS_STOCK: self._stock,
            Method.KEYS_FETCH: self._fetch,
            Method.DEVICES_LIST: self._list,
            Method.DEVICES_REMOVE: self._remove,
            Method.RECEIPTS_STATUS: self._status,
        }

    def new_ticket(self, address: int) -> bytes:
        self.tickets[address] = os.urandom(32), os.urandom(104)
        return b"".join(self.tickets[address])

    def open_ticket(self, sealed: bytes) -> tuple[bytes, int] | None:
        """Uses it up at once: nobody replays anything here."""
        for address, (psk, outstanding) in self.tickets.items():
            if sealed == outstanding:
                del self.tickets[address]
                return psk, address
        return None

    def new_static_key(self) -> None:
        """As after a key change: clients that know the old one must fall back."""
        self.static_private = os.urandom(32)
        now = int(time.time())
        self.certificate = certificate.make(self.root_secret, public_key(self.static_private), now - 60, now + 86_400)

    async def __aenter__(self) -> "Server":
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        port = self._listener.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{port}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._listener.close()
        self.disconnect_all()
        await self._listener.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(self, reader, writer)
        self.connections.add(connection)
        try:
            await connection.serve()
        except (ConnectionError, RemoteError) as error:
            if isinstance(error, RemoteError):
                self.violations.append(str(error))
        finally:
            self.connections.discard(connection)
            if connection.device is not None and self.live.get(connection.device.address) is connection:
                del self.live[connection.device.address]
            writer.close()

    def disconnect_all(self) -> None:
        for connection in list(self.connections):
            connection.writer.transport.abort()

    def sends(self) -> list[frames.Send]:
        return [frame for frame in self.received if isinstance(frame, frames.Send)]

    def prekeys_low(self, device: Device) -> None:
        connection = self.live[device.address]
        connection.send(frames.Notice(Notice.PREKEYS_LOW, methods.pack({"count": len(device.one_time)})))
        connection.flush()

    # --- custody ---

    def take(self, connection: Connection, frame: frames.Send) -> None:
        assert connection.device is not None
        sender = connection.device.address
        key = (sender, frame.id, frame.recipient)
        if self.bodies.setdefault(key, frame.body) != frame.body:
            self.violations.append("two bodies under one id")
        if self.faults.never_answer:
            return
        if self.faults.refuse_sends:
            code = self.faults.refuse_sends.pop(0)
            connection.send(frames.Refused(frame.recipient, frame.id, code))
            return
        recipient = self.devices.get(frame.recipient)
        if recipient is None:
            connection.send(frames.Refused(frame.recipient, frame.id, Code.ADDRESS_UNKNOWN))
            return
        if key in self.done:
            self.receipt(sender, Level.DELIVERED, frame.recipient, frame.id)
            return
        is_new = (sender, frame.id) not in recipient.mailbox
        recipient.mailbox[sender, frame.id] = frame
        self.receipt(sender, Level.ACCEPTED, frame.recipient, frame.id)
        if is_new:
            self.drain(recipient, only=(sender, frame.id))

    def drain(self, device: Device, only: tuple[int, int] | None = None) -> None:
        connection = self.live.get(device.address)
        if connection is None or self.faults.hold_deliveries:
            return
        for key in [only] if only is not None else list(device.mailbox):
            item = device.mailbox[key]
            connection.seq += 1
            connection.in_flight[connection.seq] = key
            if isinstance(item, frames.StoredReceipt):
                connection.send(frames.StoredReceipt(connection.seq, item.level, item.recipient, item.id, item.code))
                continue
            delivery = frames.Deliver(
                item.kind, connection.seq, key[0], item.id, item.body, 0 if only is None else None
            )
            connection.send(delivery)
            if self.faults.deliver_twice:
                connection.send(delivery)
        connection.flush()

    def acknowledge(self, connection: Connection, seq: int) -> None:
        assert connection.device is not None
        key = connection.in_flight.pop(seq, None)
        if key is None:
            if seq > connection.seq:
                self.violations.append(f"acknowledged {seq}, which was never delivered")
            return
        item = connection.device.mailbox.pop(key, None)
        if isinstance(item, frames.Send):
            self.done.add((key[0], item.id, item.recipient))
            self.receipt(key[0], Level.DELIVERED, item.recipient, item.id)

    def receipt(self, sender: int, level: Level, recipient: int, envelope_id: int, code: int = 0) -> None:
        """Live when the sender is connected, stored otherwise ("accepted" only matters live)."""
        if self.faults.lose_receipts > 0:
            self.faults.lose_receipts -= 1
            return
        connection = self.live.get(sender)
        if connection is not None:
            frame: Frame = {
                Level.ACCEPTED: frames.Accepted(recipient, envelope_id),
                Level.DELIVERED: frames.Delivered(recipient, envelope_id),
                Level.READ: frames.Read(recipient, envelope_id),
                Level.REFUSED: frames.Refused(recipient, envelope_id, code),
            }[level]
            connection.send(frame)
            connection.flush()
        elif level is not Level.ACCEPTED and sender in self.devices:
            self.store_receipt(sender, level, recipient, envelope_id, code)

    def store_receipt(self, sender: int, level: Level, recipient: int, envelope_id: int, code: int = 0) -> None:
        device = self.devices[sender]
        device.receipt_count += 1
        device.mailbox[-1, device.receipt_count] = frames.StoredReceipt(0, level, recipient, envelope_id, code)

    # --- requests ---

    def _verify(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        if p["code"] != self.code:
            raise RemoteError(Code.CODE_WRONG)
        number = number_of(connection.address)
        taken = [address for address in self.devices if number_of(address) == number]
        same = [address for address in taken if self.devices[address].static_key == connection.static_key]
        if p["mode"] == "replace":
            for address in taken:
                del self.devices[address]
                old = self.live.pop(address, None)
                if old is not None:
                    old.send(frames.Notice(Notice.REPLACED, methods.pack({})))
                    old.close(Code.REPLACED)
            device_number = 1
        else:
            device_number = device_of(same[0]) if same else max(map(device_of, taken), default=0) + 1
        address = address_of(number, device_number)
        connection.device = self.devices[address] = Device(address, connection.static_key, p["name"])
        for other in taken:
            live = self.live.get(other)
            if live is not None:
                live.send(
                    frames.Notice(Notice.DEVICE_ADDED, methods.pack({"device": device_number, "name": p["name"]}))
                )
                live.flush()
        return {"address": address}

    def _upload(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        assert connection.device is not None
        connection.device.keys = p
        connection.device.one_time += [(prekey_id, key) for prekey_id, key in p["one_time"]]
        if len(connection.device.one_time) > 2 * limits.ONE_TIME_PREKEYS_MAX:
            raise RemoteError(Code.LIST_TOO_LONG)
        return {"count": len(connection.device.one_time)}

    def _stock(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        assert connection.device is not None
        keys = connection.device.keys
        return {"count": len(connection.device.one_time), "signed_id": keys["signed_id"] if keys else None}

    def _of(self, number: int) -> list[Device]:
        found = [device for address, device in sorted(self.devices.items()) if number_of(address) == number]
        if not found:
            raise RemoteError(Code.ACCOUNT_UNKNOWN)
        return found

    def _fetch(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        wanted = p.get("device")
        bundles = []
        devices = [device for device in self._of(p["number"]) if wanted in (None, device_of(device.address))]
        if not devices:
            raise RemoteError(Code.ADDRESS_UNKNOWN)
        for device in devices:
            if device.keys is None:
                continue
            bundle = {name: device.keys[name] for name in ("identity", "signed_id", "signed_key", "signed_signature")}
            one_time = device.one_time.pop(0) if device.one_time else (None, None)
            bundle |= {
                "device": device_of(device.address),
                "one_time_id": one_time[0],
                "one_time_key": one_time[1],
            }
            bundles.append(bundle)
        if not bundles:
            raise RemoteError(Code.PREKEYS_MISSING)
        return {"devices": bundles}

    def _list(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        return {
            "devices": [
                {"device": device_of(device.address), "name": device.name, "created": 0}
                for device in self._of(p["number"])
            ]
        }

    def _remove(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        del self.devices[address_of(number_of(connection.address), p["device"])]
        return {}

    def _status(self, connection: Connection, p: dict[str, Any]) -> dict[str, Any]:
        assert connection.device is not None
        sender = connection.device.address
        waiting = []
        for device_number, envelope_id in p["items"]:
            device = self.devices.get(address_of(p["number"], device_number))
            waiting.append(device is not None and (sender, envelope_id) in device.mailbox)
        return {"waiting": waiting}
