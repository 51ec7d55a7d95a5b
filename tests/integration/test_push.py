"""Push through the whole server: real processes, a real endpoint on loopback, and what an endpoint can do wrong."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.client.test_real_server import SOON
from wa import ids
from wa.client import Client
from wa.errors import Code, RemoteError
from wa.wire.frames import Accepted, Ack, Deliver, Delivered, Send
from wa.wire.methods import Kind, Method

from .endpoint import Endpoint
from .rig import Phone, until
from .test_serve import ALICE, BOB, Server, key, wa

TOKEN = "the-token-of-bobs-device"
SECRET = b"a body that nobody but Bob may see"


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with Endpoint() as endpoint:
        yield endpoint


class Town:
    """A server that pushes, Alice connected, Bob registered with a push token and gone."""

    def __init__(self, path: Path, push: str) -> None:
        self.path = path
        self.server = Server(path, flags=("--push", push, "--log-level", "debug")).ready()
        self.alice = self.server.register(ALICE, key(1))
        self.ids = iter(range(1, 1_000))
        bob = self.server.register(BOB, key(2))
        self.bob = bob.address
        self.register_push(bob, TOKEN)
        self.leave(bob)

    def register_push(self, phone: Phone, token: str) -> None:
        assert self.server.call(phone, Method.PUSH_REGISTER, platform="fcm", token=token) == (0, {})

    def leave(self, phone: Phone) -> None:
        """Returns when the server knows: then an envelope is stored at once, and not delivered first."""
        before = self.count("devices_gone")
        phone.close()
        until(lambda: self.count("devices_gone") > before)

    def come(self) -> Phone:
        return self.server.phone(self.bob, key(2))

    def send(self, count: int = 1, kind: Kind = Kind.TEXT) -> None:
        """Alice hears that Bob's mailbox has them, and of earlier ones that were delivered."""
        waiting = {next(self.ids) for _ in range(count)}
        self.alice.send(*(Send(kind, self.bob, id_, SECRET) for id_ in sorted(waiting)))
        while waiting:
            frame = self.alice.next()
            if isinstance(frame, Accepted):
                waiting.remove(frame.id)
            else:
                assert isinstance(frame, Delivered) and frame.id not in waiting, frame

    def count(self, name: str) -> int:
        return sum(worker["stats"].get(name, 0) for worker in self.server.status()["workers"])

    def settled(self) -> None:
        """Returns when no wake-up is on its way any more."""
        until(lambda: self.count("push_wakes") > 0 and self.count("push_pending") == 0)

    def gateway(self) -> dict[str, Any]:
        (helper,) = self.server.status()["helpers"]
        return dict(helper)


Start = Callable[[str], Town]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    towns = []

    def make(push: str) -> Town:
        towns.append(Town(tmp_path, push))
        return towns[-1]

    yield make
    for town in towns:
        town.server.end(signal.SIGKILL)


def fetch(town: Town, count: int) -> Phone:
    """Bob comes and takes everything."""
    bob = town.come()
    for frame in bob.collect(count, Deliver):
        bob.send(Ack(frame.seq))
    bob.ping()
    return bob


