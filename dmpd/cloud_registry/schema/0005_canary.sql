-- The canary: its runs, and the one row that says whether it may run and who runs it now. The row is the lock between
-- instances (CockroachDB has no advisory locks that hold); its lease is by the database's clock.

CREATE TABLE IF NOT EXISTS canary_state (
    name text NOT NULL,
    enabled boolean NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL,
    why text NOT NULL,
    run uuid,
    holder text,
    lease_until timestamptz,
    PRIMARY KEY (name)
);

-- 'verdict' is 'running' until there is one; 'reasons' and 'detail' are the report's.
CREATE TABLE IF NOT EXISTS canary_run (
    run uuid NOT NULL,
    started_at timestamptz NOT NULL,
    ended_at timestamptz,
    verdict text NOT NULL,
    trigger text NOT NULL,
    host text NOT NULL,
    build text NOT NULL,
    epoch bigint NOT NULL,
    seed bigint NOT NULL,
    clients integer NOT NULL,
    ramp text NOT NULL,
    profile text NOT NULL,
    changes integer NOT NULL,
    took_s double precision,
    connected integer,
    sent bigint,
    lost bigint,
    wrong bigint,
    reordered bigint,
    duplicates bigint,
    late bigint,
    p99s jsonb,
    reasons jsonb,
    detail jsonb,
    PRIMARY KEY (run)
);

CREATE INDEX IF NOT EXISTS canary_run_started ON canary_run (started_at);
