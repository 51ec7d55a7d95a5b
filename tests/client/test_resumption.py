"""The client comes back with the ticket of its last connection, uses it once, and needs nobody to tell it."""

import asyncio
import shutil
import sqlite3
from pathlib import Path

from tests.client.harness import ALICE, BOB, World, has_ticket, run, texts
from tests.client.test_store import account_in
from wa import limits
from wa.client import Connected
from wa.ids import address_of, parse_number
from wa.noise.records import Ticket

ALICE_1 = address_of(parse_number(ALICE), 1)
SECRET = bytes(range(32)) + b"opaque"


def test_it_resumes_by_itself(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.register(BOB)
        for _ in range(4):
            await world.visit(ALICE)
        assert world.server.handshakes == ["done", "done", "done", "resumed", "resumed", "resumed"]
        async with world.client(ALICE) as alice, world.client(BOB) as bob:
            await (await bob.send(ALICE, "and it works")).delivered()
            assert await texts(alice, 1) == ["and it works"]

    run(tmp_path, scenario)


def test_it_resumes_after_a_cut(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        async with world.client(ALICE) as alice:
            for n in range(3):
                await world.until(lambda n=n: world.server.logins == n + 1 and has_ticket(alice))
                world.server.disconnect_all()
            await world.until(lambda: world.server.logins == 4)
        assert world.server.handshakes == ["done", "done", "resumed", "resumed", "resumed"]

    run(tmp_path, scenario)


def test_a_restarted_server_is_met_by_ik_on_the_same_connection(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE)
        world.server.tickets.clear()
        async with world.client(ALICE) as alice:
            while alice.status is None:
                await asyncio.sleep(0)
            assert isinstance(alice.status, Connected)
        assert world.server.handshakes == ["done", "done", "done"]
        assert world.server.logins == 2

    run(tmp_path, scenario)


def test_a_ticket_that_somebody_else_used_costs_one_connection(tmp_path: Path) -> None:
    """Not a wait, and nobody is told that the connection was lost."""

    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE)
        world.server.faults.spoil_tickets = 1
        async with world.client(ALICE) as alice:
            while alice.status is None:
                await asyncio.sleep(0)
            assert isinstance(alice.status, Connected)
        assert world.server.handshakes == ["done", "done", "resumed", "done"]

    run(tmp_path, scenario)


def test_a_ticket_past_its_time_is_not_shown(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE, clock_ms=world.clock)
        world.clock_step_ms = limits.TICKET_LIFETIME_S * 1_000
        await world.visit(ALICE, clock_ms=world.clock)
        assert world.server.handshakes == ["done", "done", "done"]

    run(tmp_path, scenario)


def test_the_ticket_of_a_restored_backup_is_not_shown(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE)
        shutil.copytree(tmp_path / ALICE, tmp_path / "backup")
        await world.visit(ALICE)
        shutil.rmtree(tmp_path / ALICE)
        (tmp_path / "backup").rename(tmp_path / ALICE)
        await world.visit(ALICE)
        assert world.server.handshakes == ["done", "done", "resumed", "done"]

    run(tmp_path, scenario)


def test_registering_again_forgets_the_ticket(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE)
        await world.visit(ALICE)
        await world.register(ALICE)
        await world.visit(ALICE)
        assert world.server.handshakes == ["done"] * 4

    run(tmp_path, scenario)


def test_a_wrapped_account_wraps_its_ticket(tmp_path: Path) -> None:
    async def scenario(world: World) -> None:
        await world.register(ALICE, passphrase="correct horse")
        for _ in range(2):
            await world.visit(ALICE, passphrase="correct horse")
        assert world.server.handshakes == ["done", "done", "resumed"]
        psk, sealed = world.server.tickets[ALICE_1]
        files = b"".join(path.read_bytes() for path in (tmp_path / ALICE).iterdir() if path.is_file())
        assert psk not in files
        assert sealed not in files

    run(tmp_path, scenario)


# --- the store ----------------------------------------------------------------------------------------


def test_taken_once(tmp_path: Path) -> None:
    account = account_in(tmp_path)
    assert account.take_ticket() is None
    account.keep_ticket(60, SECRET)
    assert account.take_ticket() == Ticket(b"opaque", SECRET[:32])
    assert account.take_ticket() is None
    account.close()


def test_it_is_gone_before_it_is_shown(tmp_path: Path) -> None:
    """A process that dies right after taking it finds none the next time."""
    account = account_in(tmp_path)
    account.keep_ticket(60, SECRET)
    assert account.take_ticket() is not None
    with sqlite3.connect(account.store.path) as other:
        assert other.execute("SELECT count(*) FROM settings WHERE name = 'ticket'").fetchone() == (0,)
    other.close()
    account.close()


def test_a_lifetime_from_a_server_is_bounded(tmp_path: Path) -> None:
    clock = [1_000]
    account = account_in(tmp_path, clock_ms=lambda: clock[0])
    account.keep_ticket(2**64 - 1, SECRET)
    clock[0] += limits.TICKET_LIFETIME_S * 1_000
    assert account.take_ticket() is None
    account.close()


def test_a_ticket_that_cannot_be_deleted_is_not_used(tmp_path: Path) -> None:
    account = account_in(tmp_path)
    account.keep_ticket(60, SECRET)
    account.store.db.execute("PRAGMA query_only = ON")
    assert account.take_ticket() is None
    account.keep_ticket(60, SECRET)  # cannot be kept either, and that is no fault
    account.store.db.execute("PRAGMA query_only = OFF")
    assert account.take_ticket() is not None
    account.close()
