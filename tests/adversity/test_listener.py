"""Whatever is thrown at the listener ends in a named error or a closed connection; a chatting pair notices nothing."""

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pysodium
import pytest

from tests.integration.rig import WAIT_S, Closed, Phone, Rig, until
from wa.errors import Code, RemoteError
from wa.noise import certificate, records
from wa.noise.primitives import Suite
from wa.noise.records import Intent
from wa.noise.session import ClientSession
from wa.wire import frames
from wa.wire.frames import Accepted, Ack, Deliver, Delivered, Error, Extension, Ping, Pong, Send

ALICE, BOB, MALLORY = 15551230001, 15551230002, 15551230003
A, B, M = (number << 8 | 1 for number in (ALICE, BOB, MALLORY))
KEY = pysodium.crypto_generichash(b"mallory", outlen=32)
REFUSED = struct.Struct(">IBHI")


class Chat:
    """A pair that chats in a thread of its own for as long as the test runs; every message must come through."""

    def __init__(self, rig: Rig) -> None:
        self.alice, self.bob = rig.phone(A), rig.phone(B)
        self.stopping = threading.Event()
        self.rounds = 0
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self) -> None:
        try:
            while not self.stopping.wait(0.001):
                self.rounds += 1
                self.alice.send(Send(1, B, self.rounds, b"are you there?"))
                delivery = self.bob.expect(Deliver)
                assert delivery.id == self.rounds
                self.bob.send(Ack(delivery.seq))
                answer = self.alice.next()
                if isinstance(answer, Accepted):  # a busy machine: the linger window was over
                    answer = self.alice.next()
                assert answer == Delivered(B, self.rounds)
        except (AssertionError, OSError, Closed) as failure:  # told by check()
            self.failure = failure

    def check(self) -> None:
        """At least one whole round after what the test did; then the chat ends."""
        rounds = self.rounds
        until(lambda: self.rounds > rounds + 1 or self.failure is not None)
        self.stopping.set()
        self.thread.join(WAIT_S)
        assert self.failure is None, self.failure


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path, 2, handshake_step_ms_max=300, authenticate_ms_max=600, close_flush_ms_max=300)
    for number in (ALICE, BOB, MALLORY):
        rig.add_device(number)
    rig.start()
    chat = Chat(rig)
    try:
        yield rig
        for phone in rig.phones:
            if phone.address == M:
                phone.close()
        chat.check()
        until(lambda: rig.stat("connections") == 2 and rig.stat("half_open") == 0)
        until(lambda: rig.stat("slab_used_bytes") == 0 and rig.stat("custody_entries") == 0)
    finally:
        chat.stopping.set()
        chat.thread.join(WAIT_S)
        rig.stop()


