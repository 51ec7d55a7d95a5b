"""Just enough of XMPP and MQTT to log in, send numbered messages and receipt them.

A unit on the wire carries its number; `take` finds the numbers of all whole units at the front of a buffer.  What a
message is: 100 bytes of text or payload to one other client.  What a receipt is: XEP-0184 in XMPP; MQTT has none of its
own between clients, so the recipient publishes the number to a topic of the sender's.
"""

import base64
import re
import socket
import struct
from collections.abc import Callable
from typing import Protocol

BODY_BYTES = 100
LOGIN_S = 20.0


class Speaks(Protocol):
    """A protocol.  Users and rooms are small numbers; a login takes a user's connection to the point of sending."""

    name: str

    def register(self, port: int, users: range) -> None: ...
    def login(self, port: int, user: int) -> socket.socket: ...
    def message(self, to: int, number: int) -> bytes: ...
    def receipt(self, to: int, number: int) -> bytes: ...
    def join(self, sock: socket.socket, user: int) -> None:
        """Into the one room.  What comes because of later joins of others is not waited for."""

    def to_room(self, number: int) -> bytes: ...
    def take(self, buffer: bytes) -> tuple[list[int], bytes]: ...


def connect(port: int) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port), timeout=LOGIN_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def until(sock: socket.socket, done: Callable[[bytes], bool]) -> bytes:
    """Reads until done(everything read).  Raises OSError when the connection ends before."""
    data = b""
    while not done(data):
        more = sock.recv(65536)
        if not more:
            raise OSError(f"the peer closed after {data[-200:]!r}")
        data += more
    return data


class Xmpp:
    """RFC 6120 with SASL PLAIN and no TLS, registration by XEP-0077, rooms by XEP-0045."""

    name = "ejabberd"
    _STREAM = (
        b"<stream:stream to='localhost' xmlns='jabber:client' version='1.0'"
        b" xmlns:stream='http://etherx.jabber.org/streams'>"
    )
    _NUMBER = re.compile(rb" id='(\d{8})'")
    _ROOM = b"room@conference.localhost"

    def _open(self, port: int) -> socket.socket:
        sock = connect(port)
        self._begin(sock)
        return sock

    def _begin(self, sock: socket.socket) -> None:
        sock.sendall(self._STREAM)
        until(sock, lambda data: data.endswith(b"</stream:features>"))

    def register(self, port: int, users: range) -> None:
        for user in users:
            with self._open(port) as sock:
                sock.sendall(
                    b"<iq type='set' id='r'><query xmlns='jabber:iq:register'><username>u%d</username>"
                    b"<password>p%d</password></query></iq>" % (user, user)
                )
                answer = until(sock, lambda data: data.endswith((b"</iq>", b"/>")))
                if b"type='error'" in answer and b"conflict" not in answer:
                    raise OSError(f"ejabberd does not register: {answer!r}")

    def login(self, port: int, user: int) -> socket.socket:
        sock = self._open(port)
        secret = base64.b64encode(b"\0u%d\0p%d" % (user, user))
        sock.sendall(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>" + secret + b"</auth>")
        answer = until(sock, lambda data: data.endswith((b"/>", b"</failure>")))
        if not answer.startswith(b"<success"):
            raise OSError(f"ejabberd refuses a login: {answer!r}")
        self._begin(sock)
        sock.sendall(
            b"<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>b</resource></bind></iq>"
        )
        until(sock, lambda data: data.endswith(b"</iq>"))
        return sock

    def message(self, to: int, number: int) -> bytes:
        return (
            b"<message to='u%d@localhost/b' type='chat' id='%08d'><body>%b</body>"
            b"<request xmlns='urn:xmpp:receipts'/></message>" % (to, number, b"x" * BODY_BYTES)
        )

    def receipt(self, to: int, number: int) -> bytes:
        return b"<message to='u%d@localhost/b' id='%08d'><received xmlns='urn:xmpp:receipts'/></message>" % (
            to,
            number,
        )

    def join(self, sock: socket.socket, user: int) -> None:
        sock.sendall(
            b"<presence to='%b/u%d'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>"
            % (self._ROOM, user)
        )
        until(sock, lambda data: b"</subject>" in data or b"<subject/>" in data or b"type='error'" in data)

    def to_room(self, number: int) -> bytes:
        body = b"x" * BODY_BYTES
        return b"<message to='%b' type='groupchat' id='%08d'><body>%b</body></message>" % (
            self._ROOM,
            number,
            body,
        )

    def take(self, buffer: bytes) -> tuple[list[int], bytes]:
        whole, end, rest = buffer.rpartition(b"</message>")
        if not end:
            return [], buffer
        found = [self._NUMBER.search(part) for part in whole.split(b"</message>") if b"<message " in part]
        return [int(match[1]) for match in found if match is not None], rest


class Mqtt:
    """MQTT 3.1.1, quality of service 0, one topic per client and one for the room."""

    name = "mosquitto"

    @staticmethod
    def _packet(kind: int, content: bytes) -> bytes:
        head, n = bytes([kind]), len(content)
        while n > 127:
            head += bytes([n & 127 | 128])
            n >>= 7
        return head + bytes([n]) + content

    @staticmethod
    def _text(text: bytes) -> bytes:
        return struct.pack(">H", len(text)) + text

    def register(self, port: int, users: range) -> None:
        """Nothing: it has no accounts here."""

    def login(self, port: int, user: int) -> socket.socket:
        sock = connect(port)
        sock.sendall(self._packet(0x10, self._text(b"MQTT") + b"\4\2\0\0" + self._text(b"c%07d" % user)))
        if until(sock, lambda data: len(data) >= 4)[3]:
            raise OSError("mosquitto refuses a login")
        self._subscribe(sock, b"u%07d" % user)
        return sock

    def _subscribe(self, sock: socket.socket, topic: bytes) -> None:
        sock.sendall(self._packet(0x82, b"\0\1" + self._text(topic) + b"\0"))
        until(sock, lambda data: len(data) >= 5)

    def _publish(self, topic: bytes, number: int, payload_n: int) -> bytes:
        payload = struct.pack(">Q", number).ljust(payload_n, b"x")
        return self._packet(0x30, self._text(topic) + payload)

    def message(self, to: int, number: int) -> bytes:
        return self._publish(b"u%07d" % to, number, BODY_BYTES)

    def receipt(self, to: int, number: int) -> bytes:
        return self._publish(b"u%07d" % to, number, 8)

    def join(self, sock: socket.socket, user: int) -> None:
        self._subscribe(sock, b"room0000")

    def to_room(self, number: int) -> bytes:
        return self._publish(b"room0000", number, BODY_BYTES)

    def take(self, buffer: bytes) -> tuple[list[int], bytes]:
        """Every topic has 8 bytes and every packet is shorter than 128."""
        numbers, at = [], 0
        while len(buffer) - at >= 2 and len(buffer) - at >= 2 + buffer[at + 1]:
            if buffer[at] == 0x30:
                numbers.append(int.from_bytes(buffer[at + 12 : at + 20], "big"))
            at += 2 + buffer[at + 1]
        return numbers, buffer[at:]
