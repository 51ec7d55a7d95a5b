"""`wa serve` as its operator runs it: real processes, real clients, and the ways in which processes end."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pysodium
import pytest

from wa import ids, limits
from wa.errors import Code, LocalError
from wa.noise.records import Intent
from wa.routing.shards import worker_of_number
from wa.runtime.operator_socket import ask
from wa.wire import frames, methods
from wa.wire.methods import Method

from .rig import Closed, Phone, until

ALICE = 15551230001
BOB = next(n for n in range(15551230002, 15551231000) if worker_of_number(n, 2) != worker_of_number(ALICE, 2))


class Server:
    """One `wa serve` on a data directory.  `port` and `root` are what Phone needs of it."""

    def __init__(self, path: Path, workers: int = 2, port: int = 0, flags: tuple[str, ...] = ()) -> None:
        self.path = path
        self.data = path / "d"
        self.codes = path / "codes"
        command = [
            sys.executable,
            "-m",
            "wa.cli.main",
            "serve",
            "--data-dir",
            str(self.data),
            "--workers",
            str(workers),
        ]
        command += [
            "--listen",
            f"127.0.0.1:{port}",
            "--code-transport",
            f"file:{self.codes}",
            "--log-format",
            "json",
            *flags,
        ]
        self.log_path = path / "log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.phones: list[Phone] = []

    def ready(self) -> "Server":
        first = self.process.stdout.readline()
        found = re.match(r"ready: 127\.0\.0\.1:(\d+), ", first)
        assert found, (first, self.log_path.read_text())
        self.port = int(found[1])
        self.root = bytes.fromhex(self.process.stdout.readline().rsplit(maxsplit=1)[1])
        return self

    def status(self):
        return ask(self.data / "run" / "operator.sock", "status")

    def pids(self) -> list[int]:
        return [worker["pid"] for worker in self.status()["workers"]]

    def events(self) -> list[str]:
        lines = self.log_path.read_text().splitlines()
        return [json.loads(line)["event"] for line in lines if line.startswith("{")]

    def phone(self, address: int, key: bytes, intent: Intent = Intent.LOG_IN) -> Phone:
        """A connection; as a client does, it comes back when a worker that just started says that it is busy."""
        while True:
            phone = Phone(self, address, key, intent=intent)
            self.phones.append(phone)
            try:
                if intent is Intent.LOG_IN:
                    phone.send(frames.Open(1))
                    phone.expect(frames.Ready)
                else:
                    phone.ping()
            except Closed as closed:
                if closed.args[0] != Code.BUSY:
                    raise
            else:
                return phone

    def call(self, phone: Phone, method: Method, **params):
        phone.send(frames.Request(7, method, methods.pack(params)))
        answer = phone.expect(frames.Response)
        return answer.status, methods.unpack(answer.body)

    def register(self, number: int, key: bytes, mode: str = "replace") -> Phone:
        phone = self.phone(ids.address_of(number, 0), key, Intent.REGISTER)
        assert self.call(phone, Method.REGISTER_REQUEST_CODE)[0] == 0
        sent_to, code = self.codes.read_text().splitlines()[-1].split()
        assert sent_to == f"+{number}"
        status, body = self.call(phone, Method.REGISTER_VERIFY, code=code, mode=mode, name="phone")
        assert status == 0
        phone.address = body["address"]
        phone.expect(frames.Ready)
        return phone

    def end(self, number: int = signal.SIGTERM) -> int:
        for phone in self.phones:
            phone.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        self.process.stdout.close()
        return status


@pytest.fixture
def start(tmp_path):
    servers = []

    def make(**more) -> Server:
        servers.append(Server(tmp_path, **more))
        return servers[-1]

    yield make
    for server in servers:
        server.end(signal.SIGKILL)


def key(n: int) -> bytes:
    return pysodium.crypto_generichash(str(n).encode(), outlen=32)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def upload(server, phone, count):
    one_time = [[n, bytes([n]) * 32] for n in range(count)]
    keys = {"identity": b"i" * 32, "signed_id": 1, "signed_key": b"s" * 32, "signed_signature": b"g" * 64}
    return server.call(phone, Method.KEYS_UPLOAD, one_time=one_time, **keys)


def test_register_fetch_keys_and_send_between_workers_and_after_restarts(start):
    server = start().ready()
    alice, bob = server.register(ALICE, key(1)), server.register(BOB, key(2))
    assert upload(server, bob, 30) == (0, {"count": 30})
    status, body = server.call(alice, Method.KEYS_FETCH, number=BOB)
    assert (status, [row["one_time_id"] for row in body["devices"]]) == (0, [0])
    alice.send(frames.Send(1, bob.address, 5, b"hello"))
    delivered = bob.expect(frames.Deliver)
    assert (delivered.sender, delivered.body) == (alice.address, b"hello")
    alice.send(frames.Send(1, bob.address, 6, b"stays"))
    until(
        lambda: (
            server.call(alice, Method.RECEIPTS_STATUS, number=BOB, items=[[1, 6]]) == (0, {"waiting": [True]})
        )
    )
    assert server.end() == 0

    again = start(workers=3).ready()
    assert again.root == server.root
    bob = again.phone(bob.address, key(2))
    queued = sorted(frame.body for frame in bob.collect(2, frames.Deliver))
    assert queued == [b"hello", b"stays"]
    status, body = again.call(bob, Method.KEYS_STOCK)
    assert (status, body["count"]) == (0, 29)


def test_a_second_registration_takes_over(start):
    server = start().ready()
    old = server.register(ALICE, key(1))
    new = server.register(ALICE, key(3))
    assert ids.device_of(new.address) != ids.device_of(old.address)
    assert old.expect(frames.Notice).notice == methods.Notice.REPLACED
    assert old.closed_with() == Code.REPLACED
    with pytest.raises(Closed) as refused:
        server.phone(old.address, key(1))
    assert refused.value.args[0] == Code.DEVICE_UNKNOWN


def test_a_killed_worker_is_replaced_and_clients_come_back(start):
    server = start().ready()
    alice = server.register(ALICE, key(1))
    before = server.pids()
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert alice.closed_with() is None
    until(lambda: all(w["ready"] and w["restarts"] == 1 for w in server.status()["workers"]))
    assert not set(before) & set(server.pids())
    assert server.call(server.phone(alice.address, key(1)), Method.SERVER_INFO)[0] == 0
    assert server.events().count("worker_died") == 2


def resume(server, phone, number) -> Phone:
    """Back with the newest ticket of an earlier connection."""
    phone.ping()
    found: list[Phone] = []

    def came() -> bool:
        """False while the owner, killed a moment ago, is not there again or not reached by the others yet."""
        try:
            found.append(Phone(server, phone.address, key(number), known=phone.certificate, ticket=phone.tickets[-1]))
        except ConnectionResetError:
            return False
        except Closed as end:
            if end.args[0] not in (Code.BUSY, None):
                raise
        return bool(found)

    until(came)
    back = found[0]
    server.phones.append(back)
    back.send(frames.Open(1))
    back.expect(frames.Ready)
    return back


def test_tickets_work_on_every_worker_and_die_with_the_owner_of_their_device(start):
    server = start().ready()
    alice, bob = server.register(ALICE, key(1)), server.register(BOB, key(2))
    alice, bob = resume(server, alice, 1), resume(server, bob, 2)
    for _ in range(6):
        assert alice.resumed
        assert bob.resumed
        alice, bob = resume(server, alice, 1), resume(server, bob, 2)
    assert server.call(alice, Method.SERVER_INFO)[0] == 0
    owner = worker_of_number(ALICE, 2)
    os.kill(server.pids()[owner], signal.SIGKILL)
    assert alice.closed_with() is None
    until(lambda: all(worker["ready"] for worker in server.status()["workers"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Phone, "ping", lambda self: None)  # its connection is gone
        alice = resume(server, alice, 1)
    assert not alice.resumed
    assert resume(server, alice, 1).resumed
    assert resume(server, bob, 2).resumed


def test_tickets_die_with_the_server(start):
    server = start().ready()
    alice = server.register(ALICE, key(1))
    alice.ping()
    port = server.port
    assert server.end() == 0
    again = start(port=port).ready()
    back = Phone(again, alice.address, key(1), known=alice.certificate, ticket=alice.tickets[-1])
    again.phones.append(back)
    assert not back.resumed
    back.send(frames.Open(1))
    back.expect(frames.Ready)


def test_a_device_that_was_removed_cannot_resume(start):
    server = start().ready()
    first = server.register(ALICE, key(1))
    first.ping()
    second = server.register(ALICE, key(2))
    assert first.closed_with() == Code.REPLACED
    back = Phone(server, first.address, key(1), known=first.certificate, ticket=first.tickets[-1])
    server.phones.append(back)
    assert not back.resumed
    assert back.closed_with() == Code.DEVICE_UNKNOWN
    second.ping()


def test_connections_wait_while_their_worker_is_replaced(start):
    server = start(workers=1).ready()
    alice = server.register(ALICE, key(1))
    (pid,) = server.pids()
    os.kill(pid, signal.SIGKILL)
    assert server.call(server.phone(alice.address, key(1)), Method.SERVER_INFO)[0] == 0


def test_workers_may_have_every_descriptor(start):
    """Whatever soft limit the server was started under."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        server = start().ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for pid in server.pids():
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_workers_do_not_outlive_a_killed_supervisor_and_the_next_server_starts(start):
    server = start().ready()
    alice = server.register(ALICE, key(1))
    pids = server.pids()
    server.end(signal.SIGKILL)
    again = start(port=server.port).ready()
    assert all(gone(pid) for pid in pids)
    assert again.call(again.phone(alice.address, key(1)), Method.SERVER_INFO)[0] == 0


