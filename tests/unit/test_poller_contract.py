"""What every event backend owes the loop (wa/_fastpath/os/poller.pxd), run over real sockets on loopback.

Nothing here sleeps: wait(0) asks what the kernel knows now, and a wait that must end is ended by an event.
"""

import errno
import fcntl
import os
import resource
import select
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from wa._fastpath.os.host import PollerFace
from wa._fastpath.os.sockets import connect_unix, listen_tcp, listen_unix
from wa.errors import LocalError

READABLE, WRITABLE, HANGUP = 1, 2, 4
BOTH = READABLE | WRITABLE
WAKE_FD = -1
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def poller() -> Iterator[PollerFace]:
    face = PollerFace()
    yield face
    face.destroy()


@pytest.fixture(params=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Two connected non-blocking stream sockets."""
    if request.param == "unix":
        ours, theirs = socket.socketpair()
    else:
        with listen_tcp("127.0.0.1", 0, 1, False) as listener:
            theirs = socket.create_connection(listener.getsockname())
            select.select([listener], [], [])
            ours = listener.accept()[0]
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def unix_pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def no_leak() -> Iterator[None]:
    """The test closes every descriptor that it was given."""
    before = set(os.listdir("/dev/fd"))
    yield
    assert set(os.listdir("/dev/fd")) == before


def fill(poller: PollerFace, fd: int) -> int:
    """Sends until it would block; bytes sent."""
    sent = 0
    while True:
        try:
            sent += poller.send(fd, bytes(65_536))
        except BlockingIOError:
            return sent


# --- readiness ------------------------------------------------------------------------------------


def test_readable_is_level_triggered(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READABLE, 7)
    assert poller.wait(0) == []
    theirs.send(b"abc")
    assert poller.wait(-1) == [(ours.fileno(), READABLE, 7)]
    assert poller.recv(ours.fileno(), 1) == b"a"
    assert poller.wait(0) == [(ours.fileno(), READABLE, 7)]
    assert poller.recv(ours.fileno(), 10) == b"bc"
    assert poller.wait(0) == []


def test_writable_until_full_and_again_when_drained(poller: PollerFace, unix_pair: Pair) -> None:
    ours, theirs = unix_pair
    poller.watch(ours.fileno(), WRITABLE, 1)
    assert poller.wait(-1) == [(ours.fileno(), WRITABLE, 1)]
    left = fill(poller, ours.fileno())
    assert poller.wait(0) == []
    while left:
        left -= len(theirs.recv(1_048_576))
    assert poller.wait(-1) == [(ours.fileno(), WRITABLE, 1)]


def test_both_directions_are_one_event(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    theirs.send(b"x")
    poller.watch(theirs.fileno(), READABLE, 1)
    poller.watch(ours.fileno(), READABLE, 2)
    assert [token for _, _, token in poller.wait(-1)] == [2]
    poller.change(ours.fileno(), BOTH, 3)
    assert poller.wait(-1) == [(ours.fileno(), BOTH, 3)]


def test_token_is_a_whole_u64(poller: PollerFace, unix_pair: Pair) -> None:
    ours, _ = unix_pair
    poller.watch(ours.fileno(), WRITABLE, 2**64 - 1)
    assert poller.wait(0) == [(ours.fileno(), WRITABLE, 2**64 - 1)]


def test_end_of_stream_is_readable(poller: PollerFace, pair: Pair) -> None:
    """A half-closed connection is not a hangup: what we still have to say can be sent."""
    ours, theirs = pair
    poller.watch(ours.fileno(), READABLE, 1)
    theirs.shutdown(socket.SHUT_WR)
    assert poller.wait(-1) == [(ours.fileno(), READABLE, 1)]
    assert poller.recv(ours.fileno(), 10) == b""
    assert poller.send(ours.fileno(), b"bye") == 3
    assert theirs.recv(10) == b"bye"


def test_a_gone_peer_is_readable_then_gives_end_of_stream(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READABLE, 1)
    theirs.close()
    [(fd, mask, token)] = poller.wait(-1)
    assert (fd, mask & READABLE, token) == (ours.fileno(), READABLE, 1)
    assert poller.recv(ours.fileno(), 10) == b""


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    sock.close()


@pytest.mark.parametrize("mask", [READABLE, WRITABLE, BOTH])
@pytest.mark.parametrize("pair", ["tcp"], indirect=True)
def test_a_reset_is_a_hangup_whatever_is_watched(poller: PollerFace, pair: Pair, mask: int) -> None:
    ours, theirs = pair
    reset(theirs)
    poller.watch(ours.fileno(), mask, 1)
    [(_, reported, _)] = poller.wait(-1)
    assert reported & (HANGUP | READABLE) == HANGUP | READABLE
    with pytest.raises(ConnectionResetError):
        poller.recv(ours.fileno(), 10)


def test_both_directions_shut_is_a_hangup(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    theirs.shutdown(socket.SHUT_WR)
    ours.shutdown(socket.SHUT_WR)
    poller.watch(ours.fileno(), BOTH, 1)
    [(_, reported, _)] = poller.wait(-1)
    assert reported & (HANGUP | READABLE) == HANGUP | READABLE


def test_sending_to_a_gone_peer_is_an_error_and_no_signal(poller: PollerFace, unix_pair: Pair) -> None:
    ours, theirs = unix_pair
    theirs.close()
    with pytest.raises(BrokenPipeError):
        poller.send(ours.fileno(), b"x")


def test_recv_without_bytes_would_block(poller: PollerFace, pair: Pair) -> None:
    with pytest.raises(BlockingIOError):
        poller.recv(pair[0].fileno(), 10)


# --- watch, change, unwatch -----------------------------------------------------------------------


def test_a_mask_of_nothing_reports_nothing_not_even_a_hangup(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    poller.watch(ours.fileno(), READABLE, 1)
    poller.change(ours.fileno(), 0, 2)
    theirs.send(b"x")
    theirs.close()
    assert poller.wait(0) == []
    poller.change(ours.fileno(), READABLE, 3)
    [(fd, mask, token)] = poller.wait(-1)
    assert (fd, mask & READABLE, token) == (ours.fileno(), READABLE, 3)


def test_every_change_of_mask(poller: PollerFace, unix_pair: Pair) -> None:
    """Both directions are ready all along, so what is reported is what is watched."""
    ours, theirs = unix_pair
    theirs.send(b"x")
    fd = ours.fileno()
    masks = [0, READABLE, WRITABLE, BOTH]
    for before in masks:
        for after in masks:
            poller.watch(fd, before, 1)
            assert poller.wait(0) == ([(fd, before, 1)] if before else [])
            poller.change(fd, after, 2)
            assert poller.wait(0) == ([(fd, after, 2)] if after else [])
            poller.unwatch(fd)
            assert poller.wait(0) == []


def test_a_number_used_again_carries_its_new_token(poller: PollerFace) -> None:
    first, its_peer = socket.socketpair()
    second, other = socket.socketpair()
    with its_peer, second, other:
        fd = first.fileno()
        poller.watch(fd, BOTH, 1)
        poller.unwatch(fd)
        poller.close(first.detach())
        assert os.dup2(second.fileno(), fd) == fd
        poller.watch(fd, WRITABLE, 2)
        assert poller.wait(0) == [(fd, WRITABLE, 2)]
        poller.unwatch(fd)
        poller.close(fd)


def test_a_copy_of_a_closed_socket_is_not_heard_of(poller: PollerFace, unix_pair: Pair) -> None:
    """As after fd passing: the description lives on elsewhere, unwatch() has cut it off here."""
    ours, theirs = unix_pair
    elsewhere = os.dup(ours.fileno())
    try:
        poller.watch(ours.fileno(), READABLE, 1)
        poller.unwatch(ours.fileno())
        poller.close(ours.detach())
        theirs.send(b"x")
        assert poller.wait(0) == []
    finally:
        os.close(elsewhere)


def test_misuse_is_an_error_number(poller: PollerFace, unix_pair: Pair) -> None:
    ours, theirs = unix_pair
    poller.watch(ours.fileno(), READABLE, 1)
    with pytest.raises(FileExistsError):
        poller.watch(ours.fileno(), READABLE, 1)
    with pytest.raises(FileNotFoundError):
        poller.change(theirs.fileno(), READABLE, 1)
    with pytest.raises(FileNotFoundError):
        poller.unwatch(theirs.fileno())
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        poller.watch(-2, READABLE, 1)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        poller.watch(99_999, READABLE, 1)
    with pytest.raises(FileNotFoundError):  # the failed one left nothing behind
        poller.unwatch(99_999)


def test_more_sockets_than_events_asked_for_are_all_heard(poller: PollerFace) -> None:
    """Also more than the table of a new poller holds, so that it has grown and kept what it knew."""
    pairs = [socket.socketpair() for _ in range(100)]
    try:
        for token, (ours, _) in enumerate(pairs):
            poller.watch(ours.fileno(), WRITABLE, token)
        tokens: set[int] = set()
        while len(tokens) < len(pairs):
            events = poller.wait(0, 7)
            assert 0 < len(events) <= 7
            tokens.update(token for _, _, token in events)
        for ours, _ in pairs:
            poller.unwatch(ours.fileno())
        assert poller.wait(0) == []
    finally:
        for both in pairs:
            for sock in both:
                sock.close()


# --- wake and time ----------------------------------------------------------------------------------


def test_wakes_join_and_end(poller: PollerFace) -> None:
    poller.wake()
    poller.wake()
    assert poller.wait(-1) == [(WAKE_FD, READABLE, 0)]
    assert poller.wait(0) == []
    poller.wake()
    assert poller.wait(0) == [(WAKE_FD, READABLE, 0)]


def test_wake_from_another_thread_ends_a_wait(poller: PollerFace) -> None:
    thread = threading.Thread(target=poller.wake)
    thread.start()
    assert poller.wait(-1) == [(WAKE_FD, READABLE, 0)]
    thread.join()


def test_wait_ends_after_its_timeout(poller: PollerFace) -> None:
    before = poller.now_ns()
    assert poller.wait(20) == []
    assert poller.now_ns() - before >= 19_000_000  # the kernel may count in steps of its own, never by a whole ms


def test_wall_clock_is_unix_milliseconds(poller: PollerFace) -> None:
    assert 2**40 < poller.wall_ms() < 2**43  # 2004 to 2248


def test_random_fills_every_byte(poller: PollerFace) -> None:
    samples = [poller.random(1_000) for _ in range(20)]
    assert all(len({sample[i] for sample in samples}) > 1 for i in range(1_000))
    assert poller.random(0) == b""


def test_random_gives_nothing_twice(poller: PollerFace) -> None:
    """They are drawn from the kernel in larger portions, which these lengths do not divide."""
    taken = b"".join(poller.random(n) for n in (24, 32, 7, 300) * 50)
    windows = [taken[i : i + 8] for i in range(len(taken) - 7)]
    assert len(set(windows)) == len(windows)


def test_pollers_are_separate(poller: PollerFace, unix_pair: Pair) -> None:
    other = PollerFace()
    poller.watch(unix_pair[0].fileno(), WRITABLE, 1)
    other.watch(unix_pair[0].fileno(), WRITABLE, 2)
    poller.wake()
    assert other.wait(0) == [(unix_pair[0].fileno(), WRITABLE, 2)]
    other.destroy()
    assert len(poller.wait(0)) == 2
    with pytest.raises(LocalError):
        other.wait(0)


# --- accept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "connect_to", "family", "address"),
    [
        ("127.0.0.1", "127.0.0.1", 4, b"\x7f\0\0\1"),
        ("::1", "::1", 6, bytes(15) + b"\1"),
        ("::", "127.0.0.1", 4, b"\x7f\0\0\1"),  # through a dual-stack socket it is still that IPv4 peer
    ],
)
def test_accept(poller: PollerFace, host: str, connect_to: str, family: int, address: bytes) -> None:
    with listen_tcp(host, 0, 8, False) as listener:
        poller.watch(listener.fileno(), READABLE, 1)
        with pytest.raises(BlockingIOError):
            poller.accept(listener.fileno())
        with socket.create_connection((connect_to, listener.getsockname()[1])) as client:
            assert poller.wait(-1) == [(listener.fileno(), READABLE, 1)]
            fd, *peer = poller.accept(listener.fileno())
            with socket.socket(fileno=fd) as ours:
                assert peer == [family, address, client.getsockname()[1]]
                assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK
                assert not os.get_inheritable(fd)
                assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
                assert poller.wait(0) == []


def test_workers_share_a_port(poller: PollerFace) -> None:
    with listen_tcp("127.0.0.1", 0, 8, True) as first:
        port = first.getsockname()[1]
        with listen_tcp("127.0.0.1", port, 8, True) as second, socket.create_connection(("127.0.0.1", port)):
            poller.watch(first.fileno(), READABLE, 1)
            poller.watch(second.fileno(), READABLE, 2)
            [(listener, _, _)] = poller.wait(-1)
            poller.close(poller.accept(listener)[0])
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            listen_tcp("127.0.0.1", port, 8, False)


def test_listening_needs_a_numeric_address() -> None:
    with pytest.raises(LocalError, match="numeric"):
        listen_tcp("localhost.invalid", 0, 8, False)


def test_unix_listener(poller: PollerFace, tmp_path: Path) -> None:
    path = str(tmp_path / "bus")
    with listen_unix(path) as listener:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert not listener.getblocking()
        with connect_unix(path) as client:
            assert not client.getblocking()
            assert not client.get_inheritable()
            fd, *peer = poller.accept(listener.fileno())
            assert peer == [0, b"", 0]
            client.send(b"hello")
            assert poller.recv(fd, 10) == b"hello"
            poller.close(fd)
        with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
            listen_unix(path)


def test_unix_listener_takes_over_a_dead_socket_file_only(tmp_path: Path) -> None:
    path = tmp_path / "bus"
    listen_unix(str(path)).close()
    with pytest.raises(ConnectionRefusedError):
        connect_unix(str(path))
    listen_unix(str(path)).close()
    path.unlink()
    path.write_text("somebody's notes")
    with pytest.raises(OSError, match=os.strerror(errno.EADDRINUSE)):
        listen_unix(str(path))
    assert path.read_text() == "somebody's notes"


# --- descriptors beside bytes -----------------------------------------------------------------------


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("count", [1, 2, 64, 253])
def test_descriptors_travel_with_the_first_byte(poller: PollerFace, unix_pair: Pair, count: int) -> None:
    ours, theirs = unix_pair
    pairs = [socket.socketpair() for _ in range(count)]
    assert poller.send_fds(ours.fileno(), b"state", [a.fileno() for a, _ in pairs]) == 5
    for a, _ in pairs:
        a.close()
    first, fds = poller.recv_fds(theirs.fileno(), 1)
    rest, none = poller.recv_fds(theirs.fileno(), 10)
    assert (first + rest, len(fds), none) == (b"state", count, [])
    for fd, (_, b) in zip(fds, pairs, strict=True):
        assert not os.get_inheritable(fd)
        assert poller.send(fd, b"through") == 7
        assert b.recv(10) == b"through"
        poller.close(fd)
        b.close()


@pytest.mark.usefixtures("no_leak")
def test_bytes_of_two_sends_never_mix_their_descriptors(poller: PollerFace, unix_pair: Pair) -> None:
    """The receiver must be able to say which bytes a descriptor came with."""
    ours, theirs = unix_pair
    a, b = socket.socketpair()
    with a, b:
        poller.send(ours.fileno(), b"plain")
        poller.send_fds(ours.fileno(), b"one", [a.fileno()])
        poller.send_fds(ours.fileno(), b"two", [a.fileno(), b.fileno()])
        data, marks = b"", []
        while len(data) < 11:
            at = len(data)
            got, fds = poller.recv_fds(theirs.fileno(), 100)
            data += got
            marks.append((at, len(fds)))
            for fd in fds:
                poller.close(fd)
        assert data == b"plainonetwo"
        assert (8, 2) in marks
        assert sum(count for _, count in marks) == 3


def test_no_descriptors_is_a_plain_send(poller: PollerFace, pair: Pair) -> None:
    ours, theirs = pair
    assert poller.send_fds(ours.fileno(), b"x", []) == 1
    poller.watch(theirs.fileno(), READABLE, 1)
    poller.wait(-1)
    assert poller.recv_fds(theirs.fileno(), 10) == (b"x", [])
    with pytest.raises(BlockingIOError):
        poller.recv_fds(theirs.fileno(), 10)
    ours.close()
    poller.wait(-1)
    assert poller.recv_fds(theirs.fileno(), 10) == (b"", [])


@pytest.mark.usefixtures("no_leak")
def test_more_descriptors_than_there_is_room_for_are_closed(poller: PollerFace, unix_pair: Pair) -> None:
    ours, theirs = unix_pair
    poller.send_fds(ours.fileno(), b"x", [ours.fileno()] * 3)
    with pytest.raises(OSError, match=os.strerror(errno.EMSGSIZE)):
        poller.recv_fds(theirs.fileno(), 10, 2)


@pytest.mark.usefixtures("no_leak")
@pytest.mark.parametrize("room", [0, 2])
def test_out_of_descriptors_the_bytes_come_all_the_same(poller: PollerFace, unix_pair: Pair, room: int) -> None:
    """-1 stands for the descriptors that it had no room for; those in front of them are there."""
    ours, theirs = unix_pair
    assert poller.send_fds(ours.fileno(), b"state", [ours.fileno()] * 3) == 5
    assert poller.send_fds(ours.fileno(), b"more", [ours.fileno()]) == 4
    holes = [os.open("/", os.O_RDONLY) for _ in range(room)]  # the lowest numbers that are free
    guard = os.open("/", os.O_RDONLY)  # every number below it is taken
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (guard, limit[1]))
    for fd in holes:
        os.close(fd)
    try:
        first = poller.recv_fds(theirs.fileno(), 5)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    os.close(guard)
    second = poller.recv_fds(theirs.fileno(), 10)
    for fd in [*first[1][:-1], *second[1]]:
        poller.close(fd)
    # Linux gives those for which there is room, FreeBSD none.
    assert first in ((b"state", [*holes, -1]), (b"state", [-1]))
    assert (second[0], len(second[1])) == (b"more", 1)


@pytest.mark.parametrize(("data", "count"), [(b"", 1), (b"x", 254)])
def test_what_cannot_be_sent_with_descriptors(poller: PollerFace, unix_pair: Pair, data: bytes, count: int) -> None:
    ours, _ = unix_pair
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        poller.send_fds(ours.fileno(), data, [ours.fileno()] * count)
