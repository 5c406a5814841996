-- Devices and RAEs as they are now, and what happened to them. Only SQL that PostgreSQL 15 and CockroachDB take alike.
-- No foreign keys (rows of one Kafka key never wait for those of another) and no unique index but primary keys.

CREATE TABLE IF NOT EXISTS rae (
    rae text NOT NULL,
    epoch bigint NOT NULL,
    run bigint NOT NULL,
    state text NOT NULL,
    status jsonb NOT NULL,
    heard_at timestamptz,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (rae)
);

CREATE TABLE IF NOT EXISTS device_session (
    rae text NOT NULL,
    session uuid NOT NULL,
    epoch bigint NOT NULL,
    rev bigint NOT NULL,
    seq bigint NOT NULL,
    stale boolean NOT NULL,
    absent_at timestamptz,
    closed_at timestamptz,
    closed_reason text,
    successor uuid,
    esn text,
    esn_source text,
    manufacturer text,
    model text,
    name text,
    state text NOT NULL,
    first_seen timestamptz,
    onboarded_at timestamptz,
    changed_at timestamptz NOT NULL,
    kafka_partition integer NOT NULL,
    kafka_offset bigint NOT NULL,
    applied_at timestamptz NOT NULL,
    PRIMARY KEY (rae, session)
) WITH (fillfactor = 80);

-- Interfaces have no key of their own (a MAC may stand twice): the place in the device's list is it.
CREATE TABLE IF NOT EXISTS device_interface (
    rae text NOT NULL,
    session uuid NOT NULL,
    place integer NOT NULL,
    mac text NOT NULL,
    ip4 text,
    ip6 jsonb NOT NULL,
    hostname text,
    vendor_class text,
    client_id text,
    port text,
    oui_vendor text,
    mac_random boolean NOT NULL,
    PRIMARY KEY (rae, session, place)
);

CREATE TABLE IF NOT EXISTS device_attribute (
    rae text NOT NULL,
    session uuid NOT NULL,
    name text NOT NULL,
    value jsonb NOT NULL,
    PRIMARY KEY (rae, session, name)
) WITH (fillfactor = 80);

-- What happened: 'session' is a device session or the word 'rae'. The key is the message's own identity, so that a
-- message that comes twice is one row. The index is for what removes old rows: by the database's clock, never a RAE's.
CREATE TABLE IF NOT EXISTS device_event (
    rae text NOT NULL,
    session text NOT NULL,
    at timestamptz NOT NULL,
    seq bigint NOT NULL,
    code text NOT NULL,
    epoch bigint NOT NULL,
    detail jsonb NOT NULL,
    recorded_at timestamptz NOT NULL,
    PRIMARY KEY (rae, session, at, seq, code)
);

CREATE INDEX IF NOT EXISTS device_event_recorded ON device_event (recorded_at);
