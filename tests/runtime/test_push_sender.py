"""A worker's side of push, over real sockets: the test is the gateway."""

import socket
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wa import limits
from wa.errors import LocalError
from wa.runtime.push_channel import (
    OUTCOMES_MAX,
    Outcome,
    Report,
    Sent,
    Wake,
    Wakes,
    bind,
    fitting,
    gateway_path,
    received,
    send,
    worker_path,
)
from wa.runtime.push_sender import PushSender
from wa.storage.records import U64_MAX, PushToken

LONGEST = "ü" * (limits.PUSH_TOKEN_BYTES_MAX // 2)


class Gateway:
    def __init__(self, run_dir, incarnation=b"1" * 16):
        self.run_dir, self.incarnation = run_dir, incarnation
        self.sock = bind(gateway_path(run_dir))

    def take(self):
        batches = [Wakes.decode(data) for data in received(self.sock)]
        assert {batch.worker for batch in batches} <= {3}
        return [wake for batch in batches for wake in batch.wakes]

    def tell(self, *outcomes):
        data = Report(self.incarnation, outcomes).encode()
        return send(self.sock, data, worker_path(self.run_dir, 3))


@pytest.fixture
def sender(tmp_path):
    ids = iter(range(1, 100_000))
    sender = PushSender(tmp_path, 3, lambda size: next(ids).to_bytes(size, "big"))
    yield sender
    sender.close()
    assert not worker_path(tmp_path, 3).exists()


@pytest.fixture
def start(tmp_path):
    gateways = []

    def make(**more):
        gateways.append(Gateway(tmp_path, **more))
        return gateways[-1]

    yield make
    for gateway in gateways:
        gateway.sock.close()


def wake(sender, *addresses, token="t"):
    for address in addresses:
        assert sender.wake(PushToken(address, "fcm", token, 0))


def addresses(wakes):
    return [wake.address for wake in wakes]


def test_they_go_to_the_gateway_and_end_with_their_outcome(sender, start):
    gateway = start()
    wake(sender, 1, 2, 3)
    sender.flush()
    taken = gateway.take()
    assert addresses(taken) == [1, 2, 3]
    assert len(sender) == 3
    one, two, three = (wake.id for wake in taken)
    gateway.tell((two, Outcome.LOST), (one, Outcome.DONE), (b"?" * 16, Outcome.LOST))
    gateway.tell((three, Outcome.GONE))
    news = sender.news()
    assert (addresses(news.lost), addresses(news.gone)) == ([2], [3])
    assert len(sender) == 0
    assert sender.news().lost == sender.news().gone == []


def test_they_wait_while_there_is_no_gateway(sender, start, tmp_path):
    wake(sender, 1)
    sender.flush()
    gateway = start()
    gateway.sock.close()  # killed: its socket is there, and nobody listens
    assert gateway_path(tmp_path).exists()
    wake(sender, 2)
    sender.flush()
    gateway = start()
    sender.flush()
    assert addresses(gateway.take()) == [1, 2]


def test_a_gateway_that_does_not_read_is_not_waited_for(sender, start):
    gateway = start()
    wake(sender, *range(1, 400), token=LONGEST)
    sender.flush()
    seen = addresses(gateway.take())
    assert 0 < len(seen) < 399
    while len(seen) < 399:
        sender.flush()
        seen += addresses(gateway.take())
    assert seen == list(range(1, 400))


def test_a_new_gateway_gets_what_the_old_one_did_not_answer(sender, start):
    old = start()
    old.tell()
    wake(sender, 1, 2, 3)
    sender.flush()
    first = old.take()
    old.tell((first[1].id, Outcome.DONE))
    old.sock.close()
    wake(sender, 4)
    sender.flush()
    new = start(incarnation=b"2" * 16)
    new.tell()
    sender.flush()
    again = new.take()
    assert addresses(again) == [1, 3, 4]
    assert again[:2] == [first[0], first[2]]
    new.tell()
    sender.flush()
    assert new.take() == []


def test_the_first_report_of_the_first_gateway_repeats_nothing(sender, start):
    gateway = start()
    wake(sender, 1)
    sender.flush()
    gateway.tell()
    sender.news()
    sender.flush()
    assert len(gateway.take()) == 1


def test_their_number_is_bounded(sender, start, monkeypatch):
    monkeypatch.setattr(limits, "PUSH_PENDING_MAX", 3)
    gateway = start()
    wake(sender, 1, 2)
    sender.flush()
    wake(sender, 3)
    assert not sender.wake(PushToken(4, "fcm", "t", 0))
    gateway.tell((gateway.take()[0].id, Outcome.DONE))
    sender.news()
    wake(sender, 4)


def test_a_worker_that_was_killed_left_a_socket(tmp_path):
    bind(worker_path(tmp_path, 3)).close()
    sender = PushSender(tmp_path, 3, bytes)
    assert stat.S_IMODE(worker_path(tmp_path, 3).stat().st_mode) == 0o600
    sender.close()


# --- datagrams ---

WAKE = st.builds(Wake, st.binary(min_size=16, max_size=16), st.integers(0, U64_MAX), st.text(max_size=8), st.text())


@given(st.integers(0, 255), st.lists(WAKE))
def test_wakes_decode_to_themselves(worker, wakes):
    assert Wakes.decode(Wakes(worker, tuple(wakes)).encode()) == Wakes(worker, tuple(wakes))


@given(st.lists(WAKE))
def test_what_fits_does_fit(wakes):
    assert len(Wakes(255, fitting(wakes)).encode()) <= limits.PUSH_DATAGRAM_BYTES_MAX


def test_the_longest_ones_fit():
    wakes = [Wake(b"i" * 16, U64_MAX, "p" * limits.PUSH_PLATFORM_BYTES_MAX, LONGEST)] * 9
    assert len(fitting(wakes)) == 3
    assert len(Wakes(255, fitting(wakes)).encode()) <= limits.PUSH_DATAGRAM_BYTES_MAX
    report = Report(b"n" * 16, ((b"i" * 16, Outcome.GONE),) * OUTCOMES_MAX)
    assert Report.decode(report.encode()) == report
    assert len(report.encode()) <= limits.PUSH_DATAGRAM_BYTES_MAX


@pytest.mark.parametrize("decode", [Wakes.decode, Report.decode])
@pytest.mark.parametrize("data", [b"\x01", b"\x92\xc0\x90", b"\x92\x01\x91\x01", b"\x92\xc4\x01x\x91\x92\x01\x01"])
def test_what_is_malformed_is_a_fault_of_ours(decode, data):
    with pytest.raises(LocalError):
        decode(data)


def test_a_token_is_not_shown():
    assert "secret" not in repr(Wakes(1, (Wake(b"", 1, "fcm", "secret"),)))


def test_who_is_there(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        assert send(sock, b"x", tmp_path / "nobody") is Sent.ABSENT
        with bind(tmp_path / "full"):
            while (sent := send(sock, b"x" * 9_000, tmp_path / "full")) is Sent.YES:
                pass
            assert sent is Sent.FULL
        assert send(sock, b"x", tmp_path / "full") is Sent.ABSENT
        assert send(sock, b"x", tmp_path) is Sent.ABSENT
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
            stream.bind(str(tmp_path / "stream"))
            stream.listen()
            assert send(sock, b"x", tmp_path / "stream") is Sent.ABSENT
            with pytest.raises(OSError, match="too long"):
                send(sock, bytes(1 << 20), tmp_path / "full")