def test_one_push_for_many_messages_and_another_after_the_device_was_online(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    town.send(20)
    endpoint.wait_for(1)
    town.send(20)
    bob = fetch(town, 40)
    town.alice.send(Send(Kind.TEXT, town.bob, next(town.ids), SECRET))
    bob.send(Ack(bob.expect(Deliver).seq))
    bob.ping()
    town.leave(bob)
    assert len(endpoint.raw) == 1
    town.send(3)
    endpoint.wait_for(2)
    assert endpoint.tokens() == [TOKEN, TOKEN]
    assert town.server.end() == 0
    assert len(endpoint.raw) == 2


def test_what_leaves_names_nobody_and_tells_nothing(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    town.send(2, Kind.CALL)
    endpoint.wait_for(1)
    (raw,), (body,) = endpoint.raw, endpoint.bodies
    assert body.keys() == {"platform", "token", "id"}
    assert (body["platform"], body["token"], len(body["id"])) == ("fcm", TOKEN, 32)
    sender = town.alice.address
    for number in (ALICE, BOB, sender, town.bob):
        for form in (str(number).encode(), b"%x" % number, number.to_bytes(8, "big"), number.to_bytes(8, "little")):
            assert form not in raw
    assert SECRET not in raw and b"call" not in raw
    assert bytes.fromhex(body["id"]) not in (sender.to_bytes(16, "big"), town.bob.to_bytes(16, "big"))
    assert TOKEN not in town.server.log_path.read_text()


def test_a_connection_that_ends_with_something_undelivered_wakes(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    bob = town.come()
    town.alice.send(Send(Kind.TEXT, town.bob, next(town.ids), SECRET))
    bob.expect(Deliver)
    assert endpoint.raw == []
    town.leave(bob)
    endpoint.wait_for(1)


def test_without_a_token_nobody_is_woken(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    bob = town.come()
    assert town.server.call(bob, Method.PUSH_UNREGISTER) == (0, {})
    town.leave(bob)
    town.send()
    until(lambda: town.count("wakes") == 1)
    assert town.count("push_wakes") == 0
    assert town.server.end() == 0
    assert endpoint.raw == []


def test_a_token_that_is_gone_is_unregistered(start: Start, endpoint: Endpoint) -> None:
    endpoint.answer = lambda body: (410, {})
    town = start(f"webhook:{endpoint.url}")
    town.send()
    until(lambda: "push_token_gone" in town.server.events())
    fetch(town, 1).close()
    until(lambda: town.count("devices_gone") == 2)
    town.send()
    until(lambda: town.count("wakes") == 2)
    assert len(endpoint.raw) == 1
    # With a new token it is woken again.
    bob = fetch(town, 1)
    endpoint.answer = lambda body: (200, {})
    town.register_push(bob, "a-new-one")
    town.leave(bob)
    town.send()
    endpoint.wait_for(2)
    assert endpoint.tokens() == [TOKEN, "a-new-one"]


def test_an_endpoint_that_is_down_for_a_while(start: Start, endpoint: Endpoint) -> None:
    answers = iter([(503, {}), (429, {"Retry-After": "1"})])
    endpoint.answer = lambda body: next(answers, (200, {}))
    town = start(f"webhook:{endpoint.url}")
    town.send(5)
    endpoint.wait_for(3)
    town.settled()
    assert len({body["id"] for body in endpoint.bodies}) == 1
    until(lambda: bool(town.gateway()["stats"].get("push_sent") == 1))
    assert town.gateway()["stats"]["push_failed"] == 2
    assert {"push_fails", "push_works_again"} <= set(town.server.events())


def test_what_the_operator_sees(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    town.send()
    until(lambda: bool(town.gateway()["stats"].get("push_sent") == 1))
    data = str(town.server.data)
    shown = wa("status", "--data-dir", data, COLUMNS="200").stdout
    (row,) = [line for line in shown.splitlines() if "push" in line]
    assert str(town.gateway()["pid"]) in row and "ready" in row
    metrics = wa("status", "--data-dir", data, "--metrics").stdout
    assert 'wa_push_sent_total{worker="push"} 1.0' in metrics
    assert "# TYPE wa_push_queued gauge" in metrics and "# TYPE wa_push_pending gauge" in metrics


def test_after_a_refusal_the_next_message_wakes_again(start: Start, endpoint: Endpoint) -> None:
    endpoint.answer = lambda body: (403, {})
    town = start(f"webhook:{endpoint.url}")
    town.send()
    town.settled()
    town.send()
    endpoint.wait_for(2)
    assert len({body["id"] for body in endpoint.bodies}) == 2


def test_a_slow_endpoint_slows_down_nobody(start: Start, endpoint: Endpoint) -> None:
    endpoint.open.clear()
    town = start(f"webhook:{endpoint.url}")
    town.send()
    endpoint.wait_for(1)
    town.send(50)
    fetch(town, 51)
    until(lambda: town.count("push_pending") == 1)
    endpoint.open.set()
    town.settled()


def test_a_killed_gateway_is_started_again_and_wakes(start: Start, endpoint: Endpoint) -> None:
    town = start(f"webhook:{endpoint.url}")
    until(lambda: bool(town.gateway()["ready"]))
    workers = town.server.pids()
    os.kill(town.gateway()["pid"], signal.SIGKILL)
    town.send()  # while there is no gateway: it waits in the worker
    endpoint.wait_for(1)
    until(lambda: bool(town.gateway()["ready"]))
    assert town.gateway()["restarts"] == 1
    assert town.server.pids() == workers
    assert town.server.events().count("helper_died") == 1
    assert "worker_died" not in town.server.events()


def test_what_a_killed_gateway_had_taken_is_sent_by_the_next(start: Start, endpoint: Endpoint) -> None:
    endpoint.open.clear()
    town = start(f"webhook:{endpoint.url}")
    town.send()
    endpoint.wait_for(1)
    first = town.gateway()["pid"]
    until(lambda: bool(town.gateway()["ready"]))
    os.kill(first, signal.SIGKILL)
    endpoint.open.set()
    endpoint.wait_for(2)
    assert len({body["id"] for body in endpoint.bodies}) == 1
    town.settled()


def test_a_gateway_that_always_dies_stops_nobody(start: Start, tmp_path: Path) -> None:
    in_the_way = tmp_path / "d" / "run" / "push.sock"
    in_the_way.mkdir(parents=True)  # it cannot have its socket
    town = start(f"file:{tmp_path / 'pushes'}")
    until(lambda: bool(town.gateway()["restarts"] >= 2))
    town.send(3)
    assert "crashed" in town.server.events()
    in_the_way.rmdir()
    until((tmp_path / "pushes").exists)
    assert town.server.events().count("worker_died") == 0


def test_the_file_transport_and_the_sdk(tmp_path: Path) -> None:
    pushes = tmp_path / "pushes"
    server = Server(tmp_path, flags=("--push", f"file:{pushes}")).ready()

    async def main() -> str:
        async with Client(tmp_path / "alice", timing=SOON) as alice:
            async with Client(tmp_path / "bob", timing=SOON) as bob:
                await bob.connected()
                with pytest.raises(RemoteError) as refused:
                    await bob.register_push("NOT A PLATFORM", "t")
                assert refused.value.code is Code.BAD_PARAMS
                await bob.register_push("apns", "old")
                await bob.unregister_push()
                await bob.register_push("apns", TOKEN)
            message = await alice.send(f"+{BOB}", "hello")
            await message.accepted()
            while not pushes.exists():
                await asyncio.sleep(0.01)
        return pushes.read_text()

    async def register(name: str, number: int) -> None:
        await Client.register(
            tmp_path / name,
            f"+{number}",
            server=f"127.0.0.1:{server.port}",
            root_key=server.root,
            ask_code=lambda: server.codes.read_text().split()[-1],
        )

    try:
        for name, number in (("alice", ALICE), ("bob", BOB)):
            asyncio.run(register(name, number))
        (line,) = asyncio.run(main()).splitlines()
    finally:
        server.end(signal.SIGKILL)
    assert {**json.loads(line), "id": ""} == {"platform": "apns", "token": TOKEN, "id": ""}


def test_tokens_stay_when_the_number_of_workers_changes(tmp_path: Path) -> None:
    pushes = tmp_path / "pushes"
    town = Town(tmp_path, f"file:{pushes}")
    assert town.server.end() == 0
    town.server = Server(tmp_path, workers=3, flags=("--push", f"file:{pushes}")).ready()
    try:
        town.alice = town.server.phone(ids.address_of(ALICE, 1), key(1))
        town.send()
        until(pushes.exists)
    finally:
        town.server.end(signal.SIGKILL)
    assert json.loads(pushes.read_text())["token"] == TOKEN
