"""The SQL of the sink: constant texts that PostgreSQL and CockroachDB take alike.

Keys travel as two binary arrays, rows as one JSON parameter (measured: half the client's time of arrays per column,
and no temporary table). Each statement touches one table once.
"""

from typing import Final, LiteralString

_KEYS: Final = "unnest(%b::text[], %b::text[]::uuid[]) AS k (rae, session)"

_HEAD: Final = """
SELECT s.rae, s.session::text, s.epoch, s.rev, s.seq, s.stale, s.absent_at IS NOT NULL, s.closed_reason,
    s.successor::text, s.changed_at, s.esn, s.esn_source, s.manufacturer, s.model, s.name, s.state, s.first_seen,
    s.onboarded_at
"""

READ: Final[LiteralString] = f"{_HEAD} FROM {_KEYS} JOIN device_session s ON s.rae = k.rae AND s.session = k.session"

LOCK: Final[LiteralString] = f"{READ} ORDER BY s.rae, s.session FOR UPDATE OF s"

READ_PLACES: Final[LiteralString] = f"""
SELECT s.rae, s.session::text, s.epoch, s.rev, s.seq, NOT s.stale AND s.absent_at IS NULL AND s.closed_at IS NULL,
    s.kafka_partition, s.kafka_offset
FROM {_KEYS} JOIN device_session s ON s.rae = k.rae AND s.session = k.session
"""  # noqa: S608 - constants

READ_INTERFACES: Final[LiteralString] = f"""
SELECT i.rae, i.session::text, i.mac, i.ip4, i.ip6, i.hostname, i.vendor_class, i.client_id, i.port, i.oui_vendor,
    i.mac_random
FROM {_KEYS} JOIN device_interface i ON i.rae = k.rae AND i.session = k.session
ORDER BY i.rae, i.session, i.place
"""  # noqa: S608 - constants

READ_ATTRIBUTES: Final[LiteralString] = f"""
SELECT a.rae, a.session::text, a.name, a.value::text
FROM {_KEYS} JOIN device_attribute a ON a.rae = k.rae AND a.session = k.session
"""  # noqa: S608 - constants

# In one statement, hence of one moment, and one answer of the database where each of the four above is another. What is
# longer than the third parameter stays in the database: there stands an empty text instead.
READ_WHOLE: Final[LiteralString] = f"""
SELECT s.rae, s.session::text, s.epoch, s.rev, s.seq, NOT s.stale AND s.absent_at IS NULL AND s.closed_at IS NULL,
    s.kafka_partition, s.kafka_offset, s.esn, s.esn_source, s.manufacturer, s.model, s.name, s.state, s.first_seen,
    s.onboarded_at,
    (SELECT CASE WHEN octet_length(t.content) <= m.bytes_max THEN t.content ELSE '' END
        FROM (SELECT jsonb_agg(jsonb_build_array(i.mac, i.ip4, i.ip6, i.hostname, i.vendor_class, i.client_id, i.port,
                i.oui_vendor, i.mac_random) ORDER BY i.place)::text AS content
            FROM device_interface AS i WHERE i.rae = s.rae AND i.session = s.session) AS t
        WHERE t.content IS NOT NULL),
    (SELECT CASE WHEN octet_length(t.content) <= m.bytes_max THEN t.content ELSE '' END
        FROM (SELECT jsonb_object_agg(a.name, a.value)::text AS content
            FROM device_attribute AS a WHERE a.rae = s.rae AND a.session = s.session) AS t
        WHERE t.content IS NOT NULL)
FROM {_KEYS} CROSS JOIN (SELECT %s::bigint AS bytes_max) AS m
    JOIN device_session s ON s.rae = k.rae AND s.session = k.session
"""  # noqa: S608 - constants

# What READ_INTERFACES and READ_ATTRIBUTES would return of each.
CONTENT_BYTES: Final[LiteralString] = f"""
SELECT k.rae, k.session::text,
    coalesce((SELECT sum(octet_length(a.name) + octet_length(a.value::text))
        FROM device_attribute AS a WHERE a.rae = k.rae AND a.session = k.session), 0)::bigint
    + coalesce((SELECT sum(octet_length(concat(i.hostname, i.vendor_class, i.client_id, i.port, i.oui_vendor)))
        FROM device_interface AS i WHERE i.rae = k.rae AND i.session = k.session), 0)::bigint
FROM {_KEYS}
"""  # noqa: S608 - constants

PROBE: Final[LiteralString] = """
INSERT INTO sink_probe (kafka_partition, probed_at) VALUES (%s, clock_timestamp())
ON CONFLICT (kafka_partition) DO UPDATE SET probed_at = excluded.probed_at
"""