def connect(rig: Rig) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", rig.port), timeout=WAIT_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def answer(sock: socket.socket) -> bytes:
    """Everything until the server closes."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except ConnectionResetError:
        pass  # it closed with our bytes unread: as good an end as any
    finally:
        sock.close()
    return data


def refusal(data: bytes) -> Code | None:
    """The code of a refusal in the clear at the start of data."""
    if len(data) < REFUSED.size:
        return None
    length, kind, code, _ = REFUSED.unpack_from(data)
    return Code(code) if kind == 3 and length >= 7 else None


def client_bytes(rig: Rig, **kwargs: object) -> bytes:
    session = ClientSession(
        static_private=KEY,
        login=records.Login(Intent.LOG_IN, M),
        root_public=rig.root,
        now_s=int(time.time()),
        **kwargs,  # type: ignore[arg-type]
    )
    return session.bytes_to_send()


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        (b"GET / HT", Code.PROTOCOL_ERROR),
        (b"wa\r\n\x01\x01\x01\x01", Code.PROTOCOL_ERROR),
        (b"wa\r\n\x02\x01\x01\x00", Code.VERSION_UNSUPPORTED),
        (b"wa\r\n\x01\x03\x01\x00", Code.SUITE_UNSUPPORTED),
        (b"wa\r\n\x01\x01\x04\x00", Code.PATTERN_UNSUPPORTED),
    ],
)
def test_a_wrong_hello_is_refused_by_name(rig: Rig, hello: bytes, code: Code) -> None:
    sock = connect(rig)
    sock.sendall(hello)
    assert refusal(answer(sock)) == code


@pytest.mark.parametrize("length", [0, 1025, 65535, 2**32 - 1])
def test_handshake_record_lengths_are_bounded(rig: Rig, length: int) -> None:
    sock = connect(rig)
    sock.sendall(b"wa\r\n\x01\x01\x01\x00" + struct.pack(">I", length) + b"\x01")
    assert refusal(answer(sock)) == Code.RECORD_TOO_LARGE


@pytest.mark.parametrize("pattern", [1, 2])
@pytest.mark.parametrize("n", [0, 1, 31, 32, 33, 95, 96, 97, 105, 900, 1023])
def test_handshake_messages_of_any_length_do_no_harm(rig: Rig, pattern: int, n: int) -> None:
    sock = connect(rig)
    body = b"\x01" + random.Random(n).randbytes(n)
    sock.sendall(b"wa\r\n\x01\x01" + bytes([pattern, 0]) + struct.pack(">I", len(body)) + body)
    data = answer(sock)
    assert refusal(data) in (Code.HANDSHAKE_FAILED, Code.HANDSHAKE_TIMEOUT) or data[4] in (1, 2)


def test_low_order_points_are_refused(rig: Rig) -> None:
    for point in (bytes(32), b"\x01" + bytes(31), bytes.fromhex("ecffffff" + "ff" * 27 + "7f")):
        sock = connect(rig)
        sock.sendall(b"wa\r\n\x01\x01\x01\x00" + struct.pack(">I", 33) + b"\x01" + point)
        assert refusal(answer(sock)) == Code.HANDSHAKE_FAILED


def test_random_bytes(rig: Rig) -> None:
    for seed in range(60):
        noise = random.Random(seed)
        sock = connect(rig)
        try:
            sock.sendall(noise.randbytes(noise.choice([1, 7, 8, 9, 40, 500, 70_000])))
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before it was all sent
        answer(sock)


def test_cut_at_each_byte(rig: Rig) -> None:
    for known in (None, rig.certificate):
        data = client_bytes(rig, certificate=known)
        for n in range(len(data)):
            sock = connect(rig)
            sock.sendall(data[:n])
            sock.close()


def test_half_open_clients_are_ended_in_time(rig: Rig) -> None:
    data = client_bytes(rig)
    socks = []
    for n in (0, 1, 7, 8, 11, 12, 40, len(data)):
        socks.append(connect(rig))
        socks[-1].sendall(data[:n])
    for sock in socks:
        data = answer(sock)
        assert refusal(data[-11:]) == Code.HANDSHAKE_TIMEOUT


def test_a_handshake_without_a_first_frame_is_ended_in_time(rig: Rig) -> None:
    assert rig.phone(M, key=KEY, open=False).closed_with() == Code.HANDSHAKE_TIMEOUT


def test_dripping_past_the_deadline(rig: Rig) -> None:
    sock = connect(rig)
    data = client_bytes(rig)
    started = time.monotonic()
    pause = threading.Event()
    try:
        for i in range(len(data)):
            sock.sendall(data[i : i + 1])
            pause.wait(0.05)
    except OSError:
        pass  # ended in the middle, as it should be
    answer(sock)
    assert time.monotonic() - started < 5


def test_one_byte_at_a_time_is_fine(rig: Rig) -> None:
    phone = rig.phone(M, key=KEY)
    phone.session.send_record(frames.encode(Ping(5)) + frames.encode(Ping(6)))
    for byte in phone.session.bytes_to_send():
        phone.sock.sendall(bytes([byte]))
    assert phone.collect(2, Pong) == [Pong(5), Pong(6)]


@pytest.mark.parametrize("suite", list(Suite))
def test_every_byte_of_the_first_ik_message_is_authenticated(rig: Rig, suite: Suite) -> None:
    data = client_bytes(rig, certificate=rig.certificate, suite=suite)
    for i in range(12, len(data)):
        sock = connect(rig)
        sock.sendall(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        sock.shutdown(socket.SHUT_WR)
        reply = answer(sock)
        # The kind byte or the ephemeral's or a ciphertext's bit: refused, or answered with a fallback offer.
        assert refusal(reply) is not None or reply[4] == 2
    assert rig.stat("logins") == 2


def test_a_record_that_does_not_authenticate_ends_the_connection(rig: Rig) -> None:
    for seed in range(20):
        phone = rig.phone(M, key=KEY)
        phone.session.send_record(frames.encode(Ping(1)))
        record = bytearray(phone.session.bytes_to_send())
        record[random.Random(seed).randrange(4, len(record))] ^= 1 << seed % 8
        phone.sock.sendall(record)
        assert phone.closed_with() == Code.DECRYPT_FAILED
        phone.close()


@pytest.mark.parametrize("length", [0, 16, 65536, 2**31])
def test_transport_record_lengths_are_bounded(rig: Rig, length: int) -> None:
    phone = rig.phone(M, key=KEY)
    phone.sock.sendall(struct.pack(">I", length) + bytes(64))
    assert phone.closed_with() == Code.RECORD_TOO_LARGE


@pytest.mark.parametrize(
    ("plain", "code"),
    [
        (b"\x00", Code.UNKNOWN_FRAME),
        (b"\x7e\x00", Code.FRAME_MALFORMED),
        (b"\x33", Code.UNKNOWN_FRAME),
        (b"\x02", Code.FRAME_MALFORMED),
        (b"\x02\x80\x00", Code.FRAME_MALFORMED),
        (b"\x31\x01\x00", Code.FRAME_MALFORMED),
        (b"\x41" + bytes(16) + b"\xff\xff\x03", Code.FRAME_MALFORMED),
        (frames.encode(frames.Open(1)), Code.NOT_PERMITTED),
        (frames.encode(frames.Accepted(A, 1)), Code.NOT_PERMITTED),
        (frames.encode(frames.Deliver(1, 1, A, 1, b"x")), Code.NOT_PERMITTED),
    ],
)
def test_wrong_frames_end_the_connection_by_name(rig: Rig, plain: bytes, code: Code) -> None:
    phone = rig.phone(M, key=KEY)
    phone.session.send_record(plain)
    phone.flush()
    assert phone.closed_with() == code


@pytest.mark.parametrize("frame", [Send(1, A, 1, b"x"), Ack(1), frames.MarkRead(A, 1)])
def test_nothing_but_open_is_permitted_first(rig: Rig, frame: frames.Frame) -> None:
    phone = rig.phone(M, key=KEY, open=False)
    phone.send(frame)
    assert phone.closed_with() == Code.NOT_PERMITTED


def test_an_unknown_extension_is_skipped_with_an_error(rig: Rig) -> None:
    phone = rig.phone(M, key=KEY)
    phone.send(Extension(0x90, b"from the future"), Ping(1))
    assert phone.expect(Error).code == Code.UNKNOWN_FRAME
    assert phone.expect(Pong) == Pong(1)


def test_another_key_is_not_the_device(rig: Rig) -> None:
    rig.phone(M, key=KEY)
    assert rig.phone(M, key=bytes(31) + b"\x01", open=False).closed_with() == Code.DEVICE_UNKNOWN


def test_a_server_with_a_new_key_is_reached_by_fallback(rig: Rig) -> None:
    old_public = pysodium.crypto_scalarmult_curve25519_base(bytes(31) + b"\x07")
    old = certificate.make(rig.root_secret, old_public, 0, 2**40)
    phone = rig.phone(M, key=KEY, known=old)
    assert phone.used_fallback and phone.certificate == rig.certificate
    phone.ping()


def test_a_server_of_another_root_is_not_talked_to(rig: Rig) -> None:
    rig.root, keep = certificate.make_root()[1], rig.root
    try:
        with pytest.raises(RemoteError, match="handshake_failed"):
            Phone(rig, M, KEY)
    finally:
        rig.root = keep


def test_a_replayed_first_message_does_not_evict_the_live_connection(rig: Rig) -> None:
    phone = rig.phone(M, key=KEY)
    data = client_bytes(rig, certificate=rig.certificate)
    first = connect(rig)
    first.sendall(data)
    assert first.recv(5)[4] == 1  # the server answers: it cannot know yet
    again = connect(rig)
    again.sendall(data)
    assert again.recv(5)[4] == 1
    phone.ping()
    first.close()
    again.close()
    phone.ping()


def test_a_client_that_never_reads_is_bounded_and_ended(rig: Rig) -> None:
    mallory = rig.phone(M, key=KEY)
    mallory.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    mallory.send(Ping(0))
    with pytest.raises(OSError):
        for i in range(200_000):
            mallory.sock.settimeout(1)
            mallory.send(*[Ping(i)] * 500)
    assert rig.stat("slab_used_bytes") < 4 << 20
    mallory.close()
    until(lambda: rig.stat("connections") == 2)


def test_deliveries_to_a_client_that_never_reads_are_bounded(rig: Rig) -> None:
    mallory = rig.phone(M, key=KEY)
    body = bytes(60_000)
    for i in range(40):
        mallory.send(Send(1, M, i, body))  # to itself: its window fills and it reads nothing
    until(lambda: rig.stat("stored") + rig.stat("refused") >= 20)
    assert rig.stat("slab_used_bytes") < 2 << 20
    mallory.close()
    until(lambda: rig.stat("connections") == 2)


def test_half_open_connections_are_capped_with_a_time_slot(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, half_open_max=5)
    rig.add_device(ALICE)
    rig.start()
    try:
        phone = rig.phone(A)
        held = [connect(rig) for _ in range(5)]
        until(lambda: rig.stat("half_open") == 5)
        data = answer(connect(rig))
        assert refusal(data) == Code.BUSY
        assert REFUSED.unpack_from(data)[3] >= 1000
        phone.ping()
        for sock in held:
            sock.close()
        until(lambda: rig.stat("half_open") == 0)
        rig.phone(A).ping()
    finally:
        rig.stop()


def test_handshakes_are_shed_before_any_curve_arithmetic(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, handshakes_per_s_max=3)
    rig.add_device(ALICE)
    rig.start()
    try:
        slots = set()
        for _ in range(12):
            try:
                rig.phone(A, open=False)
            except Closed as end:
                assert end.args[0] == Code.BUSY
                slots.add(rig.stat("sheds"))
        assert rig.stat("handshakes") < 12 and slots
    finally:
        rig.stop()


def test_an_insane_length_behind_a_full_sender_window(tmp_path: Path) -> None:
    rig = Rig(tmp_path, 1, sender_window_max=7, linger_ms=300)
    rig.add_device(ALICE)
    rig.add_device(BOB)
    rig.start()
    try:
        alice, bob = rig.phone(A), rig.phone(B)
        for i in range(7):
            alice.session.send_record(frames.encode(Send(1, B, i, b"x")))
        alice.sock.sendall(alice.session.bytes_to_send() + b"\xff\xff\xff\xff" + bytes(100))
        bob.collect(7, Deliver)
        assert rig.stat("slab_used_bytes") < 1 << 20
        bob.send(frames.AckRange(1, 7))
        assert alice.closed_with() == Code.RECORD_TOO_LARGE
    finally:
        rig.stop()


def test_a_record_that_never_ends_is_not_waited_for(rig: Rig) -> None:
    """A live client drips one byte at a time: bytes alone keep nobody alive, only whole records do."""
    mallory = rig.phone(M, key=KEY)
    mallory.session.send_record(b"\x80\x7f" + bytes(127))
    record = mallory.session.bytes_to_send()
    pause = threading.Event()
    started = time.monotonic()
    with pytest.raises(Closed) as end:
        for byte in record:
            mallory.sock.sendall(bytes([byte]))
            if not pause.wait(0.05):
                with contextlib.suppress(TimeoutError):
                    mallory.next(0.001)
    assert end.value.args[0] == Code.IDLE_TIMEOUT
    assert time.monotonic() - started < 5