def test_too_many_deaths_stop_everything(start):
    server = start(workers=1).ready()
    for n in range(limits.RESTARTS_MAX + 1):
        until(
            lambda n=n: (
                server.status()["workers"][0]["restarts"] == n and server.status()["workers"][0]["ready"]
            )
        )
        os.kill(server.pids()[0], signal.SIGKILL)
    assert server.process.wait(30) == 1
    assert "restarting does not help" in server.log_path.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_graceful_stop_tells_the_clients(start, number):
    server = start().ready()
    alice = server.register(ALICE, key(1))
    os.kill(server.process.pid, signal.SIGHUP)
    assert server.call(alice, Method.SERVER_INFO)[0] == 0
    server.process.send_signal(number)
    assert alice.closed_with() == Code.SHUTTING_DOWN
    assert server.process.wait(30) == 0
    assert "worker_killed" not in server.events()
    with pytest.raises(LocalError, match="no server answers"):
        server.status()


def test_a_data_directory_has_one_server(start):
    start().ready()
    second = start()
    assert second.process.wait(30) == 1
    assert "is in use by process" in second.log_path.read_text()


def test_a_port_has_one_server(start, tmp_path):
    server = start().ready()
    (tmp_path / "other").mkdir()
    other = Server(tmp_path / "other", port=server.port)
    assert other.process.wait(30) == 1
    other.process.stdout.close()
    assert "it is in use" in other.log_path.read_text()