PHANTOMS: Final[LiteralString] = """
SELECT session::text FROM device_session
WHERE rae = %s AND session BETWEEN %s::text::uuid AND %s::text::uuid
    AND closed_at IS NULL AND absent_at IS NULL AND (epoch, seq) < (%s, %s)
"""

_SESSION_ROWS: Final = """jsonb_to_recordset(%s::text::jsonb) AS u (
    rae text, session uuid, epoch bigint, rev bigint, seq bigint, stale boolean, absent boolean, closed text,
    successor uuid, esn text, esn_source text, manufacturer text, model text, name text, state text,
    first_seen timestamptz, onboarded_at timestamptz, changed_at timestamptz, kafka_partition integer,
    kafka_offset bigint)"""

INSERT_SESSIONS: Final[LiteralString] = f"""
INSERT INTO device_session (rae, session, epoch, rev, seq, stale, absent_at, closed_at, closed_reason, successor, esn,
    esn_source, manufacturer, model, name, state, first_seen, onboarded_at, changed_at, kafka_partition, kafka_offset,
    applied_at)
SELECT u.rae, u.session, u.epoch, u.rev, u.seq, u.stale, CASE WHEN u.absent THEN clock_timestamp() END,
    CASE WHEN u.closed IS NOT NULL THEN clock_timestamp() END, u.closed, u.successor, u.esn, u.esn_source,
    u.manufacturer, u.model, u.name, u.state, u.first_seen, u.onboarded_at, u.changed_at, u.kafka_partition,
    u.kafka_offset, clock_timestamp()
FROM {_SESSION_ROWS}
ON CONFLICT (rae, session) DO NOTHING
"""  # noqa: S608 - constants

UPDATE_SESSIONS: Final[LiteralString] = f"""
UPDATE device_session AS s SET epoch = u.epoch, rev = u.rev, seq = u.seq, stale = u.stale,
    absent_at = CASE WHEN u.absent THEN coalesce(s.absent_at, clock_timestamp()) END,
    closed_at = CASE WHEN u.closed IS NOT NULL THEN clock_timestamp() END,
    closed_reason = u.closed, successor = u.successor, esn = u.esn, esn_source = u.esn_source,
    manufacturer = u.manufacturer, model = u.model, name = u.name, state = u.state, first_seen = u.first_seen,
    onboarded_at = u.onboarded_at, changed_at = u.changed_at, kafka_partition = u.kafka_partition,
    kafka_offset = u.kafka_offset, applied_at = clock_timestamp()
FROM {_SESSION_ROWS}
WHERE s.rae = u.rae AND s.session = u.session
"""  # noqa: S608 - constants

_IS_EXACT: Final = "CASE WHEN s.stale OR s.absent_at IS NOT NULL OR s.closed_at IS NOT NULL THEN false ELSE true END"
"""By CASE, because of a table without statistics the planner believes that hardly any row is neither absent nor closed,
and joins by reading all for each."""

# Rows that only go on: the next revisions of their epoch, which change state and attributes and remove none. A row that
# is not exactly where the worker knows it to be is left as it is, children too.
UPDATE_STRAIGHT: Final[LiteralString] = f"""
WITH s AS (
    UPDATE device_session AS s SET rev = u.rev, seq = u.seq, state = u.state, changed_at = u.changed_at,
        kafka_partition = %s, kafka_offset = u.kafka_offset, applied_at = clock_timestamp()
    FROM jsonb_to_recordset(%s::text::jsonb) AS u (
        rae text, session uuid, epoch bigint, was_rev bigint, was_partition integer, was_offset bigint, rev bigint,
        seq bigint, state text, changed_at timestamptz, kafka_offset bigint, attributes jsonb, event_at timestamptz,
        event_seq bigint, event jsonb)
    WHERE s.rae = u.rae AND s.session = u.session AND s.epoch = u.epoch AND s.rev = u.was_rev
        AND s.kafka_partition = u.was_partition AND s.kafka_offset = u.was_offset
        AND {_IS_EXACT}
    RETURNING s.rae, s.session, s.epoch, u.attributes, u.event_at, u.event_seq, u.event
), a AS (
    INSERT INTO device_attribute (rae, session, name, value)
    SELECT s.rae, s.session, n.key, n.value FROM s CROSS JOIN LATERAL jsonb_each(s.attributes) AS n (key, value)
    ON CONFLICT (rae, session, name) DO UPDATE SET value = excluded.value
), e AS (
    INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
    SELECT s.rae, s.session::text, s.event_at, s.event_seq, 'state', s.epoch, s.event, clock_timestamp()
    FROM s WHERE s.event_at IS NOT NULL
    ON CONFLICT (rae, session, at, seq, code) DO NOTHING
)
SELECT count(*) FROM s
"""  # noqa: S608 - constants

