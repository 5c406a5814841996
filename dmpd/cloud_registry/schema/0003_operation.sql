-- What keeps the registry at work: a row per partition that proves that the database takes writes, and indexes for what
-- removes old rows. A tombstone is never changed again, so its index costs nothing while a session lives.

CREATE TABLE IF NOT EXISTS sink_probe (
    kafka_partition integer NOT NULL,
    probed_at timestamptz NOT NULL,
    PRIMARY KEY (kafka_partition)
);

CREATE INDEX IF NOT EXISTS device_session_closed ON device_session (closed_at) WHERE closed_at IS NOT NULL;
