"""The account's store: files, ids, receipts that only rise, damage, hostile input."""

import os
import sqlite3
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from wa.client.account import Account
from wa.client.events import Direction, ReceiptChanged, State
from wa.client.inbox import Delivery, Inbox, Receipt
from wa.client.schema import STEPS, signed, unsigned
from wa.client.store import Store
from wa.errors import Code, LocalError
from wa.ids import address_of

OWN = address_of(15551230001, 1)
PEER = [address_of(15551230002, 1), address_of(15551230002, 2)]


def account_in(directory: Path, clock_ms: Callable[[], int] = lambda: 1_800_000_000_000) -> Account:
    account = Account(directory, create=True, clock_ms=clock_ms)
    if not account.is_registered:
        account.prepare_registration("127.0.0.1:1", bytes(32))
        account.finish_registration(OWN)
    return account


def test_files_are_private(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        account = account_in(tmp_path / "account")
    finally:
        os.umask(old)
    for path in (tmp_path / "account").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path.name
    assert stat.S_IMODE((tmp_path / "account").stat().st_mode) == 0o700
    account.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    account = account_in(tmp_path)
    with pytest.raises(LocalError, match=f"process {os.getpid()}"):
        Account(tmp_path)
    account.close()
    Account(tmp_path).close()


@given(st.integers(0, 2**64 - 1))
def test_ids_of_64_bits_survive_sqlite(value: int) -> None:
    assert unsigned(signed(value)) == value
    assert -(2**63) <= signed(value) < 2**63


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 2**41), min_size=1, max_size=40))
def test_message_ids_rise_whatever_the_clock_does(tmp_path_factory: pytest.TempPathFactory, clock: list[int]) -> None:
    times = iter(clock)
    store = Store(tmp_path_factory.mktemp("ids"), create=True, clock_ms=lambda: next(times))
    with store.transaction():
        ids = [store.new_id() for _ in clock]
    assert ids == sorted(set(ids)) and ids[-1] < 2**64
    store.close()


def test_a_restored_backup_does_not_repeat_ids(tmp_path: Path) -> None:
    """Same counter, same millisecond: the random bits tell the two lives apart."""
    ids = []
    for life in ("before", "after"):
        (tmp_path / life).mkdir()
        store = Store(tmp_path / life, create=True, clock_ms=lambda: 1_800_000_000_000)
        ids.append(store.new_id())
        store.close()
    assert len(set(ids)) == 2


def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)
    with pytest.raises(ZeroDivisionError), store.transaction():
        store.put("a", 1)
        raise ZeroDivisionError
    with store.transaction():
        with pytest.raises(ZeroDivisionError), store.savepoint():
            store.put("b", 1)
            raise ZeroDivisionError
        store.put("c", 1)
    assert [store.get_int(name) for name in "abc"] == [None, None, 1]
    store.close()


def test_durability_is_what_the_transaction_asks_for(tmp_path: Path) -> None:
    store = Store(tmp_path, create=True)

    def synchronous() -> int:
        return int(store.db.execute("PRAGMA synchronous").fetchone()[0])

    with store.transaction():
        assert synchronous() == 2
    with store.transaction(durable=False):
        assert synchronous() == 1
    assert synchronous() == 2
    assert store.db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    store.close()