def test_what_fails_before_it_served_is_not_tried_again(start, tmp_path):
    assert start().ready().end() == 0
    mail = tmp_path / "d" / "g0" / "w1" / "mail"
    shutil.rmtree(mail)
    mail.write_text("not a directory")
    server = start()
    assert server.process.wait(30) == 1
    assert "worker 1 ended with exit status 1 before it served" in server.log_path.read_text()
    assert server.events().count("crashed") == server.events().count("worker_died") == 1


def test_nothing_private_is_logged(start):
    server = start().ready()
    server.register(ALICE, key(1))
    log = server.log_path.read_text()
    assert "registered" in log
    assert str(ALICE) not in log
    assert server.codes.read_text().split()[1] not in log


def wa(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "wa.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | environment)


def test_what_the_operator_sees(start):
    server = start().ready()
    server.register(ALICE, key(1))
    shown = wa("status", "--data-dir", str(server.data), COLUMNS="200")
    assert shown.returncode == 0
    assert f"pid {server.process.pid}, ready" in shown.stdout
    assert all(str(pid) in shown.stdout for pid in server.pids())
    until(lambda: any(worker["stats"].get("registrations") == 1 for worker in server.status()["workers"]))
    metrics = wa("status", "--data-dir", str(server.data), "--metrics")
    assert re.search(r'^wa_registrations_total\{worker="\d"\} 1\.0$', metrics.stdout, re.MULTILINE)
    assert "# TYPE wa_connections gauge" in metrics.stdout


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"WA_LINGER": "5"}, "did you mean WA_LINGER_MS?"),
        ({"WA_LISTEN": "nowhere"}, "expected host:port"),
        ({"WA_LISTEN": "192.0.2.1:7340"}, "cannot listen on 192.0.2.1:7340"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(tmp_path, environment, message):
    failed = wa("serve", "--data-dir", str(tmp_path / "d"), "--log-level", "error", **environment)
    assert failed.returncode == 1
    assert message in failed.stderr
    assert failed.stderr.count("\n") == 1