# Changes that go on from where a row is, which nobody has read: one answer of the database for what else takes two.
# What the row was before (``o``) decides what differs and what is told; one that is not that any more when its lock is
# had, or that only the full rules can judge, is left as it is, and not locked where that shows before. Attributes are
# counted, because a row may not grow without bound.
UPDATE_UNREAD: Final[LiteralString] = f"""
WITH o AS (
    SELECT u.*, s.state AS was, s.kafka_partition AS was_partition, s.kafka_offset AS was_offset, h.old
    FROM jsonb_to_recordset(%s::text::jsonb) AS u (
        place integer, rae text, session uuid, epoch bigint, base bigint, rev bigint, seq bigint, state text,
        changed_at timestamptz, kafka_offset bigint, attributes jsonb, old_max integer, event_at timestamptz,
        event_seq bigint, event jsonb)
    JOIN device_session AS s ON s.rae = u.rae AND s.session = u.session
    CROSS JOIN LATERAL (
        SELECT count(*) AS many, jsonb_object_agg(a.name, a.value) AS old
        FROM device_attribute AS a WHERE a.rae = s.rae AND a.session = s.session
    ) AS h
    WHERE s.epoch = u.epoch AND s.rev = u.base AND {_IS_EXACT} AND h.many <= u.old_max
), s AS (
    UPDATE device_session AS s SET rev = o.rev, seq = greatest(s.seq, o.seq), state = coalesce(o.state, o.was),
        changed_at = o.changed_at, kafka_partition = %s, kafka_offset = o.kafka_offset, applied_at = clock_timestamp()
    FROM o
    WHERE s.rae = o.rae AND s.session = o.session AND s.epoch = o.epoch AND s.rev = o.base AND s.state = o.was
        AND s.kafka_partition = o.was_partition AND s.kafka_offset = o.was_offset AND {_IS_EXACT}
    RETURNING o.place, s.rae, s.session, s.epoch, o.attributes, o.old, o.was, o.state, o.event_at, o.event_seq, o.event
), a AS (
    INSERT INTO device_attribute (rae, session, name, value)
    SELECT s.rae, s.session, n.key, n.value FROM s CROSS JOIN LATERAL jsonb_each(s.attributes) AS n (key, value)
    WHERE s.old -> n.key IS DISTINCT FROM n.value
    ON CONFLICT (rae, session, name) DO UPDATE SET value = excluded.value
), e AS (
    INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
    SELECT s.rae, s.session::text, s.event_at, s.event_seq, 'state', s.epoch,
        s.event || jsonb_build_object('from', s.was), clock_timestamp()
    FROM s WHERE s.state <> s.was
    ON CONFLICT (rae, session, at, seq, code) DO NOTHING
)
SELECT place FROM s
"""  # noqa: S608 - constants

# Rows that did not exist when they were looked for, nor their children, so that nothing is looked for again: a third of
# the database's time less than with ON CONFLICT. If one exists after all, that is 23505 and nothing is written.
INSERT_STRAIGHT: Final[LiteralString] = """
WITH u AS (
    SELECT u.* FROM jsonb_to_recordset(%s::text::jsonb) AS u (
        rae text, session uuid, epoch bigint, rev bigint, seq bigint, esn text, esn_source text, manufacturer text,
        model text, name text, state text, first_seen timestamptz, onboarded_at timestamptz, changed_at timestamptz,
        kafka_offset bigint, attributes jsonb, event_at timestamptz, event_seq bigint, event jsonb)
), i AS (
    INSERT INTO device_interface (rae, session, place, mac, ip4, ip6, hostname, vendor_class, client_id, port,
        oui_vendor, mac_random)
    SELECT n.rae, n.session, n.place, n.mac, n.ip4, n.ip6, n.hostname, n.vendor_class, n.client_id, n.port,
        n.oui_vendor, n.mac_random
    FROM jsonb_to_recordset(%s::text::jsonb) AS n (
        rae text, session uuid, place integer, mac text, ip4 text, ip6 jsonb, hostname text, vendor_class text,
        client_id text, port text, oui_vendor text, mac_random boolean)
), a AS (
    INSERT INTO device_attribute (rae, session, name, value)
    SELECT u.rae, u.session, n.key, n.value FROM u CROSS JOIN LATERAL jsonb_each(u.attributes) AS n (key, value)
), e AS (
    INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
    SELECT u.rae, u.session::text, u.event_at, u.event_seq, 'state', u.epoch, u.event, clock_timestamp()
    FROM u WHERE u.event_at IS NOT NULL
    ON CONFLICT (rae, session, at, seq, code) DO NOTHING
)
INSERT INTO device_session (rae, session, epoch, rev, seq, stale, esn, esn_source, manufacturer, model, name, state,
    first_seen, onboarded_at, changed_at, kafka_partition, kafka_offset, applied_at)
SELECT u.rae, u.session, u.epoch, u.rev, u.seq, false, u.esn, u.esn_source, u.manufacturer, u.model, u.name, u.state,
    u.first_seen, u.onboarded_at, u.changed_at, %s, u.kafka_offset, clock_timestamp()
FROM u
"""

