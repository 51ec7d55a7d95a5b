"""The client's tables.  A schema change appends a step here; a released step is never edited.

Message ids use all 64 bits, and SQLite has no unsigned 64-bit integer: they are stored in two's complement (`signed`,
`unsigned`).  Times are Unix milliseconds.
"""

STEPS: tuple[str, ...] = (
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

    CREATE TABLE contacts (
        number INTEGER PRIMARY KEY,
        devices_ms INTEGER,                      -- when the device list was fetched, 0: again, NULL: never
        held INTEGER NOT NULL DEFAULT 0          -- 1: an identity is new and the user has not accepted it
    );
    CREATE TABLE devices (
        address INTEGER PRIMARY KEY,
        number INTEGER NOT NULL,
        known INTEGER NOT NULL,                  -- 0: it appeared after the first contact, not accepted yet
        renew INTEGER NOT NULL DEFAULT 0         -- 1: start a new session before the next envelope
    );
    CREATE INDEX devices_of ON devices (number);
    CREATE TABLE parked (                        -- envelopes of identities that are not accepted yet
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        sender INTEGER NOT NULL,
        number INTEGER NOT NULL,
        id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        body BLOB NOT NULL
    );

    CREATE TABLE messages (
        row INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of arrival on this device
        peer INTEGER NOT NULL,                   -- number of the other side
        sender INTEGER NOT NULL,                 -- address of the sending device
        id INTEGER NOT NULL,
        direction INTEGER NOT NULL,              -- events.Direction
        kind INTEGER NOT NULL,
        body TEXT NOT NULL,
        state INTEGER NOT NULL,                  -- events.State
        reason INTEGER NOT NULL DEFAULT 0,       -- errors.Code when FAILED
        sent_ms INTEGER NOT NULL,                -- the sender's clock
        stored_ms INTEGER NOT NULL,              -- ours
        changed_ms INTEGER NOT NULL,             -- last change of state
        seen INTEGER NOT NULL,                   -- 1: handed to a consumer of events
        read_told INTEGER NOT NULL DEFAULT 0,    -- 1: the server has our read receipt
        UNIQUE (sender, id)
    );
    CREATE INDEX messages_of ON messages (peer, row);
    CREATE INDEX messages_unseen ON messages (row) WHERE seen = 0;
    CREATE INDEX messages_read_untold ON messages (row) WHERE direction = 0 AND state = 4 AND read_told = 0;

    CREATE TABLE received (
        sender INTEGER NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (sender, id)
    ) WITHOUT ROWID;

    CREATE TABLE drafts (                        -- plaintexts that are not encrypted yet
        seq INTEGER PRIMARY KEY AUTOINCREMENT,
        message INTEGER,                         -- messages.row; NULL: not shown to anybody
        number INTEGER NOT NULL,
        device INTEGER NOT NULL,                 -- 0: every device, and copies to our own other ones
        id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        content BLOB NOT NULL
    );
    CREATE INDEX drafts_of ON drafts (number, seq);

    CREATE TABLE outbox (                        -- one envelope each
        seq INTEGER PRIMARY KEY AUTOINCREMENT,   -- order of sending
        message INTEGER,
        recipient INTEGER NOT NULL,
        id INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        own INTEGER NOT NULL,                    -- 1: a copy to our own device, its receipts are not shown
        ciphertext BLOB,                         -- the exact bytes of every resend; NULL once accepted
        state INTEGER NOT NULL,
        reason INTEGER NOT NULL DEFAULT 0,
        changed_ms INTEGER NOT NULL,
        UNIQUE (recipient, id)
    );
    CREATE INDEX outbox_pending ON outbox (seq) WHERE state = 0;
    CREATE INDEX outbox_accepted ON outbox (seq) WHERE state = 1;
    CREATE INDEX outbox_of ON outbox (message);
    """,
    """
    CREATE INDEX outbox_next ON outbox (recipient, seq) WHERE state = 0;
    """,
)


def signed(value: int) -> int:
    """A u64 as SQLite stores it."""
    return value - (1 << 64) if value >= 1 << 63 else value


def unsigned(value: int) -> int:
    return value & (1 << 64) - 1
