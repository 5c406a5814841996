-- Who may see and command what until when (access_grant, the only truth), what was done about it and when the broker
-- had it (access_event, append-only), and what passes between dmpctl and the daemon.

CREATE TABLE IF NOT EXISTS access_grant (
    id text NOT NULL,
    user_name text NOT NULL,
    rae text NOT NULL,
    session text,
    level text NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    created_at timestamptz NOT NULL,
    granted_by text NOT NULL,
    why text NOT NULL,
    queued boolean NOT NULL,
    ended_at timestamptz,
    ended_by text,
    PRIMARY KEY (id)
);

CREATE INDEX IF NOT EXISTS access_grant_live ON access_grant (ends_at) WHERE ended_at IS NULL;

CREATE INDEX IF NOT EXISTS access_grant_user ON access_grant (user_name, ends_at);

CREATE INDEX IF NOT EXISTS access_grant_rae ON access_grant (rae, ends_at);

CREATE TABLE IF NOT EXISTS access_event (
    at timestamptz NOT NULL,
    id text NOT NULL,
    code text NOT NULL,
    grant_id text,
    principal text,
    actor text NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (at, id)
);

CREATE INDEX IF NOT EXISTS access_event_grant ON access_event (grant_id, at);

-- Users that the broker must know, granted or not: without a rule of its own a name has the rights of a RAE so called.
CREATE TABLE IF NOT EXISTS access_user (
    user_name text NOT NULL,
    known_since timestamptz NOT NULL,
    PRIMARY KEY (user_name)
);

-- Principals whose connection the broker shall end, once: their certificate was revoked.
CREATE TABLE IF NOT EXISTS access_kick (
    id text NOT NULL,
    principal text NOT NULL,
    asked_at timestamptz NOT NULL,
    asked_by text NOT NULL,
    PRIMARY KEY (id)
);

-- One row: counts the changes of all these tables but access_event. Whoever changes them updates it first, in the same
-- transaction: so they change one after another, and the daemon sees by one small read whether something changed.
CREATE TABLE IF NOT EXISTS access_change (
    what text NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (what)
);

INSERT INTO access_change VALUES ('access', 0) ON CONFLICT (what) DO NOTHING;

-- When a daemon was last at work, and what keeps it from its work.
CREATE TABLE IF NOT EXISTS access_daemon (
    name text NOT NULL,
    seen_at timestamptz NOT NULL,
    problem text NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (name)
);