DELETE_INTERFACES: Final[LiteralString] = """
DELETE FROM device_interface AS i
USING jsonb_to_recordset(%s::text::jsonb) AS u (rae text, session uuid, places integer)
WHERE i.rae = u.rae AND i.session = u.session AND i.place >= u.places
"""

UPSERT_INTERFACES: Final[LiteralString] = """
INSERT INTO device_interface (rae, session, place, mac, ip4, ip6, hostname, vendor_class, client_id, port, oui_vendor,
    mac_random)
SELECT u.rae, u.session, u.place, u.mac, u.ip4, u.ip6, u.hostname, u.vendor_class, u.client_id, u.port, u.oui_vendor,
    u.mac_random
FROM jsonb_to_recordset(%s::text::jsonb) AS u (
    rae text, session uuid, place integer, mac text, ip4 text, ip6 jsonb, hostname text, vendor_class text,
    client_id text, port text, oui_vendor text, mac_random boolean)
ON CONFLICT (rae, session, place) DO UPDATE SET mac = excluded.mac, ip4 = excluded.ip4, ip6 = excluded.ip6,
    hostname = excluded.hostname, vendor_class = excluded.vendor_class, client_id = excluded.client_id,
    port = excluded.port, oui_vendor = excluded.oui_vendor, mac_random = excluded.mac_random
"""

DELETE_ATTRIBUTES: Final[LiteralString] = """
DELETE FROM device_attribute AS a
USING (
    SELECT u.rae, u.session, n.name
    FROM jsonb_to_recordset(%s::text::jsonb) AS u (rae text, session uuid, names jsonb)
    CROSS JOIN LATERAL jsonb_array_elements_text(u.names) AS n (name)
) AS g
WHERE a.rae = g.rae AND a.session = g.session AND a.name = g.name
"""

# By jsonb_each and not as a column of the record set: there a JSON null would become an SQL NULL.
UPSERT_ATTRIBUTES: Final[LiteralString] = """
INSERT INTO device_attribute (rae, session, name, value)
SELECT u.rae, u.session, n.key, n.value
FROM jsonb_to_recordset(%s::text::jsonb) AS u (rae text, session uuid, attributes jsonb)
CROSS JOIN LATERAL jsonb_each(u.attributes) AS n (key, value)
ON CONFLICT (rae, session, name) DO UPDATE SET value = excluded.value
WHERE device_attribute.value IS DISTINCT FROM excluded.value
"""

INSERT_EVENTS: Final[LiteralString] = """
INSERT INTO device_event (rae, session, at, seq, code, epoch, detail, recorded_at)
SELECT u.rae, u.session, u.at, u.seq, u.code, u.epoch, u.detail, clock_timestamp()
FROM jsonb_to_recordset(%s::text::jsonb) AS u (
    rae text, session text, at timestamptz, seq bigint, code text, epoch bigint, detail jsonb)
ON CONFLICT (rae, session, at, seq, code) DO NOTHING
"""

LOCK_RAES: Final[LiteralString] = """
SELECT rae, status::text, heard_at FROM rae WHERE rae = ANY(%b::text[]) ORDER BY rae FOR UPDATE
"""

_RAE_ROWS: Final = """jsonb_to_recordset(%s::text::jsonb) AS u (
    rae text, epoch bigint, run bigint, state text, status jsonb, heard_at timestamptz, kafka_partition integer,
    kafka_offset bigint)"""

INSERT_RAES: Final[LiteralString] = f"""
INSERT INTO rae (rae, epoch, run, state, status, heard_at, kafka_partition, kafka_offset, applied_at)
SELECT u.rae, u.epoch, u.run, u.state, u.status, u.heard_at, u.kafka_partition, u.kafka_offset, clock_timestamp()
FROM {_RAE_ROWS}
ON CONFLICT (rae) DO NOTHING
"""  # noqa: S608 - constants

UPDATE_RAES: Final[LiteralString] = f"""
UPDATE rae AS r SET epoch = u.epoch, run = u.run, state = u.state, status = u.status, heard_at = u.heard_at,
    kafka_partition = u.kafka_partition, kafka_offset = u.kafka_offset, applied_at = clock_timestamp()
FROM {_RAE_ROWS}
WHERE r.rae = u.rae
"""  # noqa: S608 - constants
