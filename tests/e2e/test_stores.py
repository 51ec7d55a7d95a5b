"""One contract suite for every session store, then what is SQLite's alone: transactions and wrapping."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from wa.e2e.errors import DuplicateMessage, InvalidMessage, InvalidState
from wa.e2e.passphrase import Vault
from wa.e2e.sqlite_store import SqliteStore, create_tables
from wa.e2e.stores import MemoryStore, SessionStore, Table

from .world import ALICE, BOB, Clock, Device, SeededRandom, exchange

LIGHT = {"operations": 1, "memory_bytes": 8192}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(tmp_path / "client.db", isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")  # these tests lose no power
    create_tables(connection)
    create_tables(connection)  # a second time changes nothing
    yield connection
    connection.close()


@pytest.fixture(params=["memory", "sqlite", "sqlite wrapped"])
def store(request: pytest.FixtureRequest, connection: sqlite3.Connection) -> SessionStore:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "sqlite":
        return SqliteStore(connection)
    vault = Vault.create("passphrase", SeededRandom("vault"), **LIGHT)
    return SqliteStore(connection, wrap=vault.wrap, unwrap=vault.unwrap)


# --- the contract -------------------------------------------------------------------------------------------


def test_get_put_replace_delete(store: SessionStore) -> None:
    assert store.get(Table.SESSIONS, b"k") is None
    store.put(Table.SESSIONS, b"k", b"one")
    store.put(Table.SESSIONS, b"k", b"two")
    assert store.get(Table.SESSIONS, b"k") == b"two"
    store.delete(Table.SESSIONS, b"k")
    store.delete(Table.SESSIONS, b"k")
    assert store.get(Table.SESSIONS, b"k") is None


def test_empty_keys_and_values(store: SessionStore) -> None:
    store.put(Table.IDENTITY, b"", b"seed")
    store.put(Table.BASE_KEYS, b"base", b"")
    assert store.get(Table.IDENTITY, b"") == b"seed"
    assert store.get(Table.BASE_KEYS, b"base") == b""


def test_tables_are_apart(store: SessionStore) -> None:
    for number, table in enumerate(Table):
        store.put(table, b"same key", bytes([number]))
    for number, table in enumerate(Table):
        assert store.get(table, b"same key") == bytes([number])
    store.delete(Table.PEERS, b"same key")
    assert [table for table in Table if store.keys(table)] == [
        table for table in Table if table != Table.PEERS
    ]


def test_keys_by_prefix_in_byte_order(store: SessionStore) -> None:
    keys = [b"", b"\x00", b"\x00\xff", b"\x01", b"\x01\x00", b"\x01\xff\xff", b"\x02", b"\xff", b"\xff" * 36]
    for key in reversed(keys):
        store.put(Table.BASE_KEYS, key, b"v")
    assert store.keys(Table.BASE_KEYS) == keys
    assert store.keys(Table.BASE_KEYS, b"\x01") == [b"\x01", b"\x01\x00", b"\x01\xff\xff"]
    assert store.keys(Table.BASE_KEYS, b"\x01\xff") == [b"\x01\xff\xff"]
    assert store.keys(Table.BASE_KEYS, b"\xff") == [b"\xff", b"\xff" * 36]
    assert store.keys(Table.BASE_KEYS, b"\x03") == []


def test_a_conversation_over_restarts(store: SessionStore) -> None:
    clock = Clock()
    alice, bob = Device(ALICE, clock, store=store), Device(BOB, clock)
    alice.sessions.start_session(bob.bundle())
    for _ in range(3):
        exchange(alice, bob)
        alice.sessions = alice.reopened()
        exchange(bob, alice)
        alice.sessions = alice.reopened()
    assert alice.sessions.peer_identity(BOB) == bob.sessions.identity_key()
    alice.sessions.reset_all_sessions()
    assert {table for table in Table if store.keys(table)} == {Table.IDENTITY, Table.COUNTERS, Table.PEERS}


def test_both_stores_end_in_the_same_state(connection: sqlite3.Connection) -> None:
    """The same seeds and the same events, so the same rows."""
    contents = []
    for store in (MemoryStore(), SqliteStore(connection)):
        clock = Clock()
        alice, bob = Device(ALICE, clock, store=store), Device(BOB, clock)
        bob.sessions.start_session(alice.bundle(one_time=False))
        exchange(bob, alice)
        exchange(alice, bob)
        contents.append(
            {table: [(key, store.get(table, key)) for key in store.keys(table)] for table in Table}
        )
    assert contents[0] == contents[1]
    assert all(contents[0].values())


# --- SQLite: the caller's transaction ---------------------------------------------------------------------


def dump(connection: sqlite3.Connection) -> list[str]:
    return list(connection.iterdump())


def conversation(connection: sqlite3.Connection) -> tuple[Device, Device]:
    clock = Clock()
    connection.execute("BEGIN IMMEDIATE")
    alice, bob = Device(ALICE, clock), Device(BOB, clock, store=SqliteStore(connection))
    connection.execute("COMMIT")
    alice.sessions.start_session(bob.bundle())
    return alice, bob


def test_nothing_is_committed_by_the_store(connection: sqlite3.Connection) -> None:
    alice, bob = conversation(connection)
    body = alice.sessions.encrypt(BOB, b"hi")
    before = dump(connection)
    connection.execute("BEGIN IMMEDIATE")
    assert bob.sessions.decrypt(ALICE, body) == b"hi"
    assert connection.in_transaction
    connection.execute("ROLLBACK")
    assert dump(connection) == before
    # Rolled back, the delivery comes again and is read again.
    connection.execute("BEGIN IMMEDIATE")
    assert bob.sessions.decrypt(ALICE, body) == b"hi"
    connection.execute("COMMIT")
    with pytest.raises(DuplicateMessage):
        bob.sessions.decrypt(ALICE, body)


def test_ratchet_and_plaintext_share_one_transaction(connection: sqlite3.Connection) -> None:
    """A failure after the ratchet moved (here: the message id is taken) takes the ratchet back with it."""
    connection.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, text BLOB)")
    connection.execute("INSERT INTO messages VALUES (7, x'00')")
    alice, bob = conversation(connection)
    body = alice.sessions.encrypt(BOB, b"hi")
    before = dump(connection)
    connection.execute("BEGIN IMMEDIATE")
    text = bob.sessions.decrypt(ALICE, body)
    with pytest.raises(sqlite3.IntegrityError):
        connection.execute("INSERT INTO messages VALUES (7, ?)", (text,))
    connection.execute("ROLLBACK")
    assert dump(connection) == before


def test_a_refused_body_writes_nothing(connection: sqlite3.Connection) -> None:
    alice, bob = conversation(connection)
    body = alice.sessions.encrypt(BOB, b"hi")
    before, changes = dump(connection), connection.total_changes
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(InvalidMessage):
        bob.sessions.decrypt(ALICE, body[:-1] + bytes([body[-1] ^ 1]))
    connection.execute("COMMIT")
    assert dump(connection) == before
    assert connection.total_changes == changes


def test_another_connection_sees_only_whole_events(connection: sqlite3.Connection, tmp_path: Path) -> None:
    alice, bob = conversation(connection)
    other = sqlite3.connect(tmp_path / "client.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    bob.sessions.decrypt(ALICE, alice.sessions.encrypt(BOB, b"hi"))
    assert SqliteStore(other).keys(Table.SESSIONS) == []
    connection.execute("COMMIT")
    assert len(SqliteStore(other).keys(Table.SESSIONS)) == 1
    other.close()


def test_a_rolled_back_identity_is_forgotten(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    first = Device(ALICE, Clock(), store=SqliteStore(connection))
    key = first.sessions.identity_key()
    connection.execute("ROLLBACK")
    first.sessions.create_identity()
    assert first.sessions.identity_key() != key


# --- SQLite: wrapping ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrapped", [True, False])
def test_wrapped_no_secret_is_in_the_file_in_the_clear(
    connection: sqlite3.Connection, tmp_path: Path, wrapped: bool
) -> None:
    clear, store = MemoryStore(), SqliteStore(connection)
    if wrapped:
        vault = Vault.create("passphrase", SeededRandom("vault"), **LIGHT)
        store = SqliteStore(connection, wrap=vault.wrap, unwrap=vault.unwrap)
    for kept in (clear, store):
        clock = Clock()
        alice, bob = Device(ALICE, clock, store=kept), Device(BOB, clock)
        alice.sessions.start_session(bob.bundle())
        exchange(alice, bob)
        exchange(bob, alice)
    content = (tmp_path / "client.db").read_bytes()
    secrets = [clear.get(table, key) for table in Table for key in clear.keys(table)]
    looked_for = [
        secret[at : at + 16] for secret in secrets if secret for at in range(0, len(secret) - 15, 16)
    ]
    found = [piece for piece in looked_for if piece in content and any(piece)]
    assert len(looked_for) > 200
    assert len(found) == 0 if wrapped else len(found) > 200


def test_a_row_moved_to_another_place_is_refused(connection: sqlite3.Connection) -> None:
    vault = Vault.create("passphrase", SeededRandom("vault"), **LIGHT)
    store = SqliteStore(connection, wrap=vault.wrap, unwrap=vault.unwrap)
    store.put(Table.ONE_TIME_PREKEYS, b"\0\0\0\1", b"one")
    connection.execute("UPDATE e2e_one_time_prekeys SET key = x'00000002'")
    with pytest.raises(InvalidState):
        store.get(Table.ONE_TIME_PREKEYS, b"\0\0\0\2")
    connection.execute("INSERT INTO e2e_sessions SELECT x'00000001', value FROM e2e_one_time_prekeys")
    with pytest.raises(InvalidState):
        store.get(Table.SESSIONS, b"\0\0\0\1")


def test_wrap_and_unwrap_come_together(connection: sqlite3.Connection) -> None:
    vault = Vault.create("passphrase", SeededRandom("vault"), **LIGHT)
    with pytest.raises(ValueError, match="together"):
        SqliteStore(connection, wrap=vault.wrap)


def test_a_row_that_is_not_bytes_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("INSERT INTO e2e_sessions VALUES (x'01', 'text')")
    with pytest.raises(InvalidState):
        SqliteStore(connection).get(Table.SESSIONS, b"\x01")
