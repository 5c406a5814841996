"""The database of a RAE as SQL: numbered steps, forward only. ``store`` runs them; nothing else reads this."""

from typing import Final

MIGRATIONS: Final = (
    """
    CREATE TABLE meta (
        name TEXT PRIMARY KEY,
        value TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE device (
        session TEXT PRIMARY KEY,
        epoch INTEGER NOT NULL,   -- of its latest outbox row: the first of an epoch is a checkpoint
        rev INTEGER NOT NULL,
        first_seq INTEGER NOT NULL,   -- its onboarding's row
        record BLOB NOT NULL,
        closed TEXT,
        closed_at_ms INTEGER
    ) WITHOUT ROWID;
    CREATE TABLE outbox (
        seq INTEGER PRIMARY KEY,
        session TEXT NOT NULL,
        kind TEXT NOT NULL,
        epoch INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        bytes INTEGER NOT NULL,
        payload BLOB NOT NULL
    );
    CREATE INDEX outbox_session ON outbox (session, seq);
    """,
    """
    ALTER TABLE outbox ADD COLUMN requester TEXT;   -- of a response: the last level of its topic
    CREATE TABLE request (
        requester TEXT NOT NULL,
        id TEXT NOT NULL,
        session TEXT NOT NULL,
        verb TEXT NOT NULL,
        received_ms INTEGER NOT NULL,
        response BLOB,   -- absent while it runs
        PRIMARY KEY (requester, id)
    ) WITHOUT ROWID;
    CREATE INDEX request_received ON request (received_ms);
    """,
)