def test_what_is_no_account_is_said(tmp_path: Path) -> None:
    with pytest.raises(LocalError, match="wa register"):
        Account(tmp_path / "nothing")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "account.db").write_bytes(os.urandom(8_192))
    with pytest.raises(LocalError, match="not a readable account"):
        Account(tmp_path / "junk")
    account_in(tmp_path / "newer").close()
    with sqlite3.connect(tmp_path / "newer" / "account.db") as connection:
        connection.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    connection.close()
    with pytest.raises(LocalError, match="upgrade"):
        Account(tmp_path / "newer")
    half = Account(tmp_path / "half", create=True)
    half.prepare_registration("127.0.0.1:1", bytes(32))
    half.close()
    with pytest.raises(LocalError, match="not finished"):
        Account(tmp_path / "half")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_delivery_is_kept_or_parked_and_never_raises(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    account = account_in(tmp_path_factory.mktemp("fuzz"))
    inbox = Inbox(account)
    sender = st.sampled_from([*PEER, OWN, address_of(999_999_999_999_999, 255)])
    deliveries = data.draw(
        st.lists(st.builds(Delivery, sender, st.integers(0, 2**64 - 1), st.integers(0, 15), st.binary(max_size=200)))
    )
    inbox.take(deliveries, durable=False)
    inbox.take(deliveries, durable=False)
    distinct = {(delivery.sender, delivery.id) for delivery in deliveries}
    (shown,) = account.store.db.execute("SELECT count(*) FROM messages").fetchone()
    (parked,) = account.store.db.execute("SELECT count(*) FROM parked").fetchone()
    assert shown + parked == len(distinct)
    account.close()


class Receipts(RuleBasedStateMachine):
    """Receipts in any order, for a message to two devices: what is shown only ever rises."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(os.environ["WA_TEST_RECEIPTS"]) / os.urandom(8).hex()
        self.account = account_in(self.directory)
        self.inbox = Inbox(self.account)
        self.told: dict[int, list[State]] = {}
        self.rows: dict[int, int] = {}  # id -> row

    def teardown(self) -> None:
        self.account.close()

    @precondition(lambda self: len(self.rows) < 3)
    @rule(devices=st.integers(1, 2))
    def send(self, devices: int) -> None:
        account = self.account
        with account.store.transaction(durable=False):
            message_id = account.store.new_id()
            row = account.history.add(
                peer=15551230002,
                sender=OWN,
                message_id=message_id,
                direction=Direction.SENT,
                kind=1,
                text="hello",
                state=State.PENDING,
                sent_ms=0,
                seen=True,
            )
            assert row is not None
            for recipient in PEER[:devices]:
                account.outbox.add(
                    message=row,
                    recipient=recipient,
                    envelope_id=message_id,
                    kind=1,
                    own=False,
                    ciphertext=b"x",
                )
        self.rows[message_id] = row
        self.told[row] = [State.PENDING]

    @precondition(lambda self: self.rows)
    @rule(
        data=st.data(),
        recipient=st.sampled_from(PEER),
        state=st.sampled_from([State.ACCEPTED, State.DELIVERED, State.READ, State.FAILED]),
        code=st.sampled_from([Code.EXPIRED, Code.DROPPED, Code.TRY_LATER, Code.BODY_TOO_LARGE]),
    )
    def receipt(self, data: st.DataObject, recipient: int, state: State, code: Code) -> None:
        message_id = data.draw(st.sampled_from(sorted(self.rows)))
        item = Receipt(recipient, message_id, state, code if state is State.FAILED else 0)
        for event in self.inbox.take([item], durable=False).events:
            assert isinstance(event, ReceiptChanged) and event.id == message_id
            self.told[event.row].append(event.state)

    @rule()
    def restart(self) -> None:
        self.account.close()
        self.account = Account(self.directory)
        self.inbox = Inbox(self.account)

    @invariant()
    def states_only_rise(self) -> None:
        for row, told in self.told.items():
            assert told == sorted(set(told)), "every event is a rise"
            assert self.account.history.get(row).state is told[-1]

    @invariant()
    def an_answered_ciphertext_is_gone_and_a_pending_one_is_whole(self) -> None:
        rows = self.account.store.db.execute("SELECT state, ciphertext FROM outbox")
        assert all((ciphertext == b"x") == (state == State.PENDING) for state, ciphertext in rows)


def test_receipts_only_rise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WA_TEST_RECEIPTS", str(tmp_path))
    run_state_machine_as_test(Receipts, settings=settings(max_examples=20, stateful_step_count=15, deadline=None))
